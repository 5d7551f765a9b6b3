//! Cutting a segment's file at the first damage, at the start of its log. What is cut off is kept aside if sound batches are in it.
//! For [`super`].

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::Opening;
use crate::disk::{Create, File, OpenOptions, Payload};
use crate::log::scan::Scanner;
use crate::types::Offset;

impl Opening<'_> {
    /// Cuts a file at the first damage above the recovery point. Returns whether that was only the padding of a last block.
    pub(super) async fn cut(
        &mut self,
        path: &Path,
        base: Offset,
        position: u64,
        next_offset: Offset,
        file_bytes: u64,
        reason: &str,
    ) -> io::Result<bool> {
        let padding = self.is_zero(path, position, file_bytes).await?;
        if !padding {
            tracing::warn!(
                segment = %path.display(), position, offset = next_offset.0, bytes = file_bytes - position, reason,
                "the segment is cut at the first bad batch: a crash tore what was being written there"
            );
            self.set_aside(path, base, position, file_bytes).await?;
        }
        // Where nothing of it is left, it was renamed or removed: the segment starts empty.
        let file = self.disk.open(path, OpenOptions { create: Create::IfMissing, write: true, direct: false }).await?;
        file.set_len(position).await?;
        file.sync_data().await?;
        self.changed = true;
        Ok(padding)
    }

    /// Whether a file has nothing but zeros from `position` on: the padding of a last block.
    pub(super) async fn is_zero(&self, path: &Path, position: u64, file_bytes: u64) -> io::Result<bool> {
        let file = self.disk.open(path, OpenOptions::READ).await?;
        let mut at = position;
        while at < file_bytes {
            let len = (256 << 10).min((file_bytes - at) as usize);
            let buffer = self.pool.buffer_or_more(len)?;
            let (buffer, read) = file.read_at(buffer, len, at).await?;
            if read == 0 || buffer[..read].iter().any(|&byte| byte != 0) {
                return Ok(read == 0);
            }
            at += read as u64;
        }
        Ok(true)
    }

    /// Copies what is cut off to a file of its own if sound batches are in it. A whole segment is renamed instead.
    pub(super) async fn set_aside(&mut self, path: &Path, base: Offset, position: u64, file_bytes: u64) -> io::Result<()> {
        let file: Rc<dyn File> = self.disk.open(path, OpenOptions::READ).await?;
        let mut scanner = Scanner::new(file.clone(), self.pool, file_bytes, position, base, true);
        let sound = scanner.next().await?.is_ok() || scanner.skip_damage().await?;
        self.changed = true;
        if position == 0 {
            if sound {
                let aside = self.free_name(path, position).await?;
                tracing::warn!(kept = %aside.display(), "a segment behind the damage is kept aside");
                self.disk.rename(path, &aside).await?;
            } else {
                self.disk.remove_file(path).await?;
            }
            return self.remove_indexes(path).await;
        }
        if !sound {
            return Ok(());
        }
        let aside = self.free_name(path, position).await?;
        tracing::warn!(kept = %aside.display(), "what is cut off has sound batches: it is kept aside");
        // By a name that the next start removes, so that a copy which a crash left unfinished is not taken for a whole one.
        let unfinished = aside.with_extension("cut.tmp");
        let copy = self.disk.open(&unfinished, OpenOptions::WRITE).await?;
        let mut at = position;
        while at < file_bytes {
            let len = (1 << 20).min((file_bytes - at) as usize);
            let buffer = self.pool.buffer_or_more(len)?;
            let (buffer, read) = file.read_at(buffer, len, at).await?;
            if read == 0 {
                break;
            }
            copy.write_at(Payload::Buffer { buffer, len: read }, at - position).await?;
            at += read as u64;
        }
        copy.sync_data().await?;
        self.disk.rename(&unfinished, &aside).await?;
        // Before the cut: of that nothing tells how far it has come when the power goes.
        self.disk.sync_dir(&self.params.directory).await
    }

    /// A name for what is cut off at `position`, with a number where an earlier cut has it.
    async fn free_name(&self, path: &Path, position: u64) -> io::Result<PathBuf> {
        let names = self.disk.list(&self.params.directory).await?;
        let taken = |path: &PathBuf| names.iter().any(|entry| path.ends_with(&entry.name));
        let mut aside = path.with_extension(format!("log.{position}.cut"));
        for number in 1.. {
            if !taken(&aside) {
                break;
            }
            aside = path.with_extension(format!("log.{position}.{number}.cut"));
        }
        Ok(aside)
    }
}
