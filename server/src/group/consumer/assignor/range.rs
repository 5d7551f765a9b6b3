//! `range`: of each topic, those who want it get as many partitions as the others, or one more; the first in order get more and
//! lower ones. So members that want the same topics, with as many partitions each, hold the same numbers of all of them, as joins
//! need it.

use std::collections::BTreeMap;

use ringlog_protocol::Uuid;

use super::{Subscriber, free, kept, quotas};
use crate::group::consumer::Partitions;

pub(super) fn assign(members: &[Subscriber<'_>], topics: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
    let mut assigned = kept(members, topics);
    let mut subscribers: BTreeMap<Uuid, Vec<usize>> = topics.keys().map(|topic| (*topic, Vec::new())).collect();
    for (at, member) in members.iter().enumerate() {
        for topic in &*member.topics {
            subscribers.entry(*topic).or_default().push(at);
        }
    }
    let mut shares = BTreeMap::new();
    for (topic, subscribers) in subscribers {
        let claims: Vec<usize> = subscribers.iter().map(|at| assigned[*at].get(&topic).map_or(0, |held| held.len())).collect();
        let count = topics.get(&topic).map_or(0, |count| usize::try_from(*count).unwrap_or(0));
        let quotas = quotas(count, &claims);
        for (at, quota) in subscribers.iter().zip(&quotas) {
            if let Some(held) = assigned[*at].get_mut(&topic) {
                while held.len() > *quota {
                    held.pop_last();
                }
                if held.is_empty() {
                    assigned[*at].remove(&topic);
                }
            }
        }
        shares.insert(topic, (subscribers, quotas));
    }
    let mut free = free(topics, &assigned);
    for (topic, (subscribers, quotas)) in shares {
        let mut free = free.remove(&topic).unwrap_or_default().into_iter();
        for (at, quota) in subscribers.iter().zip(&quotas) {
            let missing = quota - assigned[*at].get(&topic).map_or(0, |held| held.len());
            if missing > 0 {
                assigned[*at].get_or_default(topic).extend(free.by_ref().take(missing));
            }
        }
    }
    assigned
}
