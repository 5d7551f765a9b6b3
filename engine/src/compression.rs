//! The codecs of record batches, as Kafka's clients use them. Only for what must look inside a batch: brokers store and
//! send batches as they came. What comes out of a decompression is bounded by the caller; no I/O.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use thiserror::Error;

/// A compression codec; the number is the one in a batch's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Not compressed.
    #[default]
    None = 0,
    /// gzip (RFC 1952).
    Gzip = 1,
    /// Snappy, in the framing of snappy-java or without one.
    Snappy = 2,
    /// LZ4, in its frame format.
    Lz4 = 3,
    /// Zstandard (KIP-110).
    Zstd = 4,
}

impl Codec {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this number, if there is one.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// Its number.
    #[must_use]
    pub fn id(self) -> u8 {
        self as u8
    }

    /// Its name in Kafka's configs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// What is wrong with compressed bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompressionError {
    /// More comes out than the caller takes.
    #[error("more than {0} bytes")]
    TooLarge(usize),
    /// The bytes are not what the codec writes.
    #[error("bad {codec} bytes: {reason}")]
    Malformed {
        /// The codec.
        codec: &'static str,
        /// What it says.
        reason: String,
    },
}

fn malformed(codec: Codec, reason: impl ToString) -> CompressionError {
    CompressionError::Malformed { codec: codec.name(), reason: reason.to_string() }
}

/// Before the blocks of snappy-java's framing: its name, its version, and the oldest version that can read it (both 1).
const XERIAL_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const XERIAL_MAGIC_BYTES: usize = 8;
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// The first bytes of an LZ4 frame.
const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
/// The level that Kafka's clients use unless told otherwise.
const ZSTD_LEVEL: i32 = 3;

/// Compresses `bytes` so that Kafka's clients can read it.
///
/// # Errors
/// [`CompressionError::Malformed`] where the codec's library fails.
pub fn compress(codec: Codec, bytes: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let io_error = |error: io::Error| malformed(codec, error);
    match codec {
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).map_err(io_error)?;
            encoder.finish().map_err(io_error)
        }
        Codec::Snappy => {
            let mut out = XERIAL_HEADER.to_vec();
            let mut encoder = snap::raw::Encoder::new();
            for block in bytes.chunks(XERIAL_BLOCK_BYTES) {
                let block = encoder.compress_vec(block).map_err(|error| malformed(codec, error))?;
                out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                out.extend_from_slice(&block);
            }
            Ok(out)
        }
        Codec::Lz4 => {
            // Java's reader takes independent blocks alone, and up to 64 KiB is what its writer makes.
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(bytes).map_err(io_error)?;
            encoder.finish().map_err(|error| malformed(codec, error))
        }
        Codec::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL).map_err(io_error),
    }
}

/// Decompresses `bytes` to at most `bytes_max` bytes; memory is taken as they come, not as a header promises.
///
/// # Errors
/// [`CompressionError`] where the bytes are bad or more comes out.
pub fn decompress(codec: Codec, bytes: &[u8], bytes_max: usize) -> Result<Cow<'_, [u8]>, CompressionError> {
    let out = match codec {
        Codec::None if bytes.len() > bytes_max => return Err(CompressionError::TooLarge(bytes_max)),
        Codec::None => return Ok(Cow::Borrowed(bytes)),
        Codec::Gzip => read_all(codec, flate2::bufread::MultiGzDecoder::new(bytes), bytes_max)?,
        Codec::Snappy => snappy(bytes, bytes_max)?,
        // The library reads LZ4's legacy frames, too, with 16 MiB of memory for each: no client of Kafka's writes them.
        Codec::Lz4 if !bytes.starts_with(&LZ4_MAGIC) => return Err(malformed(codec, "not an LZ4 frame")),
        Codec::Lz4 => read_all(codec, lz4_flex::frame::FrameDecoder::new(bytes), bytes_max)?,
        Codec::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(|error| malformed(codec, error))?;
            read_all(codec, decoder, bytes_max)?
        }
    };
    Ok(Cow::Owned(out))
}

fn read_all(codec: Codec, reader: impl Read, bytes_max: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    let limit = (bytes_max as u64).saturating_add(1);
    reader.take(limit).read_to_end(&mut out).map_err(|error| malformed(codec, error))?;
    if out.len() > bytes_max { Err(CompressionError::TooLarge(bytes_max)) } else { Ok(out) }
}

/// snappy-java writes a header and blocks, each after its length; streams that were written one after the other repeat the
/// header. librdkafka and others write one block and nothing around it.
fn snappy(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, CompressionError> {
    let truncated = || malformed(Codec::Snappy, "it ends early");
    let mut out = Vec::new();
    if !bytes.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) {
        snappy_block(bytes, bytes_max, &mut out)?;
        return Ok(out);
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        if rest.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) {
            rest = rest.get(XERIAL_HEADER.len()..).ok_or_else(truncated)?;
            continue;
        }
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
        let (block, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(truncated)?;
        snappy_block(block, bytes_max, &mut out)?;
        rest = after;
    }
    Ok(out)
}

fn snappy_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    /// Snappy cannot do better than a copy of 64 bytes in 3 bytes (21:1); a block that promises more than this is a lie.
    const RATIO_MAX: usize = 32;
    let bad = |error: snap::Error| malformed(Codec::Snappy, error);
    let length = snap::raw::decompress_len(block).map_err(bad)?;
    if length > bytes_max - out.len() {
        return Err(CompressionError::TooLarge(bytes_max));
    }
    if length > block.len() * RATIO_MAX {
        return Err(malformed(Codec::Snappy, "a block promises more than it can hold"));
    }
    let start = out.len();
    out.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(bad)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMPRESSED: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    fn sample() -> Vec<u8> {
        (0..200_000u32).map(|i| (i / 7 % 251) as u8).collect()
    }

    #[test]
    fn numbers_are_kafkas() {
        for (id, codec) in Codec::ALL.into_iter().enumerate() {
            assert_eq!(Codec::from_id(id as u8), Some(codec));
            assert_eq!(usize::from(codec.id()), id);
        }
        assert_eq!(Codec::from_id(5), None);
    }

    #[test]
    fn what_was_compressed_comes_back() {
        for bytes in [vec![], b"x".to_vec(), sample()] {
            for codec in Codec::ALL {
                let compressed = compress(codec, &bytes).unwrap();
                assert_eq!(decompress(codec, &compressed, bytes.len()).unwrap(), bytes, "{codec:?}");
            }
        }
    }

    #[test]
    fn no_more_comes_out_than_is_wanted() {
        let bytes = vec![0; 1 << 20];
        for codec in Codec::ALL {
            let compressed = compress(codec, &bytes).unwrap();
            let limit = bytes.len() - 1;
            assert_eq!(decompress(codec, &compressed, limit), Err(CompressionError::TooLarge(limit)), "{codec:?}");
        }
    }

    #[test]
    fn a_snappy_block_that_lies_about_its_length_takes_no_memory() {
        // The length of a raw block comes first: here 2 GiB, and one literal byte.
        let block = [0xff, 0xff, 0xff, 0xff, 0x07, 0, b'x'];
        assert!(matches!(decompress(Codec::Snappy, &block, usize::MAX), Err(CompressionError::Malformed { .. })));
    }

    #[test]
    fn snappy_without_framing_and_in_pieces_is_read() {
        let bytes = sample();
        let raw = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
        assert_eq!(decompress(Codec::Snappy, &raw, bytes.len()).unwrap(), bytes);
        let framed = compress(Codec::Snappy, &bytes).unwrap();
        let twice = [framed.clone(), framed.clone()].concat();
        assert_eq!(decompress(Codec::Snappy, &twice, 2 * bytes.len()).unwrap(), [bytes.clone(), bytes].concat());
        assert!(decompress(Codec::Snappy, &framed[..framed.len() - 1], usize::MAX).is_err());
        assert!(decompress(Codec::Snappy, &framed[..17], usize::MAX).is_err());
        assert!(decompress(Codec::Snappy, &framed[..12], usize::MAX).is_err());
    }

    #[test]
    fn gzip_and_zstd_streams_follow_each_other() {
        let bytes = sample();
        for codec in [Codec::Gzip, Codec::Zstd] {
            let once = compress(codec, &bytes).unwrap();
            let twice = [once.clone(), once].concat();
            assert_eq!(decompress(codec, &twice, usize::MAX - 1).unwrap(), [&bytes[..], &bytes[..]].concat());
        }
    }

    #[test]
    fn zstd_needs_no_content_size() {
        let bytes = sample();
        // The streaming encoder does not know the size when it writes the frame's header.
        let compressed = zstd::stream::encode_all(&bytes[..], 1).unwrap();
        assert!(matches!(zstd::zstd_safe::get_frame_content_size(&compressed), Ok(None)));
        assert_eq!(decompress(Codec::Zstd, &compressed, bytes.len()).unwrap(), bytes);
    }

    #[test]
    fn legacy_lz4_frames_are_refused() {
        let legacy = [&0x184C_2102_u32.to_le_bytes()[..], &[5, 0, 0, 0, 0x40], b"abcd"].concat();
        assert!(matches!(decompress(Codec::Lz4, &legacy, 1000), Err(CompressionError::Malformed { .. })));
        assert!(matches!(decompress(Codec::Lz4, b"", 1000), Err(CompressionError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), limit in 0usize..1000) {
            for codec in Codec::ALL {
                if let Ok(out) = decompress(codec, &bytes, limit) {
                    prop_assert!(out.len() <= limit);
                }
            }
        }

        #[test]
        fn damaged_bytes_are_read_or_refused(at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<prop::sample::Index>()) {
            let bytes = &sample()[..5000];
            for codec in COMPRESSED {
                let mut compressed = compress(codec, bytes).unwrap();
                let at = at.index(compressed.len());
                compressed[at] ^= 1 << bit;
                if let Ok(out) = decompress(codec, &compressed, 10_000) {
                    prop_assert!(out.len() <= 10_000);
                }
                let cut = cut.index(compressed.len());
                let _ = decompress(codec, &compressed[..cut], 10_000);
            }
        }
    }
}
