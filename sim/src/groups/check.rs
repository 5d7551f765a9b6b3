//! What is read back of groups: after a start all offsets and which groups there are, and at the end, when members come and go no more,
//! who has what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringlog_engine::env::random::Random;
use ringlog_protocol::ErrorCode;

use super::ask::{self, Asker, is_trouble};
use super::known::Held;
use super::operator::list;
use super::plan::Crowd;
use crate::life::Life;
use crate::model::{Existence, Model};

/// How long groups may take to be loaded, where nothing fails.
const LOAD: Duration = Duration::from_secs(60);

/// Reads all offsets back. The network must not cut connections, and the disk must not fail.
pub async fn after_start(life: &Life, random: &mut Random) {
    let count = life.model.borrow().groups.all.len();
    if count == 0 {
        return;
    }
    let mut asker = Asker::default();
    let until = life.now() + LOAD;
    for group in 0..count {
        loop {
            let code = ask::fetch(&mut asker, life, random, group, None, true).await;
            match code {
                Some(ErrorCode::NONE) => break,
                // There is no topic of the groups: nobody has found a coordinator yet.
                Some(ErrorCode::NOT_COORDINATOR) => {
                    let mut model = life.model.borrow_mut();
                    model.has_no_groups();
                    model.fetched_nothing(group, life.now(), life.now());
                    break;
                }
                Some(code) if is_trouble(code) && life.now() < until => life.env.sleep(Duration::from_millis(10)).await,
                other => panic!("EverythingEnds: offsets of group {group} are not read: {other:?}"),
            }
        }
    }
    while list(&mut asker, life, true).await != Some(ErrorCode::NONE) {
        assert!(life.now() < until, "EverythingEnds: groups are not listed");
        life.env.sleep(Duration::from_millis(10)).await;
    }
}

/// What is held, by topic names.
fn names(model: &Model, held: &Held) -> Vec<(String, i32)> {
    let name = |id: &[u8; 16]| model.topics.iter().find(|topic| topic.id == Some(*id)).map(|topic| topic.name.clone());
    held.iter().map(|(id, partition)| (name(id).unwrap_or_default(), *partition)).collect()
}

/// Which group does not have what it wants, and in what way; none: all do. By topic names and partitions.
#[must_use]
pub fn unsettled(crowd: &Crowd, model: &Model) -> Option<String> {
    let mut wanted: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
    let mut owned: BTreeMap<usize, Vec<(String, i32)>> = BTreeMap::new();
    for (group, member) in &crowd.classic {
        let member = member.borrow();
        let Some(topics) = member.settled(model) else { return Some(format!("{} is not in", member.name())) };
        wanted.entry(*group).or_default().extend(topics);
        owned.entry(*group).or_default().extend(member.parts.iter().cloned());
    }
    for (group, member) in &crowd.consumers {
        let member = member.borrow();
        let Some((topics, held)) = member.settled() else { return Some(format!("{} is not where it is to be", member.name())) };
        wanted.entry(*group).or_default().extend(topics);
        owned.entry(*group).or_default().extend(names(model, held));
    }
    for (group, migrant) in &crowd.migrants {
        let migrant = migrant.borrow();
        let (topics, parts) = if migrant.speaks_new {
            let member = migrant.consumer.borrow();
            let Some((topics, held)) = member.settled() else {
                return Some(format!("{} is not where it is to be", member.name()));
            };
            (topics.to_vec(), names(model, held))
        } else {
            let member = migrant.classic.borrow();
            let Some(topics) = member.settled(model) else { return Some(format!("{} is not in", member.name())) };
            (topics.to_vec(), member.parts.clone())
        };
        wanted.entry(*group).or_default().extend(topics);
        owned.entry(*group).or_default().extend(parts);
    }
    for (group, topics) in wanted {
        let there = model.topics.iter().filter(|topic| topic.existence == Existence::Present && topics.contains(&*topic.name));
        let all = there.flat_map(|topic| (0..topic.partitions.len() as i32).map(|partition| (topic.name.clone(), partition)));
        let expected: Vec<_> = all.collect::<BTreeSet<_>>().into_iter().collect();
        let mut owned = owned.remove(&group).unwrap_or_default();
        owned.sort();
        if owned != expected {
            return Some(format!("{} has {owned:?}, and wants {expected:?}", model.groups.all[group].name));
        }
    }
    None
}
