//! Records as text: lines and JSON objects, both ways. Used by produce and consume.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::args::OutputFormat;

/// A record to be produced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NewRecord {
    /// The partition it has to go to, if any.
    pub partition: Option<i32>,
    /// Its time in milliseconds since 1970; now, if none.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Bytes in JSON: null, a string where they are one, else base64.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Bytes {
    Null,
    Text(String),
    Base64 { base64: String },
}

impl Bytes {
    fn new(bytes: Option<&[u8]>) -> Self {
        match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => Self::Null,
            Some((_, Ok(text))) => Self::Text(text.to_owned()),
            Some((bytes, Err(_))) => Self::Base64 { base64: STANDARD.encode(bytes) },
        }
    }

    fn bytes(self) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Null => Ok(None),
            Self::Text(text) => Ok(Some(text.into_bytes())),
            Self::Base64 { base64 } => STANDARD.decode(base64).map(Some).map_err(|error| format!("base64: {error}")),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Text(text) => format!("{text:?}"),
            Self::Base64 { base64 } => format!("base64:{base64}"),
        }
    }
}

/// A record as JSON, as it is written and read. What only a broker knows is ignored when it is read.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(default)]
    partition: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default = "null")]
    key: Bytes,
    #[serde(default = "null")]
    value: Bytes,
    #[serde(default)]
    headers: Headers,
}

fn null() -> Bytes {
    Bytes::Null
}

/// Headers are an object for who writes by hand, and pairs in their order when we write: a name may come twice.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Headers {
    Pairs(Vec<(Bytes, Bytes)>),
    Object(serde_json::Map<String, serde_json::Value>),
}

impl Default for Headers {
    fn default() -> Self {
        Self::Pairs(Vec::new())
    }
}

/// Reads a JSON object.
///
/// # Errors
/// What is wrong with it.
pub(super) fn from_json(line: &[u8]) -> Result<NewRecord, String> {
    // Fields in their order, without names, would pass for a record otherwise.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err("not a JSON object".to_owned());
    }
    let line: Line = serde_json::from_slice(line).map_err(|error| format!("not a record in JSON ({error})"))?;
    let pair = |key: Bytes, value: Bytes| match key.bytes()? {
        Some(key) => Ok((key, value.bytes()?)),
        None => Err("a header without a name".to_owned()),
    };
    let headers: Result<_, String> = match line.headers {
        Headers::Pairs(pairs) => pairs.into_iter().map(|(key, value)| pair(key, value)).collect(),
        Headers::Object(object) => {
            let value = |value| serde_json::from_value(value).map_err(|_| "a header's value is a string or null".to_owned());
            object.into_iter().map(|(key, found)| pair(Bytes::Text(key), value(found)?)).collect()
        }
    };
    Ok(NewRecord {
        partition: line.partition,
        timestamp: line.timestamp,
        key: line.key.bytes()?,
        value: line.value.bytes()?,
        headers: headers?,
    })
}

/// A record that was consumed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Consumed<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub record: ringlog_engine::record::Record<'a>,
}

impl Consumed<'_> {
    /// Writes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, format: OutputFormat, key_separator: Option<&str>, out: &mut impl Write) -> io::Result<()> {
        let record = &self.record;
        match format {
            OutputFormat::Value => {
                if let Some(separator) = key_separator {
                    out.write_all(record.key.unwrap_or_default())?;
                    out.write_all(separator.as_bytes())?;
                }
                out.write_all(record.value.unwrap_or_default())?;
            }
            OutputFormat::Full => {
                let (key, value) = (Bytes::new(record.key), Bytes::new(record.value));
                write!(
                    out,
                    "{}-{} offset {} time {} key {}",
                    self.topic,
                    self.partition,
                    self.offset,
                    self.timestamp,
                    key.text()
                )?;
                for header in record.headers() {
                    write!(out, " header {}={}", String::from_utf8_lossy(header.key), Bytes::new(header.value).text())?;
                }
                write!(out, " value {}", value.text())?;
            }
            OutputFormat::Json => {
                let pair = |header: ringlog_engine::record::Header<'_>| (Bytes::new(Some(header.key)), Bytes::new(header.value));
                let line = Line {
                    topic: Some(self.topic.to_owned()),
                    partition: Some(self.partition),
                    offset: Some(self.offset),
                    timestamp: Some(self.timestamp),
                    key: Bytes::new(record.key),
                    value: Bytes::new(record.value),
                    headers: Headers::Pairs(record.headers().map(pair).collect()),
                };
                serde_json::to_writer(&mut *out, &line)?;
            }
        }
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_as_json_is_read_as_it_was() {
        let mut bytes = Vec::new();
        let headers = [
            ringlog_engine::record::Header { key: b"h", value: Some(b"1") },
            ringlog_engine::record::Header { key: b"h", value: None },
        ];
        ringlog_engine::record::Record::new(0, 0, None, Some(b"\xff\xfe")).encode_with_headers(&headers, &mut bytes);
        let (record, _) = ringlog_engine::record::Record::parse(&bytes).unwrap();
        let mut out = Vec::new();
        let consumed = Consumed { topic: "t", partition: 3, offset: 9, timestamp: 5, record };
        consumed.write(OutputFormat::Json, None, &mut out).unwrap();
        assert_eq!(
            from_json(&out),
            Ok(NewRecord {
                partition: Some(3),
                timestamp: Some(5),
                key: None,
                value: Some(b"\xff\xfe".to_vec()),
                headers: vec![(b"h".to_vec(), Some(b"1".to_vec())), (b"h".to_vec(), None)],
            })
        );
    }

    #[test]
    fn json_by_hand_may_be_short_and_is_checked() {
        let record = from_json(br#"{"value":"v","headers":{"a":"1","b":null}}"#).unwrap();
        assert_eq!(record.value.as_deref(), Some(&b"v"[..]));
        assert_eq!(record.headers, [(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), None)]);
        assert_eq!(from_json(b"{}"), Ok(NewRecord::default()));
        for wrong in
            ["", "v", "[]", r#"{"valeu":"v"}"#, r#"{"value":7}"#, r#"{"value":{"base64":"?"}}"#, r#"{"headers":{"a":1}}"#]
        {
            assert!(from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn full_lines_show_everything_and_never_more_than_a_line() {
        let mut bytes = Vec::new();
        ringlog_engine::record::Record::new(0, 0, Some(b"k\n"), None).encode(&mut bytes);
        let (record, _) = ringlog_engine::record::Record::parse(&bytes).unwrap();
        let mut out = Vec::new();
        let consumed = Consumed { topic: "t", partition: 0, offset: 9, timestamp: 5, record };
        consumed.write(OutputFormat::Full, None, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "t-0 offset 9 time 5 key \"k\\n\" value null\n");
    }
}
