//! What the integration tests share: valid bodies of any message and version, made from the message's schema and a supply of entropy; and a way to
//! run the codec on each message. The bodies are canonical: what both codecs would encode.
#![allow(dead_code, unused_imports, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use ringlog_protocol::api::SCHEMAS;
use ringlog_protocol::primitives::{Encoder, Encoding};
use ringlog_protocol::schema::{Field, Kind, MessageSchema, PayloadSchema, Structure};
use ringlog_protocol::{Payload, consumer_protocol, group_records};

pub(crate) use ringlog_protocol::for_each_api;

/// Calls a macro with the path of every payload.
macro_rules! for_each_payload {
    ($callback:ident) => {
        $callback! {
            consumer_protocol ConsumerProtocolSubscription,
            consumer_protocol ConsumerProtocolAssignment,
            group_records LegacyOffsetCommitKey,
            group_records LegacyOffsetCommitValue,
            group_records OffsetCommitKey,
            group_records OffsetCommitValue,
            group_records GroupMetadataKey,
            group_records GroupMetadataValue,
            group_records ConsumerGroupMetadataKey,
            group_records ConsumerGroupMetadataValue,
            group_records ConsumerGroupPartitionMetadataKey,
            group_records ConsumerGroupPartitionMetadataValue,
            group_records ConsumerGroupMemberMetadataKey,
            group_records ConsumerGroupMemberMetadataValue,
            group_records ConsumerGroupTargetAssignmentMetadataKey,
            group_records ConsumerGroupTargetAssignmentMetadataValue,
            group_records ConsumerGroupTargetAssignmentMemberKey,
            group_records ConsumerGroupTargetAssignmentMemberValue,
            group_records ConsumerGroupCurrentMemberAssignmentKey,
            group_records ConsumerGroupCurrentMemberAssignmentValue,
            group_records ConsumerGroupRegularExpressionKey,
            group_records ConsumerGroupRegularExpressionValue,
        }
    };
}
pub(crate) use for_each_payload;

/// What our codec made of a body.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The message encoded again, or the error.
    pub(crate) again: Result<Vec<u8>, ringlog_protocol::DecodeError>,
    /// Bytes after its end.
    pub(crate) remaining: usize,
}

/// Decodes `body` and, if that worked and `encode` says so, encodes it again.
pub(crate) fn run_ours(name: &str, version: i16, body: &[u8], encode: bool) -> Outcome {
    macro_rules! dispatch {
        ($($module:ident $request:ident $response:ident,)*) => {
            match name {
                $(
                    stringify!($request) => dispatch!(@run $module $request),
                    stringify!($response) => dispatch!(@run $module $response),
                )*
                _ => panic!("no message {name}"),
            }
        };
        (@run $module:ident $message:ident) => {{
            let mut decoder = ringlog_protocol::Decoder::new(body);
            let message = ringlog_protocol::api::$module::$message::decode(&mut decoder, version);
            let again = message.map(|message| {
                let mut encoder = Encoder::new();
                if encode {
                    message.encode(&mut encoder, version);
                }
                encoder.into_buffer()
            });
            Outcome { again, remaining: decoder.remaining() }
        }};
    }
    for_each_api!(dispatch)
}

/// As [`run_ours`], for what follows a payload's version.
pub(crate) fn run_payload(name: &str, version: i16, body: &[u8], encode: bool) -> Outcome {
    macro_rules! dispatch {
        ($($module:ident $payload:ident,)*) => {
            match name {
                $(
                    stringify!($payload) => {
                        let mut decoder = ringlog_protocol::Decoder::new(body);
                        let payload = ringlog_protocol::$module::$payload::decode_body(&mut decoder, version);
                        let again = payload.map(|payload| {
                            let mut encoder = Encoder::new();
                            if encode {
                                payload.encode_body(&mut encoder, version);
                            }
                            encoder.into_buffer()
                        });
                        Outcome { again, remaining: decoder.remaining() }
                    }
                )*
                _ => panic!("no payload {name}"),
            }
        };
    }
    for_each_payload!(dispatch)
}

/// Every message in every version.
pub(crate) fn every_version() -> impl Iterator<Item = (&'static MessageSchema, i16)> {
    SCHEMAS.iter().flat_map(|schema| (schema.api.version_min()..=schema.api.version_max()).map(move |version| (schema, version)))
}

/// Every payload in every version.
pub(crate) fn every_payload() -> impl Iterator<Item = (&'static PayloadSchema, i16)> {
    let schemas = consumer_protocol::SCHEMAS.iter().chain(group_records::SCHEMAS);
    schemas.flat_map(|schema| (schema.versions.min..=schema.versions.max).map(move |version| (schema, version)))
}

/// The encoding of a version.
pub(crate) fn encoding(schema: &MessageSchema, version: i16) -> Encoding {
    Encoding { version, flexible: version >= schema.api.flexible_min() }
}

/// The encoding of a payload's version.
pub(crate) fn payload_encoding(schema: &PayloadSchema, version: i16) -> Encoding {
    Encoding { version, flexible: version >= schema.flexible_min }
}

/// Makes bodies. Where its entropy runs out it goes on with zeros: short arrays and small numbers.
pub(crate) struct Bodies<'e> {
    entropy: &'e [u8],
    encoding: Encoding,
}

impl<'e> Bodies<'e> {
    pub(crate) fn new(entropy: &'e [u8], encoding: Encoding) -> Self {
        Self { entropy, encoding }
    }

    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.entropy.split_first() else { return 0 };
        self.entropy = rest;
        byte
    }

    /// 0 to 3, so that arrays are often empty, and the number of leaves stays small.
    fn count(&mut self) -> usize {
        usize::from(self.byte() % 4)
    }

    fn integer(&mut self, encoder: &mut Encoder, size: usize) {
        let fill = if self.byte().is_multiple_of(2) { 0 } else { 0xff };
        let small = self.byte().is_multiple_of(2);
        for index in 0..size {
            let byte = if small && index + 1 < size { fill } else { self.byte() };
            encoder.raw(&[byte]);
        }
    }

    /// The body of one message.
    pub(crate) fn structure(&mut self, structure: &Structure, encoder: &mut Encoder) {
        let encoding = self.encoding;
        let here = || structure.fields.iter().filter(|field| field.versions.contains(encoding.version));
        for field in here().filter(|field| field.tag.is_none()) {
            self.field(field, encoder);
        }
        if !encoding.flexible {
            return;
        }
        let mut tagged = Vec::new();
        for field in here() {
            let Some(tag) = field.tag else { continue };
            let mut value = Encoder::new();
            self.field(field, &mut value);
            if value.buffer() != default_bytes(field, encoding) {
                tagged.push((tag, value.into_buffer()));
            }
        }
        encoder.unsigned_varint(tagged.len() as u32);
        for (tag, value) in tagged {
            encoder.unsigned_varint(tag);
            encoder.unsigned_varint(value.len() as u32);
            encoder.raw(&value);
        }
    }

    fn field(&mut self, field: &Field, encoder: &mut Encoder) {
        if field.nullable.contains(self.encoding.version) && self.byte().is_multiple_of(4) {
            null(field.kind, encoder, self.encoding);
        } else {
            if let Kind::Structure(_) = field.kind
                && field.nullable.contains(self.encoding.version)
            {
                encoder.int8(1);
            }
            self.value(field.kind, encoder);
        }
    }

    fn value(&mut self, kind: Kind, encoder: &mut Encoder) {
        match kind {
            Kind::Bool => encoder.boolean(self.byte() % 2 == 1),
            Kind::Int8 => self.integer(encoder, 1),
            Kind::Int16 => self.integer(encoder, 2),
            Kind::Int32 => self.integer(encoder, 4),
            Kind::Int64 => self.integer(encoder, 8),
            Kind::Uuid => self.integer(encoder, 16),
            Kind::String => {
                let size = if self.byte().is_multiple_of(16) { 200 } else { self.byte() % 12 };
                let string: String = (0..size).map(|_| ['a', 'é', '.', '漢', '0'][usize::from(self.byte() % 5)]).collect();
                encoder.string(&string, self.encoding);
            }
            Kind::Records | Kind::Bytes => {
                let size = if self.byte().is_multiple_of(16) { 300 } else { usize::from(self.byte() % 12) };
                let records: Vec<u8> = (0..size).map(|_| self.byte()).collect();
                encoder.bytes_nullable(Some(&records), self.encoding);
            }
            Kind::Array(element) => {
                let count = self.count();
                encoder.array_count(Some(count), self.encoding);
                for _ in 0..count {
                    self.value(*element, encoder);
                }
            }
            Kind::Structure(structure) => self.structure(structure, encoder),
        }
    }
}

fn null(kind: Kind, encoder: &mut Encoder, encoding: Encoding) {
    match kind {
        Kind::String => encoder.string_nullable(None, encoding),
        Kind::Array(_) => encoder.array_count(None, encoding),
        Kind::Records | Kind::Bytes => encoder.bytes_nullable(None, encoding),
        Kind::Structure(_) => encoder.int8(-1),
        _ => panic!("{kind:?} has no null"),
    }
}

/// The default as a number: of a boolean 0 or 1.
pub(crate) fn default_number(field: &Field) -> Option<i64> {
    let expression = field.default?;
    Some(match expression {
        "i32::MAX" => i64::from(i32::MAX),
        "i32::MIN" => i64::from(i32::MIN),
        "i64::MAX" => i64::MAX,
        "true" => 1,
        _ => expression.replace('_', "").parse().unwrap(),
    })
}

fn default_bytes(field: &Field, encoding: Encoding) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let number = default_number(field).unwrap_or(0);
    match field.kind {
        kind if field.nullable.contains(encoding.version) => null(kind, &mut encoder, encoding),
        Kind::Bool => encoder.boolean(number != 0),
        Kind::Int8 => encoder.int8(number as i8),
        Kind::Int16 => encoder.int16(number as i16),
        Kind::Int32 => encoder.int32(number as i32),
        Kind::Int64 => encoder.int64(number),
        Kind::Uuid => encoder.raw(&[0; 16]),
        Kind::String => encoder.string("", encoding),
        Kind::Records | Kind::Bytes => panic!("{} is never tagged", field.name),
        Kind::Array(_) => encoder.array_count(Some(0), encoding),
        Kind::Structure(structure) => {
            for field in structure.fields.iter().filter(|field| field.versions.contains(encoding.version)) {
                assert!(field.tag.is_none());
                encoder.raw(&default_bytes(field, encoding));
            }
            encoder.unsigned_varint(0);
        }
    }
    encoder.into_buffer()
}
