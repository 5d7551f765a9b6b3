//! A response as a list of pieces, each with its source: encoded bytes, tail memory, ranges of files. Built by handlers,
//! sent by the writer of a connection. Record bytes are referred to, never copied.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_engine::disk::File;
use ringlog_engine::memory::Slice;
use smallvec::SmallVec;

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
    /// A response of encoded bytes alone. `head` begins with [`super::header::response_start`].
    ///
    /// # Panics
    /// When `head` has no room for the size, or the response passes 2 GiB.
    #[must_use]
    pub fn new(head: Vec<u8>) -> Self {
        Self::with_sources(head, &[], [])
    }

    /// A response with bytes from elsewhere. `holes` are positions in `head`, rising, and how many bytes belong there that
    /// `head` does not have; `sources` fill them in order, one or more to a hole.
    ///
    /// # Panics
    /// When `head` has no room for the size, the sources do not fill the holes, or the response passes 2 GiB: bugs of the
    /// caller.
    #[must_use]
    pub fn with_sources(mut head: Vec<u8>, holes: &[(usize, usize)], sources: impl IntoIterator<Item = Source>) -> Self {
        let len = head.len() as u64 + holes.iter().map(|&(_, len)| len as u64).sum::<u64>();
        let size = len.checked_sub(4).and_then(|size| i32::try_from(size).ok());
        let Some(size) = size else { panic!("a response of {len} bytes") };
        head[..4].copy_from_slice(&size.to_be_bytes());
        let head = Bytes::from(head);
        let mut parts = SmallVec::new();
        let mut sources = sources.into_iter();
        let mut at = 0;
        for &(position, len) in holes {
            assert!(position >= at && position <= head.len(), "holes rise within the head");
            if position > at {
                parts.push(Source::Bytes(head.slice(at..position)));
                at = position;
            }
            let mut missing = len as u64;
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

    /// How many bytes go over the wire, the four of the size included.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len
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

    #[test]
    fn holes_are_filled_in_order_and_the_size_is_right() {
        let response = Response::with_sources(
            b"....abcd".to_vec(),
            &[(5, 4), (5, 0), (8, 2)],
            [bytes(b"12"), bytes(b""), bytes(b"34"), bytes(b"56")],
        );
        assert_eq!(flat(&response), b"\0\0\0\x0aa1234bcd56");
        assert_eq!(response.len_bytes(), 14);
        assert_eq!(flat(&Response::new(b"....xy".to_vec())), b"\0\0\0\x02xy");
    }

    #[test]
    #[should_panic(expected = "have no source")]
    fn a_hole_must_be_filled() {
        let _ = Response::with_sources(b"....".to_vec(), &[(4, 3)], [bytes(b"12")]);
    }

    #[test]
    #[should_panic(expected = "without a hole")]
    fn a_source_needs_a_hole() {
        let _ = Response::with_sources(b"....".to_vec(), &[(4, 2)], [bytes(b"12"), bytes(b"3")]);
    }
}
