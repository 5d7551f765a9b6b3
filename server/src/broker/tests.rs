//! The broker without its sockets, in the simulator: cores, controller and boot on a simulated disk, through restarts, crashes and
//! errors that come for certain.

mod groups;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, BatchHeader};
use ringlog_engine::core::{Append, Core, CoreHandle, CoreSettings, recover, run_mailbox};
use ringlog_engine::disk::sim::{CrashOutcome, Injection, Operation, SimDisk};
use ringlog_engine::disk::{Disk, OpenOptions};
use ringlog_engine::env::random::Random;
use ringlog_engine::env::sim::Simulation;
use ringlog_engine::log::append::{Acks, Appended};
use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, TimestampMs, TopicId};
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use ringlog_protocol::api::create_topics::{CreatableTopic, CreateTopicsRequest};
use ringlog_protocol::api::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use ringlog_protocol::api::incremental_alter_configs as incremental;
use tokio::sync::oneshot;

use super::boot::{BootError, Start, boot};
use super::controller::NewTopicId;
use super::{Broker, BrokerCore, metadata_log};
use crate::catalogue::Catalogue;
use crate::config::BrokerConfig;

const DATA: &str = "/data";

/// Ids that follow from the seed, since it follows from a topic's id which cores have its partitions.
pub(crate) fn topic_ids(seed: u64) -> NewTopicId {
    let random = Mutex::new(Random::new(seed));
    Arc::new(move || {
        let mut random = random.lock().unwrap();
        (u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())).to_be_bytes()
    })
}

/// A machine with a data directory, and the broker's process on it.
pub(super) struct Machine {
    simulation: Simulation,
    disk: SimDisk,
    cores: usize,
}

pub(super) struct Running {
    pub(super) broker: Arc<Broker>,
    pub(super) cores: Vec<Rc<Core>>,
    disk: Rc<dyn Disk>,
}

impl Machine {
    pub(super) fn new(seed: u64) -> Self {
        let simulation = Simulation::new(seed);
        let disk = SimDisk::new(&simulation, seed ^ 0xd15c);
        let mount = disk.mount();
        simulation.block_on(async move {
            mount.create_dir(Path::new(DATA)).await.unwrap();
            mount.sync_dir(Path::new("/")).await.unwrap();
        });
        Self { simulation, disk, cores: 2 }
    }

    fn try_start(&self) -> Result<Running, BootError> {
        self.simulation.block_on(self.starting())
    }

    fn starting(&self) -> impl Future<Output = Result<Running, BootError>> + 'static {
        let (env, disk, count) = (self.simulation.env(), self.disk.mount(), self.cores);
        async move {
            let data: PathBuf = DATA.into();
            let recovered = recover::recover(&disk, &data).await.unwrap();
            let (handles, receivers): (Vec<_>, Vec<_>) = (0..count).map(CoreHandle::new).unzip();
            let settings = CoreSettings {
                data_directory: data.clone(),
                journal_bytes: 16 << 20,
                journal_run_bytes_max: 512 << 10,
                tail_bytes: 4 << 20,
                open_files_max: 16,
            };
            let mut cores = Vec::new();
            for (index, receiver) in receivers.into_iter().enumerate() {
                let probe = Box::new(|_: std::os::fd::BorrowedFd<'_>, _, _| true);
                let core = Core::new(index, settings.clone(), disk.clone(), env.clone(), probe).await.unwrap();
                core.start();
                env.spawn(Box::pin(run_mailbox(core.clone(), receiver)));
                cores.push(core);
            }
            let (config, _) = BrokerConfig::load(None, &[]).unwrap();
            let start = Start {
                config: Arc::new(config),
                cluster_id: "cluster".into(),
                data_dir: data.into_boxed_path().into(),
                recovered,
                new_topic_id: topic_ids(env.random_u64()),
                snapshot_records: metadata_log::SNAPSHOT_RECORDS,
            };
            let broker = boot(&cores[0], handles.into(), start).await?;
            Ok(Running { broker, cores, disk })
        }
    }

    pub(super) fn start(&self) -> Running {
        self.try_start().unwrap()
    }

    pub(super) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.simulation.block_on(future)
    }

    fn stop(&self, running: Running) {
        self.run(super::serve::close(&running.cores[0], &running.broker, Path::new(DATA))).unwrap();
        drop(running);
        self.simulation.crash();
        // What a clean stop left has to be durable.
        self.disk.crash_with(CrashOutcome::LoseUnsynced);
    }

    /// The process dies, and the power with it.
    fn crash(&self, running: Running, outcome: CrashOutcome) {
        drop(running);
        self.simulation.crash();
        self.disk.crash_with(outcome);
    }

    fn folders(&self) -> Vec<String> {
        let disk = self.disk.mount();
        let entries = self.run(async move { disk.list(Path::new(DATA)).await.unwrap() });
        entries.into_iter().filter(|entry| entry.is_dir && !entry.name.starts_with("ringlog-")).map(|entry| entry.name).collect()
    }
}

impl Running {
    pub(super) async fn create(&self, names: &[&str], partitions: i32) -> Vec<ErrorCode> {
        let topics = names.iter().map(|name| CreatableTopic {
            name: (*name).into(),
            num_partitions: partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        });
        let request = CreateTopicsRequest { topics: topics.collect(), ..CreateTopicsRequest::default() };
        self.broker.controller.create_topics(&request).await.into_iter().map(|answer| answer.error_code).collect()
    }

    async fn delete(&self, name: &str) -> ErrorCode {
        let topic = DeleteTopicState { name: Some(name.into()), ..DeleteTopicState::default() };
        let request = DeleteTopicsRequest { topics: vec![topic], ..DeleteTopicsRequest::default() };
        self.broker.controller.delete_topics(&request).await[0].error_code
    }

    async fn set_config(&self, topic: &str, name: &str, value: &str) -> ErrorCode {
        let config = incremental::AlterableConfig { name: name.into(), config_operation: 0, value: Some(value.into()) };
        let resource = incremental::AlterConfigsResource { resource_type: 2, resource_name: topic.into(), configs: vec![config] };
        let request = incremental::IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        self.broker.controller.incremental_alter_configs(&request).await[0].error_code
    }

    fn id(&self, name: &str) -> Option<TopicId> {
        self.broker.topics.load().by_name(name).map(|topic| topic.id)
    }

    fn names(&self) -> Vec<String> {
        self.broker.topics.load().iter().map(|topic| topic.name.to_string()).collect()
    }

    /// Appends a batch of `count` records, answered when it is durable.
    async fn append(&self, topic: &str, index: i32, count: i32) -> Appended {
        let partition = self.broker.topics.load().by_name(topic).unwrap().partition(index).unwrap().clone();
        let mut builder = BatchBuilder::new(Offset(0));
        for record in 0..count {
            builder.push(TimestampMs(1_000), None, Some(&record.to_be_bytes()), &[]);
        }
        let batch = builder.build();
        let header = BatchHeader::parse(&batch).unwrap();
        let (reply, answer) = oneshot::channel();
        let append = Append { partition: partition.id, batch: Bytes::from(batch), header, acks: Acks::All, reply: reply.into() };
        self.cores[partition.core].append(append);
        answer.await.unwrap().unwrap()
    }

    /// Log start and high watermark.
    fn offsets(&self, topic: &str, index: i32) -> (i64, i64) {
        let topics = self.broker.topics.load();
        let published = &topics.by_name(topic).unwrap().partition(index).unwrap().published;
        (published.log_start().0, published.high_watermark().0)
    }
}

#[test]
fn topics_come_back_after_a_stop_and_after_a_crash() {
    let machine = Machine::new(1);
    let running = machine.start();
    assert!(running.names().is_empty());
    let codes = machine.run(running.create(&["a", "b", "a b"], 3));
    assert_eq!(codes, [ErrorCode::NONE, ErrorCode::NONE, ErrorCode::INVALID_TOPIC_EXCEPTION]);
    assert_eq!(machine.run(running.create(&["a"], 1)), [ErrorCode::TOPIC_ALREADY_EXISTS]);
    assert_eq!(machine.run(running.set_config("b", "retention.ms", "1234")), ErrorCode::NONE);
    let id = running.id("a").unwrap();
    machine.run(async {
        for _ in 0..3 {
            running.append("a", 2, 5).await;
        }
    });
    machine.stop(running);

    let running = machine.start();
    assert_eq!(running.names(), ["a", "b"]);
    assert_eq!(running.id("a"), Some(id));
    assert_eq!(running.offsets("a", 2), (0, 15));
    assert_eq!(running.broker.topics.load().by_name("b").unwrap().config.retention_ms, 1234);
    assert_eq!(machine.run(running.create(&["c"], 2)), [ErrorCode::NONE]);
    machine.run(running.append("a", 2, 1));
    machine.run(running.append("c", 1, 4));
    machine.crash(running, CrashOutcome::LoseUnsynced);

    let running = machine.start();
    assert_eq!(running.names(), ["a", "b", "c"]);
    assert_eq!(running.offsets("a", 2), (0, 16));
    // A crash ends a term, a clean stop does not.
    let a = running.broker.topics.load().by_name("a").unwrap().clone();
    assert_eq!((a.partitions[2].published.leader_epoch(), a.info.partitions[2].leader_epoch), (LeaderEpoch(1), LeaderEpoch(1)));
    // It is known before it has a record.
    let epochs_of = || {
        let epochs = |log: &mut ringlog_engine::log::Log| log.epochs().clone();
        let epochs = running.cores[a.partitions[2].core].with_log(a.partitions[2].id, epochs).unwrap();
        epochs.entries().iter().map(|entry| (entry.epoch.0, entry.start_offset.0)).collect::<Vec<_>>()
    };
    assert_eq!(epochs_of(), [(0, 0), (1, 16)]);
    machine.run(running.append("a", 2, 3));
    assert_eq!(epochs_of(), [(0, 0), (1, 16)]);
    assert_eq!(running.offsets("c", 1), (0, 4));
    assert_eq!(running.broker.topics.load().partition_count(), 8);
}

#[test]
fn partitions_move_when_the_number_of_cores_changes() {
    let mut machine = Machine::new(2);
    machine.cores = 3;
    let running = machine.start();
    machine.run(running.create(&["t"], 6));
    for index in 0..6 {
        machine.run(running.append("t", index, index + 1));
    }
    machine.crash(running, CrashOutcome::KeepUnsynced);
    machine.cores = 1;
    let running = machine.start();
    for index in 0..6 {
        assert_eq!(running.offsets("t", index), (0, i64::from(index) + 1));
        machine.run(running.append("t", index, 1));
    }
    machine.crash(running, CrashOutcome::LoseUnsynced);
    machine.cores = 2;
    let running = machine.start();
    for index in 0..6 {
        assert_eq!(running.offsets("t", index), (0, i64::from(index) + 2));
    }
}

#[test]
fn many_topics_are_one_batch_of_the_metadata_log() {
    let machine = Machine::new(3);
    let running = machine.start();
    let names: Vec<String> = (0..1000).map(|number| format!("topic-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let end = |running: &Running| {
        let log = running.cores[0].with_log(metadata_log::PARTITION, |log| log.published().clone()).unwrap();
        (log.log_end(), log.high_watermark())
    };
    assert_eq!(end(&running), (Offset(1), Offset(1)));
    assert!(machine.run(running.create(&names, 1)).iter().all(|code| *code == ErrorCode::NONE));
    assert_eq!(end(&running), (Offset(2001), Offset(2001)));
    assert_eq!(running.broker.topics.load().len(), 1000);
    // Both cores have their share.
    let on_first = running.broker.topics.load().iter().filter(|topic| topic.partitions[0].core == 0).count();
    assert!((350..650).contains(&on_first), "{on_first}");
}

#[test]
fn what_is_committed_and_fails_is_done_soon_after() {
    let machine = Machine::new(4);
    let running = machine.start();
    machine.disk.inject(Injection::always(Operation::CreateDir, "broken-1"));
    let codes = machine.run(running.create(&["broken", "whole"], 2));
    assert_eq!(codes, [ErrorCode::KAFKA_STORAGE_ERROR, ErrorCode::KAFKA_STORAGE_ERROR]);
    // It is committed: nobody can create it again. Partition 0 is there.
    assert_eq!(machine.run(running.create(&["broken"], 2)), [ErrorCode::TOPIC_ALREADY_EXISTS]);
    assert_eq!(running.broker.topics.load().by_name("broken").unwrap().partitions.len(), 1);
    assert_eq!(running.broker.topics.load().by_name("whole").unwrap().partitions.len(), 2);
    machine.run(running.append("broken", 0, 1));
    machine.disk.clear_injections();
    machine.simulation.run_for(std::time::Duration::from_secs(6));
    assert_eq!(running.broker.topics.load().by_name("broken").unwrap().partitions.len(), 2);
    assert_eq!(running.offsets("broken", 0), (0, 1));
    machine.run(running.append("broken", 1, 1));
}

#[test]
fn what_is_committed_and_fails_is_done_at_the_next_start() {
    let machine = Machine::new(5);
    let running = machine.start();
    machine.disk.inject(Injection::always(Operation::CreateDir, "broken"));
    assert_eq!(machine.run(running.create(&["broken"], 2)), [ErrorCode::KAFKA_STORAGE_ERROR]);
    assert!(running.names().is_empty());
    machine.disk.clear_injections();
    machine.crash(running, CrashOutcome::LoseUnsynced);
    let running = machine.start();
    assert_eq!(running.names(), ["broken"]);
    machine.run(running.append("broken", 1, 1));
}

#[test]
fn what_others_asked_for_and_fails_is_no_error_of_a_command() {
    let machine = Machine::new(18);
    let running = machine.start();
    machine.run(running.create(&["t", "u"], 1));
    machine.disk.inject(Injection::always(Operation::CreateDir, "broken"));
    assert_eq!(machine.run(running.create(&["broken"], 1)), [ErrorCode::KAFKA_STORAGE_ERROR]);
    // As on a full disk: the deletion is how it gets room again.
    assert_eq!(machine.run(running.delete("t")), ErrorCode::NONE);
    assert_eq!(machine.run(running.create(&["new"], 2)), [ErrorCode::NONE]);
    assert_eq!(running.names(), ["new", "u"]);
    machine.disk.inject(Injection::always(Operation::Rename, "-delete"));
    assert_eq!(machine.run(running.delete("u")), ErrorCode::KAFKA_STORAGE_ERROR);
    machine.disk.clear_injections();
    machine.simulation.run_for(std::time::Duration::from_secs(6));
    assert_eq!(running.names(), ["broken", "new"]);
}

#[test]
fn a_metadata_log_that_cannot_be_written_changes_nothing() {
    let machine = Machine::new(6);
    let running = machine.start();
    machine.disk.inject(Injection::always(Operation::Write, ".journal"));
    machine.disk.inject(Injection::always(Operation::Open, ".journal"));
    assert_eq!(machine.run(running.create(&["lost"], 1)), [ErrorCode::KAFKA_STORAGE_ERROR]);
    assert!(running.names().is_empty());
    assert_eq!(running.broker.controller.catalogue().topics().len(), 0);
    machine.disk.clear_injections();
    machine.crash(running, CrashOutcome::LoseUnsynced);
    let running = machine.start();
    assert_eq!(machine.run(running.create(&["found"], 1)), [ErrorCode::NONE]);
    assert_eq!(running.names(), ["found"]);
}

/// A change that was refused with the journal may be in it. So nobody is told then that there is nothing to change: the next start may find
/// otherwise. Found by the simulator.
#[test]
fn a_metadata_log_out_of_service_confirms_nothing() {
    let machine = Machine::new(7);
    let running = machine.start();
    machine.run(running.create(&["t"], 1));
    assert_eq!(machine.run(running.set_config("t", "flush.messages", "5")), ErrorCode::NONE);
    assert_eq!(machine.run(running.set_config("t", "flush.messages", "5")), ErrorCode::NONE);
    machine.disk.inject(Injection::always(Operation::Sync, ".journal"));
    machine.disk.inject(Injection::always(Operation::Open, ".journal"));
    assert_eq!(machine.run(running.set_config("t", "flush.messages", "3")), ErrorCode::KAFKA_STORAGE_ERROR);
    assert_eq!(machine.run(running.set_config("t", "flush.messages", "5")), ErrorCode::KAFKA_STORAGE_ERROR);
    machine.disk.clear_injections();
    machine.crash(running, CrashOutcome::KeepUnsynced);
    let running = machine.start();
    assert_eq!(machine.run(running.set_config("t", "flush.messages", "5")), ErrorCode::NONE);
}

/// The terms of a start after a crash are committed before all partitions are open. Where that fails with the journal, the one of the last
/// run still counts, with where the logs begin. Found by the simulator.
#[test]
fn a_journal_that_fails_before_the_broker_is_up_leaves_the_last_run_s() {
    let mut machine = Machine::new(8);
    machine.cores = 1;
    let running = machine.start();
    machine.run(running.create(&["t"], 1));
    let partition = PartitionId { topic: running.id("t").unwrap(), index: 0 };
    machine.run(running.append("t", 0, 10));
    machine.run(running.cores[0].delete_records(partition, Offset(7))).unwrap();
    machine.crash(running, CrashOutcome::LoseUnsynced);
    machine.disk.inject(Injection::next(Operation::Sync, ".journal"));
    let failed = machine.try_start().err();
    assert!(matches!(failed, Some(BootError::Commit(_))), "{failed:?}");
    machine.simulation.crash();
    machine.disk.crash_with(CrashOutcome::LoseUnsynced);
    let running = machine.start();
    assert_eq!(running.cores[0].with_log(partition, |log| log.published().log_start()), Some(Offset(7)));
}

#[test]
fn a_topic_that_comes_back_has_nothing_of_the_old_one() {
    let machine = Machine::new(7);
    let running = machine.start();
    machine.run(running.create(&["t"], 1));
    machine.run(running.append("t", 0, 1000));
    let old = running.id("t").unwrap();
    // The clean stop writes checkpoints by name.
    machine.stop(running);
    let running = machine.start();
    assert_eq!(machine.run(running.delete("t")), ErrorCode::NONE);
    assert_eq!(machine.folders(), ["__cluster_metadata-0"]);
    assert_eq!(machine.run(running.delete("t")), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(machine.run(running.create(&["t"], 1)), [ErrorCode::NONE]);
    assert_ne!(running.id("t"), Some(old));
    assert_eq!(running.offsets("t", 0), (0, 0));
    machine.run(running.append("t", 0, 7));
    machine.crash(running, CrashOutcome::LoseUnsynced);
    let running = machine.start();
    assert_eq!(running.offsets("t", 0), (0, 7));
}

#[test]
fn a_deletion_that_fails_half_way_is_finished() {
    let machine = Machine::new(8);
    let running = machine.start();
    machine.run(running.create(&["t", "u"], 1));
    machine.run(running.append("t", 0, 10));
    machine.disk.inject(Injection::always(Operation::Rename, "-delete"));
    assert_eq!(machine.run(running.delete("t")), ErrorCode::KAFKA_STORAGE_ERROR);
    assert_eq!(running.names(), ["u"]);
    // The name is free; the old folder is in the way until the disk works again.
    assert_eq!(machine.run(running.create(&["t"], 1)), [ErrorCode::KAFKA_STORAGE_ERROR]);
    machine.disk.clear_injections();
    machine.simulation.run_for(std::time::Duration::from_secs(6));
    assert_eq!(running.names(), ["t", "u"]);
    assert_eq!(running.offsets("t", 0), (0, 0));

    machine.disk.inject(Injection::always(Operation::Rename, "-delete"));
    assert_eq!(machine.run(running.delete("u")), ErrorCode::KAFKA_STORAGE_ERROR);
    machine.disk.clear_injections();
    machine.crash(running, CrashOutcome::LoseUnsynced);
    let running = machine.start();
    assert_eq!(running.names(), ["t"]);
    machine.simulation.run_for(std::time::Duration::from_secs(1));
    assert_eq!(machine.folders(), ["__cluster_metadata-0", "t-0"]);
}

#[test]
fn folders_of_nobody_are_kept_and_set_aside() {
    let machine = Machine::new(9);
    let running = machine.start();
    machine.run(running.create(&["t"], 1));
    machine.stop(running);
    let disk = machine.disk.mount();
    machine.run(async move {
        for (folder, metadata) in [("other-0", "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABw"), ("backup-1", "")] {
            let path = Path::new(DATA).join(folder);
            disk.create_dir(&path).await.unwrap();
            if !metadata.is_empty() {
                let file = path.join("partition.metadata");
                ringlog_engine::disk::replace_file(&disk, &file, metadata.into()).await.unwrap();
            }
            disk.open(&path.join("notes.txt"), OpenOptions::WRITE).await.unwrap();
        }
        disk.sync_dir(Path::new(DATA)).await.unwrap();
    });
    let running = machine.start();
    assert_eq!(running.names(), ["t"]);
    let folders = machine.folders();
    assert!(folders.iter().any(|name| name.starts_with("other-0.") && name.ends_with("-stray")), "{folders:?}");
    assert!(folders.contains(&"backup-1".to_owned()), "{folders:?}");
    // A user's folder in the way of a topic keeps what is in it.
    assert_eq!(machine.run(running.create(&["backup"], 2)), [ErrorCode::NONE]);
    let disk = machine.disk.mount();
    let entries = machine.run(async move { disk.list(&Path::new(DATA).join("backup-1")).await.unwrap() });
    assert!(entries.iter().any(|entry| entry.name == "notes.txt"));
    machine.stop(running);
    let running = machine.start();
    assert_eq!(running.names(), ["backup", "t"]);
}

#[test]
fn partitions_without_a_metadata_log_are_not_touched() {
    let machine = Machine::new(10);
    let running = machine.start();
    machine.run(running.create(&["t"], 1));
    machine.stop(running);
    let disk = machine.disk.mount();
    let (from, to) = (Path::new(DATA).join("__cluster_metadata-0"), Path::new("/elsewhere"));
    machine.run({
        let (disk, from) = (disk.clone(), from.clone());
        async move {
            disk.rename(&from, to).await.unwrap();
            disk.sync_dir(Path::new(DATA)).await.unwrap();
            disk.sync_dir(Path::new("/")).await.unwrap();
        }
    });
    let before = machine.folders();
    match machine.try_start().map(|_| ()) {
        Err(BootError::NoMetadataLog { count: 1, folder }) => assert_eq!(folder, "t-0"),
        other => panic!("{other:?}"),
    }
    assert_eq!(machine.folders(), before);
    machine.simulation.crash();
    machine.run(async move {
        disk.rename(to, &from).await.unwrap();
        disk.sync_dir(Path::new(DATA)).await.unwrap();
    });
    let running = machine.start();
    assert_eq!(running.names(), ["t"]);
}

#[test]
fn partitions_are_added() {
    let machine = Machine::new(11);
    let running = machine.start();
    machine.run(running.create(&["t"], 1));
    machine.run(running.append("t", 0, 3));
    let topic = CreatePartitionsTopic { name: "t".into(), count: 4, assignments: None };
    let request = CreatePartitionsRequest { topics: vec![topic], ..CreatePartitionsRequest::default() };
    let answers = machine.run(running.broker.controller.create_partitions(&request));
    assert_eq!(answers[0].error_code, ErrorCode::NONE, "{:?}", answers[0].error_message);
    machine.run(running.append("t", 3, 2));
    machine.crash(running, CrashOutcome::LoseUnsynced);
    let running = machine.start();
    assert_eq!((running.offsets("t", 0), running.offsets("t", 3)), ((0, 3), (0, 2)));
}

#[test]
fn a_topic_is_created_when_it_is_asked_for() {
    let machine = Machine::new(12);
    let running = machine.start();
    let controller = running.broker.controller.clone();
    let (first, second) = machine.run(async { tokio::join!(controller.auto_create("t"), controller.auto_create("t")) });
    assert_eq!(first.unwrap().id, second.unwrap().id);
    let refused = machine.run(controller.auto_create("__consumer_offsets")).map(|_| ()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[test]
fn the_data_path_obeys_changed_options() {
    let machine = Machine::new(13);
    let running = machine.start();
    machine.run(running.create(&["t"], 1));
    let partition = PartitionId { topic: running.id("t").unwrap(), index: 0 };
    let core = running.broker.topics.load().by_name("t").unwrap().partitions[0].core;
    let flush = |running: &Running| running.cores[core].with_log(partition, |log| log.config().flush_messages).unwrap();
    assert_eq!(flush(&running), 1);
    assert_eq!(machine.run(running.set_config("t", "flush.messages", "100")), ErrorCode::NONE);
    assert_eq!(flush(&running), 100);
    assert_eq!(machine.run(running.set_config("t", "flush.messages", "none")), ErrorCode::INVALID_CONFIG);
    assert_eq!(machine.run(running.set_config("u", "flush.messages", "1")), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(flush(&running), 100);
}

#[test]
fn producer_ids_are_never_given_twice() {
    let machine = Machine::new(14);
    let mut last = -1;
    for crash in [CrashOutcome::LoseUnsynced, CrashOutcome::KeepUnsynced, CrashOutcome::Mixed] {
        let running = machine.start();
        let first = BrokerCore::new(running.broker.clone(), running.cores[0].clone());
        let second = BrokerCore::new(running.broker.clone(), running.cores[1].clone());
        let mut ids = machine.run(async {
            let mut ids = Vec::new();
            for _ in 0..1500 {
                let (a, b) = tokio::join!(first.producer_ids.next(), second.producer_ids.next());
                ids.extend([a.unwrap().0, b.unwrap().0]);
            }
            ids
        });
        ids.sort_unstable();
        assert!(ids[0] > last && ids.windows(2).all(|pair| pair[0] < pair[1]));
        last = ids[ids.len() - 1];
        drop((first, second));
        machine.crash(running, crash);
    }
}

#[test]
fn a_snapshot_takes_the_place_of_the_log_before_it() {
    let machine = Machine::new(15);
    let running = machine.start();
    machine.run(running.create(&["kept", "gone"], 2));
    let id = running.id("kept").unwrap();
    machine.run(running.set_config("kept", "retention.ms", "77"));
    machine.run(running.delete("gone"));
    machine.run(running.broker.controller.lock()).metadata.snapshot_records = 100;
    // Its partitions' records are the last that count.
    assert_eq!(machine.run(running.create(&["wide"], 100)), [ErrorCode::NONE]);
    // The snapshot is written behind the command.
    let end = machine.run(running.broker.controller.lock()).catalogue.applied().offset.plus(1);
    let snapshot = format!("/data/__cluster_metadata-0/{:020}-{:010}.checkpoint", end.0, 1);
    let metadata = running.cores[0].with_log(metadata_log::PARTITION, |log| log.published().clone()).unwrap();
    assert!(machine.disk.durable_bytes(Path::new(&snapshot)).is_some(), "{}", machine.disk.tree());
    assert_eq!(metadata.log_start(), end);
    assert_eq!(machine.run(running.create(&["after"], 1)), [ErrorCode::NONE]);
    let catalogue = running.broker.controller.catalogue();
    machine.crash(running, CrashOutcome::LoseUnsynced);

    let running = machine.start();
    assert_eq!(running.names(), ["after", "kept", "wide"]);
    assert_eq!(running.id("kept"), Some(id));
    let again = running.broker.controller.catalogue();
    let config = |catalogue: &Catalogue| catalogue.topic("kept").unwrap().config_overrides.clone();
    assert_eq!(config(&again), config(&catalogue));
    // The new terms of the 103 partitions came on top.
    assert_eq!(again.applied().offset, catalogue.applied().offset.plus(103));
    machine.stop(running);

    // Without the snapshot there is no catalogue, and nothing is thrown away for that.
    machine.disk.rot(Path::new(&snapshot), 3);
    let before = machine.folders();
    let error = machine.try_start().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("no sound snapshot"), "{error}");
    assert_eq!(machine.folders(), before);
}

/// With another number of cores a partition's journal is another's: wherever a start ends, where its log begins is known.
#[test]
fn log_starts_outlive_a_change_of_cores_that_a_crash_interrupts() {
    let mut interrupted = 0;
    for micros in (0..6_000).step_by(100) {
        let mut machine = Machine::new(70);
        machine.cores = 3;
        let running = machine.start();
        machine.run(running.create(&["t"], 6));
        for index in 0..6 {
            machine.run(running.append("t", index, 10));
            let partition = running.broker.topics.load().by_name("t").unwrap().partition(index).unwrap().clone();
            assert_eq!(machine.run(running.cores[partition.core].delete_records(partition.id, Offset(7))).ok(), Some(Offset(7)));
        }
        machine.crash(running, CrashOutcome::LoseUnsynced);
        for cores in [2, 1, 3] {
            machine.cores = cores;
            let until = machine.simulation.now() + std::time::Duration::from_micros(micros);
            let started = machine.simulation.block_on_until(machine.starting(), until);
            interrupted += u32::from(started.is_none());
            drop(started);
            machine.simulation.crash();
            machine.disk.crash_with(CrashOutcome::KeepUnsynced);
        }
        let running = machine.start();
        for index in 0..6 {
            assert_eq!(running.offsets("t", index), (7, 10), "after {micros} µs of a start");
        }
    }
    assert!(interrupted > 0);
}

/// What is answered while the broker stops is so at the next start: the log start that the stop writes down does not move behind it.
#[test]
fn records_that_are_deleted_during_a_stop_stay_deleted() {
    let mut refused = 0;
    for seed in 20..60u64 {
        let machine = Machine::new(seed);
        let running = machine.start();
        machine.run(running.create(&["t"], 1));
        machine.run(running.append("t", 0, 100));
        let partition = running.broker.topics.load().by_name("t").unwrap().partition(0).unwrap().clone();
        let core = running.cores[partition.core].clone();
        let deleting = core.delete_records(partition.id, Offset(50));
        let closing = async {
            if seed > 20 {
                core.env.sleep(std::time::Duration::from_micros((seed - 20) * 20)).await;
            }
            super::serve::close(&running.cores[0], &running.broker, Path::new(DATA)).await
        };
        let (closed, deleted) = machine.run(async { tokio::join!(closing, deleting) });
        closed.unwrap();
        machine.crash(running, CrashOutcome::LoseUnsynced);
        let running = machine.start();
        match deleted {
            Ok(start) => assert_eq!((running.offsets("t", 0).0, start), (50, Offset(50)), "seed {seed}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused < 40, "some come before the stop");
}

#[test]
fn a_broker_that_was_started_and_stopped_often_is_the_same() {
    let machine = Machine::new(16);
    let running = machine.start();
    machine.run(running.create(&["t"], 3));
    machine.run(running.append("t", 1, 10));
    machine.stop(running);
    for _ in 0..5 {
        let running = machine.start();
        assert_eq!(running.offsets("t", 1), (0, 10));
        assert_eq!(running.broker.topics.load().by_name("t").unwrap().partitions[1].published.leader_epoch(), LeaderEpoch(0));
        machine.stop(running);
    }
    assert_eq!(machine.folders(), ["__cluster_metadata-0", "t-0", "t-1", "t-2"]);
}

#[test]
fn a_full_disk_can_be_emptied() {
    let machine = Machine::new(17);
    let running = machine.start();
    machine.run(running.create(&["t", "u"], 1));
    machine.run(running.append("t", 0, 10));
    let reserve = Path::new("/data/.ringlog-reserve");
    assert!(machine.disk.durable_bytes(reserve).is_some());
    let space = machine.run(running.disk.space(Path::new(DATA))).unwrap();
    machine.disk.set_capacity(Some(space.total_bytes - space.available_bytes));
    // The record goes where the journal has been already, or takes the room that is held back.
    assert_eq!(machine.run(running.delete("u")), ErrorCode::NONE);
    assert_eq!(running.names(), ["t"]);
    machine.disk.set_capacity(None);
    machine.run(running.broker.reserve.take(&running.disk));
    assert!(machine.disk.durable_bytes(reserve).is_some());
    machine.crash(running, CrashOutcome::KeepUnsynced);
    // What the last run held is there for the next, on a disk that is nearly full.
    let space = machine.run(machine.disk.mount().space(Path::new(DATA))).unwrap();
    machine.disk.set_capacity(Some(space.total_bytes - space.available_bytes + (1 << 20)));
    let running = machine.start();
    assert_eq!(running.names(), ["t"]);
    assert_eq!(running.offsets("t", 0), (0, 10));
    assert!(machine.run(running.broker.reserve.give_up(&running.disk)));
    assert!(machine.disk.durable_bytes(reserve).is_none());
}
