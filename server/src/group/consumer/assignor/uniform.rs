//! `uniform`: everybody gets as many partitions as the others, or one more, whatever topics they are of. Where members want
//! different topics: there is no partition that another who wants its topic would hold with two fewer than the one who has it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringlog_protocol::Uuid;

use super::{Subscriber, free, kept, quotas};
use crate::group::consumer::Partitions;

pub(super) fn assign(members: &[Subscriber<'_>], topics: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
    let mut assigned = kept(members, topics);
    let Some((first, others)) = members.split_first() else { return assigned };
    let wants_the_same = |member: &Subscriber<'_>| Rc::ptr_eq(&member.topics, &first.topics) || member.topics == first.topics;
    if others.iter().all(wants_the_same) {
        homogeneous(first, topics, &mut assigned);
    } else {
        heterogeneous(members, topics, &mut assigned);
    }
    assigned
}

fn size(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

fn homogeneous(any: &Subscriber<'_>, topics: &BTreeMap<Uuid, i32>, assigned: &mut [Partitions]) {
    let wanted = || topics.iter().filter(|(topic, _)| any.topics.contains(*topic));
    let total = wanted().map(|(_, count)| usize::try_from(*count).unwrap_or(0)).sum();
    let sizes: Vec<usize> = assigned.iter().map(size).collect();
    let quotas = quotas(total, &sizes);
    for (held, (quota, mut size)) in assigned.iter_mut().zip(quotas.iter().zip(sizes)) {
        while size > *quota {
            let Some(topic) = held.keys().next_back().copied() else { break };
            let Some(last) = held.get_mut(&topic) else { break };
            last.pop_last();
            if last.is_empty() {
                held.remove(&topic);
            }
            size -= 1;
        }
    }
    let wanted = wanted().map(|(topic, count)| (*topic, *count)).collect();
    let free = free(&wanted, assigned).into_iter();
    let mut free = free.flat_map(|(topic, free)| free.into_iter().map(move |partition| (topic, partition)));
    for (held, quota) in assigned.iter_mut().zip(quotas) {
        let missing = quota - size(held);
        for (topic, partition) in free.by_ref().take(missing) {
            held.get_or_default(topic).insert(partition);
        }
    }
}

fn heterogeneous(members: &[Subscriber<'_>], topics: &BTreeMap<Uuid, i32>, assigned: &mut [Partitions]) {
    let mut subscribers: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        for topic in &*member.topics {
            subscribers.entry(*topic).or_default().push(at);
        }
    }
    let mut loads: Vec<usize> = assigned.iter().map(size).collect();
    // Those whom few can take first.
    let mut order: Vec<(&Uuid, &Vec<usize>)> = subscribers.iter().collect();
    order.sort_by_key(|(topic, subscribers)| (subscribers.len(), **topic));
    let mut free = free(topics, assigned);
    for (topic, subscribers) in &order {
        let mut queue: BTreeSet<(usize, usize)> = subscribers.iter().map(|at| (loads[*at], *at)).collect();
        for partition in free.remove(*topic).unwrap_or_default() {
            let Some((load, at)) = queue.pop_first() else { break };
            assigned[at].get_or_default(**topic).insert(partition);
            loads[at] = load + 1;
            queue.insert((load + 1, at));
        }
    }
    // Each move makes the sum of the squares of the loads smaller, so it ends.
    let mut is_moving = true;
    while is_moving {
        is_moving = false;
        for (topic, subscribers) in &order {
            is_moving |= balance(**topic, subscribers, assigned, &mut loads);
        }
    }
}

/// Moves partitions of a topic from those who have most to those who have least. Says whether any was moved.
fn balance(topic: Uuid, subscribers: &[usize], assigned: &mut [Partitions], loads: &mut [usize]) -> bool {
    let mut queue: BTreeSet<(usize, usize)> = subscribers.iter().map(|at| (loads[*at], *at)).collect();
    let mut holders: BTreeSet<(usize, usize)> =
        queue.iter().filter(|(_, at)| assigned[*at].contains_key(&topic)).copied().collect();
    let mut has_moved = false;
    while let (Some((least, to)), Some((most, from))) = (queue.first().copied(), holders.last().copied()) {
        if most < least + 2 {
            break;
        }
        let Some(held) = assigned[from].get_mut(&topic) else { break };
        let Some(partition) = held.pop_last() else { break };
        queue.remove(&(least, to));
        queue.remove(&(most, from));
        holders.remove(&(most, from));
        holders.remove(&(least, to));
        if held.is_empty() {
            assigned[from].remove(&topic);
        } else {
            holders.insert((most - 1, from));
        }
        assigned[to].get_or_default(topic).insert(partition);
        (loads[from], loads[to]) = (most - 1, least + 1);
        holders.insert((least + 1, to));
        queue.insert((most - 1, from));
        queue.insert((least + 1, to));
        has_moved = true;
    }
    has_moved
}
