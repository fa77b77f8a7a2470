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
    impl Sealed for [u8] {}
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

impl Record for [u8] {
    type Slot = u8;
    const ONE_SLOT: bool = false;

    #[inline]
    unsafe fn in_arena<'a>(arena: *const u8, start: u32, end: u32) -> &'a [u8] {
        // SAFETY: the caller vouches that `start..end` lies in the arena and is written.
        unsafe { std::slice::from_raw_parts(arena.add(start as usize), (end - start) as usize) }
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

/// Many values that can be copied.
pub(super) struct Copied<'a, T>(pub(super) &'a [T]);

impl<T: Copy + Send + Sync + 'static> Source<T> for Copied<'_, T> {
    fn records(&self) -> usize {
        self.0.len()
    }

    fn slots(&self) -> usize {
        self.0.len()
    }

    #[inline]
    unsafe fn write(&mut self, to: *mut T) {
        // SAFETY: `to` has room for as many values as there are, and `T: Copy`.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, self.0.len()) }
    }

    #[inline]
    fn for_each_end(&self, each: impl FnMut(u32)) {
        (1..=self.0.len() as u32).for_each(each);
    }
}

/// One byte record.
impl Source<[u8]> for &[u8] {
    #[inline]
    fn records(&self) -> usize {
        1
    }

    #[inline]
    fn slots(&self) -> usize {
        self.len()
    }

    #[inline]
    unsafe fn write(&mut self, to: *mut u8) {
        // SAFETY: `to` has room for as many bytes as there are.
        unsafe { std::ptr::copy_nonoverlapping(self.as_ptr(), to, self.len()) }
    }

    #[inline]
    fn for_each_end(&self, mut each: impl FnMut(u32)) {
        each(self.len() as u32);
    }
}

/// Many byte records in as many places.
pub(super) struct Slices<'a> {
    records: &'a [&'a [u8]],
    bytes: usize,
}

impl<'a> Slices<'a> {
    pub(super) fn new(records: &'a [&'a [u8]]) -> Self {
        let bytes = records.iter().map(|r| r.len()).fold(0, usize::saturating_add);
        Slices { records, bytes }
    }
}

impl Source<[u8]> for Slices<'_> {
    fn records(&self) -> usize {
        self.records.len()
    }

    fn slots(&self) -> usize {
        self.bytes
    }

    unsafe fn write(&mut self, mut to: *mut u8) {
        for record in self.records {
            // SAFETY: the lengths add up to `slots`, for which the caller made room.
            unsafe {
                std::ptr::copy_nonoverlapping(record.as_ptr(), to, record.len());
                to = to.add(record.len());
            }
        }
    }

    fn for_each_end(&self, mut each: impl FnMut(u32)) {
        let mut end = 0;
        for record in self.records {
            end += record.len() as u32;
            each(end);
        }
    }
}

/// Many byte records in one piece: their payloads one after another, and where each ends.
///
/// This is the form in which records travel on the wire, so that a server appends what one read
/// brought with a single copy.
///
/// ```
/// use psa::Packed;
/// let ends = [2u32.to_le_bytes(), 5u32.to_le_bytes()].concat();
/// let packed = Packed::new(&ends, b"hiyou").unwrap();
/// assert_eq!(packed.len(), 2);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    ends: &'a [u8],
    payload: &'a [u8],
}

/// Why bytes are not a [`Packed`] batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackedError {
    /// The ends are not a whole number of four-byte positions.
    #[error("the end positions are {0} bytes long: give a multiple of 4")]
    Ragged(usize),
    /// An end lies before the one in front of it.
    #[error("record {0} ends before it starts: give cumulative end positions")]
    NotAscending(usize),
    /// The last end is not the payload's length.
    #[error(
        "the last record ends at {ends} but the payload is {payload} bytes long: make them equal"
    )]
    Length {
        /// Where the last record ends.
        ends: u64,
        /// How long the payload is.
        payload: u64,
    },
}

impl<'a> Packed<'a> {
    /// A batch from little-endian `u32` end positions, counted from the payload's start, and the
    /// payload. Costs one pass over `ends`.
    ///
    /// # Errors
    ///
    /// [`PackedError`] when the positions do not ascend to exactly the payload's length.
    pub fn new(ends: &'a [u8], payload: &'a [u8]) -> Result<Self, PackedError> {
        let (ends4, rest) = ends.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(PackedError::Ragged(ends.len()));
        }
        let mut last = 0;
        for (i, end) in ends4.iter().enumerate() {
            let end = u32::from_le_bytes(*end);
            if end < last {
                return Err(PackedError::NotAscending(i));
            }
            last = end;
        }
        if last as usize != payload.len() {
            return Err(PackedError::Length { ends: last.into(), payload: payload.len() as u64 });
        }
        Ok(Packed { ends, payload })
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.ends.len() / 4
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The payloads, one after another.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

impl Source<[u8]> for Packed<'_> {
    fn records(&self) -> usize {
        self.len()
    }

    fn slots(&self) -> usize {
        self.payload.len()
    }

    unsafe fn write(&mut self, to: *mut u8) {
        // SAFETY: `to` has room for `slots` bytes, which is the payload's length.
        unsafe { std::ptr::copy_nonoverlapping(self.payload.as_ptr(), to, self.payload.len()) }
    }

    fn for_each_end(&self, mut each: impl FnMut(u32)) {
        for end in self.ends.as_chunks::<4>().0 {
            each(u32::from_le_bytes(*end));
        }
    }
}
