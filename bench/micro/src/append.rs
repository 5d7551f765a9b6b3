//! Appending to the tail: rules of producers, offsets, CRC and copy, the index, the waiting for the round. The round itself is the
//! simulator's and is run between the measured steps.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringlog_engine::batch::BatchHeader;
use ringlog_engine::core::{Append, Core, CoreSettings, NewPartition, Partition};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::env::sim::Simulation;
use ringlog_engine::log::append::{Acks, AppendError, Appended};
use ringlog_engine::log::config::LogConfig;
use ringlog_engine::types::{LeaderEpoch, Offset, PartitionId, TopicId};
use tokio::sync::oneshot;

use crate::batch;

/// What one step may append: within tail and journal.
const STEP_BYTES_MAX: usize = 4 << 20;
const TAIL_BYTES: usize = 4 * STEP_BYTES_MAX;

/// A partition of a simulated core, and a batch for it.
pub struct Appends {
    pub(crate) simulation: Simulation,
    pub(crate) core: Rc<Core>,
    pub(crate) partition: Partition,
    batch: Bytes,
    header: BatchHeader,
    answers: Vec<oneshot::Receiver<Result<Appended, AppendError>>>,
}

impl Appends {
    /// Of batches of about `batch_bytes`, of values of `value_bytes`.
    #[must_use]
    pub fn new(batch_bytes: usize, value_bytes: usize) -> Self {
        let simulation = Simulation::new(1);
        let disk = SimDisk::new(&simulation, 1).mount();
        let env = simulation.env();
        let data_directory = PathBuf::from("/data");
        let (core, partition) = simulation.block_on(async move {
            disk.create_dir(&data_directory).await.unwrap();
            let settings = CoreSettings {
                data_directory,
                journal_bytes: TAIL_BYTES as u64,
                journal_run_bytes_max: 512 << 10,
                tail_bytes: TAIL_BYTES,
                open_files_max: 64,
            };
            let core = Core::new(0, settings, disk, env, Box::new(|_, _, _| true)).await.unwrap();
            core.start();
            let new = NewPartition {
                id: PartitionId { topic: TopicId([7; 16]), index: 0 },
                folder: "micro-0".to_owned(),
                // Small segments, so that what was appended can be deleted.
                config: Arc::new(LogConfig { segment_bytes: 4 << 20, ..LogConfig::default() }),
                leader_epoch: LeaderEpoch(0),
                recovery_point: Offset(0),
                log_start: Offset(0),
                clean: false,
            };
            let partition = core.open_partition(new).await.unwrap();
            core.begin().await.unwrap();
            (core, partition)
        });
        let batch = Bytes::from(batch(batch_bytes, value_bytes));
        let header = BatchHeader::parse(&batch).unwrap();
        let mut appends = Self { simulation, core, partition, batch, header, answers: Vec::new() };
        appends.answers.reserve(appends.step_batches());
        // Memory that nobody has touched yet is dear, and no round of the journal's is like its first.
        for _ in 0..=TAIL_BYTES / STEP_BYTES_MAX {
            appends.append(appends.step_batches());
            appends.settle();
        }
        appends
    }

    /// How many batches a step may append.
    #[must_use]
    pub fn step_batches(&self) -> usize {
        STEP_BYTES_MAX / self.batch.len()
    }

    /// The bytes of each.
    #[must_use]
    pub fn batch_bytes(&self) -> usize {
        self.batch.len()
    }

    /// Measured: appends so many batches, as a connection's task on the partition's core does.
    pub fn append(&mut self, count: usize) {
        for _ in 0..count {
            let (reply, answer) = oneshot::channel();
            let append = Append {
                partition: self.partition.id,
                batch: self.batch.clone(),
                header: self.header,
                acks: Acks::All,
                reply: reply.into(),
            };
            self.core.append(append);
            self.answers.push(answer);
        }
    }

    /// Not measured: all that was appended becomes durable and is answered; returns the last offset.
    pub(crate) fn commit(&mut self) -> Offset {
        let answers: Vec<_> = self.answers.drain(..).collect();
        self.simulation.block_on(async {
            let mut last = None;
            for answer in answers {
                last = Some(answer.await.unwrap().unwrap());
            }
            last.map_or(Offset(0), |appended| appended.next_offset)
        })
    }

    /// Not measured: the same, and then it is deleted, so that the simulated disk does not fill memory.
    pub fn settle(&mut self) {
        let end = self.commit();
        let (core, id) = (self.core.clone(), self.partition.id);
        self.simulation.block_on(async move {
            core.delete_records(id, end).await.unwrap();
            core.retain().await.unwrap();
        });
    }
}
