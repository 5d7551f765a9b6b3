//! An allocator that counts what a thread holds, so that a target can be held to a bound. Whoever links this crate has it.
#![allow(unsafe_code, reason = "a counting allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static HELD_MAX: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that is going away frees its last things when its counters are gone already: nothing to count then.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        HELD_MAX.with(|held_max| held_max.set(held_max.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on; the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that this thread held at once during `work`, beyond what it held before. Memory of the engine's pool comes from
/// the kernel and is not counted: it has a bound of its own.
pub fn held_max_during(work: impl FnOnce()) -> usize {
    let before = HELD.with(Cell::get);
    HELD_MAX.with(|held_max| held_max.set(before));
    work();
    (HELD_MAX.with(Cell::get) - before).unsigned_abs()
}
