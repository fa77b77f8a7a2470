//! What the log says of a pointer that it loads under a guard, for the schemes that want to know.

/// For what the log needs a segment. Under one guard it uses at most one segment in each role at a time, so
/// a scheme that announces pointers needs one announcement for each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The oldest segment.
    Head,
    /// The one that is written.
    Tail,
    /// The one after the one in which a position stands.
    Next,
    /// The one in which a position stands.
    Known,
}
