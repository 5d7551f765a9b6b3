//! What holds of every assignor, whatever comes, and a few cases.

use proptest::prelude::*;

use super::*;

fn topic(at: usize) -> Uuid {
    [at as u8 + 1; 16]
}

/// Assigns, and checks what holds of any assignment. Members: the topics that each wants, and what each was to hold.
fn assign(assignor: Assignor, wants: &[BTreeSet<usize>], before: &[Partitions], counts: &[i32]) -> Vec<Partitions> {
    let ids: Vec<Name> = (0..wants.len()).map(|at| format!("m{at:03}").into()).collect();
    let topics: BTreeMap<Uuid, i32> = counts.iter().enumerate().map(|(at, count)| (topic(at), *count)).collect();
    let subscribers: Vec<Subscriber<'_>> = wants
        .iter()
        .enumerate()
        .map(|(at, wants)| Subscriber {
            id: &ids[at],
            topics: Rc::new(wants.iter().map(|at| topic(*at)).collect()),
            before: before.get(at).filter(|before| !before.is_empty()),
        })
        .collect();
    let assigned = assignor.assign(&subscribers, &topics);
    assert_eq!(assigned.len(), wants.len());
    let mut seen = BTreeSet::new();
    for (member, partitions) in subscribers.iter().zip(&assigned) {
        for (topic, partitions) in partitions {
            assert!(member.topics.contains(topic) && !partitions.is_empty(), "only what it wants");
            for partition in partitions {
                assert!((0..topics[topic]).contains(partition));
                assert!(seen.insert((*topic, *partition)), "EveryPartitionOnce");
            }
        }
    }
    for (at, count) in counts.iter().enumerate() {
        let is_wanted = wants.iter().any(|wants| wants.contains(&at));
        let has = seen.iter().filter(|(of, _)| *of == topic(at)).count();
        assert_eq!(has, if is_wanted { *count as usize } else { 0 }, "EveryPartitionOnce");
    }
    assigned
}

fn size(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

fn is_balanced(assignor: Assignor, wants: &[BTreeSet<usize>], assigned: &[Partitions], counts: &[i32]) -> Result<(), String> {
    for at in 0..counts.len() {
        let subscribers: Vec<usize> = (0..wants.len()).filter(|member| wants[*member].contains(&at)).collect();
        for from in &subscribers {
            for to in &subscribers {
                let of_topic = |member: &usize| assigned[*member].get(&topic(at)).map_or(0, BTreeSet::len);
                let is_balanced = match assignor {
                    Assignor::Range => of_topic(from) <= of_topic(to) + 1,
                    Assignor::Uniform => of_topic(from) == 0 || size(&assigned[*from]) <= size(&assigned[*to]) + 1,
                };
                if !is_balanced {
                    return Err(format!("Balanced: topic {at}, members {from} and {to}: {assigned:?}"));
                }
            }
        }
    }
    Ok(())
}

/// How many partitions went from one member to another.
fn moved(before: &[Partitions], after: &[Partitions]) -> usize {
    let owner = |of: &[Partitions]| -> BTreeMap<(Uuid, i32), usize> {
        let all = of.iter().enumerate().flat_map(|(at, partitions)| {
            partitions
                .iter()
                .flat_map(move |(topic, partitions)| partitions.iter().map(move |partition| ((*topic, *partition), at)))
        });
        all.collect()
    };
    let (before, after) = (owner(before), owner(after));
    after.iter().filter(|(partition, at)| before.get(partition).is_some_and(|before| before != *at)).count()
}

fn all(topics: usize, members: usize) -> Vec<BTreeSet<usize>> {
    vec![(0..topics).collect(); members]
}

#[test]
fn a_new_member_takes_no_more_than_its_share() {
    let mut held: Vec<Partitions> = Vec::new();
    for members in 1..=12 {
        let next = assign(Assignor::Uniform, &all(1, members), &held, &[10]);
        assert!(moved(&held, &next) <= 10_usize.div_ceil(members), "{held:?} {next:?}");
        held = next;
    }
    // Those who stay keep what they have when others go.
    let left = held.split_off(5);
    let next = assign(Assignor::Uniform, &all(1, 5), &held, &[10]);
    assert_eq!(moved(&held, &next), 0, "{left:?}");
}

#[test]
fn range_gives_the_same_numbers_of_topics_that_are_joined() {
    let assigned = assign(Assignor::Range, &all(3, 3), &[], &[7, 7, 7]);
    for partitions in &assigned {
        let numbers: BTreeSet<&BTreeSet<i32>> = partitions.values().collect();
        assert_eq!(numbers.len(), 1, "{assigned:?}");
    }
    assert_eq!(*assigned[0].get(&topic(0)).unwrap(), BTreeSet::from([0, 1, 2]));
}

#[test]
fn range_forgets_what_was_where_topics_are_joined_later() {
    // The first wanted one topic, the second both; now both want both.
    let before = assign(Assignor::Range, &[BTreeSet::from([0]), BTreeSet::from([0, 1])], &[], &[8, 8]);
    assert_eq!((size(&before[0]), size(&before[1])), (4, 12));
    let both = |numbers: std::ops::Range<i32>| (0..2).map(|at| (topic(at), numbers.clone().collect())).collect::<Partitions>();
    assert_eq!(assign(Assignor::Range, &all(2, 2), &before, &[8, 8]), [both(0..4), both(4..8)]);
}

#[test]
fn uniform_looks_at_all_topics_together() {
    let assigned = assign(Assignor::Uniform, &all(4, 4), &[], &[1, 1, 1, 1]);
    assert!(assigned.iter().all(|partitions| size(partitions) == 1), "{assigned:?}");
    let by_range = assign(Assignor::Range, &all(4, 4), &[], &[1, 1, 1, 1]);
    assert_eq!(size(&by_range[0]), 4, "of each topic the first member has more");
}

#[test]
fn who_wants_little_gets_it_from_who_has_much() {
    // The first wants both topics, the second the smaller one alone.
    let wants = [BTreeSet::from([0, 1]), BTreeSet::from([1])];
    let alone = assign(Assignor::Uniform, &[wants[0].clone()], &[], &[4, 4]);
    let assigned = assign(Assignor::Uniform, &wants, &alone, &[4, 4]);
    assert_eq!((size(&assigned[0]), size(&assigned[1])), (4, 4));
}

fn wants() -> impl Strategy<Value = Vec<BTreeSet<usize>>> {
    let some = prop::collection::vec(prop::collection::btree_set(0..5_usize, 0..5), 1..8);
    let same = (prop::collection::btree_set(0..5_usize, 0..5), 1..8_usize).prop_map(|(wants, count)| vec![wants; count]);
    prop_oneof![some, same]
}

proptest! {
    #[test]
    fn whatever_is_wanted_it_is_balanced_and_stays(
        wants in wants(),
        counts in prop::collection::vec(0..12_i32, 5),
        before in prop::collection::vec((0..8_usize, 0..5_usize, 0..14_i32), 0..60),
        is_range in any::<bool>(),
    ) {
        let assignor = if is_range { Assignor::Range } else { Assignor::Uniform };
        let mut held = vec![Partitions::new(); wants.len()];
        for (member, at, partition) in before {
            // Members may claim anything, each other's too.
            held[member % wants.len()].get_or_default(topic(at)).insert(partition);
        }
        let assigned = assign(assignor, &wants, &held, &counts);
        prop_assert!(is_balanced(assignor, &wants, &assigned, &counts).is_ok(), "{:?}", is_balanced(assignor, &wants, &assigned, &counts));
        prop_assert_eq!(assign(assignor, &wants, &assigned, &counts), assigned.clone(), "Sticky: where nothing changes nothing moves");
        if assignor == Assignor::Range {
            prop_assert_eq!(assign(assignor, &wants, &[], &counts), assigned, "what was before does not matter");
            return Ok(());
        }

        // One member goes: nothing moves between the others that they do not need for balance.
        if wants.len() > 1 && wants.iter().all(|one| *one == wants[0]) {
            let rest = &wants[1..];
            let next = assign(assignor, rest, &assigned[1..], &counts);
            prop_assert_eq!(moved(&assigned[1..], &next), 0, "Sticky: {:?} {:?}", assigned, next);
        }
    }
}
