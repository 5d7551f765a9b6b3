//! Sets of numbers as ranges, so that what was acknowledged of a million records takes as much memory as of one. Pure.

use serde::{Deserialize, Serialize};

/// A set of numbers: ranges in ascending order that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds `from..to`.
    pub(crate) fn insert(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        // Almost always it continues the last one.
        match self.0.last_mut() {
            Some((_, end)) if *end == from => {
                *end = to;
                return;
            }
            Some((_, end)) if *end > from => {}
            _ => {
                self.0.push((from, to));
                return;
            }
        }
        let first = self.0.partition_point(|(_, end)| *end < from);
        let behind = self.0.partition_point(|(start, _)| *start <= to);
        let start = self.0.get(first).map_or(from, |(start, _)| (*start).min(from));
        let end = if behind > first { self.0[behind - 1].1.max(to) } else { to };
        self.0.splice(first..behind, [(start.min(from), end)]);
    }

    /// Takes one number out; whether it was in.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        let at = self.0.partition_point(|(_, end)| *end <= number);
        let Some(&(start, end)) = self.0.get(at).filter(|(start, _)| *start <= number) else { return false };
        let rest = [(start, number), (number + 1, end)].into_iter().filter(|(from, to)| from < to);
        self.0.splice(at..=at, rest.collect::<Vec<_>>());
        true
    }

    /// Takes the first range out.
    pub(crate) fn pop_first(&mut self) -> Option<(u64, u64)> {
        if self.0.is_empty() { None } else { Some(self.0.remove(0)) }
    }

    /// How many numbers are in.
    #[must_use]
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }

    /// How many numbers of `from..to` are in.
    #[must_use]
    pub(crate) fn count_within(&self, from: u64, to: u64) -> u64 {
        let first = self.0.partition_point(|(_, end)| *end <= from);
        let within = self.0[first..].iter().take_while(|(start, _)| *start < to);
        within.map(|(start, end)| (*end).min(to) - (*start).max(from)).sum()
    }

    /// The first number of `from..to` that is in.
    #[must_use]
    pub(crate) fn first_within(&self, from: u64, to: u64) -> Option<u64> {
        let first = self.0.partition_point(|(_, end)| *end <= from);
        self.0.get(first).map(|(start, _)| (*start).max(from)).filter(|number| *number < to)
    }

    /// The ranges.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// How many ranges there are.
    #[must_use]
    pub(crate) fn range_count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::content::Random;
    use super::*;

    #[test]
    fn they_behave_as_a_set() {
        let mut random = Random::new(5);
        for _ in 0..200 {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for _ in 0..60 {
                let from = random.next() % 60;
                if random.next().is_multiple_of(3) {
                    assert_eq!(ranges.remove(from), set.remove(&from));
                } else {
                    let to = from + random.next() % 8;
                    ranges.insert(from, to);
                    set.extend(from..to);
                }
                assert!(
                    ranges.0.iter().all(|(from, to)| from < to) && ranges.0.is_sorted_by(|one, other| one.1 < other.0),
                    "{ranges:?}"
                );
                assert_eq!(ranges.iter().flat_map(|(from, to)| from..to).collect::<BTreeSet<_>>(), set);
                assert_eq!(ranges.count_within(10, 30), set.range(10..30).count() as u64);
                assert_eq!(ranges.first_within(10, 30), set.range(10..30).next().copied());
            }
        }
    }
}
