//! The records of the metadata log, framed and numbered as Kafka's KRaft does (KIP-631), so that Kafka's tools can read the log.
//! The catalogue's state applies them and its commands make them; whoever owns the log encodes and decodes. Pure; never panics on bytes.
//!
//! A record's value is: the frame's version (unsigned varint, 1), the record's API key and version (unsigned varints), the body in
//! the flexible encoding of KIP-482. The records of one command belong into one record batch, which is there as a whole or not at all.

use ringlog_engine::types::{LeaderEpoch, TopicId};
use ringlog_protocol::primitives::{DecodeError, Decoder, Encoder, Encoding};
use thiserror::Error;

const FRAME_VERSION: u32 = 1;
/// Every record here is at its version 0, and every version 0 is flexible.
const RECORD_VERSION: u32 = 0;
const FLEXIBLE: Encoding = Encoding { version: 0, flexible: true };

/// [`ConfigRecord::resource_type`] of a topic, as in the protocol's ConfigResource.
pub const RESOURCE_TOPIC: i8 = 2;
/// [`ConfigRecord::resource_type`] of a broker.
pub const RESOURCE_BROKER: i8 = 4;
/// [`ConfigRecord::resource_type`] of a group.
pub const RESOURCE_GROUP: i8 = 32;

/// A new topic, without partitions yet. Key 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRecord {
    /// Its name.
    pub name: String,
    /// Its id.
    pub topic_id: TopicId,
}

/// A partition's whole state: a new partition, or a new state of one. Key 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRecord {
    /// The partition's number in the topic.
    pub partition: i32,
    /// The topic.
    pub topic_id: TopicId,
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub isr: Vec<i32>,
    /// Those that a reassignment takes away.
    pub removing_replicas: Vec<i32>,
    /// Those that a reassignment adds.
    pub adding_replicas: Vec<i32>,
    /// The leader; -1: none.
    pub leader: i32,
    /// Whether the leader was elected although it was not in sync, and has not caught up with that yet.
    pub is_leader_recovering: bool,
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
    /// How often this state changed.
    pub partition_epoch: i32,
}

/// What changed in a partition's state. Key 5. Naming a leader opens a new term, even if it is the leader that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionChangeRecord {
    /// The partition's number in the topic.
    pub partition: i32,
    /// The topic.
    pub topic_id: TopicId,
    /// The new in-sync set, if it changed.
    pub isr: Option<Vec<i32>>,
    /// The new leader, if there is one; -1: none any more.
    pub leader: Option<i32>,
}

/// A configuration value that was set, or (no value) taken back. Key 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRecord {
    /// What it is set on: [`RESOURCE_TOPIC`], [`RESOURCE_BROKER`], [`RESOURCE_GROUP`].
    pub resource_type: i8,
    /// The name of that.
    pub resource_name: String,
    /// The option.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
}

/// A block of producer ids was given to a broker. Key 15.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerIdsRecord {
    /// The broker.
    pub broker_id: i32,
    /// The broker's registration; -1: none.
    pub broker_epoch: i64,
    /// The first id behind the block.
    pub next_producer_id: i64,
}

/// The level at which a feature is used from here on. Key 12.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureLevelRecord {
    /// The feature.
    pub name: String,
    /// Its level; 0: not used.
    pub level: i16,
}

/// A record of the metadata log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataRecord {
    /// A new topic.
    Topic(TopicRecord),
    /// A partition's whole state.
    Partition(PartitionRecord),
    /// A configuration value.
    Config(ConfigRecord),
    /// A change of a partition's state.
    PartitionChange(PartitionChangeRecord),
    /// The end of a topic with its partitions and configuration. Key 9.
    RemoveTopic {
        /// The topic.
        topic_id: TopicId,
    },
    /// A feature's level.
    FeatureLevel(FeatureLevelRecord),
    /// A block of producer ids.
    ProducerIds(ProducerIdsRecord),
    /// Nothing. Key 20.
    NoOp,
}

/// Why bytes are no record of the metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The frame is of a kind that this version does not know.
    #[error("metadata record in a frame of version {0}, known is {FRAME_VERSION}")]
    UnsupportedFrame(u32),
    /// A record that this version does not know: a newer Ringlog, or Kafka, wrote it.
    #[error("metadata record with key {api_key} and version {version} is not known to this version of Ringlog")]
    Unsupported {
        /// Which record.
        api_key: u32,
        /// Its version.
        version: u32,
    },
    /// The body is not what its key says.
    #[error("malformed metadata record: {0}")]
    Malformed(#[from] DecodeError),
    /// The record ends before its bytes do.
    #[error("metadata record with {0} bytes behind its end")]
    TrailingBytes(usize),
    /// A field has a value that it cannot have.
    #[error("malformed metadata record: {0}")]
    Value(&'static str),
}

impl MetadataRecord {
    fn api_key(&self) -> u32 {
        match self {
            Self::Topic(_) => 2,
            Self::Partition(_) => 3,
            Self::Config(_) => 4,
            Self::PartitionChange(_) => 5,
            Self::RemoveTopic { .. } => 9,
            Self::FeatureLevel(_) => 12,
            Self::ProducerIds(_) => 15,
            Self::NoOp => 20,
        }
    }

    /// The value of the log's record, frame included.
    ///
    /// # Panics
    /// If a string is longer than 32767 bytes: commands refuse such.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::new();
        to.unsigned_varint(FRAME_VERSION);
        to.unsigned_varint(self.api_key());
        to.unsigned_varint(RECORD_VERSION);
        match self {
            Self::Topic(record) => {
                to.string(&record.name, FLEXIBLE);
                to.uuid(&record.topic_id.0);
                to.unsigned_varint(0);
            }
            Self::Partition(record) => {
                to.int32(record.partition);
                to.uuid(&record.topic_id.0);
                for ids in [&record.replicas, &record.isr, &record.removing_replicas, &record.adding_replicas] {
                    encode_ids(&mut to, ids);
                }
                to.int32(record.leader);
                to.int32(record.leader_epoch.0);
                to.int32(record.partition_epoch);
                to.unsigned_varint(u32::from(record.is_leader_recovering));
                if record.is_leader_recovering {
                    to.tagged_field(0, |to| to.int8(1));
                }
            }
            Self::Config(record) => {
                to.int8(record.resource_type);
                to.string(&record.resource_name, FLEXIBLE);
                to.string(&record.name, FLEXIBLE);
                to.string_nullable(record.value.as_deref(), FLEXIBLE);
                to.unsigned_varint(0);
            }
            Self::PartitionChange(record) => {
                to.int32(record.partition);
                to.uuid(&record.topic_id.0);
                to.unsigned_varint(u32::from(record.isr.is_some()) + u32::from(record.leader.is_some()));
                if let Some(isr) = &record.isr {
                    to.tagged_field(0, |to| encode_ids(to, isr));
                }
                if let Some(leader) = record.leader {
                    to.tagged_field(1, |to| to.int32(leader));
                }
            }
            Self::RemoveTopic { topic_id } => {
                to.uuid(&topic_id.0);
                to.unsigned_varint(0);
            }
            Self::FeatureLevel(record) => {
                to.string(&record.name, FLEXIBLE);
                to.int16(record.level);
                to.unsigned_varint(0);
            }
            Self::ProducerIds(record) => {
                to.int32(record.broker_id);
                to.int64(record.broker_epoch);
                to.int64(record.next_producer_id);
                to.unsigned_varint(0);
            }
            Self::NoOp => to.unsigned_varint(0),
        }
        to.into_buffer()
    }

    /// Reads the value of one of the log's records. Tagged fields that this version does not know are skipped, as KIP-482 has it.
    ///
    /// # Errors
    /// The bytes are something else, or a record that this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Decoder::new(bytes);
        let frame = from.unsigned_varint()?;
        if frame != FRAME_VERSION {
            return Err(RecordError::UnsupportedFrame(frame));
        }
        let api_key = from.unsigned_varint()?;
        let version = from.unsigned_varint()?;
        if version != RECORD_VERSION {
            return Err(RecordError::Unsupported { api_key, version });
        }
        let record = match api_key {
            2 => {
                let record = TopicRecord { name: from.string(FLEXIBLE)?.into_owned(), topic_id: topic_id(&mut from)? };
                skip_tagged(&mut from)?;
                Self::Topic(record)
            }
            3 => Self::Partition(decode_partition(&mut from)?),
            4 => {
                let record = ConfigRecord {
                    resource_type: from.int8()?,
                    resource_name: from.string(FLEXIBLE)?.into_owned(),
                    name: from.string(FLEXIBLE)?.into_owned(),
                    value: from.string_nullable(FLEXIBLE)?.map(Into::into),
                };
                skip_tagged(&mut from)?;
                Self::Config(record)
            }
            5 => Self::PartitionChange(decode_partition_change(&mut from)?),
            9 => {
                let topic_id = topic_id(&mut from)?;
                skip_tagged(&mut from)?;
                Self::RemoveTopic { topic_id }
            }
            12 => {
                let record = FeatureLevelRecord { name: from.string(FLEXIBLE)?.into_owned(), level: from.int16()? };
                skip_tagged(&mut from)?;
                Self::FeatureLevel(record)
            }
            15 => {
                let record =
                    ProducerIdsRecord { broker_id: from.int32()?, broker_epoch: from.int64()?, next_producer_id: from.int64()? };
                skip_tagged(&mut from)?;
                Self::ProducerIds(record)
            }
            20 => {
                skip_tagged(&mut from)?;
                Self::NoOp
            }
            _ => return Err(RecordError::Unsupported { api_key, version }),
        };
        if from.remaining() == 0 { Ok(record) } else { Err(RecordError::TrailingBytes(from.remaining())) }
    }
}

fn decode_partition(from: &mut Decoder<'_>) -> Result<PartitionRecord, RecordError> {
    let mut record = PartitionRecord {
        partition: from.int32()?,
        topic_id: topic_id(from)?,
        replicas: decode_ids(from)?,
        isr: decode_ids(from)?,
        removing_replicas: decode_ids(from)?,
        adding_replicas: decode_ids(from)?,
        leader: from.int32()?,
        is_leader_recovering: false,
        leader_epoch: LeaderEpoch(from.int32()?),
        partition_epoch: from.int32()?,
    };
    let mut recovery_state = 0;
    from.tagged_fields(|tag, value| {
        if tag == 0 {
            recovery_state = value.int8()?;
        }
        Ok(tag == 0)
    })?;
    record.is_leader_recovering = match recovery_state {
        0 => false,
        1 => true,
        _ => return Err(RecordError::Value("the leader recovery state is neither 0 nor 1")),
    };
    Ok(record)
}

fn decode_partition_change(from: &mut Decoder<'_>) -> Result<PartitionChangeRecord, RecordError> {
    let mut record = PartitionChangeRecord { partition: from.int32()?, topic_id: topic_id(from)?, isr: None, leader: None };
    let mut has_unknown = false;
    from.tagged_fields(|tag, value| {
        match tag {
            0 => record.isr = decode_ids_nullable(value)?,
            1 => record.leader = Some(value.int32()?).filter(|leader| *leader != -2), // -2: no change
            _ => {
                has_unknown = true;
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    // Unlike elsewhere, a tag that is skipped here would be a change that is not made.
    if has_unknown { Err(RecordError::Value("a change of a partition that this version does not know")) } else { Ok(record) }
}

fn topic_id(from: &mut Decoder<'_>) -> Result<TopicId, DecodeError> {
    Ok(TopicId(from.uuid()?))
}

fn skip_tagged(from: &mut Decoder<'_>) -> Result<(), DecodeError> {
    from.tagged_fields(|_, _| Ok(false))
}

fn encode_ids(to: &mut Encoder, ids: &[i32]) {
    to.array_count(Some(ids.len()), FLEXIBLE);
    for id in ids {
        to.int32(*id);
    }
}

fn decode_ids_nullable(from: &mut Decoder<'_>) -> Result<Option<Vec<i32>>, DecodeError> {
    let Some(count) = from.array_count(FLEXIBLE, 4)? else { return Ok(None) };
    (0..count).map(|_| from.int32()).collect::<Result<_, _>>().map(Some)
}

fn decode_ids(from: &mut Decoder<'_>) -> Result<Vec<i32>, DecodeError> {
    decode_ids_nullable(from)?.ok_or(DecodeError::UnexpectedNull("broker ids"))
}
