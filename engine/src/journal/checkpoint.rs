//! What a core knew when it last freed journal space: where replay starts, and each partition's recovery point and log start.
//! A text file, replaced as a whole. Pure.

use std::fmt::Write as _;

use thiserror::Error;

use crate::disk::BLOCK_BYTES;
use crate::journal::format::JournalId;
use crate::types::{Offset, PartitionId, TopicId};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The journal file's id.
    pub journal: JournalId,
    /// The number in the journal file's name.
    pub generation: u64,
    /// The first round that is still needed: the sequence that it follows …
    pub previous: u64,
    /// … and its position in the file, where a block starts.
    pub position: u64,
    /// Each partition's recovery point and log start offset.
    pub partitions: Vec<(PartitionId, Offset, Offset)>,
}

/// Why a checkpoint cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {what}")]
pub struct CheckpointError {
    line: usize,
    what: String,
}

const VERSION: &str = "ringlog-journal-checkpoint 1";

impl Checkpoint {
    /// The file's text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(200 + self.partitions.len() * 64);
        let journal = uuid::Uuid::from_bytes(self.journal.0);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{VERSION}\n{journal} {} {} {}", self.generation, self.previous, self.position);
        for (id, recovery_point, log_start) in &self.partitions {
            let _ = writeln!(text, "{} {} {recovery_point} {log_start}", id.topic, id.index);
        }
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc {crc:08x}");
        text
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// Names the first line that is wrong.
    pub fn decode(text: &str) -> Result<Self, CheckpointError> {
        let error = |line: usize, what: &str| CheckpointError { line, what: what.to_owned() };
        let body_len = text.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
        let (body, last) = text.split_at(body_len);
        let lines_in_body = body.lines().count();
        if last.trim_end() != format!("crc {:08x}", crc32c::crc32c(body.as_bytes())) {
            return Err(error(lines_in_body + 1, "the CRC is wrong"));
        }
        let mut lines = body.lines();
        match lines.next() {
            Some(VERSION) => {}
            _ => return Err(error(1, "not a checkpoint of a journal, or one of a newer version")),
        }
        let head: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let [journal, generation, previous, position] = head[..] else {
            return Err(error(2, "expected: journal id, generation, previous sequence, position"));
        };
        let number = |line, text: &str| text.parse::<u64>().map_err(|_| error(line, "not a number"));
        let mut checkpoint = Self {
            journal: JournalId(uuid(journal).ok_or_else(|| error(2, "not an id"))?),
            generation: number(2, generation)?,
            previous: number(2, previous)?,
            position: number(2, position)?,
            partitions: Vec::new(),
        };
        if !checkpoint.position.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(error(2, "no round is at this position: rounds start at a block"));
        }
        for (at, line) in lines.enumerate() {
            let fields: Vec<&str> = line.split(' ').collect();
            let parsed = match fields[..] {
                [topic, index, recovery_point, log_start] => (|| {
                    let topic = TopicId(uuid(topic)?);
                    let id = PartitionId { topic, index: index.parse().ok()? };
                    Some((id, Offset(recovery_point.parse().ok()?), Offset(log_start.parse().ok()?)))
                })(),
                _ => None,
            };
            let what = "expected: topic id, partition, recovery point, log start";
            checkpoint.partitions.push(parsed.ok_or_else(|| error(at + 3, what))?);
        }
        Ok(checkpoint)
    }
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    uuid::Uuid::parse_str(text).ok().map(uuid::Uuid::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_position_within_a_block_is_refused() {
        let text = Checkpoint { position: BLOCK_BYTES as u64 + 8, ..Checkpoint::default() }.encode();
        assert_eq!(Checkpoint::decode(&text).unwrap_err().line, 2);
    }

    proptest! {
        #[test]
        fn checkpoints_come_back(
            id in any::<[u8; 16]>(), generation in any::<u64>(), previous in any::<u64>(), block in 0..u64::MAX / BLOCK_BYTES as u64,
            partitions in prop::collection::vec((any::<[u8; 16]>(), any::<i32>(), any::<i64>(), any::<i64>()), 0..5),
        ) {
            let partitions = partitions.into_iter()
                .map(|(topic, index, a, b)| (PartitionId { topic: TopicId(topic), index }, Offset(a), Offset(b))).collect();
            let position = block * BLOCK_BYTES as u64;
            let checkpoint = Checkpoint { journal: JournalId(id), generation, previous, position, partitions };
            prop_assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
        }

        #[test]
        fn damage_is_noticed(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let partition = (PartitionId { topic: TopicId([7; 16]), index: 3 }, Offset(10), Offset(5));
            let text = Checkpoint { previous: 5, partitions: vec![partition], ..Checkpoint::default() }.encode();
            let mut bytes = text.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(damaged) = String::from_utf8(bytes) && damaged.trim_end() != text.trim_end() {
                prop_assert!(Checkpoint::decode(&damaged).is_err());
            }
        }
    }
}
