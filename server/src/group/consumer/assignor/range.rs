//! `range`: of each topic, those who want it get as many partitions as the others, or one more; the first in order get more and
//! lower ones. So topics that the same members want, with as many partitions each, go to them by the same numbers, as joins need it.
//! Not sticky, as Kafka's is not (since 4.0): what a member was to hold before would tear these numbers apart.

use std::collections::BTreeMap;

use ringlog_protocol::Uuid;

use super::Subscriber;
use crate::group::consumer::Partitions;

/// What is left of a topic.
struct Rest {
    /// The first partition that nobody has.
    next: i32,
    /// How many partitions nobody has.
    partitions: i32,
    /// How many members have not got theirs.
    members: i32,
}

pub(super) fn assign(members: &[Subscriber<'_>], topics: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
    let whole = |(topic, count): (&Uuid, &i32)| (*topic, Rest { next: 0, partitions: *count, members: 0 });
    let mut rests: BTreeMap<Uuid, Rest> = topics.iter().map(whole).collect();
    for topic in members.iter().flat_map(|member| &*member.topics) {
        if let Some(rest) = rests.get_mut(topic) {
            rest.members += 1;
        }
    }
    let serve = |member: &Subscriber<'_>| {
        let mut assigned = Partitions::new();
        for topic in &*member.topics {
            let Some(rest) = rests.get_mut(topic) else { continue };
            let is_even = rest.partitions % rest.members == 0;
            let count = rest.partitions / rest.members + i32::from(!is_even);
            if count > 0 {
                assigned.insert(*topic, (rest.next..rest.next + count).collect());
            }
            *rest = Rest { next: rest.next + count, partitions: rest.partitions - count, members: rest.members - 1 };
        }
        assigned
    };
    members.iter().map(serve).collect()
}
