//! What happens at the memory limit.

/// What an append does when the log has reached its memory limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// It waits until the slowest cursors have gone on ([`append`](super::Log::append) as a task,
    /// [`blocking_append`](super::Log::blocking_append) as a thread,
    /// [`try_append`](super::Log::try_append) refuses instead).
    #[default]
    Block,
    /// It fails with [`AppendError::Full`](super::AppendError::Full).
    Reject,
    /// The oldest segment goes, whoever stands in it. The cursors that did are told exactly which
    /// records they missed. They hold nothing back any more, so that with [`Retention::Nothing`] all
    /// segments go with it that no other cursor has yet to read.
    ///
    /// What goes while a reader is inside its closure is back when that closure returns. An append
    /// waits for that ([`try_append`](super::Log::try_append) refuses): letting go of more, which the
    /// same closure would hold, would cost others their place for nothing.
    Evict,
}
