//! Loom's atomics, with SeqCst as the reading says, and with the parts of `std`'s interface that the log
//! uses and loom has not.

use std::ops::{Deref, DerefMut};

use loom::sync::atomic as model;

use super::{Kind, Ordering, READING, Reading};

/// Does an access; a SeqCst one as the reading says.
#[track_caller]
fn ordered<T>(order: Ordering, kind: Kind, access: impl FnOnce(Ordering) -> T) -> T {
    if order != Ordering::SeqCst {
        return access(order);
    }
    if READING.get() == Reading::BeforeReads && kind != Kind::Write {
        model::fence(Ordering::SeqCst);
    }
    let result = access(match kind {
        Kind::Read => Ordering::Acquire,
        Kind::Write => Ordering::Release,
        Kind::Both => Ordering::AcqRel,
    });
    if READING.get() == Reading::AfterWrites && kind != Kind::Read {
        model::fence(Ordering::SeqCst);
    }
    result
}

/// What `get_mut` lends. Loom lends the value to a closure only; this writes it back at the end.
/// Loom checks at both moments that nobody else can reach it.
pub(crate) struct Lent<'a, T: Copy, A: Owned<T>> {
    value: T,
    atomic: &'a mut A,
}

/// An atomic that is borrowed mutably.
pub(crate) trait Owned<T> {
    fn put_back(&mut self, value: T);
}

impl<T: Copy, A: Owned<T>> Deref for Lent<'_, T, A> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Copy, A: Owned<T>> DerefMut for Lent<'_, T, A> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Copy, A: Owned<T>> Drop for Lent<'_, T, A> {
    fn drop(&mut self) {
        self.atomic.put_back(self.value);
    }
}

macro_rules! atomic {
    ($name:ident, $value:ty $(, $generic:ident)?) => {
        #[derive(Debug)]
        pub(crate) struct $name $(<$generic>)? (model::$name $(<$generic>)?);

        #[allow(dead_code, reason = "all of them offer the same")]
        impl $(<$generic>)? $name $(<$generic>)? {
            #[track_caller]
            pub(crate) fn new(value: $value) -> Self {
                $name(model::$name::new(value))
            }

            #[track_caller]
            pub(crate) fn load(&self, order: Ordering) -> $value {
                ordered(order, Kind::Read, |order| self.0.load(order))
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $value, order: Ordering) {
                ordered(order, Kind::Write, |order| self.0.store(value, order))
            }

            #[track_caller]
            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                ordered(order, Kind::Both, |order| self.0.swap(value, order))
            }

            #[track_caller]
            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let failure =
                    if failure == Ordering::SeqCst { Ordering::Acquire } else { failure };
                ordered(success, Kind::Both, |success| {
                    self.0.compare_exchange(current, new, success, failure)
                })
            }

            #[track_caller]
            pub(crate) fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }
       }
    };
}

macro_rules! lent {
    ($name:ident, $value:ty $(, $generic:ident)?) => {
        impl $(<$generic>)? $name $(<$generic>)? {
            #[track_caller]
            pub(crate) fn get_mut(&mut self) -> Lent<'_, $value, Self> {
                let value = self.0.with_mut(|value| *value);
                Lent { value, atomic: self }
            }
        }

        impl $(<$generic>)? Owned<$value> for $name $(<$generic>)? {
            fn put_back(&mut self, new: $value) {
                self.0.with_mut(|value| *value = new);
            }
        }
    };
}

macro_rules! counter {
    ($name:ident, $value:ty) => {
        atomic!($name, $value);

        #[allow(dead_code, reason = "all of them offer the same")]
        impl $name {
            #[track_caller]
            pub(crate) fn fetch_add(&self, more: $value, order: Ordering) -> $value {
                ordered(order, Kind::Both, |order| self.0.fetch_add(more, order))
            }

            #[track_caller]
            pub(crate) fn fetch_sub(&self, less: $value, order: Ordering) -> $value {
                ordered(order, Kind::Both, |order| self.0.fetch_sub(less, order))
            }

            #[track_caller]
            pub(crate) fn fetch_or(&self, bits: $value, order: Ordering) -> $value {
                ordered(order, Kind::Both, |order| self.0.fetch_or(bits, order))
            }

            #[track_caller]
            pub(crate) fn fetch_max(&self, other: $value, order: Ordering) -> $value {
                ordered(order, Kind::Both, |order| self.0.fetch_max(other, order))
            }

            #[track_caller]
            pub(crate) fn fetch_min(&self, other: $value, order: Ordering) -> $value {
                ordered(order, Kind::Both, |order| self.0.fetch_min(other, order))
            }

            #[track_caller]
            pub(crate) fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                mut f: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let mut seen = self.load(failure);
                while let Some(new) = f(seen) {
                    match self.compare_exchange(seen, new, success, failure) {
                        Ok(seen) => return Ok(seen),
                        Err(now) => seen = now,
                    }
                }
                Err(seen)
            }
        }
    };
}

counter!(AtomicU32, u32);
counter!(AtomicU64, u64);
counter!(AtomicUsize, usize);
atomic!(AtomicBool, bool);
atomic!(AtomicPtr, *mut T, T);
lent!(AtomicU32, u32);
lent!(AtomicU64, u64);
lent!(AtomicPtr, *mut T, T);

impl<T> Default for AtomicPtr<T> {
    #[track_caller]
    fn default() -> Self {
        AtomicPtr::new(std::ptr::null_mut())
    }
}
