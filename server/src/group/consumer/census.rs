//! What the members of a group come to, counted as they come, change and go, so that no heartbeat has to look at all of them. Pure.

use super::Member;
use crate::group::{Name, SmallMap};

/// See the module.
#[derive(Default)]
pub(super) struct Census {
    /// How many want a topic: members by its name, and patterns.
    topics: SmallMap<Name, usize>,
    /// How many members have a pattern.
    patterns: SmallMap<Name, usize>,
    /// How many members of the classic protocol speak one of its protocols.
    protocols: SmallMap<Name, usize>,
    /// How many members speak the classic protocol.
    classic_count: usize,
}

impl Census {
    /// Counts a member. True: somebody wants a topic now that nobody wanted.
    pub(super) fn add(&mut self, member: &Member) -> bool {
        let has_new = self.add_topics(member.topics.iter());
        if let Some(regex) = &member.regex {
            add(&mut self.patterns, regex);
        }
        if member.is_classic() {
            self.classic_count += 1;
            for name in member.spoken() {
                add(&mut self.protocols, name);
            }
        }
        has_new
    }

    /// Takes a member out that was counted. True: nobody wants some topic any more.
    pub(super) fn remove(&mut self, member: &Member) -> bool {
        let has_lost = self.remove_topics(member.topics.iter());
        if let Some(regex) = &member.regex {
            remove(&mut self.patterns, regex);
        }
        if member.is_classic() {
            self.classic_count -= 1;
            for name in member.spoken() {
                remove(&mut self.protocols, name);
            }
        }
        has_lost
    }

    /// Counts what a pattern matched, each once. True: somebody wants a topic now that nobody wanted.
    pub(super) fn add_topics<'a>(&mut self, topics: impl Iterator<Item = &'a Name>) -> bool {
        topics.fold(false, |has_new, topic| add(&mut self.topics, topic) | has_new)
    }

    /// Takes out what was counted. True: nobody wants some topic any more.
    pub(super) fn remove_topics<'a>(&mut self, topics: impl Iterator<Item = &'a Name>) -> bool {
        topics.fold(false, |has_lost, topic| remove(&mut self.topics, topic) | has_lost)
    }

    /// The topics that somebody wants, in order, whether there are such or not.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Name> {
        self.topics.keys()
    }

    pub(super) fn wants(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Whether a member has this pattern.
    pub(super) fn has_pattern(&self, regex: &str) -> bool {
        self.patterns.contains_key(regex)
    }

    pub(super) fn classic_count(&self) -> usize {
        self.classic_count
    }

    /// Whether all members of the classic protocol speak this, but for one that is looked at: `other`.
    pub(super) fn is_common(&self, protocol: &Name, other: Option<&Member>) -> bool {
        let other = other.filter(|other| other.is_classic());
        let does_other = other.is_some_and(|other| other.spoken().contains(protocol));
        let count = self.protocols.get(protocol).copied().unwrap_or(0) - usize::from(does_other);
        count == self.classic_count - usize::from(other.is_some())
    }
}

/// True: it is the first.
fn add(counts: &mut SmallMap<Name, usize>, name: &Name) -> bool {
    let count = counts.get_or_default(name.clone());
    *count += 1;
    *count == 1
}

/// True: it was the last.
fn remove(counts: &mut SmallMap<Name, usize>, name: &Name) -> bool {
    let Some(count) = counts.get_mut(name) else { unreachable!("it was counted") };
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        counts.remove(name);
    }
    is_last
}
