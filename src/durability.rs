//! What an acknowledgement means.

/// What it means that a record was acknowledged: how much it survives.
///
/// | durability | acknowledged means | the process is killed | the machine loses power |
/// | --- | --- | --- | --- |
/// | `memory` | the record is in memory | everything is lost; the topic has a new epoch | the same |
/// | `written` | the operating system has it; it is forced to the disk within a second | nothing is lost | at most the last second; what is left has a new epoch from there on |
/// | `synced` | it was forced to the disk | nothing is lost | nothing is lost |
///
/// Nobody sees a record before it is as durable as its topic promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// In memory alone.
    Memory,
    /// In files, forced to the disk within a second.
    Written,
    /// In files, forced to the disk before anybody hears of it.
    Synced,
}

impl Durability {
    /// All durabilities, the weakest first.
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Written, Self::Synced];

    /// The word for it, in every text and address: `memory`, `written` or `synced`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Written => "written",
            Self::Synced => "synced",
        }
    }

    /// Whether the topic has files.
    #[must_use]
    pub fn is_stored(self) -> bool {
        self != Durability::Memory
    }
}
