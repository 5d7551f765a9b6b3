//! Replaying a journal: a checkpoint and a file of any bytes.

use std::path::Path;
use std::rc::Rc;

use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::disk::{Disk, OpenOptions, Payload};
use ringlog_engine::env::sim::Simulation;
use ringlog_engine::journal::checkpoint::Checkpoint;
use ringlog_engine::journal::format::{HEADER_BYTES, RoundHeader};
use ringlog_engine::journal::replay::Replay;

use crate::input::Input;

const BLOCK_BYTES: usize = ringlog_engine::disk::BLOCK_BYTES;
/// A round takes a block at least.
const FILE_BYTES_MAX: usize = 64 * BLOCK_BYTES;

pub(crate) fn journal(input: &[u8]) {
    let mut input = Input::new(input);
    let mode = input.byte();
    let checkpoint = input.part();
    // Blocks are mostly zeros: each comes with its length.
    let mut file = Vec::new();
    while !input.is_empty() && file.len() < FILE_BYTES_MAX {
        file.extend_from_slice(input.part());
        file.resize(file.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    if mode & 1 == 1 {
        put_crcs_right(&mut file);
    }
    let checkpoint = match Checkpoint::decode(&String::from_utf8_lossy(checkpoint)) {
        // Where replay starts does not have to be in the file.
        Ok(checkpoint) => checkpoint.encode().into_bytes(),
        Err(_) => checkpoint.to_vec(),
    };
    let simulation = Simulation::new(1);
    let disk: Rc<dyn Disk> = SimDisk::immediate(&simulation).mount();
    simulation.block_on(async {
        let directory = Path::new("/ringlog-journal.0");
        disk.create_dir(directory).await.unwrap();
        let mut files = vec![("00000000000000000000.journal", &file)];
        if mode & 2 == 0 {
            files.push(("checkpoint", &checkpoint));
        }
        for (name, bytes) in files {
            let opened = disk.open(&directory.join(name), OpenOptions::WRITE).await.unwrap();
            opened.write_at(Payload::Bytes(bytes.clone()), 0).await.unwrap();
        }
        let Ok(mut replay) = Replay::open(&disk, directory).await else { return };
        let mut last = replay.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.previous);
        // JournalReplayEnds: sequences grow, so that no round is read twice, whatever the chain looks like.
        let mut rounds = 0;
        while let Ok(Some((header, entries))) = replay.next().await {
            assert!(header.sequence > last && header.previous == last);
            last = header.sequence;
            assert!(entries.iter().map(|(_, payload)| payload.len()).sum::<usize>() <= header.body_bytes as usize);
            rounds += 1;
        }
        assert!(rounds <= file.len() / BLOCK_BYTES);
    });
}

/// Gives every block that has a round's magic the CRCs of what stands there, as far as that is possible.
fn put_crcs_right(file: &mut [u8]) {
    for at in (0..file.len()).step_by(BLOCK_BYTES) {
        if !file[at..].starts_with(b"RINGLOGJ") || file.len() - at < HEADER_BYTES {
            continue;
        }
        let field = |file: &[u8], from: usize| u32::from_le_bytes(file[at + from..at + from + 4].try_into().unwrap());
        let body_bytes = field(file, 44) as usize;
        if let Some(body) = file.get(at + HEADER_BYTES..).and_then(|rest| rest.get(..body_bytes)) {
            let crc = crc32c::crc32c(body);
            file[at + 48..at + 52].copy_from_slice(&crc.to_le_bytes());
        }
        file[at + 12..at + 16].fill(0);
        let crc = crc32c::crc32c(&file[at..at + HEADER_BYTES]);
        file[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
        let _ = RoundHeader::decode(&file[at..]);
    }
}
