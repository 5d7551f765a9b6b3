//! The broker's topics as groups know them.

use ringlog_engine::types::TopicId;
use ringlog_protocol::Uuid;

use crate::broker::Topics;
use crate::group::{Name, TopicView};

impl TopicView for Topics {
    fn by_name(&self, name: &str) -> Option<(Uuid, i32)> {
        let topic = Topics::by_name(self, name)?;
        Some((topic.id.0, i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)))
    }

    fn name_of(&self, id: Uuid) -> Option<Name> {
        self.by_id(TopicId(id)).map(|topic| topic.name.clone())
    }

    fn names(&self) -> Box<dyn Iterator<Item = &Name> + '_> {
        Box::new(self.iter().map(|topic| &topic.name))
    }
}
