//! `--verify` through librdkafka: what a broker does wrong is found out as by the lean client, and what the library sends again by
//! itself is not held against the broker, as far as that can be told.

use super::real::over_kill_9;
use super::*;

/// The library makes its batches itself: mostly of ten records.
const SENT: &str = "--client librdkafka --records 300 --record-bytes 100 --batch-records 10 --keys 1000 --verify";

fn sent_again(load: &Load) -> u64 {
    let errors = &load.produce.as_ref().unwrap().errors;
    errors.iter().filter(|(name, _)| name == "sent again by librdkafka").map(|(_, count)| count).sum()
}

#[test]
fn a_sound_broker_is_verified_sound() {
    for line in [
        "produce --partitions 3 --producers 2",
        "produce --idempotent --compression zstd",
        "mixed --consumers 2 --fan-out --fetch-wait 20ms",
        "end-to-end --rate 2000 --fetch-wait 20ms",
    ] {
        let (bench, broker) = (Bench::new(), Broker::start(&[]));
        let load = bench.run(broker.address, &format!("{line} {SENT}")).ok();
        let again = sent_again(&load);
        let verified = load.verify.unwrap();
        let readers = if line.contains("fan-out") { 2 } else { 1 };
        assert!(verified.is_sound() && verified.findings.is_empty() && again == 0, "{line}: {verified:?}");
        assert_eq!((verified.acknowledged, verified.received), (300 * readers, 300 * readers), "{line}");
        assert!(broker.topics().is_empty());
    }
}

#[test]
fn each_fault_of_a_broker_is_caught() {
    // Of the library's own batches nobody knows which is the last.
    for (fault, count) in FAULTS.into_iter().filter(|(fault, _)| *fault != Fault::Drop(29)) {
        for line in ["produce", "mixed --fetch-wait 20ms", "produce --idempotent"] {
            if line.contains("--idempotent") && !matches!(fault, Fault::Duplicate(_)) {
                continue;
            }
            let (bench, broker) = (Bench::new(), Broker::start(&[fault]));
            let ran = bench.run(broker.address, &format!("{line} {SENT}"));
            assert_eq!(ran.status, 1, "{fault:?} {line} {}", ran.stderr);
            let found = ran.measured.unwrap().verify.unwrap();
            let expected = if is_damage(fault) { 1..=1 } else { 1..=10 };
            assert!(expected.contains(&count(&found)), "{fault:?} {line}: {found:?}");
            assert_eq!(faults(&found), count(&found), "{fault:?} {line}: {found:?}");
            assert!(found.acknowledged == 300 && !found.findings.is_empty(), "{fault:?} {line}: {found:?}");
            assert!(broker.topics().is_empty());
        }
    }
}

#[test]
fn a_batch_that_the_library_cannot_unpack_is_damaged_and_its_records_are_lost() {
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::Corrupt(5)]));
    let ran = bench.run(broker.address, &format!("mixed {SENT} --compression gzip --fetch-wait 20ms --timeout 10s"));
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    let found = ran.measured.unwrap().verify.unwrap();
    assert!(found.corrupted == 1 && found.lost > 0 && faults(&found) == 1 + found.lost, "{found:?}");
}

#[test]
fn no_more_is_excused_than_was_sent_again() {
    let stored_twice = Fault::CloseStored(7);
    for line in ["produce --in-flight 1", "mixed --in-flight 1 --fetch-wait 20ms"] {
        let (bench, broker) = (Bench::new(), Broker::start(&[stored_twice]));
        let load = bench.run(broker.address, &format!("{line} {SENT}")).ok();
        let again = sent_again(&load);
        let verified = load.verify.unwrap();
        assert!(verified.findings.is_empty(), "{line}: {verified:?}");
        assert!(verified.duplicated_by_retry > 0 && verified.duplicated_by_retry <= again, "{line}: {again}, {verified:?}");
        // A broker that stores other batches twice as well stores more than was sent.
        let twice = [stored_twice, Fault::Duplicate(12), Fault::Duplicate(14), Fault::Duplicate(16)];
        let (bench, broker) = (Bench::new(), Broker::start(&twice));
        let ran = bench.run(broker.address, &format!("{line} {SENT}"));
        assert_eq!(ran.status, 1, "{line} {}", ran.stderr);
        let found = ran.measured.unwrap().verify.unwrap();
        assert!(found.duplicated > 0 && found.duplicated_by_retry > 0 && faults(&found) == found.duplicated, "{line}: {found:?}");
        // Where the broker is to keep apart what is sent again, nothing is excused.
        let (bench, broker) = (Bench::new(), Broker::start(&[stored_twice]));
        let ran = bench.run(broker.address, &format!("{line} {SENT} --idempotent"));
        assert_eq!(ran.status, 1, "{line} {}", ran.stderr);
        let found = ran.measured.unwrap().verify.unwrap();
        assert!(found.duplicated > 0 && found.duplicated_by_retry == 0, "{line}: {found:?}");
    }
    // Not stored, and sent again behind what was under way: neither lost nor held against the broker.
    let refuse = Fault::Refuse(7, ErrorCode::NOT_ENOUGH_REPLICAS);
    let (bench, broker) = (Bench::new(), Broker::start(&[refuse, Fault::Close(15)]));
    let load = bench.run(broker.address, &format!("produce {SENT} --in-flight 5")).ok();
    assert!(sent_again(&load) > 0);
    assert_eq!(load.verify.unwrap().received, 300);
}

#[test]
fn a_run_that_fails_tells_what_became_of_what_was_acknowledged() {
    let refuse = Fault::Refuse(9, ErrorCode::MESSAGE_TOO_LARGE);
    let line = format!("produce {SENT} --in-flight 1");
    let (bench, broker) = (Bench::new(), Broker::start(&[refuse]));
    bench.run(broker.address, &line).failed(1, " records acknowledged before none is lost or wrong");
    let (bench, broker) = (Bench::new(), Broker::start(&[refuse, Fault::Drop(4)]));
    let ran = bench.run(broker.address, &line);
    ran.failed(1, "MessageSizeTooLarge");
    ran.failed(1, " were lost, 0 duplicated, 0 reordered, 0 corrupted, 0 unknown");
    assert!(!ran.stderr.contains(" 0 were lost"), "{}", ran.stderr);
    // Stored and never acknowledged: it may be there.
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::Silent]));
    let silent = bench.run(broker.address, &format!("{line} --retry-for 10s --timeout 10s"));
    silent.failed(1, "MessageTimedOut");
    silent.failed(1, "of the 0 records acknowledged before none is lost or wrong");
    assert!(broker.produced() > 0);
    // Given up in the end, and the broker is there to tell.
    let (bench, broker) = (Bench::new(), Broker::start(&[Fault::RefuseFrom(9, ErrorCode::NOT_ENOUGH_REPLICAS)]));
    bench.run(broker.address, &format!("{line} --retry-for 10s --timeout 10s")).failed(1, "before none is lost or wrong");
}

#[test]
fn a_later_process_verifies_what_was_acknowledged() {
    let (bench, broker) = (Bench::new(), Broker::start(&[]));
    let log = bench.out.path().join("log");
    let log = log.to_str().unwrap();
    for options in ["--partitions 2 --producers 2", "--idempotent"] {
        bench.run(broker.address, &format!("produce {SENT} {options} --verify-log {log}")).ok();
    }
    let verified = bench.run(broker.address, &format!("verify --verify-log {log}")).ok().verify.unwrap();
    assert_eq!((verified.acknowledged, verified.received), (600, 600));
    broker.lose_tails();
    let ran = bench.run(broker.address, &format!("verify --verify-log {log}"));
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!((2..=20).contains(&ran.measured.unwrap().verify.unwrap().lost));
}

/// Producers and consumers of the library's over a broker that is killed and comes back.
#[test]
fn what_the_real_broker_acknowledged_survives_kill_9() {
    for options in ["produce --idempotent", "produce --in-flight 2", "mixed --idempotent --consumers 2"] {
        if over_kill_9(&format!("{options} --client librdkafka")).is_none() {
            return;
        }
    }
}
