//! What recovery has to leave behind besides the batches: where each leader epoch begins, and the producers. Invariant
//! ProducersOutliveSegments: what is known of an idempotent producer does not go with the segments that it wrote, whatever crashes
//! lie between.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ringlog_engine::batch::BatchBuilder;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::disk::{Disk, OpenOptions, Payload};
use ringlog_engine::env::sim::Simulation;
use ringlog_engine::log::Log;
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::log::epochs::LeaderEpochs;
use ringlog_engine::log::open::{OpenParams, open};
use ringlog_engine::memory::Pool;
use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, ProducerId, TimestampMs, TopicId};

async fn reopen(disk: &Rc<dyn Disk>, log_start: i64) -> Log {
    reopen_from(disk, 0, log_start).await
}

async fn reopen_from(disk: &Rc<dyn Disk>, recovery_point: i64, log_start: i64) -> Log {
    reopen_in(disk, LeaderEpoch(0), recovery_point, log_start).await
}

async fn reopen_in(disk: &Rc<dyn Disk>, leader_epoch: LeaderEpoch, recovery_point: i64, log_start: i64) -> Log {
    let params = OpenParams {
        id: PartitionId { topic: TopicId([1; 16]), index: 0 },
        directory: PathBuf::from("/topic-0"),
        config: Arc::new(LogConfig::default()),
        recovery_point: Offset(recovery_point),
        log_start: Offset(log_start),
        clean: false,
        leader_epoch,
    };
    open(disk, &Pool::new(16 << 20), params, TimestampMs(2000)).await.unwrap()
}

/// Makes a file of these bytes, durable but for its name.
async fn write(disk: &Rc<dyn Disk>, path: &Path, bytes: Vec<u8>) {
    let file = disk.open(path, OpenOptions::WRITE).await.unwrap();
    file.set_len(0).await.unwrap();
    file.write_at(Payload::Bytes(bytes), 0).await.unwrap();
    file.sync_data().await.unwrap();
}

#[test]
fn producers_outlive_segments() {
    let simulation = Simulation::new(1);
    let disk: Rc<dyn Disk> = SimDisk::new(&simulation, 1).mount();
    simulation.block_on(async move {
        let directory = Path::new("/topic-0");
        disk.create_dir(directory).await.unwrap();
        // The producer wrote into the first segment alone, and the crash came before any snapshot.
        for base in [0, 3] {
            let batch = BatchBuilder::new(Offset(base)).leader_epoch(LeaderEpoch(0));
            let batch = if base == 0 { batch.producer(ProducerId(7), 0, 0) } else { batch };
            let mut batch = batch.record(TimestampMs(1000), None, Some(b"a"));
            batch.push(TimestampMs(1000), None, Some(b"b"), &[]);
            batch.push(TimestampMs(1000), None, Some(b"c"), &[]);
            let file = disk.open(&directory.join(format!("{base:020}.log")), OpenOptions::WRITE).await.unwrap();
            file.write_at(Payload::Bytes(batch.build()), 0).await.unwrap();
            file.sync_data().await.unwrap();
        }
        disk.sync_dir(directory).await.unwrap();
        let last_sequence = |log: &Log| log.producers().views().map(|producer| producer.last_sequence).next();
        let log = reopen(&disk, 0).await;
        assert_eq!(log.published().log_end(), Offset(6));
        assert_eq!(last_sequence(&log), Some(2));
        // A crash between DeleteRecords and the removal of the segment: the removal is made up for.
        disk.remove_file(&directory.join(format!("{:020}.snapshot", 6))).await.unwrap();
        let log = reopen(&disk, 3).await;
        let names: Vec<_> = disk.list(directory).await.unwrap().into_iter().map(|entry| entry.name).collect();
        assert!(!names.contains(&format!("{:020}.log", 0)), "{names:?}");
        assert_eq!(last_sequence(&log), Some(2));
        // The next crash comes at once.
        let log = reopen(&disk, 3).await;
        assert_eq!(log.published().log_start(), Offset(3));
        assert_eq!(last_sequence(&log), Some(2), "its next batch, sequence 3, must not be out of order");
    });
}

/// Of index files that were written and not synced a loss of power leaves zeros, which look like an entry.
#[test]
fn an_index_that_was_lost_is_built_anew() {
    let simulation = Simulation::new(1);
    let disk: Rc<dyn Disk> = SimDisk::new(&simulation, 1).mount();
    simulation.block_on(async move {
        let directory = Path::new("/topic-0");
        disk.create_dir(directory).await.unwrap();
        let write = async |name: String, bytes: Vec<u8>| write(&disk, &directory.join(name), bytes).await;
        let batch = |offset: i64| BatchBuilder::new(Offset(offset)).record(TimestampMs(1000 + offset), None, Some(b"a")).build();
        for (base, batches) in [(0, vec![batch(0), batch(1)]), (2, vec![batch(2)])] {
            write(format!("{base:020}.log"), batches.concat()).await;
        }
        write(format!("{:020}.index", 0), vec![0; 8]).await;
        write(format!("{:020}.timeindex", 0), vec![0; 12]).await;
        disk.sync_dir(directory).await.unwrap();
        let log = reopen_from(&disk, 1, 0).await;
        assert_eq!(log.published().log_end(), Offset(3));
        let times = ringlog_engine::disk::read_file(&disk, &directory.join(format!("{:020}.timeindex", 0))).await.unwrap();
        let times = ringlog_engine::segment::index::parse_time_index(&times, Offset(0)).unwrap();
        assert_eq!(times.iter().map(|entry| entry.timestamp.0).collect::<Vec<_>>(), [1001]);
    });
}

/// Where epochs begin, and so where those before them end, is what the file says and what batches say that it does not know. The
/// leader's own epoch begins at the log's end, before it has a record.
#[test]
fn epochs_begin_where_they_began() {
    let simulation = Simulation::new(1);
    let disk: Rc<dyn Disk> = SimDisk::new(&simulation, 1).mount();
    simulation.block_on(async move {
        let directory = Path::new("/topic-0");
        disk.create_dir(directory).await.unwrap();
        let write = async |name: String, bytes: Vec<u8>| write(&disk, &directory.join(name), bytes).await;
        let batch = |(offset, epoch): (i64, i32)| {
            // A snapshot of the producer makes it needless to read the sealed segment again.
            let batch =
                BatchBuilder::new(Offset(offset)).leader_epoch(LeaderEpoch(epoch)).producer(ProducerId(7), 0, offset as i32);
            batch.record(TimestampMs(1000), None, Some(b"a")).build()
        };
        let known = async |log: &Log| {
            let entries =
                |epochs: &LeaderEpochs| epochs.entries().iter().map(|e| (e.epoch.0, e.start_offset.0)).collect::<Vec<_>>();
            let file = ringlog_engine::disk::read_file(&disk, &directory.join("leader-epoch-checkpoint")).await;
            let saved = file.ok().map(|text| entries(&LeaderEpochs::decode(&String::from_utf8_lossy(&text)).unwrap()));
            (entries(log.epochs()), saved)
        };
        let log = reopen_in(&disk, LeaderEpoch(0), 0, 0).await;
        assert_eq!(known(&log).await, (vec![(0, 0)], None), "it makes no file");
        assert_eq!(log.epochs().end_offset_for(LeaderEpoch(0), Offset(0)), Some((LeaderEpoch(0), Offset(0))));

        // What sealed segments have is saved, since the next start does not read them.
        write(format!("{:020}.log", 0), [(0, 0), (1, 0), (2, 1)].map(batch).concat()).await;
        write(format!("{:020}.log", 3), [(3, 1), (4, 1), (5, 2), (6, 2)].map(batch).concat()).await;
        disk.sync_dir(directory).await.unwrap();
        let log = reopen_in(&disk, LeaderEpoch(3), 0, 0).await;
        let found = vec![(0, 0), (1, 2), (2, 5), (3, 7)];
        assert_eq!(known(&log).await, (found.clone(), Some(found)));
        // The next crash comes at once. The active segment is read from its beginning on, within an epoch.
        let log = reopen_in(&disk, LeaderEpoch(4), 7, 0).await;
        assert_eq!(known(&log).await.0, [(0, 0), (1, 2), (2, 5), (4, 7)]);
        let ends =
            [0, 1, 2, 3, 4].map(|epoch| log.epochs().end_offset_for(LeaderEpoch(epoch), Offset(7)).map(|(e, end)| (e.0, end.0)));
        assert_eq!(ends, [Some((0, 2)), Some((1, 5)), Some((2, 7)), Some((2, 7)), Some((4, 7))], "epoch 3 left no trace");

        // What the file says of batches that are lost does not count.
        write("leader-epoch-checkpoint".to_owned(), b"0\n3\n0 0\n1 2\n9 6\n".to_vec()).await;
        let log = reopen_in(&disk, LeaderEpoch(10), 7, 0).await;
        assert_eq!(known(&log).await.0, [(0, 0), (1, 2), (2, 5), (10, 7)]);
    });
}
