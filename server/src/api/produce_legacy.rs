//! Produce 0 to 2, with message formats from before record batches. They are advertised, because old librdkafka takes their
//! absence for a broker that cannot compress (KAFKA-18659), and answered with an error. Knows their bodies, which nothing else
//! does; see [`super::produce`] for what is served.

use std::borrow::Cow;

use ringlog_protocol::primitives::Encoding;
use ringlog_protocol::{DecodeError, Decoder, Encoder, ErrorCode};

use crate::net::{Outcome, RequestContext, Response};

struct Topic<'a> {
    name: Cow<'a, str>,
    partitions: Vec<i32>,
}

pub(super) fn handle(context: &RequestContext, body: &[u8]) -> Outcome {
    let version = context.api_version;
    match decode(body, version) {
        Ok((0, _)) => Outcome::Close(format!("Produce version {version} is not supported").into()),
        Ok((_, topics)) => Outcome::Reply(Response::encode(context, |encoder| encode(encoder, version, &topics))),
        Err(error) => Outcome::Close(format!("malformed Produce request, version {version}: {error}").into()),
    }
}

/// What such a request asks for: acks, and the partitions.
fn decode(body: &[u8], version: i16) -> Result<(i16, Vec<Topic<'_>>), DecodeError> {
    let encoding = Encoding { version, flexible: false };
    let mut from = Decoder::new(body);
    let acks = from.int16()?;
    from.int32()?;
    let mut topics = Vec::new();
    for _ in 0..from.array_count(encoding, 6)?.unwrap_or(0) {
        let name = from.string(encoding)?;
        let mut partitions = Vec::new();
        for _ in 0..from.array_count(encoding, 8)?.unwrap_or(0) {
            partitions.push(from.int32()?);
            from.bytes_nullable(encoding)?;
        }
        topics.push(Topic { name, partitions });
    }
    Ok((acks, topics))
}

fn encode(to: &mut Encoder, version: i16, topics: &[Topic<'_>]) {
    let encoding = Encoding { version, flexible: false };
    to.array_count(Some(topics.len()), encoding);
    for topic in topics {
        to.string(&topic.name, encoding);
        to.array_count(Some(topic.partitions.len()), encoding);
        for &partition in &topic.partitions {
            to.int32(partition);
            to.int16(ErrorCode::UNSUPPORTED_VERSION.0);
            to.int64(-1);
            if version >= 2 {
                to.int64(-1);
            }
        }
    }
    if version >= 1 {
        to.int32(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_is_told_that_the_version_is_too_old() {
        // acks 1, timeout 5, topic "t" with partition 3 and two bytes of records.
        let body = [0, 1, 0, 0, 0, 5, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 2, 9, 9];
        for (version, len) in [(0, 25), (1, 29), (2, 37)] {
            let (acks, topics) = decode(&body, version).unwrap();
            assert_eq!((acks, &*topics[0].name, &*topics[0].partitions), (1, "t", &[3][..]));
            let mut encoder = Encoder::new();
            encode(&mut encoder, version, &topics);
            let encoded = encoder.into_buffer();
            assert_eq!(encoded.len(), len);
            assert_eq!(encoded[..17], [0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 3, 0, 35]);
        }
        assert!(decode(&body[..body.len() - 1], 0).is_err());
    }
}
