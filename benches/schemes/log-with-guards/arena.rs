//! The memory of a segment's payload.
//!
//! Large arenas come from the operating system directly and go back to it directly. A general
//! allocator keeps freed blocks of this size for later, in one heap per thread, and with segments
//! allocated by one thread and freed by another it can hold twice what the log does. "Freed" is
//! meant to be visible from outside the process. (Measured with glibc's allocator: 117 to 132 MiB
//! resident for a limit of 64 MiB; mapped: within the limit.)
//!
//! Small arenas come from the global allocator.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// Arenas of at least this size are mapped. Below, a page of slack and a system call for each
/// segment would cost more than they are worth.
const MAPPED_FROM: usize = 64 << 10;

/// Arenas of at most this size are given their pages when they are mapped, if they will be filled:
/// one system call instead of a fault for each page. (64 bytes a record: 1.6 times the records of a
/// publisher with two readers.) Larger ones would keep the append that maps them for too long.
const POPULATED_TO: usize = 1 << 20;

/// When an arena gets its pages from the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// As they are written to: for a log that may never hold more than a few records.
    Later,
    /// At once.
    Now,
}

/// Slots for payload, none of them initialised. What is written into them is the owner's to drop.
pub(super) struct Arena<S> {
    slots: NonNull<MaybeUninit<S>>,
    len: usize,
}

// SAFETY: an arena is memory and nothing else; who reads and writes it, and from where, is for the
// segment to say, which asks `S: Send + Sync`.
unsafe impl<S: Send + Sync> Send for Arena<S> {}
// SAFETY: as above.
unsafe impl<S: Send + Sync> Sync for Arena<S> {}

impl<S> Arena<S> {
    /// An arena of `len` slots.
    pub(super) fn new(len: usize, pages: Pages) -> Self {
        let bytes = Self::mapped_bytes(len);
        let populate = pages == Pages::Now && bytes <= POPULATED_TO;
        let slots = match system::map(bytes, populate) {
            Some(mapped) => mapped.cast(),
            None => {
                let slots = Box::<[S]>::new_uninit_slice(len);
                // A box is never null.
                NonNull::from(Box::leak(slots)).cast()
            }
        };
        Arena { slots, len }
    }

    /// Bytes to be mapped for `len` slots; 0 if they come from the allocator.
    fn mapped_bytes(len: usize) -> usize {
        let bytes = len * size_of::<S>();
        // A mapping begins at a page, which is enough for every alignment that occurs.
        let fits = align_of::<S>() <= system::ALIGNMENT;
        if bytes >= MAPPED_FROM && fits { bytes } else { 0 }
    }

    /// How many slots.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The first slot. The pointer may reach all of them.
    #[inline]
    pub(super) fn as_ptr(&self) -> *mut S {
        self.slots.as_ptr().cast()
    }
}

impl<S> Drop for Arena<S> {
    fn drop(&mut self) {
        let bytes = Self::mapped_bytes(self.len);
        // SAFETY: these are the bytes that `new` mapped, if it did, and the owner is gone.
        if !unsafe { system::unmap(self.slots.cast(), bytes) } {
            let slots = std::ptr::slice_from_raw_parts_mut(self.slots.as_ptr(), self.len);
            // SAFETY: `new` leaked a box of this length, since it could not have been mapped.
            drop(unsafe { Box::from_raw(slots) });
        }
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod system {
    use std::alloc::{Layout, handle_alloc_error};
    use std::ptr::{self, NonNull};

    /// Every page size is a multiple of it.
    pub(super) const ALIGNMENT: usize = 4096;

    /// Fresh memory from the operating system; `None` for no bytes.
    pub(super) fn map(bytes: usize, populate: bool) -> Option<NonNull<u8>> {
        if bytes == 0 {
            return None;
        }
        let populate = if populate { libc::MAP_POPULATE } else { 0 };
        // SAFETY: a private anonymous mapping at an address that the kernel chooses touches no
        // memory that exists.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | populate,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            // Out of memory, as an allocation of this size would be.
            match Layout::from_size_align(bytes, ALIGNMENT) {
                Ok(layout) => handle_alloc_error(layout),
                Err(_) => panic!("an arena of {bytes} bytes is larger than memory can be"),
            }
        }
        NonNull::new(mapped.cast())
    }

    /// Gives memory back. False for no bytes.
    ///
    /// # Safety
    ///
    /// `map` returned `mapped` for as many bytes, and nobody uses it any more.
    pub(super) unsafe fn unmap(mapped: NonNull<u8>, bytes: usize) -> bool {
        if bytes == 0 {
            return false;
        }
        // SAFETY: the caller's promise.
        let failed = unsafe { libc::munmap(mapped.as_ptr().cast(), bytes) };
        debug_assert_eq!(failed, 0, "munmap of a mapping of ours");
        true
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod system {
    use std::ptr::NonNull;

    pub(super) const ALIGNMENT: usize = 0;

    pub(super) fn map(_: usize, _: bool) -> Option<NonNull<u8>> {
        None
    }

    /// # Safety
    ///
    /// None needed: it touches nothing.
    pub(super) unsafe fn unmap(_: NonNull<u8>, _: usize) -> bool {
        false
    }
}
