//! A journal whose checkpoint is damaged, without which the broker does not start. Its rounds are looked for block by block, and
//! of what they hold only that is used which goes on exactly where the sound part of a segment ends: rounds that the
//! checkpoint had freed are found too, and what they say is done with. Only reads; used by the repair.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use ringlog_engine::disk::BLOCK_BYTES;
use ringlog_engine::journal::format::{Entry, FormatError, HEADER_BYTES, RoundHeader};
use ringlog_engine::journal::generation_of;
use ringlog_engine::segment::names::log_file_name;
use ringlog_engine::types::{Offset, PartitionId};

use crate::offline::directory::{Partition, Segment};
use crate::offline::disk::{list, read_full};
use crate::offline::overlay::Overlay;
use crate::offline::segment::{Item, Reader};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Salvaged {
    pub(super) rounds: usize,
    /// How many bytes of it the segments lack.
    pub(super) bytes: u64,
}

/// Lays what the journal in `directory` has over the segments.
///
/// # Errors
/// Those of reading; `InvalidData` for a journal of a newer version.
pub(super) fn lay_over(partitions: &mut [Partition], directory: &Path) -> io::Result<Salvaged> {
    let by_id: BTreeMap<PartitionId, usize> =
        partitions.iter().enumerate().filter_map(|(at, partition)| Some((partition.id()?, at))).collect();
    let mut files: Vec<_> =
        list(directory)?.into_iter().filter_map(|entry| Some((generation_of(&entry.name)?, entry.name))).collect();
    files.sort_unstable();
    let mut salvaged = Salvaged::default();
    let mut ends = BTreeMap::new();
    // One that was given up, and then the one that took its place.
    for (_, name) in files {
        let file = File::open(directory.join(name))?;
        for (position, header) in chain(&rounds(&file)?) {
            salvaged.rounds += 1;
            let body = body(&file, position, &header)?;
            for (entry, payload) in header.entries(&body).unwrap_or_default() {
                if let Some(&at) = by_id.get(&entry.partition) {
                    salvaged.bytes += extend(&mut partitions[at], at, &entry, payload, &mut ends)?;
                }
            }
        }
    }
    Ok(salvaged)
}

/// Every whole round of a file, by its sequence.
fn rounds(file: &File) -> io::Result<BTreeMap<u64, (u64, RoundHeader)>> {
    let mut all: BTreeMap<[u8; 16], BTreeMap<u64, (u64, RoundHeader)>> = BTreeMap::new();
    let file_bytes = file.metadata()?.len();
    let mut block = vec![0; BLOCK_BYTES];
    let mut position = 0;
    while position < file_bytes {
        let read = read_full(file, &mut block, position)?;
        match RoundHeader::decode(&block[..read]) {
            Ok(header) if position + header.round_bytes() <= file_bytes && is_whole(file, position, &header)? => {
                all.entry(header.journal.0).or_default().insert(header.sequence, (position, header));
                position += header.round_bytes();
            }
            Ok(_) | Err(FormatError::NotARound(_)) => position += BLOCK_BYTES as u64,
            Err(error @ FormatError::Newer(_)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        }
    }
    // The file's own are the most.
    Ok(all.into_values().max_by_key(BTreeMap::len).unwrap_or_default())
}

fn body(file: &File, position: u64, header: &RoundHeader) -> io::Result<Vec<u8>> {
    let mut body = vec![0; header.body_bytes as usize];
    let read = read_full(file, &mut body, position + HEADER_BYTES as u64)?;
    body.truncate(read);
    Ok(body)
}

fn is_whole(file: &File, position: u64, header: &RoundHeader) -> io::Result<bool> {
    Ok(header.entries(&body(file, position, header)?).is_ok())
}

/// The rounds that lead to the last one, oldest first: not those that were given up.
fn chain(rounds: &BTreeMap<u64, (u64, RoundHeader)>) -> Vec<(u64, RoundHeader)> {
    let mut chain = Vec::new();
    let mut next = rounds.last_key_value().map(|(&sequence, _)| sequence);
    while let Some(&(position, header)) = next.and_then(|sequence| rounds.get(&sequence)) {
        chain.push((position, header));
        next = Some(header.previous).filter(|&previous| previous < header.sequence);
    }
    chain.reverse();
    chain
}

/// Lays an entry over its segment where it goes on from what is sound there. Returns how many bytes that adds.
fn extend(
    partition: &mut Partition,
    at: usize,
    entry: &Entry,
    payload: &[u8],
    ends: &mut BTreeMap<(usize, Offset), (u64, Offset)>,
) -> io::Result<u64> {
    let base = entry.segment_base;
    let (end, next_offset) = match ends.get(&(at, base)) {
        Some(&end) => end,
        None => match partition.segments.get(&base) {
            Some(segment) => sound_end(segment, base)?,
            None => {
                // The segment that comes next, and no other: what retention removed stays away.
                let Some((&last, segment)) = partition.segments.last_key_value() else { return Ok(0) };
                let (_, next_offset) = ends.get(&(at, last)).copied().map_or_else(|| sound_end(segment, last), Ok)?;
                if base != next_offset || entry.position != 0 {
                    return Ok(0);
                }
                let path = partition.path.join(log_file_name(base));
                partition.segments.insert(base, Segment { path, overlay: Overlay::default() });
                (0, base)
            }
        },
    };
    ends.insert((at, base), (end, next_offset));
    let Some(has) = end.checked_sub(entry.position).filter(|&has| has < payload.len() as u64) else { return Ok(0) };
    let Some(segment) = partition.segments.get_mut(&base) else { return Ok(0) };
    if entry.next_offset <= next_offset || (has == 0 && entry.base_offset < next_offset) {
        return Ok(0);
    }
    if has > 0 {
        let mut reader = Reader::open(segment, base)?;
        if reader.bytes(entry.position..end)? != &payload[..has as usize] {
            return Ok(0);
        }
    }
    let added = &payload[has as usize..];
    segment.overlay.write(end, added);
    ends.insert((at, base), (end + added.len() as u64, entry.next_offset));
    Ok(added.len() as u64)
}

/// Where the sound batches at the front of a segment end.
fn sound_end(segment: &Segment, base: Offset) -> io::Result<(u64, Offset)> {
    let mut reader = Reader::open(segment, base)?;
    let mut end = (0, base);
    while let Some(Item::Batch { position, batch, problem: None, .. }) = reader.next()? {
        end = (position + batch.header().size_bytes() as u64, batch.header().next_offset());
    }
    Ok(end)
}
