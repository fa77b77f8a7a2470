//! The memory of a segment's payload.
//!
//! Large arenas come from the operating system directly and are returned to it directly. A general
//! allocator keeps freed blocks of this size for later, in one heap per thread. If one thread
//! allocates segments and another frees them, the allocator can hold twice the memory of the log.
//! "Freed" is meant to be visible from outside the process. (Measured with glibc's allocator: 117
//! to 132 MiB resident for a limit of 64 MiB; mapped: within the limit.)
//!
//! Small arenas come from the global allocator.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// Arenas of at least this size are mapped. For smaller ones, a page of slack and a system call per
/// segment would cost more than they are worth.
const MAPPED_FROM: usize = 64 << 10;

/// Arenas of at most this size get their pages when they are mapped, if they will be filled: one
/// system call instead of a fault per page. (64 bytes a record: 1.6 times the records of a
/// publisher with two readers.) Larger arenas would delay the append that maps them for too long.
const POPULATED_TO: usize = 1 << 20;

/// When an arena gets its pages from the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// As they are written to: for a log that may never hold more than a few records.
    Later,
    /// When the arena is mapped.
    Now,
}

/// Slots for payload, none of them initialized. The owner must drop what is written into them.
pub(super) struct Arena<S> {
    slots: NonNull<MaybeUninit<S>>,
    len: usize,
}

// SAFETY: an arena is only memory. Who reads and writes it, and from which thread, is decided by
// the segment, which requires `S: Send + Sync`.
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

    /// Bytes to map for `len` slots; 0 if they come from the allocator.
    fn mapped_bytes(len: usize) -> usize {
        let bytes = len * size_of::<S>();
        // A mapping begins at a page boundary, which is enough for every alignment that occurs.
        let fits = align_of::<S>() <= system::ALIGNMENT;
        if bytes >= MAPPED_FROM && fits { bytes } else { 0 }
    }

    /// How many slots.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The first slot. The pointer is valid for all slots.
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

    /// Returns memory to the operating system. False for no bytes.
    ///
    /// # Safety
    ///
    /// `map` returned `mapped` for the same number of bytes, and nothing uses it any more.
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

#[cfg(test)]
mod tests {
    use super::{Arena, Pages};

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn large_arenas_are_mapped() {
        #[expect(dead_code, reason = "its size counts")]
        #[repr(align(8192))]
        struct Wide([u8; 8192]);
        const LEAST: usize = 64 << 10;
        assert_eq!(Arena::<u8>::mapped_bytes(LEAST), LEAST);
        assert_eq!(Arena::<u8>::mapped_bytes(LEAST - 1), 0);
        assert_eq!(Arena::<u64>::mapped_bytes(LEAST / 8), LEAST);
        assert_eq!(Arena::<u64>::mapped_bytes(LEAST / 8 - 1), 0);
        assert_eq!(Arena::<()>::mapped_bytes(LEAST), 0);
        // No mapping is aligned like this.
        assert_eq!(Arena::<Wide>::mapped_bytes(LEAST), 0);
    }

    /// How many of an arena's pages are in memory, and how many it has.
    #[cfg(all(target_os = "linux", not(miri)))]
    fn resident(arena: &Arena<u8>) -> (usize, usize) {
        // SAFETY: a question.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let mut pages = vec![0u8; arena.len().div_ceil(page)];
        // SAFETY: the arena is a mapping of this length, and there is a byte for each of its pages.
        let failed =
            unsafe { libc::mincore(arena.as_ptr().cast(), arena.len(), pages.as_mut_ptr()) };
        assert_eq!(failed, 0);
        (pages.iter().filter(|page| **page & 1 != 0).count(), pages.len())
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn pages_come_at_once_where_they_are_asked_for_unless_they_are_many() {
        let mebibyte = 1 << 20;
        let (here, all) = resident(&Arena::new(mebibyte, Pages::Now));
        assert_eq!(here, all);
        assert_eq!(resident(&Arena::new(mebibyte, Pages::Later)).0, 0);
        assert_eq!(resident(&Arena::new(mebibyte + 1, Pages::Now)).0, 0);
    }

    #[test]
    fn all_slots_of_every_size_can_be_written() {
        fn fill<S: Copy + PartialEq + std::fmt::Debug>(len: usize, value: S) {
            for pages in [Pages::Later, Pages::Now] {
                fill_with(len, value, pages);
            }
        }
        fn fill_with<S>(len: usize, value: S, pages: Pages)
        where
            S: Copy + PartialEq + std::fmt::Debug,
        {
            let arena = Arena::<S>::new(len, pages);
            assert_eq!(arena.len(), len);
            for i in 0..len {
                // SAFETY: `i` is a slot of an arena that nobody else has.
                unsafe { arena.as_ptr().add(i).write(value) };
            }
            // SAFETY: written just now.
            assert!((0..len).all(|i| unsafe { arena.as_ptr().add(i).read() } == value));
        }
        #[derive(Clone, Copy, PartialEq, Debug)]
        #[repr(align(8192))]
        struct Wide([u8; 8192]);
        for len in [0, 1, 1000, 65_535, 65_536, 1 << 20] {
            fill(len, 7u8);
            fill(len, ());
            fill(len / 8, 7u64);
        }
        fill(16, Wide([3; 8192]));
    }
}
