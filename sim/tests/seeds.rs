//! Seeds in CI: those that once failed, some of which nobody has seen before, and one twice. The new ones follow from the commit,
//! so that a run can be repeated: `RINGLOG_SIM_FROM` is the first (else it is made of `git rev-parse HEAD`), `RINGLOG_SIM_SEEDS`
//! how many there are.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::thread;

use ringlog_sim::groups::plan::{Groups, Migration};
use ringlog_sim::hazards::Hazards;
use ringlog_sim::story::Choice;
use ringlog_sim::{runner, story};

/// How many new seeds: a few, since this is built for tests. `scripts/test` runs thousands of them with the binary.
const NEW_SEEDS: u64 = 100;

/// Seeds that once found something, with what it was. The data path's are run as they were when they did, without what came later.
const REGRESSIONS: [(u64, Groups, &str); 18] = [
    (
        63_665_508_362_456,
        Groups::BySeed,
        "a cleaning took a tombstone while what it deletes had been read by who loads the groups",
    ),
    (3, Groups::Never, "a batch waited for ever for memory that a class of blocks kept and did not use"),
    (15, Groups::Never, "a producer's snapshot knew only the last of the batches in flight"),
    (84, Groups::Never, "the same, after a clean stop"),
    (2_006_405, Groups::Never, "index entries whose sync failed were believed after the next one"),
    (92, Groups::Never, "the same, of a producer that began with several batches"),
    (1063, Groups::Never, "a producer's first batch was taken back by a failed journal, and the second appended without it"),
    (1_001_284, Groups::Never, "retention moved a log start behind the back of a clean stop"),
    (2_004_255, Groups::Never, "a start on another number of cores that ended in its middle forgot where a log begins"),
    (708_854, Groups::Never, "a partition's folder whose name was not synced was found at the next try and taken for durable"),
    (704_376, Groups::Never, "rot in a batch that begins in the file and ends in the tail was served"),
    (803_302, Groups::Never, "a rotted length led past a batch to the next one"),
    (374, Groups::Never, "records of a page-cache topic that were deleted and lost: the log begins anew"),
    (1_701_180, Groups::BySeed, "the zeros of an index that a loss of power had taken were believed as its first entry"),
    (1_800_086, Groups::BySeed, "a fetch of a topic that was being deleted read the file of the one made in its place"),
    (
        2_108_386,
        Groups::BySeed,
        "a failed sync had an index written again that the recovery point had passed: a crash left it torn",
    ),
    (2_103_951, Groups::BySeed, "the same, and a search by time missed what is there"),
    (1_802_485, Groups::BySeed, "a header that rotted led a fetch to a batch in memory that ends before the offset"),
];

/// The same with hazards.
const HAZARDOUS_REGRESSIONS: [(u64, &str); 10] = [
    (78_002_403, "a stop whose sync of a segment failed left it to another sync to be believed"),
    (7_206_592, "a start believed an index entry that rot had moved, and what the index said of times was lost with it"),
    (101, "a rotted entry of an index led a fetch past what is there"),
    (10_537, "the same, in the middle of a segment"),
    (10_256, "a rotted entry of an index had a sound batch taken for a damaged one"),
    (10_962, "a rotted entry of an index led a search by time past what is there"),
    (7_201_587, "a time far below zero in a rotted time index overflowed the age of a segment"),
    (
        7_208_650,
        "a partition's folder whose making had failed half way was taken for durable, and power took it with all it held",
    ),
    (
        9_403_360,
        "records were deleted of a partition that is out of service, and what producers had sent with them was forgotten by the next start",
    ),
    (33_293, "a wall clock that was set back put the sync by flush.ms off for hours"),
];

/// As they come.
const COMMON_REGRESSIONS: [(u64, &str); 10] = [
    (
        403,
        "a group that had become a classic one again, and was loaded before its members had joined, had a leader who did not know of \
         it: nobody saw that a topic had come",
    ),
    (
        230_241_447_142_579,
        "the checker took a commit, whose answer the disk held up until the member was out, for one of somebody who was out",
    ),
    (
        250_660_729_130_496,
        "an index that a start after a clean stop made anew was not stored, and the next start took its segment without one",
    ),
    (
        250_660_729_130_503,
        "the distance to the last entry of an index was forgotten with a cut, so that rot hid more than it has to",
    ),
    (
        192_833_807_575_714,
        "what producers had sent behind a batch that had rotted was forgotten with a segment that a start removed",
    ),
    (
        250_660_729_130_620,
        "the checker did not allow that power loss brings back a round of a full disk in place of one that nobody had synced",
    ),
    (90_417_000_002_002, "the checker had retention know how young a batch had been that has rotted"),
    (
        234_928_773_422_794,
        "the checker did not allow that a start which cannot read a segment that it removes forgets what producers sent there",
    ),
    (
        135_299_827_150_627,
        "a metadata log out of service confirmed that a topic's options were what they had been before a change that it had refused, and \
         that change was in its journal",
    ),
    (
        222_396_692_972_919,
        "a journal that failed before all partitions were open was replaced by one whose checkpoint knew only those that were: the others' \
         log starts were lost",
    ),
];

#[test]
fn seeds_that_once_failed() {
    let common = COMMON_REGRESSIONS.map(|(seed, what)| (seed, Choice::default(), what));
    let hazardous = HAZARDOUS_REGRESSIONS
        .map(|(seed, what)| (seed, Choice { hazards: Hazards::Always, migration: Migration::Never, ..Choice::default() }, what));
    let plain = REGRESSIONS
        .map(|(seed, groups, what)| (seed, Choice { groups, migration: Migration::Never, hazards: Hazards::Never }, what));
    for (seed, choice, what) in plain.into_iter().chain(hazardous).chain(common) {
        if let Err(violation) = story::run_with(seed, choice, false) {
            panic!("seed {seed}, which once found that {what}, fails: {violation}\n  {}", runner::replay(seed, choice));
        }
    }
}

/// A seed is worth nothing if it does not do the same again.
#[test]
fn a_seed_gives_one_run() {
    for seed in 0..5 {
        for choice in [Choice::PLAIN, Choice { groups: Groups::Always, migration: Migration::Always, hazards: Hazards::Always }] {
            let [first, second] = [0; 2].map(|_| story::run_with(seed, choice, false).unwrap().fingerprint);
            assert_eq!(first, second, "seed {seed}, {choice:?}");
        }
    }
}

#[test]
fn new_seeds() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let from = number("RINGLOG_SIM_FROM").unwrap_or_else(from_commit);
    let seeds = number("RINGLOG_SIM_SEEDS").unwrap_or(NEW_SEEDS);
    let choice = Choice::default();
    println!("{seeds} seeds from {from} on");
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let report = runner::run(from, seeds, choice, jobs, true, |line| println!("{line}"));
    let told = |(seed, violation): &(u64, String)| format!("seed {seed} fails: {violation}\n  {}", runner::replay(*seed, choice));
    let failed: Vec<_> = report.failed.iter().map(told).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let total = report.total;
    assert!(total.cycles > seeds && total.acknowledged > seeds, "something was done: {total:?}");
    // A few seeds may have no groups.
    assert!(seeds < 20 || (total.committed > 0 && total.rebalanced > 0), "something was done with groups: {total:?}");
    assert!(seeds < 50 || total.changed_protocol > 0, "somebody changed the protocol: {total:?}");
}

/// A number that every commit has its own of; 0 where there is no git.
fn from_commit() -> u64 {
    let head = Command::new("git").args(["rev-parse", "HEAD"]).output().ok();
    let head = head.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    head.get(..12).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}
