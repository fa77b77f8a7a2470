//! The forms in which records arrive: what one append can take, and how it is written into a segment.

use super::error::{AppendError, Refused};
use super::record::Record;

/// Records that one append takes, all or none: the argument of `append_batch`.
///
/// | log | batch | a refused append gives back |
/// | --- | --- | --- |
/// | `Log<T>` | any `IntoIterator<Item = T>`: an array, a vector, an iterator | the values, in a [`Refused`] |
/// | `Log<T>`, `T: Copy` | [`Copies`] of a slice | an [`AppendError`]: you still have them |
/// | `Log<[u8]>` | `&[B]`, `&[B; N]`, `&Vec<B>` for `B: AsRef<[u8]>`: byte slices, strings, vectors | the same |
/// | `Log<[u8]>` | [`Packed`], one copy for all | the same |
///
/// An iterator runs to its end before anything is reserved, so one that panics appends nothing. A vector is not
/// copied in between. Sealed: there are no other batches.
pub trait AppendBatch<R: Record + ?Sized>: sealed::IntoSource<R> {
    /// What an append that is refused returns: the reason, with the values where the batch owned them.
    type Refused;

    /// Built from what is left of the source.
    #[doc(hidden)]
    fn refused(reason: AppendError, source: Self::Source) -> Self::Refused;
}

mod sealed {
    use super::{Record, Source};

    pub trait IntoSource<R: Record + ?Sized> {
        type Source: Source<R>;

        /// All user code that the append needs runs here.
        fn into_source(self) -> Self::Source;
    }
}
use sealed::IntoSource;

impl<T: Send + Sync + 'static, I: IntoIterator<Item = T>> IntoSource<T> for I {
    type Source = Values<T>;

    #[inline]
    fn into_source(self) -> Values<T> {
        let values: Vec<T> = self.into_iter().collect();
        Values { len: values.len(), values }
    }
}

impl<T: Send + Sync + 'static, I: IntoIterator<Item = T>> AppendBatch<T> for I {
    type Refused = Refused<Vec<T>>;

    fn refused(reason: AppendError, source: Values<T>) -> Refused<Vec<T>> {
        Refused { reason, value: source.values }
    }
}

impl<T: Copy + Send + Sync + 'static> IntoSource<T> for Copies<'_, T> {
    type Source = Self;

    #[inline]
    fn into_source(self) -> Self {
        self
    }
}

impl<'a, T: Copy + Send + Sync + 'static> AppendBatch<T> for Copies<'a, T> {
    type Refused = AppendError;

    #[inline]
    fn refused(reason: AppendError, _: Copies<'a, T>) -> AppendError {
        reason
    }
}

/// Slices of anything that can be seen as bytes, in the types in which they usually come.
macro_rules! slices {
    ($($batch:ty $(, const $n:ident)?;)*) => {$(
        impl<'a, B: AsRef<[u8]> $(, const $n: usize)?> IntoSource<[u8]> for &'a $batch {
            type Source = Slices<'a>;

            fn into_source(self) -> Slices<'a> {
                Slices::new(self)
            }
        }

        impl<'a, B: AsRef<[u8]> $(, const $n: usize)?> AppendBatch<[u8]> for &'a $batch {
            type Refused = AppendError;

            #[inline]
            fn refused(reason: AppendError, _: Slices<'a>) -> AppendError {
                reason
            }
        }
    )*};
}
slices! { [B]; [B; N], const N; Vec<B>; }

impl IntoSource<[u8]> for Packed<'_> {
    type Source = Self;

    #[inline]
    fn into_source(self) -> Self {
        self
    }
}

impl<'a> AppendBatch<[u8]> for Packed<'a> {
    type Refused = AppendError;

    #[inline]
    fn refused(reason: AppendError, _: Packed<'a>) -> AppendError {
        reason
    }
}

/// Records on their way into a segment: first how much room they need, then how they are written.
///
/// All of it is the crate's own code. No user code (an iterator, a `Clone`, an `AsRef`) runs between the reservation
/// and the commit, so no panic can leave a hole in the log.
#[doc(hidden)]
pub trait Source<R: Record + ?Sized> {
    /// How many records.
    fn records(&self) -> usize;

    /// How many slots they take together.
    fn slots(&self) -> usize;

    /// What its values weigh together. All user code that this needs runs here.
    fn weight(&self, _weigh: fn(&R) -> usize) -> u64 {
        0
    }

    /// Moves or copies the payload to `to`.
    ///
    /// # Safety
    ///
    /// `to` is valid for writing [`slots`](Self::slots) slots that the caller reserved. A source is
    /// written once; afterwards the arena owns what it held.
    unsafe fn write(&mut self, to: *mut R::Slot);

    /// Calls `each` with the end of every record in order, counted in slots from the start of the first one.
    fn for_each_end(&self, each: impl FnMut(u32));
}

fn total(weights: impl Iterator<Item = usize>) -> u64 {
    weights.fold(0, |sum, weight| sum.saturating_add(weight as u64))
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

    fn weight(&self, weigh: fn(&T) -> usize) -> u64 {
        total(self.0.iter().map(weigh))
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

/// Many values, moved out of a vector that keeps all of them if the append fails.
#[doc(hidden)]
pub struct Values<T> {
    values: Vec<T>,
    len: usize,
}

impl<T: Send + Sync + 'static> Source<T> for Values<T> {
    fn records(&self) -> usize {
        self.len
    }

    fn slots(&self) -> usize {
        self.len
    }

    fn weight(&self, weigh: fn(&T) -> usize) -> u64 {
        total(self.values.iter().map(weigh))
    }

    #[inline]
    unsafe fn write(&mut self, to: *mut T) {
        // SAFETY: the vector holds `self.len` values, `to` has room for as many, and setting the
        // length to zero hands their ownership over to the arena.
        unsafe {
            std::ptr::copy_nonoverlapping(self.values.as_ptr(), to, self.len);
            self.values.set_len(0);
        }
    }

    #[inline]
    fn for_each_end(&self, each: impl FnMut(u32)) {
        (1..=self.len as u32).for_each(each);
    }
}

/// Values that an append copies out of a slice, without a vector in between.
///
/// ```
/// use psa::{Copies, Log};
/// let log = Log::<u64>::builder().build()?;
/// let values = [10, 11, 12];
/// assert_eq!(log.blocking_append_batch(Copies(&values))?, 0..3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Copies<'a, T>(pub &'a [T]);

impl<T: Copy + Send + Sync + 'static> Source<T> for Copies<'_, T> {
    fn records(&self) -> usize {
        self.0.len()
    }

    fn slots(&self) -> usize {
        self.0.len()
    }

    fn weight(&self, weigh: fn(&T) -> usize) -> u64 {
        total(self.0.iter().map(weigh))
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

/// Many byte records, each in its own place.
#[doc(hidden)]
pub struct Slices<'a> {
    /// Each record was asked once where it is: an `AsRef` may answer differently the next time.
    records: Vec<&'a [u8]>,
    bytes: usize,
}

impl<'a> Slices<'a> {
    fn new(records: &'a [impl AsRef<[u8]>]) -> Self {
        let records: Vec<&[u8]> = records.iter().map(AsRef::as_ref).collect();
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
        for record in &self.records {
            // SAFETY: the lengths add up to `slots`, for which the caller made room.
            unsafe {
                std::ptr::copy_nonoverlapping(record.as_ptr(), to, record.len());
                to = to.add(record.len());
            }
        }
    }

    fn for_each_end(&self, mut each: impl FnMut(u32)) {
        let mut end = 0;
        for record in &self.records {
            end += record.len() as u32;
            each(end);
        }
    }
}

/// Many byte records in one piece: their payloads one after another, and where each ends.
///
/// Records travel on the wire in this form, so a server appends what one read returned with a single copy.
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
    /// An end position is less than the previous one.
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

    /// Where each record ends in the payload, as little-endian `u32`.
    pub fn ends(&self) -> &'a [u8] {
        self.ends
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
