//! Bits that flip in what is synced: in batches of segments, which the model then excuses, and in what can be made anew (indexes,
//! producer snapshots, leader epochs), of which it excuses nothing but what [`Partition`](crate::model::Partition) says.

use std::path::Path;

use ringlog_engine::batch::HEADER_BYTES;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::env::random::Random;

use crate::machine::DATA;
use crate::model::{Damage, Model};

/// Flips a bit in a file of some partition of the clients' topics. Returns what rots, if there is anything.
pub fn anything(disk: &SimDisk, model: &mut Model, random: &mut Random) -> Option<String> {
    let (topic, partition, _) = crate::client::pick(model, random)?;
    let folder = Path::new(DATA).join(format!("{}-{partition}", model.topics[topic].name));
    let suffix =
        [".log", ".log", ".log", ".index", ".timeindex", ".snapshot", "leader-epoch-checkpoint"][random.below(7) as usize];
    let entries = disk.entries(&folder);
    let files: Vec<_> = entries.into_iter().filter(|entry| entry.name.ends_with(suffix) && entry.len_bytes > 0).collect();
    let path = folder.join(&files.get(random.below(files.len() as u64) as usize)?.name);
    if suffix == ".log" {
        return batch(disk, model, random, &path, topic, partition);
    }
    let len = synced(disk, &path)?.len() as u64;
    if len == 0 {
        return None;
    }
    let (at, bit) = (random.below(len), random.below(8) as u8);
    disk.rot_at(&path, at, bit);
    let what = format!("{} rots at {at}", path.display());
    let there = model.partition(topic, partition);
    if suffix == ".index" {
        there.rotten_indexes.insert(base_of(&path));
    }
    there.are_producers_rotten |= suffix == ".snapshot";
    model.rotten_files.insert(path);
    Some(what)
}

/// The first offset of a segment, by the name of one of its files.
fn base_of(path: &Path) -> i64 {
    path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap_or(-1)
}

/// What is on the device of a file, and not cut off since.
fn synced(disk: &SimDisk, path: &Path) -> Option<Vec<u8>> {
    let entries = disk.entries(path.parent()?);
    let len_bytes = entries.iter().find(|entry| path.ends_with(&entry.name))?.len_bytes;
    let mut bytes = disk.durable_bytes(path)?;
    bytes.truncate(usize::try_from(len_bytes).unwrap_or(usize::MAX));
    Some(bytes)
}

/// Flips a bit of a batch in a segment file, of what is synced there. Returns what rots, if there is a sound batch.
pub fn batch(
    disk: &SimDisk,
    model: &mut Model,
    random: &mut Random,
    path: &Path,
    topic: usize,
    partition: i32,
) -> Option<String> {
    let bytes = synced(disk, path)?;
    let mut batches = Vec::new();
    let mut rest = &bytes[..];
    while let Ok(Some((batch, after))) = ringlog_engine::batch::split_first(rest) {
        if batch.check_crc().is_ok() {
            let header = batch.header();
            batches.push((bytes.len() - rest.len(), batch.bytes().len(), *header));
        }
        rest = after;
    }
    if batches.is_empty() {
        return None;
    }
    let (at, len, header) = batches[random.below(batches.len() as u64) as usize];
    // The CRC does not cover the base offset and the leader epoch, which the broker writes.
    let inside = loop {
        let inside = random.below(len as u64) as usize;
        if !(0..8).contains(&inside) && !(12..16).contains(&inside) {
            break inside;
        }
    };
    disk.rot_at(path, (at + inside) as u64, random.below(8) as u8);
    let (base, end) = (header.base_offset.0, header.next_offset().0);
    let producer = (header.producer_id.0 >= 0).then_some(header.producer_id.0);
    let damage = Damage { base, end, producer, segment: base_of(path), is_header: inside < HEADER_BYTES };
    model.partition(topic, partition).damage.push(damage);
    model.rot.entry((path.to_owned(), at as u64)).or_insert_with(|| bytes[at..at + len].to_vec());
    model.rotted_count += 1;
    Some(format!("{} rots at {}, in the batch at offset {base}", path.display(), at + inside))
}
