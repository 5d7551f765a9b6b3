//! The scrub: each core goes through what its partitions have on the disk, again and again, so that what rots is heard of while a copy
//! of it may still be had, and not by the consumer that comes for it a year later. One step at a time in the whole process, at a
//! bounded rate: a large read around the page cache, so that what is read is what the disk has and nobody's pages go; then a
//! look at it ([`crate::log::scrub`]) on the background thread.
//!
//! It changes nothing and keeps nothing on the disk: at each start it begins anew, with the partitions in random order, so that a
//! broker that never runs for a whole pass gets everywhere too. What it finds is logged, once in the life of the process.
//!
//! It takes no lock of a partition. Segments may be removed, replaced or cut at any time: what was read counts only where the log
//! still has the segment afterwards, under its name.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::core::{Core, Slot};
use crate::disk::cache::Purpose;
use crate::disk::{BLOCK_BYTES, File, OpenOptions, Shortage};
use crate::env;
use crate::log::published::{Segment, Standing};
use crate::log::scrub::{Checker, Damage, Extent};
use crate::segment::names::FileKind;
use crate::types::Offset;

/// How much a step reads, and what it counts as at the least: small files cost the disk their seeks.
const STEP_BYTES_MAX: u64 = 1 << 20;
const STEP_BYTES_MIN: u64 = 64 << 10;
/// How many steps there are in a second, at low rates.
const STEPS_PER_SECOND: u64 = 4;
/// How long after the start the first pass begins.
const FIRST_DELAY: Duration = Duration::from_secs(30);
/// Waits are in steps of this, so that a stop does not wait for them.
const WAIT_STEP: Duration = Duration::from_millis(100);
/// How long to wait where there is no memory, or no descriptor.
const SHORTAGE_WAIT: Duration = Duration::from_secs(1);
/// How many places are remembered, so that each is told once.
const FINDINGS_MAX: usize = 1_000;

/// The broker's options of the scrub.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrubSettings {
    /// `ringlog.scrub.enable`.
    pub enabled: bool,
    /// `ringlog.scrub.io.max.bytes.per.second`: over all cores.
    pub bytes_per_second_max: u64,
    /// `ringlog.scrub.interval.ms`: from the beginning of a pass to that of the next.
    pub interval: Duration,
}

impl Default for ScrubSettings {
    fn default() -> Self {
        Self { enabled: true, bytes_per_second_max: 4 << 20, interval: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// What is wrong at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// It is not what was written.
    Damaged,
    /// The disk does not give it.
    Unreadable,
}

/// A place that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub position: u64,
    /// Everything below this offset comes before it.
    pub offset: Offset,
    /// The reason.
    pub reason: String,
    core: usize,
    segment: u64,
}

/// What all cores of a process share of the scrub.
pub struct Scrubber {
    settings: ScrubSettings,
    /// Held by whoever reads, and while what was read is paid for by waiting.
    turn: tokio::sync::Mutex<()>,
    findings: Mutex<Vec<Finding>>,
    found: AtomicU64,
    is_full: AtomicBool,
}

impl Scrubber {
    /// For the cores of one process.
    #[must_use]
    pub fn new(settings: ScrubSettings) -> Arc<Self> {
        let (turn, findings) = (tokio::sync::Mutex::new(()), Mutex::default());
        Arc::new(Self { settings, turn, findings, found: AtomicU64::new(0), is_full: AtomicBool::new(false) })
    }

    /// What was found in segments that were there at the beginning of the last pass.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Of how many places with damage was told since the start.
    #[must_use]
    pub fn damage_count(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    fn step_bytes(&self) -> u64 {
        let bytes = self.settings.bytes_per_second_max / STEPS_PER_SECOND / STEP_BYTES_MIN * STEP_BYTES_MIN;
        bytes.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX)
    }

    /// Tells of it, unless it was told before.
    fn tell(&self, finding: Finding) {
        {
            let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
            let is_same = |other: &Finding| {
                (other.segment, other.kind, &other.path, other.position)
                    == (finding.segment, finding.kind, &finding.path, finding.position)
            };
            if findings.iter().any(is_same) {
                return;
            }
            if findings.len() >= FINDINGS_MAX {
                if !self.is_full.swap(true, Ordering::Relaxed) {
                    tracing::error!("the scrub finds more than {FINDINGS_MAX} bad places: the others are not told one by one");
                }
                return;
            }
            findings.push(finding.clone());
        }
        let Finding { path, position, offset, reason, .. } = &finding;
        let (path, advice) = (path.display(), advice(&finding));
        match finding.kind {
            FindingKind::Damaged => {
                self.found.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%path, position, offset = offset.0, reason, "the scrub found damage on the disk: {advice}");
            }
            FindingKind::Unreadable => {
                tracing::error!(%path, position, offset = offset.0, reason, "the scrub cannot read a segment: {advice}");
            }
        }
    }

    /// Forgets what a core found in segments that it does not have any more.
    fn forget(&self, core: usize, segments: impl FnOnce() -> HashSet<u64>) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if !findings.is_empty() {
            let there = segments();
            findings.retain(|finding| finding.core != core || there.contains(&finding.segment));
        }
    }
}

fn advice(finding: &Finding) -> &'static str {
    let is_log = finding.path.extension().is_some_and(|extension| extension == "log");
    match finding.kind {
        FindingKind::Damaged if is_log => {
            "nothing was changed, and what is sound is served; `ringlog log verify` shows all of it, `ringlog log repair` takes it \
             out once the broker is stopped"
        }
        FindingKind::Damaged => {
            "no record is lost by it; `ringlog log verify` shows all of it, `ringlog log repair` makes the index anew once the \
             broker is stopped"
        }
        FindingKind::Unreadable => "the kernel's log may say why; what can be read is served",
    }
}

/// What a pass has been through.
#[derive(Default)]
struct Pass {
    segments: u64,
    bytes: u64,
    damage: u64,
}

/// Why a segment was not gone through to its end.
enum Left {
    /// It is not the log's any more, or the broker stops.
    Gone,
    /// The disk fails.
    Failed(io::Error),
}

impl From<io::Error> for Left {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Core {
    /// Has this core scrub its partitions.
    pub fn start_scrubber(self: &Rc<Self>, scrubber: Arc<Scrubber>) {
        if scrubber.settings.enabled {
            self.env.spawn(Box::pin(run(self.clone(), scrubber)));
        }
    }

    /// How often the scrub went through all partitions since the start.
    #[must_use]
    pub fn scrub_passes(&self) -> u64 {
        self.scrub_passes.get()
    }

    /// The files of the segments that a whole pass goes through to their end.
    #[must_use]
    pub fn sealed_segments(&self) -> Vec<PathBuf> {
        let slots = self.slots.borrow();
        let views = slots.values().map(|slot| (slot, slot.log.borrow().published().view.load_full()));
        let sealed = views.flat_map(|(slot, view)| {
            let is_sealed = |segment: &&Arc<Segment>| self.scrub_extent(slot, segment).is_ok_and(|extent| extent.is_sealed);
            view.segments.iter().filter(is_sealed).map(|segment| segment.path.clone()).collect::<Vec<_>>()
        });
        sealed.collect()
    }

    /// Goes through everything once.
    async fn scrub_all(&self, scrubber: &Scrubber) -> Pass {
        scrubber.forget(self.index, || {
            let slots = self.slots.borrow();
            let views = slots.values().map(|slot| slot.log.borrow().published().view.load_full());
            views.flat_map(|view| view.segments.iter().map(|segment| segment.id).collect::<Vec<_>>()).collect()
        });
        let mut pass = Pass::default();
        // A pass may take days: a partition that is deleted meanwhile is not kept for it.
        let mut ids: Vec<_> = self.slots.borrow().keys().copied().collect();
        while !ids.is_empty() {
            let id = ids.swap_remove(self.random_below(ids.len()));
            let Some(slot) = self.slot(id) else { continue };
            let segments = slot.log.borrow().published().view.load().segments.clone();
            let first = self.random_below(segments.len().max(1));
            for at in 0..segments.len() {
                let segment = &segments[(first + at) % segments.len()];
                match self.scrub_segment(scrubber, &slot, segment, &mut pass).await {
                    Ok(()) | Err(Left::Gone) => {}
                    Err(Left::Failed(error)) => {
                        let finding = self.finding(segment, FindingKind::Unreadable, &segment.path, error.to_string());
                        scrubber.tell(finding);
                    }
                }
                // Others need the descriptor more.
                self.files.close(segment.id, Purpose::ReadDirect);
                if self.stopping.get() {
                    return pass;
                }
            }
        }
        pass
    }

    fn random_below(&self, bound: usize) -> usize {
        (self.env.random_u64() % bound as u64) as usize
    }

    /// How much of a segment there is to check, where it is still the slot's and its files have its name.
    fn scrub_extent(&self, slot: &Slot, segment: &Arc<Segment>) -> Result<Extent, Left> {
        if self.stopping.get() || slot.deleted.get() || segment.standing() != Standing::Current {
            return Err(Left::Gone);
        }
        slot.log.borrow().scrub_extent(segment).ok_or(Left::Gone)
    }

    async fn scrub_segment(&self, scrubber: &Scrubber, slot: &Slot, segment: &Arc<Segment>, pass: &mut Pass) -> Result<(), Left> {
        let extent = self.scrub_extent(slot, segment)?;
        if extent.bytes == 0 {
            return Ok(());
        }
        let mut checker = Box::new(Checker::new(segment, extent));
        if extent.is_sealed {
            for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
                let path = segment.path.with_extension(&kind.suffix()[1..]);
                let read = loop {
                    match self.scrub_index(scrubber, slot, segment, &path).await {
                        Err(Left::Failed(error)) if Shortage::of(&error).is_some() => self.env.sleep(SHORTAGE_WAIT).await,
                        read => break read,
                    }
                };
                match read {
                    Ok(bytes) => {
                        pass.bytes += bytes.len() as u64;
                        checker = self
                            .look(move || {
                                match kind {
                                    FileKind::OffsetIndex => checker.set_offset_index(&bytes),
                                    _ => checker.set_time_index(&bytes),
                                }
                                checker
                            })
                            .await?;
                    }
                    // Reads go without it.
                    Err(Left::Failed(error)) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(Left::Failed(error)) => {
                        scrubber.tell(self.finding(segment, FindingKind::Unreadable, &path, error.to_string()));
                    }
                    Err(Left::Gone) => return Err(Left::Gone),
                }
            }
        }
        loop {
            for damage in checker.take_damage() {
                // What was read may have been another segment's.
                self.scrub_extent(slot, segment)?;
                pass.damage += 1;
                if damage.file == FileKind::Log {
                    // The page cache may have what the disk has.
                    segment.note_damage();
                }
                scrubber.tell(self.damaged(segment, damage));
            }
            if checker.is_done() {
                pass.segments += 1;
                return Ok(());
            }
            let position = checker.position();
            match self.scrub_step(scrubber, slot, segment, checker, extent, pass).await {
                Ok(back) => checker = back,
                Err((_, Left::Gone)) => return Err(Left::Gone),
                Err((None, left)) => return Err(left),
                Err((Some(back), Left::Failed(error))) if Shortage::of(&error).is_some() => {
                    self.env.sleep(SHORTAGE_WAIT).await;
                    checker = back;
                }
                Err((Some(back), Left::Failed(error))) => {
                    self.scrub_extent(slot, segment)?;
                    let mut finding = self.finding(segment, FindingKind::Unreadable, &segment.path, error.to_string());
                    finding.position = position;
                    scrubber.tell(finding);
                    checker = back;
                    checker.skip(position + scrubber.step_bytes());
                }
            }
        }
    }

    fn finding(&self, segment: &Segment, kind: FindingKind, path: &std::path::Path, reason: String) -> Finding {
        let (offset, path) = (segment.base_offset, path.to_owned());
        Finding { kind, path, position: 0, offset, reason, core: self.index, segment: segment.id }
    }

    fn damaged(&self, segment: &Segment, damage: Damage) -> Finding {
        let Damage { file, position, offset, reason } = damage;
        let path = segment.path.with_extension(&file.suffix()[1..]);
        Finding { position, offset, ..self.finding(segment, FindingKind::Damaged, &path, reason) }
    }

    /// Reads what the checker wants next, and has it looked at. The checker comes back from a read that failed, too.
    async fn scrub_step(
        &self,
        scrubber: &Scrubber,
        slot: &Slot,
        segment: &Arc<Segment>,
        mut checker: Box<Checker>,
        extent: Extent,
        pass: &mut Pass,
    ) -> Result<Box<Checker>, (Option<Box<Checker>>, Left)> {
        let turn = scrubber.turn.lock().await;
        let began = self.env.monotonic();
        let (position, upto) = (checker.position(), extent.bytes);
        let block = position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let mut read_bytes = 0;
        let looked = {
            let _step = self.scrub_lock.lock().await;
            let read = async {
                self.scrub_extent(slot, segment)?;
                let file = self.files.open(segment.id, Purpose::ReadDirect, &segment.path).await;
                // Only now it is known whose file that is.
                self.scrub_extent(slot, segment)?;
                self.scrub_read(&file?, block, scrubber.step_bytes().min(upto - block)).await
            };
            match read.await {
                Ok((buffer, read)) => {
                    read_bytes = read as u64;
                    let skip = (position - block) as usize;
                    let look = move || {
                        if read > skip {
                            checker.feed(&buffer[skip..read]);
                        } else {
                            checker.file_ends();
                        }
                        checker
                    };
                    self.look(look).await.map_err(|left| (None, left))
                }
                Err(Left::Failed(error)) if error.kind() == io::ErrorKind::NotFound => {
                    checker.file_ends();
                    Ok(checker)
                }
                Err(left) => Err((Some(checker), left)),
            }
        };
        pass.bytes += read_bytes;
        self.spend(scrubber, began, read_bytes).await;
        drop(turn);
        looked
    }

    /// All of an index file.
    async fn scrub_index(
        &self,
        scrubber: &Scrubber,
        slot: &Slot,
        segment: &Arc<Segment>,
        path: &std::path::Path,
    ) -> Result<Vec<u8>, Left> {
        let mut bytes = Vec::new();
        loop {
            let turn = scrubber.turn.lock().await;
            let began = self.env.monotonic();
            let step = scrubber.step_bytes();
            let read = {
                let _step = self.scrub_lock.lock().await;
                self.scrub_extent(slot, segment)?;
                // Opened anew for each step: it may be long until the next one.
                let file = self.disk.open(path, OpenOptions { direct: true, ..OpenOptions::READ }).await;
                self.scrub_extent(slot, segment)?;
                // A step is whole blocks, so all but the last one are read whole.
                let (buffer, read) = self.scrub_read(&file?, bytes.len() as u64, step).await?;
                self.scrub_extent(slot, segment)?;
                bytes.try_reserve(read).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
                bytes.extend_from_slice(&buffer[..read]);
                read
            };
            self.spend(scrubber, began, read as u64).await;
            drop(turn);
            if read == 0 || !read.is_multiple_of(BLOCK_BYTES) {
                return Ok(bytes);
            }
        }
    }

    /// Up to `len` bytes from `position`, the beginning of a block, on; less where there is little memory.
    async fn scrub_read(&self, file: &Rc<dyn File>, position: u64, len: u64) -> Result<(crate::memory::Buffer, usize), Left> {
        let len = (len as usize).next_multiple_of(BLOCK_BYTES);
        let buffer = loop {
            match self.scratch.buffer_up_to(len) {
                Ok(buffer) => break buffer,
                Err(_) if self.stopping.get() => return Err(Left::Gone),
                Err(_) => self.env.sleep(SHORTAGE_WAIT).await,
            }
        };
        let len = len.min(buffer.len() / BLOCK_BYTES * BLOCK_BYTES);
        Ok(file.read_at(buffer, len, position).await?)
    }

    /// Runs a piece of work on the background thread.
    async fn look<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Left> {
        env::in_background(&*self.env, work).await.ok_or(Left::Gone)
    }

    /// Waits until so many bytes may have been read since `began`.
    async fn spend(&self, scrubber: &Scrubber, began: Duration, bytes: u64) {
        let rate = scrubber.settings.bytes_per_second_max.max(1);
        let until = began + Duration::from_secs_f64(bytes.max(STEP_BYTES_MIN) as f64 / rate as f64);
        self.wait_until(until).await;
    }

    async fn wait_until(&self, until: Duration) {
        while !self.stopping.get() {
            let left = until.saturating_sub(self.env.monotonic());
            if left < Duration::from_micros(100) {
                return;
            }
            self.env.sleep(left.min(WAIT_STEP)).await;
        }
    }
}

async fn run(core: Rc<Core>, scrubber: Arc<Scrubber>) {
    let interval = scrubber.settings.interval;
    core.env.sleep(FIRST_DELAY.min(interval)).await;
    while !core.stopping.get() {
        let began = core.env.monotonic();
        let Pass { segments, bytes, damage } = core.scrub_all(&scrubber).await;
        if core.stopping.get() {
            return;
        }
        core.scrub_passes.set(core.scrub_passes.get() + 1);
        if segments > 0 {
            let seconds = core.env.monotonic().saturating_sub(began).as_secs();
            tracing::info!(core = core.index, segments, bytes, seconds, damaged_places = damage, "scrubbed");
        }
        core.env.sleep((began + interval).saturating_sub(core.env.monotonic())).await;
    }
}
