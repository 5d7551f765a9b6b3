//! The text files of a data directory, in Kafka's formats: checkpoints of offsets, `partition.metadata` and
//! `meta.properties`. Pure: text in, values out and back. Errors name the line, for whoever has to repair it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;

use crate::types::{Offset, TopicId};

/// What is wrong with a text file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {reason}")]
pub struct CheckpointError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// A line of a checkpoint file.
pub(crate) struct Line<'a> {
    number: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    pub(crate) fn error(&self, reason: impl Into<String>) -> CheckpointError {
        CheckpointError { line: self.number, reason: reason.into() }
    }

    /// The line's fields, which must be so many.
    pub(crate) fn fields<const N: usize>(&self) -> Result<[&'a str; N], CheckpointError> {
        let mut words = self.text.split_whitespace();
        let mut fields = [""; N];
        for field in &mut fields {
            *field = words.next().ok_or_else(|| self.error(format!("fewer than {N} fields in {:?}", self.text)))?;
        }
        match words.next() {
            None => Ok(fields),
            Some(_) => Err(self.error(format!("more than {N} fields in {:?}", self.text))),
        }
    }

    /// A number that is not negative.
    pub(crate) fn number<T: FromStr + Default + PartialOrd>(&self, what: &str, text: &str) -> Result<T, CheckpointError> {
        match text.parse::<T>() {
            Ok(number) if number >= T::default() => Ok(number),
            _ => Err(self.error(format!("{what} {text:?} is not a number from 0 on"))),
        }
    }
}

/// Reads a checkpoint: a line with the version, one with the number of entries, and a line for each. An empty file, or one
/// that ends after the version, has no entries, as for Kafka.
pub(crate) fn parse_lines<'a>(
    text: &'a str,
    version: i32,
    mut entry: impl FnMut(&Line<'a>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let mut lines = (1..).zip(text.lines()).map(|(number, text)| Line { number, text });
    let Some(first) = lines.next() else { return Ok(()) };
    let found: i32 = first.number("version", first.text)?;
    if found != version {
        return Err(first.error(format!("version {found} is not known, only {version}")));
    }
    let Some(second) = lines.next() else { return Ok(()) };
    let count: usize = second.number("number of entries", second.text)?;
    let mut read = 0;
    let mut last = second.number;
    for line in lines {
        if read == count {
            return Err(line.error(format!("more than the {count} entries that line 2 says")));
        }
        entry(&line)?;
        (read, last) = (read + 1, line.number);
    }
    if read < count {
        let reason = format!("the file ends after {read} of the {count} entries that line 2 says");
        return Err(CheckpointError { line: last, reason });
    }
    Ok(())
}

pub(crate) fn encode_lines(version: i32, entries: impl ExactSizeIterator<Item = String>) -> String {
    let mut text = format!("{version}\n{}\n", entries.len());
    for entry in entries {
        text.push_str(&entry);
        text.push('\n');
    }
    text
}

/// An offset for each partition, by topic name and partition number: the content of the three checkpoints of a data
/// directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetCheckpoint {
    /// The offsets, in the order in which they are written.
    pub offsets: BTreeMap<(String, i32), Offset>,
}

impl OffsetCheckpoint {
    /// Reads the file.
    ///
    /// # Errors
    /// [`CheckpointError`] where it is not one, or names a partition twice.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut offsets = BTreeMap::new();
        parse_lines(text, 0, |line| {
            let [topic, partition, offset] = line.fields()?;
            let key = (topic.to_owned(), line.number("partition", partition)?);
            let offset = Offset(line.number("offset", offset)?);
            match offsets.insert(key, offset) {
                None => Ok(()),
                Some(_) => Err(line.error(format!("{topic} {partition} is there twice"))),
            }
        })?;
        Ok(Self { offsets })
    }

    /// The file's text.
    #[must_use]
    pub fn encode(&self) -> String {
        let line = |((topic, partition), offset): (&(String, i32), &Offset)| format!("{topic} {partition} {offset}");
        encode_lines(0, self.offsets.iter().map(line))
    }
}

/// A UUID as Kafka writes it: base64url, 22 characters.
#[must_use]
pub fn encode_uuid(uuid: &[u8; 16]) -> String {
    URL_SAFE_NO_PAD.encode(uuid)
}

/// The UUID in Kafka's text, if it is one.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// Reads a `partition.metadata`.
///
/// # Errors
/// [`CheckpointError`] where it is not one.
pub fn parse_partition_metadata(text: &str) -> Result<TopicId, CheckpointError> {
    let mut lines = (1..).zip(text.lines()).map(|(number, text)| Line { number, text });
    let mut field = |name: &str| {
        let line = lines.next().unwrap_or(Line { number: 1, text: "" });
        match line.text.split_once(':') {
            Some((key, value)) if key.trim() == name => Ok((line.number, value.trim())),
            _ => Err(line.error(format!("{:?} is not \"{name}: ...\"", line.text))),
        }
    };
    let (line, version) = field("version")?;
    if version != "0" {
        return Err(CheckpointError { line, reason: format!("version {version:?} is not known, only 0") });
    }
    let (line, id) = field("topic_id")?;
    match parse_uuid(id) {
        Some(id) if id != [0; 16] => Ok(TopicId(id)),
        _ => Err(CheckpointError { line, reason: format!("{id:?} is not a topic id") }),
    }
}

/// The text of a `partition.metadata`.
#[must_use]
pub fn encode_partition_metadata(topic: TopicId) -> String {
    format!("version: 0\ntopic_id: {}", encode_uuid(&topic.0))
}

/// `meta.properties`: whose data directory it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// The cluster's id, a UUID as text by custom.
    pub cluster_id: String,
    /// The broker's number.
    pub node_id: i32,
    /// This directory's id.
    pub directory_id: Option<[u8; 16]>,
    /// What else there is, by name.
    pub others: BTreeMap<String, String>,
}

impl MetaProperties {
    /// Reads the file: version 1, what Kafka writes since KRaft.
    ///
    /// # Errors
    /// [`CheckpointError`] where it is not one.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut properties = BTreeMap::new();
        let mut last = 1;
        for (number, text) in (1..).zip(text.lines()) {
            last = number;
            let text = text.trim_start();
            if text.is_empty() || text.starts_with(['#', '!']) {
                continue;
            }
            let line = Line { number, text };
            let Some((key, value)) = text.split_once('=') else {
                return Err(line.error(format!("{text:?} is not \"name=value\"")));
            };
            if properties.insert(key.trim().to_owned(), (number, value.trim().to_owned())).is_some() {
                return Err(line.error(format!("{:?} is there twice", key.trim())));
            }
        }
        let mut take = |name: &str| {
            properties.remove(name).ok_or_else(|| CheckpointError { line: last, reason: format!("{name} is missing") })
        };
        let (line, version) = take("version")?;
        if version != "1" {
            return Err(CheckpointError { line, reason: format!("version {version:?} is not known, only 1") });
        }
        let (line, cluster_id) = take("cluster.id")?;
        if cluster_id.is_empty() {
            return Err(CheckpointError { line, reason: "cluster.id is empty".into() });
        }
        let (number, node_id) = take("node.id")?;
        let node_id = Line { number, text: &node_id }.number("node.id", &node_id)?;
        let directory_id = match take("directory.id") {
            Ok((line, text)) => Some(parse_uuid(&text).ok_or_else(|| CheckpointError {
                line,
                reason: format!("directory.id {text:?} is not 22 characters of base64url"),
            })?),
            Err(_) => None,
        };
        let others = properties.into_iter().map(|(key, (_, value))| (key, value)).collect();
        Ok(Self { cluster_id, node_id, directory_id, others })
    }

    /// The file's text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("version=1\ncluster.id={}\nnode.id={}\n", self.cluster_id, self.node_id);
        let directory = self.directory_id.as_ref().map(encode_uuid);
        let others = self.others.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        for (key, value) in directory.iter().map(|id| ("directory.id", id.as_str())).chain(others) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{key}={value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        OffsetCheckpoint::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn offsets_are_read_and_written_as_kafka_does() {
        let text = "0\n2\na-topic 0 17\nb 3 0\n";
        let read = OffsetCheckpoint::parse(text).unwrap();
        assert_eq!(read.offsets[&("a-topic".to_owned(), 0)], Offset(17));
        assert_eq!(read.encode(), text);
        for empty in ["", "0", "0\n", "0\n0", "0\r\n0\r\n"] {
            assert_eq!(OffsetCheckpoint::parse(empty), Ok(OffsetCheckpoint::default()), "{empty:?}");
        }
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(error("x"), "line 1: version \"x\" is not a number from 0 on");
        assert_eq!(error("1\n0\n"), "line 1: version 1 is not known, only 0");
        assert_eq!(error("0\n-1\n"), "line 2: number of entries \"-1\" is not a number from 0 on");
        assert_eq!(error("0\n2\nt 0 1\n"), "line 3: the file ends after 1 of the 2 entries that line 2 says");
        assert_eq!(error("0\n1\nt 0 1\nt 1 1\n"), "line 4: more than the 1 entries that line 2 says");
        assert_eq!(error("0\n1\nt 0\n"), "line 3: fewer than 3 fields in \"t 0\"");
        assert_eq!(error("0\n1\nt 0 1 2\n"), "line 3: more than 3 fields in \"t 0 1 2\"");
        assert_eq!(error("0\n1\nt x 1\n"), "line 3: partition \"x\" is not a number from 0 on");
        assert_eq!(error("0\n1\nt 0 -1\n"), "line 3: offset \"-1\" is not a number from 0 on");
        assert_eq!(error("0\n2\nt 0 1\nt 0 2\n"), "line 4: t 0 is there twice");
        assert_eq!(error("0\n99999999999999999999999\n").split(':').next(), Some("line 2"));
    }

    #[test]
    fn partition_metadata_is_kafkas() {
        let id = TopicId([0xfb; 16]);
        let text = encode_partition_metadata(id);
        assert_eq!(text, "version: 0\ntopic_id: -_v7-_v7-_v7-_v7-_v7-w");
        assert_eq!(parse_partition_metadata(&text), Ok(id));
        for (text, expected) in [
            ("", "line 1: \"\" is not \"version: ...\""),
            ("version: 1\n", "line 1: version \"1\" is not known, only 0"),
            ("version: 0\ntopic: x", "line 2: \"topic: x\" is not \"topic_id: ...\""),
            ("version: 0\ntopic_id: abc", "line 2: \"abc\" is not a topic id"),
            ("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA", "line 2: \"AAAAAAAAAAAAAAAAAAAAAA\" is not a topic id"),
        ] {
            assert_eq!(parse_partition_metadata(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn meta_properties_are_kafkas() {
        let text =
            "#\n#Sun Nov 22 10:00:00 UTC 2026\nnode.id=7\nversion=1\ndirectory.id=AQAAAAAAAAAAAAAAAAAAAA\ncluster.id=x-Y_z\n";
        let read = MetaProperties::parse(text).unwrap();
        assert_eq!((read.cluster_id.as_str(), read.node_id), ("x-Y_z", 7));
        assert_eq!(read.directory_id.map(|id| id[0]), Some(1));
        assert_eq!(MetaProperties::parse(&read.encode()), Ok(read));
        let error = |text| MetaProperties::parse(text).unwrap_err().to_string();
        assert_eq!(error(""), "line 1: version is missing");
        assert_eq!(error("version=0\ncluster.id=x\n"), "line 1: version \"0\" is not known, only 1");
        assert_eq!(error("version=1\nnonsense\n"), "line 2: \"nonsense\" is not \"name=value\"");
        assert_eq!(error("version=1\ncluster.id=x\nnode.id=-1\n"), "line 3: node.id \"-1\" is not a number from 0 on");
        assert_eq!(error("version=1\nversion=1\n"), "line 2: \"version\" is there twice");
        assert!(error("version=1\ncluster.id=x\nnode.id=1\ndirectory.id=x").starts_with("line 4: directory.id"));
    }

    proptest! {
        #[test]
        fn offsets_are_read_back(offsets in prop::collection::btree_map(
            ("[a-zA-Z0-9._-]{1,20}", 0..=i32::MAX), (0..=i64::MAX).prop_map(Offset), 0..20)) {
            let checkpoint = OffsetCheckpoint { offsets };
            prop_assert_eq!(OffsetCheckpoint::parse(&checkpoint.encode()), Ok(checkpoint));
        }

        #[test]
        fn ids_are_read_back(id: [u8; 16]) {
            prop_assert_eq!(encode_uuid(&id).len(), 22);
            prop_assert_eq!(parse_uuid(&encode_uuid(&id)), Some(id));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "([-0-9 .:=a-z\r]|\n|version|\\PC){0,60}") {
            let _ = OffsetCheckpoint::parse(&text);
            let _ = parse_partition_metadata(&text);
            let _ = MetaProperties::parse(&text);
        }
    }
}
