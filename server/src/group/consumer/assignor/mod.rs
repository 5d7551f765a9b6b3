//! Who is to hold what: the server's assignors (KIP-848). Pure: subscriptions and what everybody was to hold before go in, what
//! everybody is to hold comes out. The same input gives the same output.
//!
//! What holds of all of them:
//!
//! - **EveryPartitionOnce**: a partition of a topic that somebody wants goes to exactly one member that wants the topic.
//! - **Balanced**: see each.
//! - **Sticky** (`uniform`): as long as it is balanced, a member keeps what it was to hold.

mod range;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringlog_protocol::Uuid;

use super::Partitions;
use crate::group::Name;

/// An assignor of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// Everybody as many partitions as the others.
    Uniform,
    /// Everybody as many partitions of each topic as the others.
    Range,
}

impl Assignor {
    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Range].into_iter().find(|assignor| assignor.name() == name)
    }

    /// Kafka's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    pub(super) fn assign(self, members: &[Subscriber<'_>], topics: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
        match self {
            Self::Uniform => uniform::assign(members, topics),
            Self::Range => range::assign(members, topics),
        }
    }
}

/// A member as an assignor sees it. Members are given in the order in which they are served.
pub(super) struct Subscriber<'a> {
    /// Its name, for the order of members whose claims are the same.
    pub(super) id: &'a Name,
    /// The topics that it wants and that there are; members that want the same may have the same set.
    pub(super) topics: Rc<BTreeSet<Uuid>>,
    /// What it was to hold before.
    pub(super) before: Option<&'a Partitions>,
}

/// What members held and may go on holding: partitions that there are, of topics that they want, each with its first holder.
fn kept(members: &[Subscriber<'_>], topics: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
    let mut taken: BTreeSet<(Uuid, i32)> = BTreeSet::new();
    let keep = |member: &Subscriber<'_>| {
        let mut kept = Partitions::new();
        for (topic, partitions) in member.before.into_iter().flatten().filter(|(topic, _)| member.topics.contains(*topic)) {
            let count = topics.get(topic).copied().unwrap_or(0);
            let partitions: BTreeSet<i32> = partitions
                .iter()
                .copied()
                .filter(|partition| (0..count).contains(partition) && taken.insert((*topic, *partition)))
                .collect();
            if !partitions.is_empty() {
                kept.insert(*topic, partitions);
            }
        }
        kept
    };
    members.iter().map(keep).collect()
}

/// The partitions of each topic that nobody has.
fn free(topics: &BTreeMap<Uuid, i32>, assigned: &[Partitions]) -> BTreeMap<Uuid, Vec<i32>> {
    let all = topics.iter().map(|(topic, count)| (*topic, vec![true; usize::try_from(*count).unwrap_or(0)]));
    let mut is_free: BTreeMap<Uuid, Vec<bool>> = all.collect();
    for (topic, partitions) in assigned.iter().flatten() {
        let Some(is_free) = is_free.get_mut(topic) else { continue };
        for partition in partitions {
            if let Some(is_free) = usize::try_from(*partition).ok().and_then(|at| is_free.get_mut(at)) {
                *is_free = false;
            }
        }
    }
    let numbers =
        |is_free: Vec<bool>| (0..).zip(is_free).filter(|(_, is_free)| *is_free).map(|(partition, _)| partition).collect();
    is_free.into_iter().map(|(topic, is_free)| (topic, numbers(is_free))).collect()
}

/// How many each of `claims.len()` members is to get of `total`, none more than one more than another. Who has more gets more; of
/// equals, the first.
fn quotas(total: usize, claims: &[usize]) -> Vec<usize> {
    if claims.is_empty() {
        return Vec::new();
    }
    let (least, more) = (total / claims.len(), total % claims.len());
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|at| (claims[*at] <= least, *at));
    let mut quotas = vec![least; claims.len()];
    for at in order.into_iter().take(more) {
        quotas[at] += 1;
    }
    quotas
}

#[cfg(test)]
mod tests;
