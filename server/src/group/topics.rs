//! The topics that there are, as far as groups have to know them. The broker's snapshot of its topics is one; tests have their own.

use ringlog_protocol::Uuid;

use super::Name;

/// All topics at one moment.
pub trait TopicView: Send + Sync {
    /// The id of the topic with this name, and how many partitions it has.
    fn by_name(&self, name: &str) -> Option<(Uuid, i32)>;
    /// The name of the topic with this id.
    fn name_of(&self, id: Uuid) -> Option<Name>;
    /// All names, in order.
    fn names(&self) -> Box<dyn Iterator<Item = &Name> + '_>;
}

/// No topic.
pub(super) struct NoTopics;

impl TopicView for NoTopics {
    fn by_name(&self, _: &str) -> Option<(Uuid, i32)> {
        None
    }

    fn name_of(&self, _: Uuid) -> Option<Name> {
        None
    }

    fn names(&self) -> Box<dyn Iterator<Item = &Name> + '_> {
        Box::new(std::iter::empty())
    }
}
