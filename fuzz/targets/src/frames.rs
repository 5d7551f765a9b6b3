//! Mutations for `connection` that keep a client's stream one of frames: what changes is within a frame, or which frames there are,
//! and lengths and the CRCs of record batches are put right. Without them nearly each mutation ends the connection at its first bytes.

use std::ops::Range;

use ringlog_engine::env::random::Random;

/// Of so many mutations one leaves lengths and CRCs as they come, for what is behind those checks has the rest.
const RAW_ONE_IN: u64 = 8;
/// In a frame, from its length on: behind the key the version, of which this is the lower byte; then the correlation ID.
const VERSION_AT: usize = 7;
const HEADER_BYTES: usize = 12;
/// In a batch.
const LENGTH_AT: usize = 8;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;
const BATCH_HEADER_BYTES: usize = 61;

/// Mutates the `size` bytes at the front of `data`, and says how many there are then, `size_max` at most. `bytes` is a mutation of
/// bytes that knows nothing of frames, with the same arguments and answer.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    size_max: usize,
    seed: u32,
    bytes: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut random = Random::new(seed.into());
    let mut frames = split(&data[..size]);
    if frames.is_empty() || random.below(RAW_ONE_IN) == 0 {
        return bytes(data, size, size_max);
    }
    let at = random.below(frames.len() as u64) as usize;
    let to = random.below(frames.len() as u64 + 1) as usize;
    match random.below(10) {
        0 => {
            let frame = frames.remove(at);
            frames.insert(to.min(frames.len()), frame);
        }
        1 if frames.len() > 1 => drop(frames.remove(at)),
        2 => frames.insert(to, frames[at].clone()),
        3 => frames[at][VERSION_AT] = random.below(20) as u8,
        _ => body(&mut frames[at], size_max.saturating_sub(HEADER_BYTES).max(1), &bytes),
    }
    joined(&frames, &mut data[..size_max])
}

/// Frames of both, in the order of each; says how many bytes of `out` they take.
pub fn cross_over(one: &[u8], other: &[u8], out: &mut [u8], seed: u32) -> usize {
    let mut random = Random::new(seed.into());
    let mut frames = split(one);
    let others = split(other);
    let at = random.below(frames.len() as u64 + 1) as usize;
    let from = random.below(others.len() as u64 + 1) as usize;
    let count = random.below(4) as usize + 1;
    frames.splice(at..at, others.into_iter().skip(from).take(count));
    joined(&frames, out)
}

/// Changes what is behind a frame's fixed header, and puts right the length and what CRCs there are.
fn body(frame: &mut Vec<u8>, bytes_max: usize, bytes: &impl Fn(&mut [u8], usize, usize) -> usize) {
    let size = frame.len() - HEADER_BYTES;
    frame.resize(HEADER_BYTES + size.max(bytes_max), 0);
    let size = bytes(&mut frame[HEADER_BYTES..], size, bytes_max);
    frame.truncate(HEADER_BYTES + size);
    let len = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    let mut at = HEADER_BYTES;
    while let Some(batch) = batch(frame, at) {
        let crc = crc32c::crc32c(&frame[batch.start + CRC_FROM..batch.end]);
        frame[batch.start + CRC_AT..batch.start + CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        at = batch.end;
    }
}

/// What looks like the next record batch of a frame.
fn batch(frame: &[u8], from: usize) -> Option<Range<usize>> {
    (from..frame.len().saturating_sub(BATCH_HEADER_BYTES - 1)).find_map(|at| {
        let len = LENGTH_AT + 4 + u32_at(frame, at + LENGTH_AT);
        (frame[at + MAGIC_AT] == 2 && (BATCH_HEADER_BYTES..=frame.len() - at).contains(&len)).then_some(at..at + len)
    })
}

/// The whole frames at the front.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while bytes.len() >= HEADER_BYTES {
        let len = 4 + u32_at(bytes, 0);
        if !(HEADER_BYTES..=bytes.len()).contains(&len) {
            break;
        }
        frames.push(bytes[..len].to_vec());
        bytes = &bytes[len..];
    }
    frames
}

/// As many frames as there is room for.
fn joined(frames: &[Vec<u8>], out: &mut [u8]) -> usize {
    let mut size = 0;
    for frame in frames {
        let Some(room) = out.get_mut(size..size + frame.len()) else { break };
        room.copy_from_slice(frame);
        size += frame.len();
    }
    size
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringlog_engine::batch::{BatchBuilder, batches};
    use ringlog_engine::types::{Offset, TimestampMs};

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut frame = (8 + body.len() as u32).to_be_bytes().to_vec();
        frame.extend([0, 0, 0, 9, 0, 0, 0, 1]);
        frame.extend(body);
        frame
    }

    fn produce() -> Vec<u8> {
        let mut batch = BatchBuilder::new(Offset(0));
        batch.push(TimestampMs(1), None, Some(b"value"), &[]);
        [b"a topic".to_vec(), batch.build(), vec![0]].concat()
    }

    /// Changes a byte near the end, and makes it longer.
    fn bytes(data: &mut [u8], size: usize, size_max: usize) -> usize {
        if size > 3 {
            data[size - 3] ^= 0x55;
        }
        (size + 7).min(size_max)
    }

    #[test]
    fn most_mutations_leave_whole_frames_with_sound_batches() {
        let stream = [frame(&produce()), frame(b"x"), frame(&produce())].concat();
        let (mut whole, mut changed) = (0, 0);
        for seed in 0..400 {
            let mut data = stream.clone();
            data.resize(4096, 0);
            let size = mutate(&mut data, stream.len(), 4096, seed, bytes);
            let frames = split(&data[..size]);
            whole += usize::from(frames.iter().map(Vec::len).sum::<usize>() == size);
            changed += usize::from(data[..size] != stream);
            for frame in frames.iter().filter(|frame| frame.len() > 60) {
                let at = batch(frame, HEADER_BYTES).unwrap();
                assert!(batches(&frame[at]).next().unwrap().is_ok(), "seed {seed}");
            }
        }
        assert!(whole > 340 && changed > 340, "{whole} whole, {changed} changed of 400");
    }

    #[test]
    fn what_is_no_frame_is_mutated_as_bytes() {
        let mut data = vec![0xff; 64];
        assert_eq!(mutate(&mut data, 20, 64, 1, bytes), 27);
    }

    #[test]
    fn a_cross_over_has_frames_of_both_and_no_more_than_there_is_room_for() {
        let (one, other) = ([frame(b"a"), frame(b"b")].concat(), [frame(b"c"), frame(b"d")].concat());
        for seed in 0..100 {
            let mut out = vec![0; 60];
            let size = cross_over(&one, &other, &mut out, seed);
            assert!(size <= 60 && size.is_multiple_of(13) && size >= one.len(), "{size}");
        }
    }
}
