//! An allocator that gives what the log announces the same addresses in every execution.
//!
//! The log compares addresses: of segments and of chains. Loom explores a model by running it again and again, and
//! counts on each run to do the same as long as the same threads run. So it must not depend on what the system's
//! allocator happens to reuse. Segments, chains and the threads' records are the only objects that are aligned to
//! 128 bytes; they come from a region that begins again with each execution, one after another, and nothing in it is
//! used again before the next one. (What the log itself reuses is its pool's.)

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

struct Fixed;

#[global_allocator]
static FIXED: Fixed = Fixed;

/// Bytes for one execution.
const REGION: usize = 1 << 20;
/// Tests that run at once, one thread each.
const REGIONS: usize = 64;
const WHOLE: Layout = match Layout::from_size_align(REGION * REGIONS, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("a layout"),
};

static BASE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static TAKEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Where this thread's region begins, and how much of it is used. Null: it has none.
    static OWN: Cell<(*mut u8, usize)> = const { Cell::new((ptr::null_mut(), 0)) };
}

/// Begins an execution in the calling thread: all that the one before has allocated is gone.
pub(crate) fn begin() {
    OWN.with(|own| {
        let (mut region, _) = own.get();
        if region.is_null() {
            let number = TAKEN.fetch_add(1, Ordering::Relaxed);
            assert!(number < REGIONS, "more than {REGIONS} threads run models");
            // SAFETY: within the whole, of which each number is one region.
            region = unsafe { base().add(number * REGION) };
        }
        own.set((region, 0));
    });
}

fn base() -> *mut u8 {
    let base = BASE.load(Ordering::Acquire);
    if !base.is_null() {
        return base;
    }
    // SAFETY: the size is not zero.
    let fresh = unsafe { System.alloc(WHOLE) };
    assert!(!fresh.is_null(), "no memory for the models");
    match BASE.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fresh,
        Err(other) => {
            // SAFETY: allocated above, and nobody has it.
            unsafe { System.dealloc(fresh, WHOLE) };
            other
        }
    }
}

// SAFETY: what is not the system's is a part of a region that is given out once for each execution.
unsafe impl GlobalAlloc for Fixed {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() == 128
            && let Ok((region, used)) = OWN.try_with(Cell::get)
            && !region.is_null()
        {
            let from = used.next_multiple_of(128);
            let to = from + layout.size();
            assert!(to <= REGION, "a model allocates more than {REGION} bytes");
            OWN.with(|own| own.set((region, to)));
            // SAFETY: within the region.
            return unsafe { region.add(from) };
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let base = BASE.load(Ordering::Relaxed);
        let is_ours = !base.is_null() && (base..base.wrapping_add(WHOLE.size())).contains(&memory);
        if !is_ours {
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(memory, layout) }
        }
    }
}
