//! What a log can hold, and the forms in which records come in.
//!
//! A segment's arena is an array of *slots*. A value takes exactly one slot of its own type; a byte
//! record takes as many one-byte slots as it is long. Everything else about segments is the same
//! for both, which is why there is one segment implementation and this small trait.

/// A type that a log can hold: any `T: Send + Sync + 'static`, or `[u8]`.
///
/// Sealed: these two families are all there is.
pub trait Record: sealed::Sealed + Send + Sync + 'static {
    /// The unit in which a segment's arena counts: the value itself, or one byte.
    #[doc(hidden)]
    type Slot: Send + Sync + 'static;

    /// Whether every record takes exactly one slot, so that positions need not be looked up.
    #[doc(hidden)]
    const ONE_SLOT: bool;

    /// The record in slots `start..end` of the arena at `arena`.
    ///
    /// # Safety
    ///
    /// The slots hold one committed record, and nobody writes them for `'a`.
    #[doc(hidden)]
    unsafe fn in_arena<'a>(arena: *const Self::Slot, start: u32, end: u32) -> &'a Self;
}

mod sealed {
    pub trait Sealed {}
    impl<T: Send + Sync + 'static> Sealed for T {}
}

impl<T: Send + Sync + 'static> Record for T {
    type Slot = T;
    const ONE_SLOT: bool = true;

    #[inline]
    unsafe fn in_arena<'a>(arena: *const T, start: u32, _end: u32) -> &'a T {
        // SAFETY: the caller vouches that slot `start` holds a value for `'a`.
        unsafe { &*arena.add(start as usize) }
    }
}

/// Records on their way into a segment: what they need, then how they are written.
///
/// All of it is the crate's own code. Nothing that a user wrote (an iterator, a `Clone`, an
/// `AsRef`) runs between the reservation and the commit, so no panic can leave a hole in the log.
pub(super) trait Source<R: Record + ?Sized> {
    /// How many records.
    fn records(&self) -> usize;

    /// How many slots they take together.
    fn slots(&self) -> usize;

    /// Moves or copies the payload to `to`.
    ///
    /// # Safety
    ///
    /// `to` is valid for writing [`slots`](Self::slots) slots that the caller reserved. A source is
    /// written once; afterwards the arena owns what it held.
    unsafe fn write(&mut self, to: *mut R::Slot);

    /// Calls `each` with the end of every record in order, counted in slots from the first one's
    /// start.
    fn for_each_end(&self, each: impl FnMut(u32));
}

/// One value, still there if it could not be appended.
pub(super) struct One<T>(pub(super) Option<T>);

impl<T: Send + Sync + 'static> Source<T> for One<T> {
    #[inline]
    fn records(&self) -> usize {
        1
    }

    #[inline]
    fn slots(&self) -> usize {
        1
    }

    #[inline]
    unsafe fn write(&mut self, to: *mut T) {
        // SAFETY: `to` is ours to write, and the value is there, since it is written once (the
        // trait's contract).
        unsafe { to.write(self.0.take().unwrap_unchecked()) }
    }

    #[inline]
    fn for_each_end(&self, mut each: impl FnMut(u32)) {
        each(1);
    }
}

/// Many values, moved out of a vector that keeps its allocation (and everything, on failure).
pub(super) struct Values<'a, T>(pub(super) &'a mut Vec<T>, usize);

impl<'a, T> Values<'a, T> {
    pub(super) fn new(values: &'a mut Vec<T>) -> Self {
        let len = values.len();
        Values(values, len)
    }
}

impl<T: Send + Sync + 'static> Source<T> for Values<'_, T> {
    fn records(&self) -> usize {
        self.1
    }

    fn slots(&self) -> usize {
        self.1
    }

    #[inline]
    unsafe fn write(&mut self, to: *mut T) {
        // SAFETY: the vector holds `self.1` values, `to` has room for as many, and setting the
        // length to zero hands their ownership over to the arena.
        unsafe {
            std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, self.1);
            self.0.set_len(0);
        }
    }

    #[inline]
    fn for_each_end(&self, each: impl FnMut(u32)) {
        (1..=self.1 as u32).for_each(each);
    }
}
