//! What a log can hold.
//!
//! A segment's arena is an array of *slots*. A value takes exactly one slot of its own type; a byte
//! record takes as many one-byte slots as it has bytes. Everything else about segments is the same
//! for both, so there is one implementation of segments and this small trait.

/// A type that a log can hold: any `T: Send + Sync + 'static`, or `[u8]`.
///
/// Sealed: these two families are all there is.
pub trait Record: sealed::Sealed + Send + Sync + 'static {
    /// The unit in which a segment's arena counts: the value itself, or one byte.
    #[doc(hidden)]
    type Slot: Send + Sync + 'static;

    /// Whether every record takes exactly one slot, so that positions need no index.
    #[doc(hidden)]
    const ONE_SLOT: bool;

    /// What a record counts at least where bytes are counted, however short it is: its position and its time take memory.
    #[doc(hidden)]
    const LEAST_BYTES: u64;

    /// The record in slots `start..end` of the arena at `arena`.
    ///
    /// # Safety
    ///
    /// The slots hold one committed record, and nothing writes them during `'a`.
    #[doc(hidden)]
    unsafe fn in_arena<'a>(arena: *const Self::Slot, start: u32, end: u32) -> &'a Self;
}

mod sealed {
    pub trait Sealed {}
    impl<T: Send + Sync + 'static> Sealed for T {}
    impl Sealed for [u8] {}
}

impl<T: Send + Sync + 'static> Record for T {
    type Slot = T;
    const ONE_SLOT: bool = true;
    const LEAST_BYTES: u64 = 1;

    #[inline]
    unsafe fn in_arena<'a>(arena: *const T, start: u32, _end: u32) -> &'a T {
        // SAFETY: the caller vouches that slot `start` holds a value for `'a`.
        unsafe { &*arena.add(start as usize) }
    }
}

impl Record for [u8] {
    type Slot = u8;
    const ONE_SLOT: bool = false;
    const LEAST_BYTES: u64 = 8;

    #[inline]
    unsafe fn in_arena<'a>(arena: *const u8, start: u32, end: u32) -> &'a [u8] {
        // SAFETY: the caller vouches that `start..end` lies in the arena and is written.
        unsafe { std::slice::from_raw_parts(arena.add(start as usize), (end - start) as usize) }
    }
}
