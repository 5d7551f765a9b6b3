//! Blocks of memory in size classes, carved from regions of 2 MiB. See [`super`].
#![allow(unsafe_code, reason = "raw memory: this module and its neighbour are the only ones that hold pointers to it")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::SegQueue;
#[cfg(not(miri))]
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// The unit in which memory is taken from the system, and the size and alignment of a huge page.
const REGION_BYTES: usize = 2 << 20;
/// The sizes of blocks that share a region; larger ones have regions to themselves.
const CLASSES_BYTES: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// The alignment of every block: what O_DIRECT asks for on any device.
pub(super) const ALIGN_BYTES: usize = 4096;
const _: () = assert!(CLASSES_BYTES[0].is_multiple_of(ALIGN_BYTES) && REGION_BYTES.is_multiple_of(ALIGN_BYTES));

/// Memory mapped from the system: `len` bytes at `ptr`, always initialised (the kernel zeroes it).
struct Region {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: a region is memory; who may touch which part of it is settled by `RawBlock`'s single ownership.
unsafe impl Send for Region {}

#[cfg(not(miri))]
impl Region {
    fn map(len: usize) -> Option<Self> {
        debug_assert!(len.is_multiple_of(REGION_BYTES));
        #[cfg(fuzzing)]
        if let Some(region) = spare::take(len) {
            return Some(region);
        }
        // Twice the alignment is asked for and the ends given back, since mmap aligns to small pages only.
        let wanted = len + REGION_BYTES;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice aliases nothing.
        let raw = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), wanted, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }
        .ok()?
        .cast::<u8>();
        let head = raw.align_offset(REGION_BYTES);
        // SAFETY: head < REGION_BYTES and wanted = len + REGION_BYTES, so all pieces lie inside the new mapping; the two
        // that are unmapped are not part of the region.
        let ptr = unsafe {
            let start = raw.add(head);
            if head > 0 {
                let _ = rustix::mm::munmap(raw.cast(), head);
            }
            if wanted - head - len > 0 {
                let _ = rustix::mm::munmap(start.add(len).cast(), wanted - head - len);
            }
            // Best effort: without huge pages everything works, slower.
            let _ = rustix::mm::madvise(start.cast(), len, Advice::LinuxHugepage);
            start
        };
        Some(Self { ptr: NonNull::new(ptr)?, len })
    }

    /// A few small pages: where a huge one would be zeroed for a file of some bytes.
    fn map_small(len: usize) -> Option<Self> {
        debug_assert!(len.is_multiple_of(ALIGN_BYTES) && len < REGION_BYTES);
        #[cfg(fuzzing)]
        if let Some(region) = spare::take(len) {
            return Some(region);
        }
        // SAFETY: an anonymous private mapping at an address of the kernel's choice aliases nothing.
        let raw = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        Some(Self { ptr: NonNull::new(raw.ok()?.cast())?, len })
    }
}

#[cfg(not(miri))]
impl Drop for Region {
    fn drop(&mut self) {
        #[cfg(fuzzing)]
        if spare::keep(self.ptr, self.len) {
            return;
        }
        // SAFETY: the region was mapped by `map` or `map_small` with this length; it is dropped only when no block of it is out.
        unsafe {
            let _ = rustix::mm::munmap(self.ptr.as_ptr().cast(), self.len);
        }
    }
}

/// A fuzzer makes a broker's pools for each input, and would spend its time on the kernel's zeroing: what one input has given back
/// the next one gets, as the next user of a block does.
#[cfg(fuzzing)]
mod spare {
    use std::mem::ManuallyDrop;

    use super::{Cell, NonNull, Region};

    const REGIONS_MAX: usize = 32;

    thread_local! {
        /// Never dropped: other things of the thread that are may have regions.
        static REGIONS: Cell<ManuallyDrop<Vec<(NonNull<u8>, usize)>>> = const { Cell::new(ManuallyDrop::new(Vec::new())) };
    }

    pub(super) fn take(len: usize) -> Option<Region> {
        let mut regions = REGIONS.take();
        let found = regions.iter().rposition(|&(_, spare)| spare == len).map(|at| regions.swap_remove(at));
        REGIONS.set(regions);
        found.map(|(ptr, len)| Region { ptr, len })
    }

    /// Whether it is kept: it is mapped then, and nobody's.
    pub(super) fn keep(ptr: NonNull<u8>, len: usize) -> bool {
        let mut regions = REGIONS.take();
        let keeps = regions.len() < REGIONS_MAX && len <= super::REGION_BYTES;
        if keeps {
            regions.push((ptr, len));
        }
        REGIONS.set(regions);
        keeps
    }
}

/// Miri makes no system calls: what follows is the same memory from its allocator, so that all else here can run under it.
#[cfg(miri)]
impl Region {
    fn map(len: usize) -> Option<Self> {
        // SAFETY: no region is empty.
        Some(Self { ptr: NonNull::new(unsafe { std::alloc::alloc_zeroed(Self::layout(len)) })?, len })
    }

    fn map_small(len: usize) -> Option<Self> {
        Self::map(len)
    }

    fn layout(len: usize) -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(len, REGION_BYTES).unwrap_or_else(|_| unreachable!("as large as all addresses"))
    }
}

#[cfg(miri)]
impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: it was allocated by `map`, with this layout; it is dropped only when no block of it is out.
        unsafe { std::alloc::dealloc(self.ptr.as_ptr(), Self::layout(self.len)) }
    }
}

/// Blocks that were given back, from whichever thread, until the pool looks.
struct Returns {
    blocks: SegQueue<ReturnedBlock>,
    out_bytes: AtomicUsize,
    /// The shared regions of a pool that is gone, as long as blocks of them are out: each block has this alive.
    kept: Mutex<Vec<Region>>,
}

struct ReturnedBlock {
    ptr: NonNull<u8>,
    len: usize,
    /// The mapping, where the block has one to itself.
    region: Option<Region>,
}

// SAFETY: a returned block has no other owner; only its address travels.
unsafe impl Send for ReturnedBlock {}

/// A block with exactly one owner. Its memory is initialised, aligned to [`ALIGN_BYTES`], and goes back to its pool on drop.
pub(super) struct RawBlock {
    pub(super) ptr: NonNull<u8>,
    pub(super) len: usize,
    region: Option<Region>,
    home: Option<Arc<Returns>>,
}

// SAFETY: `RawBlock` is the single owner of its memory, like a `Box<[u8]>`.
unsafe impl Send for RawBlock {}
// SAFETY: a shared reference to it gives no access to the memory.
unsafe impl Sync for RawBlock {}

impl Drop for RawBlock {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            // Release: a pool that goes, and finds nothing out, unmaps the memory after its last owner was done with it.
            home.out_bytes.fetch_sub(self.len, Ordering::Release);
            home.blocks.push(ReturnedBlock { ptr: self.ptr, len: self.len, region: self.region.take() });
        }
    }
}

/// Memory of one core, with an upper bound. Clones are handles to the same pool; they stay on its thread, blocks need not.
#[derive(Clone)]
pub struct Pool {
    inner: Rc<Inner>,
}

struct Inner {
    bytes_max: usize,
    mapped_bytes: Cell<usize>,
    free: RefCell<Free>,
    returns: Arc<Returns>,
    members: Cell<usize>,
    /// What the system said when it was asked last.
    refused: Cell<bool>,
}

/// What can be handed out without asking the system. Dropped with the pool: blocks that are still out then keep the shared regions.
#[derive(Default)]
struct Free {
    /// Free blocks per class.
    by_class: [Vec<NonNull<u8>>; CLASSES_BYTES.len()],
    /// How many blocks of each shared region are out or in `by_class`, by the region's address: class and number out.
    shared: HashMap<usize, SharedRegion>,
    /// Whole shared regions without a class.
    regions: Vec<Region>,
    /// Large blocks, by their size.
    large: Vec<Region>,
}

struct SharedRegion {
    class: usize,
    out: usize,
    region: Region,
}

impl Free {
    /// Takes a region from a class that has it to itself and uses none of it: where all memory is divided, it would never be
    /// of use to another.
    fn take_idle(&mut self) -> Option<Region> {
        let key = self.shared.iter().filter(|(_, shared)| shared.out == 0).map(|(&key, _)| key).min()?;
        let shared = self.shared.remove(&key)?;
        self.by_class[shared.class].retain(|&ptr| region_of(ptr) != key);
        Some(shared.region)
    }
}

impl Pool {
    /// A pool that takes at most `bytes_max` (rounded up to 2 MiB) from the system, as it is needed.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            inner: Rc::new(Inner {
                bytes_max: bytes_max.next_multiple_of(REGION_BYTES),
                mapped_bytes: Cell::new(0),
                free: RefCell::new(Free::default()),
                returns: Arc::new(Returns { blocks: SegQueue::new(), out_bytes: AtomicUsize::new(0), kept: Mutex::default() }),
                members: Cell::new(0),
                refused: Cell::new(false),
            }),
        }
    }

    /// The bound.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.inner.bytes_max
    }

    /// Becomes one of those that divide the pool among them, until what is returned is dropped.
    #[must_use]
    pub fn join(&self) -> Membership {
        self.inner.members.set(self.inner.members.get() + 1);
        Membership { inner: self.inner.clone() }
    }

    /// An equal share of the bound for each member. A measure for how large a block to ask for, not a bound.
    #[must_use]
    pub fn share_bytes(&self) -> usize {
        self.inner.bytes_max / self.inner.members.get().max(1)
    }

    /// How many bytes are handed out now.
    #[must_use]
    pub fn out_bytes(&self) -> usize {
        self.inner.returns.out_bytes.load(Ordering::Relaxed)
    }

    /// Whether it is the system, not the bound, that there is no more of: it had none when it was asked last.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.inner.refused.get()
    }

    /// A block of at least `len` bytes, or `None` where the bound is reached or the system has none. What it holds is arbitrary but
    /// initialised.
    #[must_use]
    pub fn buffer(&self, len: usize) -> Option<Buffer> {
        self.raw(len).map(|raw| Buffer { raw })
    }

    /// A block of at least `len` bytes, from beyond the bound where that is reached: for what has no other way.
    ///
    /// # Errors
    /// The system has no memory left.
    pub fn buffer_or_more(&self, len: usize) -> io::Result<Buffer> {
        self.buffer(len).map_or_else(|| Buffer::standalone(len), Ok)
    }

    /// As [`Pool::buffer_or_more`], but less, down to a page, where that much is not to be had: for what can be done in pieces.
    ///
    /// # Errors
    /// The system has no memory left.
    pub fn buffer_up_to(&self, len: usize) -> io::Result<Buffer> {
        let mut wanted = len;
        loop {
            match self.buffer_or_more(wanted) {
                Err(_) if wanted > ALIGN_BYTES => wanted = (wanted / 2).next_multiple_of(ALIGN_BYTES),
                result => return result,
            }
        }
    }

    pub(super) fn raw(&self, len: usize) -> Option<RawBlock> {
        self.take_returns();
        let block = match CLASSES_BYTES.iter().position(|&size| len <= size) {
            Some(class) => self.shared_block(class)?,
            None => self.large_block(len.next_multiple_of(REGION_BYTES))?,
        };
        self.inner.returns.out_bytes.fetch_add(block.len, Ordering::Relaxed);
        Some(block)
    }

    fn map(&self, len: usize) -> Option<Region> {
        let mapped = self.inner.mapped_bytes.get() + len;
        if mapped > self.inner.bytes_max {
            return None;
        }
        let region = Region::map(len);
        self.inner.refused.set(region.is_none());
        let region = region?;
        self.inner.mapped_bytes.set(mapped);
        Some(region)
    }

    fn shared_block(&self, class: usize) -> Option<RawBlock> {
        let mut free = self.inner.free.borrow_mut();
        if free.by_class[class].is_empty() {
            let region = match free.regions.pop() {
                Some(region) => region,
                None => self.map(REGION_BYTES).or_else(|| {
                    // Cached large blocks are given up for what is needed now.
                    while let Some(large) = free.large.pop() {
                        self.inner.mapped_bytes.set(self.inner.mapped_bytes.get() - large.len);
                    }
                    self.map(REGION_BYTES).or_else(|| free.take_idle())
                })?,
            };
            let size = CLASSES_BYTES[class];
            for at in (0..REGION_BYTES).step_by(size).rev() {
                // SAFETY: `at` lies inside the region.
                free.by_class[class].push(unsafe { region.ptr.add(at) });
            }
            free.shared.insert(region.ptr.as_ptr() as usize, SharedRegion { class, out: 0, region });
        }
        let ptr = free.by_class[class].pop()?;
        if let Some(shared) = free.shared.get_mut(&region_of(ptr)) {
            shared.out += 1;
        }
        Some(RawBlock { ptr, len: CLASSES_BYTES[class], region: None, home: Some(self.inner.returns.clone()) })
    }

    fn large_block(&self, len: usize) -> Option<RawBlock> {
        let mut free = self.inner.free.borrow_mut();
        let cached = free.large.iter().position(|region| region.len == len).map(|at| free.large.swap_remove(at));
        let region = match cached {
            Some(region) => region,
            None => self.map(len).or_else(|| {
                for region in free.large.drain(..).collect::<Vec<_>>() {
                    self.inner.mapped_bytes.set(self.inner.mapped_bytes.get() - region.len);
                }
                // Where the system is short, the last region stays: what is small goes on, whatever others take in the meantime.
                let keeps = usize::from(self.is_refused());
                while free.regions.len() + free.shared.len() > keeps
                    && let Some(region) = free.regions.pop().or_else(|| free.take_idle())
                {
                    self.inner.mapped_bytes.set(self.inner.mapped_bytes.get() - region.len);
                }
                self.map(len)
            })?,
        };
        Some(RawBlock { ptr: region.ptr, len, region: Some(region), home: Some(self.inner.returns.clone()) })
    }

    fn take_returns(&self) {
        if self.inner.returns.blocks.is_empty() {
            return;
        }
        let mut free = self.inner.free.borrow_mut();
        while let Some(block) = self.inner.returns.blocks.pop() {
            if let Some(region) = block.region {
                free.large.push(region);
                continue;
            }
            let key = region_of(block.ptr);
            let Some(shared) = free.shared.get_mut(&key) else { unreachable!("a block of no region") };
            shared.out -= 1;
            let class = shared.class;
            debug_assert_eq!(block.len, CLASSES_BYTES[class]);
            free.by_class[class].push(block.ptr);
            // A region that is free as a whole may serve another class, unless it is the last of its own.
            if free.shared[&key].out == 0 && free.by_class[class].len() > REGION_BYTES / CLASSES_BYTES[class] {
                free.by_class[class].retain(|&ptr| region_of(ptr) != key);
                if let Some(shared) = free.shared.remove(&key) {
                    free.regions.push(shared.region);
                }
            }
        }
    }
}

/// See [`Pool::join`].
pub struct Membership {
    inner: Rc<Inner>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.inner.members.set(self.inner.members.get() - 1);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Blocks that are still out point into these regions: they live on until the last of them is dropped.
        let free = std::mem::take(self.free.get_mut());
        while let Some(block) = self.returns.blocks.pop() {
            drop(block.region);
        }
        if self.returns.out_bytes.load(Ordering::Acquire) > 0 {
            let mut kept = self.returns.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(free.shared.into_values().map(|shared| shared.region));
        }
    }
}

fn region_of(ptr: NonNull<u8>) -> usize {
    ptr.as_ptr() as usize & !(REGION_BYTES - 1)
}

/// A block of memory with one owner; it derefs to all of its bytes. Aligned for direct I/O.
pub struct Buffer {
    raw: RawBlock,
}

impl Buffer {
    /// A buffer outside any pool, for rare large things.
    ///
    /// # Errors
    /// The system has no memory left ([`io::ErrorKind::OutOfMemory`]).
    pub fn standalone(len: usize) -> io::Result<Self> {
        let pages = len.max(1).next_multiple_of(ALIGN_BYTES);
        let len = if pages < REGION_BYTES { pages } else { len.next_multiple_of(REGION_BYTES) };
        let region = if len < REGION_BYTES { Region::map_small(len) } else { Region::map(len) };
        let region = region.ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { raw: RawBlock { ptr: region.ptr, len, region: Some(region), home: None } })
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the block is initialised memory of this length, and this value owns it alone.
        unsafe { std::slice::from_raw_parts(self.raw.ptr.as_ptr(), self.raw.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.raw.ptr.as_ptr(), self.raw.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_reused() {
        let pool = Pool::new(4 << 20);
        let first = pool.buffer(100).unwrap();
        assert_eq!(first.as_ptr() as usize % ALIGN_BYTES, 0);
        assert_eq!(first.len(), 16 << 10);
        assert_eq!(pool.out_bytes(), 16 << 10);
        let address = first.as_ptr() as usize;
        drop(first);
        assert_eq!(pool.out_bytes(), 0);
        assert_eq!(pool.buffer(16 << 10).unwrap().as_ptr() as usize, address);
    }

    #[test]
    fn the_bound_holds_and_memory_changes_class() {
        let pool = Pool::new(4 << 20);
        let small: Vec<_> = (0..256).map(|_| pool.buffer(16 << 10).unwrap()).collect();
        assert!(pool.buffer(16 << 10).is_none());
        assert!(pool.buffer(1 << 20).is_none());
        drop(small);
        let large: Vec<_> = (0..2).map(|_| pool.buffer(1 << 20).unwrap()).collect();
        drop(large);
        assert!(pool.buffer(4 << 20).is_some(), "what no class uses may become a large block");
    }

    #[test]
    fn a_class_that_uses_nothing_does_not_keep_the_last_region() {
        let pool = Pool::new(2 << 20);
        for bytes in [64 << 10, 16 << 10, 1 << 20, 2 << 20, 256 << 10] {
            let block = pool.buffer(bytes);
            assert!(block.is_some(), "{bytes} bytes");
        }
    }

    #[test]
    fn members_share_the_bound() {
        let pool = Pool::new(4 << 20);
        assert_eq!(pool.share_bytes(), 4 << 20);
        let members = [pool.join(), pool.join()];
        assert_eq!(pool.share_bytes(), 2 << 20);
        drop(members);
        assert_eq!(pool.share_bytes(), 4 << 20);
    }

    #[test]
    fn a_block_may_be_dropped_elsewhere() {
        let pool = Pool::new(2 << 20);
        let buffer = pool.buffer(1 << 20).unwrap();
        std::thread::spawn(move || drop(buffer)).join().unwrap();
        assert_eq!(pool.out_bytes(), 0);
        let a = pool.buffer(1 << 20).unwrap();
        let b = pool.buffer(1 << 20).unwrap();
        assert_ne!(a.as_ptr(), b.as_ptr());
    }

    /// What Miri looks for here: whoever gets a block next, or unmaps it, does so after its last owner was done.
    #[test]
    fn blocks_come_back_from_several_threads() {
        const ROUNDS: usize = if cfg!(miri) { 6 } else { 200 };
        let pool = Pool::new(8 << 20);
        let (senders, threads): (Vec<_>, Vec<_>) = (0..3_u8)
            .map(|thread| {
                let (sender, blocks) = std::sync::mpsc::channel::<Buffer>();
                let work = move || blocks.into_iter().for_each(|mut block| block[..8].fill(thread));
                (sender, std::thread::spawn(work))
            })
            .unzip();
        for round in 0..ROUNDS {
            for (at, sender) in senders.iter().enumerate() {
                let len = if (round + at) % 3 == 0 { 2 << 20 } else { 16 << 10 };
                if let Some(mut block) = pool.buffer(len) {
                    block[..8].fill(0xff);
                    sender.send(block).unwrap();
                }
            }
        }
        // Not joined before: the pool goes while its blocks are out.
        drop((pool, senders));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_buffer_outlives_its_pool() {
        let pool = Pool::new(2 << 20);
        let mut buffer = pool.buffer(10).unwrap();
        drop(pool);
        buffer[0] = 7;
        assert_eq!(buffer[0], 7);
    }
}
