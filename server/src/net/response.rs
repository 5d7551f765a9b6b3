//! A response as a list of pieces, each with its source: encoded bytes, tail memory, ranges of files. Built by handlers,
//! sent by the writer of a connection. Record bytes are referred to, never copied.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_engine::disk::File;
use ringlog_engine::memory::Slice;
use ringlog_protocol::{Encoder, Hole, begin_response, finish_frame};
use smallvec::SmallVec;

use super::RequestContext;

/// A range of an open file.
#[derive(Clone)]
pub struct FileRange {
    /// The file, opened through the page cache. Kept open until its bytes are sent.
    pub file: Rc<dyn File>,
    /// Where the range begins.
    pub position: u64,
    /// How many bytes it has.
    pub len: u64,
}

/// The other home of a piece of tail memory.
pub trait TailRange {
    /// The file range with the same bytes, once the segment holds them. Asked while a slow peer keeps the memory alive.
    fn as_file(&self) -> Option<FileRange>;
}

/// Room for the usual small answer.
const HEAD_BYTES: usize = 256;

/// A piece of a response.
pub enum Source {
    /// Memory of the response's own.
    Bytes(Bytes),
    /// Tail memory, kept alive until it is sent.
    Tail {
        /// The memory.
        slice: Slice,
        /// Where else the bytes may be had; `None` where nowhere.
        range: Option<Rc<dyn TailRange>>,
    },
    /// Bytes of a file.
    File(FileRange),
}

impl Source {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Tail { slice, .. } => slice.len() as u64,
            Self::File(range) => range.len,
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A whole response, its size and header included.
pub struct Response {
    pub(super) parts: SmallVec<[Source; 4]>,
    pub(super) len: u64,
}

impl Response {
    /// The response to a request: `body` encodes what follows the response header.
    ///
    /// # Panics
    /// When `body` leaves holes, or the response passes 2 GiB.
    #[must_use]
    pub fn encode(context: &RequestContext, body: impl FnOnce(&mut Encoder)) -> Self {
        Self::encode_with_sources(context, body, [])
    }

    /// The response to a request, of whose body `body` left holes. `sources` fill them in order, one or more to a hole.
    ///
    /// # Panics
    /// When the sources do not fill the holes, or the response passes 2 GiB: bugs of the caller.
    #[must_use]
    pub fn encode_with_sources(
        context: &RequestContext,
        body: impl FnOnce(&mut Encoder),
        sources: impl IntoIterator<Item = Source>,
    ) -> Self {
        let mut encoder = Encoder::with_buffer(Vec::with_capacity(HEAD_BYTES));
        let start = begin_response(&mut encoder, context.api, context.api_version, context.correlation_id);
        body(&mut encoder);
        let len = finish_frame(&mut encoder, start);
        let (head, holes) = encoder.into_parts();
        let response = Self::assemble(head, &holes, sources);
        assert_eq!(response.len, len as u64, "the pieces are the frame");
        response
    }

    fn assemble(head: Vec<u8>, holes: &[Hole], sources: impl IntoIterator<Item = Source>) -> Self {
        let len = head.len() as u64 + holes.iter().map(|hole| hole.size as u64).sum::<u64>();
        let head = Bytes::from(head);
        let mut parts = SmallVec::new();
        let mut sources = sources.into_iter();
        let mut at = 0;
        for &Hole { position, size } in holes {
            assert!(position >= at && position <= head.len(), "holes rise within the head");
            if position > at {
                parts.push(Source::Bytes(head.slice(at..position)));
                at = position;
            }
            let mut missing = size as u64;
            while missing > 0 {
                let Some(source) = sources.next() else { panic!("{missing} bytes of a hole have no source") };
                assert!(source.len() <= missing, "a source is longer than its hole");
                missing -= source.len();
                if !source.is_empty() {
                    parts.push(source);
                }
            }
        }
        if at < head.len() {
            parts.push(Source::Bytes(head.slice(at..)));
        }
        assert!(sources.all(|source| source.is_empty()), "a source without a hole");
        Self { parts, len }
    }

    /// Its pieces, in order.
    #[must_use]
    pub fn parts(&self) -> &[Source] {
        &self.parts
    }

    /// How many bytes go over the wire, the four of the size included.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len
    }
}

#[cfg(test)]
impl Response {
    /// The pieces of tail memory, and their other homes.
    pub(crate) fn tails(&self) -> Vec<(Vec<u8>, Rc<dyn TailRange>)> {
        let tail = |part: &Source| match part {
            Source::Tail { slice, range: Some(range) } => Some((slice.bytes().to_vec(), range.clone())),
            _ => None,
        };
        self.parts.iter().filter_map(tail).collect()
    }

    /// All of it as bytes, for tests of handlers.
    pub(crate) async fn into_bytes(self) -> Vec<u8> {
        let mut all = Vec::new();
        for part in &self.parts {
            match part {
                Source::Bytes(bytes) => all.extend_from_slice(bytes),
                Source::Tail { slice, .. } => all.extend_from_slice(slice.bytes()),
                Source::File(FileRange { file, position, len }) => {
                    let len = *len as usize;
                    let buffer = ringlog_engine::memory::Buffer::standalone(len).unwrap();
                    let (buffer, read) = file.read_at(buffer, len, *position).await.expect("the file can be read");
                    assert_eq!(read, len, "the file has the range");
                    all.extend_from_slice(&buffer[..len]);
                }
            }
        }
        assert_eq!(all.len() as u64, self.len);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(response: &Response) -> Vec<u8> {
        let mut all = Vec::new();
        for part in &response.parts {
            match part {
                Source::Bytes(bytes) => all.extend_from_slice(bytes),
                Source::Tail { slice, .. } => all.extend_from_slice(slice.bytes()),
                Source::File(_) => panic!("no file here"),
            }
        }
        all
    }

    fn bytes(text: &'static [u8]) -> Source {
        Source::Bytes(Bytes::from_static(text))
    }

    fn hole(position: usize, size: usize) -> Hole {
        Hole { position, size }
    }

    #[test]
    fn holes_are_filled_in_order() {
        let response = Response::assemble(
            b"....abcd".to_vec(),
            &[hole(5, 4), hole(8, 2)],
            [bytes(b"12"), bytes(b""), bytes(b"34"), bytes(b"56")],
        );
        assert_eq!(flat(&response), b"....a1234bcd56");
        assert_eq!(response.len_bytes(), 14);
    }

    #[test]
    #[should_panic(expected = "have no source")]
    fn a_hole_must_be_filled() {
        let _ = Response::assemble(b"....".to_vec(), &[hole(4, 3)], [bytes(b"12")]);
    }

    #[test]
    #[should_panic(expected = "without a hole")]
    fn a_source_needs_a_hole() {
        let _ = Response::assemble(b"....".to_vec(), &[hole(4, 2)], [bytes(b"12"), bytes(b"3")]);
    }
}
