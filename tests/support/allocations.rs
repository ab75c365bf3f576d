//! An allocator that remembers what the calling thread asked for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// To be the `#[global_allocator]` of a test that calls [`watch`].
pub struct Watched;

/// What one thread asked for during a call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocations {
    /// Bytes of the largest single request.
    pub largest: usize,
    /// Most bytes held at once, beyond those before the call.
    pub peak: usize,
}

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static SEEN: Cell<Allocations> = const { Cell::new(Allocations { largest: 0, peak: 0 }) };
}

/// Counts a request in place of `old` bytes; a thread that is ending has no cells any more.
fn note(request: usize, old: usize) {
    let _ = HELD.try_with(|held| held.set(held.get() + request as isize - old as isize));
    let _ = SEEN.try_with(|seen| {
        let held = HELD.try_with(Cell::get).unwrap_or(0).max(0) as usize;
        let Allocations { largest, peak } = seen.get();
        seen.set(Allocations { largest: largest.max(request), peak: peak.max(held) });
    });
}

unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The answer of `call`, and what this thread asked for meanwhile.
pub fn watch<T>(call: impl FnOnce() -> T) -> (T, Allocations) {
    HELD.with(|held| held.set(0));
    SEEN.with(|seen| seen.set(Allocations::default()));
    let answer = call();
    (answer, SEEN.with(Cell::get))
}
