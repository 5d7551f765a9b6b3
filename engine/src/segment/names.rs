//! The names in a data directory, Kafka's: a segment's files after its base offset, partition folders after topic and
//! number, and what a topic may be called. Pure; whoever lists or makes files uses it.

use thiserror::Error;

use crate::types::Offset;

/// In a data directory: where recovery of each partition starts.
pub const RECOVERY_POINT_FILE: &str = "recovery-point-offset-checkpoint";
/// In a data directory: each partition's log start offset.
pub const LOG_START_FILE: &str = "log-start-offset-checkpoint";
/// In a data directory: each partition's high watermark.
pub const HIGH_WATERMARK_FILE: &str = "replication-offset-checkpoint";
/// In a data directory: up to where each partition is compacted.
pub const CLEANER_FILE: &str = "cleaner-offset-checkpoint";
/// In a data directory: whose it is.
pub const META_PROPERTIES_FILE: &str = "meta.properties";
/// In a data directory: there after a clean stop.
pub const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";
/// In a data directory: locked by the process that uses it.
pub const LOCK_FILE: &str = ".lock";
/// In a partition's folder: the start of each leader epoch.
pub const EPOCHS_FILE: &str = "leader-epoch-checkpoint";
/// In a partition's folder: the topic's id.
pub const PARTITION_METADATA_FILE: &str = "partition.metadata";

/// The suffix of a segment's record batches.
pub const LOG_SUFFIX: &str = ".log";
/// The suffix of its offset index.
pub const INDEX_SUFFIX: &str = ".index";
/// The suffix of its time index.
pub const TIME_INDEX_SUFFIX: &str = ".timeindex";
/// The suffix of its list of aborted transactions.
pub const TRANSACTION_INDEX_SUFFIX: &str = ".txnindex";
/// The suffix of a producer snapshot.
pub const SNAPSHOT_SUFFIX: &str = ".snapshot";

/// The digits of a base offset in a file name.
const OFFSET_DIGITS: usize = 20;
/// The longest name of a topic: with `-` and a partition's number it is still a file name.
pub const TOPIC_BYTES_MAX: usize = 249;
/// The longest name of a file or folder (`NAME_MAX` of Linux).
const NAME_BYTES_MAX: usize = 255;

/// What a file of a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// The record batches.
    Log,
    /// Offset → position.
    OffsetIndex,
    /// Timestamp → offset.
    TimeIndex,
    /// Aborted transactions.
    TransactionIndex,
    /// The producers' state before the base offset.
    ProducerSnapshot,
}

impl FileKind {
    const ALL: [Self; 5] = [Self::Log, Self::OffsetIndex, Self::TimeIndex, Self::TransactionIndex, Self::ProducerSnapshot];

    /// The suffix, with its dot.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Log => LOG_SUFFIX,
            Self::OffsetIndex => INDEX_SUFFIX,
            Self::TimeIndex => TIME_INDEX_SUFFIX,
            Self::TransactionIndex => TRANSACTION_INDEX_SUFFIX,
            Self::ProducerSnapshot => SNAPSHOT_SUFFIX,
        }
    }
}

/// Where a file is on its way in or out; each is a suffix after the kind's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileState {
    /// In use.
    Live,
    /// To be removed; at start it goes.
    Deleted,
    /// Being written by compaction; at start it goes.
    Cleaned,
    /// Complete, about to take the place of what it was made of; at start that is finished.
    Swap,
}

impl FileState {
    const ALL: [Self; 4] = [Self::Live, Self::Deleted, Self::Cleaned, Self::Swap];

    /// The suffix, with its dot; none for a file in use.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Live => "",
            Self::Deleted => ".deleted",
            Self::Cleaned => ".cleaned",
            Self::Swap => ".swap",
        }
    }
}

/// A file of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentFile {
    /// The base offset of the segment (of a snapshot: the offset after the last one it knows).
    pub base_offset: Offset,
    /// What it holds.
    pub kind: FileKind,
    /// Whether it is in use.
    pub state: FileState,
}

impl SegmentFile {
    /// A file in use.
    #[must_use]
    pub fn new(base_offset: Offset, kind: FileKind) -> Self {
        Self { base_offset, kind, state: FileState::Live }
    }

    /// The same file in another state.
    #[must_use]
    pub fn with_state(self, state: FileState) -> Self {
        Self { state, ..self }
    }

    /// Its name.
    ///
    /// # Panics
    /// When the base offset is negative.
    #[must_use]
    pub fn name(&self) -> String {
        assert!(self.base_offset.0 >= 0, "offsets in file names are not negative");
        format!("{:0OFFSET_DIGITS$}{}{}", self.base_offset.0, self.kind.suffix(), self.state.suffix())
    }

    /// The file with this name; `None` where it is not a segment's.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (digits, suffix) = name.split_at_checked(OFFSET_DIGITS)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let base_offset = Offset(digits.parse().ok()?);
        for kind in FileKind::ALL {
            if let Some(rest) = suffix.strip_prefix(kind.suffix()) {
                let state = FileState::ALL.into_iter().find(|state| state.suffix() == rest)?;
                return Some(Self { base_offset, kind, state });
            }
        }
        None
    }
}

/// The name of a segment's log file.
#[must_use]
pub fn log_file_name(base_offset: Offset) -> String {
    SegmentFile::new(base_offset, FileKind::Log).name()
}

/// The name of the producer snapshot of what lies below `offset`.
#[must_use]
pub fn snapshot_file_name(offset: Offset) -> String {
    SegmentFile::new(offset, FileKind::ProducerSnapshot).name()
}

/// The base offset in the name of a log file that is in use.
#[must_use]
pub fn parse_log_file_name(name: &str) -> Option<Offset> {
    live(name, FileKind::Log)
}

/// The offset in the name of a producer snapshot that is in use.
#[must_use]
pub fn parse_snapshot_file_name(name: &str) -> Option<Offset> {
    live(name, FileKind::ProducerSnapshot)
}

fn live(name: &str, kind: FileKind) -> Option<Offset> {
    let file = SegmentFile::parse(name)?;
    (file.kind == kind && file.state == FileState::Live).then_some(file.base_offset)
}

/// What a partition's folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderRole<'a> {
    /// It holds a partition.
    Live,
    /// A deleted partition that is still to be removed; the id keeps it apart from one that comes back.
    Deleted(&'a str),
    /// A partition that does not belong here any more.
    Stray(&'a str),
    /// A replica that will replace one in another data directory.
    Future(&'a str),
}

/// A partition's folder: `<topic>-<n>`, or `<topic>-<n>.<id>-delete` and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionFolder<'a> {
    /// The topic. Where the folder is not a live one, a long name may be cut short.
    pub topic: &'a str,
    /// The partition's number.
    pub index: i32,
    /// What it is for.
    pub role: FolderRole<'a>,
}

impl<'a> PartitionFolder<'a> {
    /// The folder of a partition.
    #[must_use]
    pub fn live(topic: &'a str, index: i32) -> Self {
        Self { topic, index, role: FolderRole::Live }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        let (id, role) = match self.role {
            FolderRole::Live => return format!("{}-{}", self.topic, self.index),
            FolderRole::Deleted(id) => (id, "delete"),
            FolderRole::Stray(id) => (id, "stray"),
            FolderRole::Future(id) => (id, "future"),
        };
        let suffix = format!("-{}.{id}-{role}", self.index);
        let room = NAME_BYTES_MAX.saturating_sub(suffix.len());
        let topic = self.topic.get(..room.min(self.topic.len())).unwrap_or_default();
        format!("{topic}{suffix}")
    }

    /// The partition folder with this name; `None` where it is not one.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        for suffix in ["-delete", "-stray", "-future"] {
            if let Some(rest) = name.strip_suffix(suffix) {
                let (partition, id) = rest.rsplit_once('.')?;
                let Self { topic, index, .. } = Self::parse_live(partition)?;
                let role = match suffix {
                    "-delete" => FolderRole::Deleted(id),
                    "-stray" => FolderRole::Stray(id),
                    _ => FolderRole::Future(id),
                };
                return (!id.is_empty()).then_some(Self { topic, index, role });
            }
        }
        Self::parse_live(name)
    }

    fn parse_live(name: &'a str) -> Option<Self> {
        let (topic, number) = name.rsplit_once('-')?;
        check_topic_name(topic).ok()?;
        // Only how a number is written: "+1" and "01" would be other folders for the same partition.
        let canonical = number.bytes().all(|byte| byte.is_ascii_digit()) && (number == "0" || !number.starts_with('0'));
        canonical.then_some(Self { topic, index: number.parse().ok()?, role: FolderRole::Live })
    }
}

/// Why a topic may not be called so (`INVALID_TOPIC_EXCEPTION`, 17).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TopicNameError {
    /// No name at all.
    #[error("topic name is empty")]
    Empty,
    /// `.` or `..`, which are folders already.
    #[error("topic name cannot be \".\" or \"..\"")]
    Dots,
    /// Longer than [`TOPIC_BYTES_MAX`].
    #[error("topic name is {0} characters long, more than {TOPIC_BYTES_MAX}")]
    TooLong(usize),
    /// A character that it may not have.
    #[error("topic name has the character {0:?}, only ASCII letters and digits, '.', '_' and '-' are allowed")]
    Character(char),
}

/// Checks a topic's name as Kafka does.
///
/// # Errors
/// [`TopicNameError`], the first reason there is.
pub fn check_topic_name(name: &str) -> Result<(), TopicNameError> {
    match name {
        "" => return Err(TopicNameError::Empty),
        "." | ".." => return Err(TopicNameError::Dots),
        _ if name.len() > TOPIC_BYTES_MAX => return Err(TopicNameError::TooLong(name.chars().count())),
        _ => {}
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(c) => Err(TopicNameError::Character(c)),
        None => Ok(()),
    }
}

/// What two topics share that cannot both exist: their metrics have the same name, since `.` becomes `_` there.
#[must_use]
pub fn topic_collision_key(name: &str) -> String {
    name.replace('.', "_")
}

/// Whether the topic is the cluster's own and not for producers.
#[must_use]
pub fn is_internal_topic(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state" | "__cluster_metadata")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn segment_files_have_kafkas_names() {
        let file = SegmentFile::new(Offset(123), FileKind::Log);
        assert_eq!(file.name(), "00000000000000000123.log");
        assert_eq!(file.with_state(FileState::Deleted).name(), "00000000000000000123.log.deleted");
        let names = [
            "09223372036854775807.index.swap",
            "00000000000000000000.timeindex.cleaned",
            "00000000000000000000.txnindex",
            "00000000000000000000.snapshot.deleted",
        ];
        for name in names {
            assert_eq!(SegmentFile::parse(name).unwrap().name(), name);
        }
        assert_eq!(parse_log_file_name(&log_file_name(Offset(7))), Some(Offset(7)));
        assert_eq!(parse_snapshot_file_name(&snapshot_file_name(Offset(7))), Some(Offset(7)));
        assert_eq!(parse_log_file_name("00000000000000000007.log.deleted"), None);
        assert_eq!(parse_log_file_name("00000000000000000007.index"), None);
        let others = [
            "",
            "0.log",
            "00000000000000000000",
            "00000000000000000000.lo",
            "00000000000000000000.log.tmp",
            "+0000000000000000000.log",
            "-0000000000000000001.log",
            "99999999999999999999.log",
            "000000000000000000000.log",
            "0000000000000000000é.log",
            "leader-epoch-checkpoint",
        ];
        for name in others {
            assert_eq!(SegmentFile::parse(name), None, "{name}");
        }
    }

    #[test]
    fn partition_folders_have_kafkas_names() {
        let folder = PartitionFolder::parse("my-topic.v2-17").unwrap();
        assert_eq!(folder, PartitionFolder::live("my-topic.v2", 17));
        let id = "0123456789abcdef0123456789abcdef";
        let name = format!("my.topic-3.{id}-delete");
        let folder = PartitionFolder::parse(&name).unwrap();
        assert_eq!((folder.topic, folder.index, folder.role), ("my.topic", 3, FolderRole::Deleted(id)));
        assert_eq!(folder.name(), name);
        for name in ["t-0.x-stray", "t-0.x-future", "t-2147483647"] {
            assert_eq!(PartitionFolder::parse(name).unwrap().name(), name);
        }
        let others =
            ["", "-", "-1", "t", "t-", "t-x", "t--", "t-+1", "t-01", "t-2147483648", "t-0.-delete", "t-0-delete", "t x-0"];
        for name in others {
            assert_eq!(PartitionFolder::parse(name), None, "{name}");
        }
        let long = "t".repeat(TOPIC_BYTES_MAX);
        let name = PartitionFolder { topic: &long, index: 5, role: FolderRole::Deleted(id) }.name();
        assert_eq!(name.len(), NAME_BYTES_MAX);
        assert_eq!(PartitionFolder::parse(&name).unwrap().index, 5);
    }

    #[test]
    fn topics_are_called_what_kafka_allows() {
        assert_eq!(check_topic_name("A-z_0.9"), Ok(()));
        assert_eq!(check_topic_name(&"t".repeat(249)), Ok(()));
        assert_eq!(check_topic_name(&"t".repeat(250)), Err(TopicNameError::TooLong(250)));
        assert_eq!(check_topic_name(""), Err(TopicNameError::Empty));
        assert_eq!(check_topic_name(".."), Err(TopicNameError::Dots));
        assert_eq!(check_topic_name("..."), Ok(()));
        assert_eq!(check_topic_name("a/b"), Err(TopicNameError::Character('/')));
        assert_eq!(check_topic_name("é"), Err(TopicNameError::Character('é')));
        assert_eq!(topic_collision_key("a.b_c"), topic_collision_key("a_b.c"));
        assert_ne!(topic_collision_key("a.b"), topic_collision_key("a-b"));
    }

    proptest! {
        #[test]
        fn names_are_read_back(base in 0..=i64::MAX, kind in 0usize..5, state in 0usize..4, index in 0..=i32::MAX,
            topic in "[a-zA-Z0-9._-]{1,249}", id in "[0-9a-f]{32}", role in 0..4) {
            let file = SegmentFile { base_offset: Offset(base), kind: FileKind::ALL[kind], state: FileState::ALL[state] };
            prop_assert_eq!(SegmentFile::parse(&file.name()), Some(file));
            prop_assume!(check_topic_name(&topic).is_ok());
            let role = match role {
                0 => FolderRole::Live,
                1 => FolderRole::Deleted(&id),
                2 => FolderRole::Stray(&id),
                _ => FolderRole::Future(&id),
            };
            let folder = PartitionFolder { topic: &topic, index, role };
            let name = folder.name();
            let read = PartitionFolder::parse(&name);
            if topic.len() < 200 {
                prop_assert_eq!(read, Some(folder));
            } else {
                prop_assert_eq!(read.map(|read| (read.index, read.role)), Some((index, role)));
            }
        }

        #[test]
        fn any_name_is_read_or_refused(name in "\\PC{0,40}") {
            let _ = SegmentFile::parse(&name);
            let _ = PartitionFolder::parse(&name);
            let _ = check_topic_name(&name);
        }
    }
}
