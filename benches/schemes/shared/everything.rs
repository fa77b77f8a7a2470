//! What is the same for all schemes in which a guard protects everything that was not retired when it began.

use crate::sync::roles::Role;

/// Nothing that such a scheme wants to know of a segment's linking.
pub(crate) type Birth = ();

pub(crate) fn born<C>(_: &C) -> Birth {}

/// The guard protects it already.
#[inline]
pub(crate) fn announce<G, T>(_guard: &G, _role: Role, _segment: *const T) {}

/// Memory comes back in the order of retirement: what is held by a guard holds what is retired after it.
pub(crate) const IN_ORDER: bool = true;
