//! What stands under a topic's log: files, if the topic is stored.

mod durability;
mod folder;
mod stats;

pub use durability::Durability;
pub(crate) use folder::DataFolder;
pub use folder::FolderError;
pub use stats::StoredStats;
