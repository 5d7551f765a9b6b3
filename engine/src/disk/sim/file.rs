//! Operations on an open simulated file.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::faults::Operation;
use super::tree::{NodeId, errno};
use super::{Shared, State};
use crate::disk::{BLOCK_BYTES, File, IoFuture, OpenOptions, Payload};
use crate::memory::Buffer;

/// A simulated file is held in memory: what is longer is a mistake in a test.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A handle, closed when the last operation on it is done.
pub(super) struct OpenFile {
    pub(super) shared: Rc<Shared>,
    pub(super) life: u64,
    pub(super) node: NodeId,
    pub(super) path: PathBuf,
    pub(super) options: OpenOptions,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // After a crash the node may be gone, and its handles are.
        let _ = self.shared.alive(self.life, |state| {
            state.tree.file(self.node).handles -= 1;
            Ok(())
        });
    }
}

impl OpenFile {
    fn alive<T>(&self, f: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.shared.alive(self.life, f)
    }

    async fn begin(&self, operation: Operation, numbers: [u64; 2]) -> io::Result<()> {
        self.shared.begin(self.life, operation, &self.path, numbers).await
    }

    async fn pause(&self) -> io::Result<()> {
        self.shared.pause(self.life).await
    }

    fn check_write(&self) -> io::Result<()> {
        if self.options.write { Ok(()) } else { Err(errno(libc::EBADF)) }
    }

    fn check_blocks(&self, address: usize, len: usize, position: u64) {
        if self.options.direct {
            assert!(address.is_multiple_of(BLOCK_BYTES), "direct memory is aligned to blocks");
            assert!(len.is_multiple_of(BLOCK_BYTES), "direct operations move whole blocks, not {len} bytes");
            assert!(position.is_multiple_of(BLOCK_BYTES as u64), "direct operations start at a block, not at {position}");
        }
    }

    fn check_payload(&self, payload: &Payload, position: u64) {
        assert!(position + payload.len() as u64 <= FILE_BYTES_MAX, "a simulated file does not grow that large");
        match payload {
            Payload::Bytes(bytes) => {
                assert!(!self.options.direct || bytes.is_empty(), "a direct handle takes aligned memory only");
            }
            Payload::Buffer { buffer, len } => {
                assert!(*len <= buffer.len(), "a buffer has no more than its length");
                self.check_blocks(buffer.as_ptr() as usize, *len, position);
            }
            Payload::Slices(slices) => {
                for slice in slices {
                    self.check_blocks(slice.bytes().as_ptr() as usize, slice.len(), position);
                }
            }
        }
    }

    async fn read(&self, mut buffer: Buffer, len: usize, position: u64) -> io::Result<(Buffer, usize)> {
        self.begin(Operation::Read, [position, len as u64]).await?;
        let read = self.alive(|state| {
            let bytes = state.tree.file(self.node).content.bytes();
            let start = position.min(bytes.len() as u64) as usize;
            let read = len.min(bytes.len() - start);
            buffer[..read].copy_from_slice(&bytes[start..start + read]);
            state.counters.bytes_read += read as u64;
            Ok(read)
        })?;
        self.pause().await?;
        Ok((buffer, read))
    }

    async fn write(&self, payload: &Payload, position: u64) -> io::Result<()> {
        let failed = self.begin(Operation::Write, [position, payload.len() as u64]).await;
        self.check_write()?;
        let whole;
        let mut rest: &[u8] = match payload {
            Payload::Bytes(bytes) => bytes,
            Payload::Buffer { buffer, len } => &buffer[..*len],
            Payload::Slices(slices) => {
                whole = slices.iter().map(|slice| slice.bytes()).collect::<Vec<_>>().concat();
                &whole
            }
        };
        if let Err(e) = failed {
            // Any part of it is in the file, after all.
            self.alive(|state| {
                let len = state.random.below(rest.len() as u64 + 1) as usize;
                let len = len - len % self.granularity();
                state.write(self, &rest[..len], position).map(drop)
            })?;
            return Err(e);
        }
        let mut at = position;
        while !rest.is_empty() {
            let written = self.alive(|state| {
                let mut len = rest.len();
                if state.random.chance(state.plan.faults.short_write) {
                    let short = state.random.below(len as u64) as usize;
                    len = (short - short % self.granularity()).max(self.granularity()).min(len);
                }
                state.write(self, &rest[..len], at)
            })?;
            rest = &rest[written..];
            at += written as u64;
            self.pause().await?;
        }
        Ok(())
    }

    /// In what units it is cut short.
    fn granularity(&self) -> usize {
        if self.options.direct { BLOCK_BYTES } else { 1 }
    }

    async fn sync(&self) -> io::Result<()> {
        let failed = self.begin(Operation::Sync, [0; 2]).await;
        self.alive(|state| {
            let content = &mut state.tree.file(self.node).content;
            match failed {
                Ok(()) => {
                    content.sync();
                    state.counters.syncs += 1;
                    Ok(())
                }
                Err(e) => {
                    content.fail_sync(&mut state.random);
                    Err(e)
                }
            }
        })?;
        self.pause().await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        assert!(len <= FILE_BYTES_MAX, "a simulated file does not grow that large");
        self.begin(Operation::SetLen, [len, 0]).await?;
        self.check_write()?;
        self.alive(|state| {
            let file = state.tree.file(self.node);
            file.content.set_len(len as usize);
            file.modified = self.shared.simulation.env().now();
            Ok(())
        })?;
        self.pause().await
    }

    async fn allocate(&self, position: u64, len: u64) -> io::Result<()> {
        self.begin(Operation::Allocate, [position, len]).await?;
        self.check_write()?;
        self.alive(|state| {
            let end = position + len;
            if state.room_up_to(self.node, end) < end {
                state.counters.full += 1;
                return Err(errno(libc::ENOSPC));
            }
            state.tree.file(self.node).content.reserve(end);
            Ok(())
        })?;
        self.pause().await
    }
}

impl State {
    /// How far a file may reach, at most `end`, with what room there is.
    fn room_up_to(&mut self, node: NodeId, end: u64) -> u64 {
        if self.capacity_bytes.is_none() {
            return end;
        }
        let available = self.available();
        let has = self.tree.file(node).content.blocks() * BLOCK_BYTES as u64;
        end.min(has + available - available % BLOCK_BYTES as u64)
    }

    /// Writes what there is room for.
    fn write(&mut self, file: &OpenFile, bytes: &[u8], position: u64) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut end = self.room_up_to(file.node, position + bytes.len() as u64);
        if self.copies_on_write && self.capacity_bytes.is_some() {
            let blocks_before = position / BLOCK_BYTES as u64;
            end = end.min((blocks_before + self.available() / BLOCK_BYTES as u64) * BLOCK_BYTES as u64);
            let has_bytes = self.tree.file(file.node).content.blocks() * BLOCK_BYTES as u64;
            let wanted = position + bytes.len() as u64;
            if end < wanted && wanted <= has_bytes && self.random.chance(0.5) {
                // After an error any part may be there, all of it too.
                self.tree.file(file.node).content.write(position as usize, bytes);
                self.counters.full += 1;
                return Err(errno(libc::ENOSPC));
            }
        }
        if end <= position {
            self.counters.full += 1;
            return Err(errno(libc::ENOSPC));
        }
        let len = (end - position) as usize;
        let node = self.tree.file(file.node);
        node.modified = file.shared.simulation.env().now();
        let content = &mut node.content;
        if self.immediate {
            content.write_durable(position as usize, &bytes[..len]);
        } else {
            content.write(position as usize, &bytes[..len]);
        }
        self.counters.bytes_written += len as u64;
        Ok(len)
    }
}

/// An open file of a simulated disk.
pub(super) struct SimFile {
    pub(super) open: Rc<OpenFile>,
}

impl File for SimFile {
    fn len_bytes(&self) -> IoFuture<u64> {
        let open = self.open.clone();
        self.open.shared.run(async move {
            open.pause().await?;
            open.alive(|state| Ok(state.tree.file(open.node).content.bytes().len() as u64))
        })
    }

    fn read_at(&self, buffer: Buffer, len: usize, position: u64) -> IoFuture<(Buffer, usize)> {
        assert!(len <= buffer.len(), "a buffer has no more than its length");
        self.open.check_blocks(buffer.as_ptr() as usize, len, position);
        let open = self.open.clone();
        self.open.shared.run(async move { open.read(buffer, len, position).await })
    }

    fn write_at(&self, payload: Payload, position: u64) -> IoFuture<()> {
        self.open.check_payload(&payload, position);
        let open = self.open.clone();
        self.open.shared.run(async move { open.write(&payload, position).await })
    }

    fn write_and_sync(&self, payload: Payload, position: u64, written: oneshot::Sender<()>) -> IoFuture<()> {
        self.open.check_payload(&payload, position);
        let open = self.open.clone();
        self.open.shared.run(async move {
            open.write(&payload, position).await?;
            drop(payload);
            // The receiver may have lost interest.
            let _ = written.send(());
            open.sync().await
        })
    }

    fn sync_data(&self) -> IoFuture<()> {
        let open = self.open.clone();
        self.open.shared.run(async move { open.sync().await })
    }

    fn set_len(&self, len: u64) -> IoFuture<()> {
        let open = self.open.clone();
        self.open.shared.run(async move { open.set_len(len).await })
    }

    fn allocate(&self, position: u64, len: u64) -> IoFuture<()> {
        let open = self.open.clone();
        self.open.shared.run(async move { open.allocate(position, len).await })
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
