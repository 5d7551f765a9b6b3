//! Frames: four bytes of size, a header, a body. Here they are begun and finished in an [`Encoder`]; sending them, and filling their holes, is the
//! network layer's. Several frames may follow each other in one encoder.

use crate::primitives::Encoder;
use crate::{ApiKey, RequestHeader, ResponseHeader};

/// A frame that has been begun. It is not a valid frame until [`finish_frame`].
#[derive(Debug)]
#[must_use = "the frame's size is written by finish_frame"]
pub struct FrameStart {
    position: usize,
    size_before: usize,
}

fn begin_frame(encoder: &mut Encoder) -> FrameStart {
    let start = FrameStart { position: encoder.buffer().len(), size_before: encoder.size() };
    encoder.int32(0);
    start
}

/// Begins the response to a request to `api` in `version`; its body comes next, then [`finish_frame`].
pub fn begin_response(encoder: &mut Encoder, api: ApiKey, version: i16, correlation_id: i32) -> FrameStart {
    let start = begin_frame(encoder);
    ResponseHeader { correlation_id }.encode(encoder, api, version);
    start
}

/// Begins a request, for a client; its body comes next, then [`finish_frame`].
pub fn begin_request(encoder: &mut Encoder, header: &RequestHeader<'_>) -> FrameStart {
    let start = begin_frame(encoder);
    header.encode(encoder);
    start
}

/// Writes the frame's size, holes included, and returns how many bytes the whole frame has, its size field included.
///
/// # Panics
/// If the frame is over 2 GiB, or is not in this encoder.
pub fn finish_frame(encoder: &mut Encoder, start: FrameStart) -> usize {
    let whole = encoder.size() - start.size_before;
    let size = i32::try_from(whole - 4);
    assert!(size.is_ok(), "a frame of {whole} bytes does not fit the wire");
    encoder.patch_int32(start.position, size.unwrap_or_default());
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::Hole;

    #[test]
    fn the_size_counts_holes_and_frames_follow_each_other() {
        let mut encoder = Encoder::new();
        let first = begin_response(&mut encoder, ApiKey::Fetch, 12, 1);
        encoder.int16(0);
        encoder.hole(100);
        encoder.int8(5);
        assert_eq!(finish_frame(&mut encoder, first), 112);
        let second = begin_response(&mut encoder, ApiKey::ApiVersions, 4, 2);
        assert_eq!(finish_frame(&mut encoder, second), 8);
        assert_eq!(encoder.buffer(), [0, 0, 0, 108, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 2]);
        assert_eq!(encoder.holes(), [Hole { position: 11, size: 100 }]);
    }

    #[test]
    fn a_request_frame_is_size_header_body() {
        let mut encoder = Encoder::new();
        let header = RequestHeader { api_key: 18, api_version: 0, correlation_id: 1, client_id: None };
        let start = begin_request(&mut encoder, &header);
        assert_eq!(finish_frame(&mut encoder, start), 14);
        assert_eq!(encoder.buffer(), [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]);
    }
}
