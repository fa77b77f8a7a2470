//! What stands under a topic's log: files, if the topic is stored.

mod folder;
mod stats;

pub use crate::durability::Durability;
pub(crate) use folder::DataFolder;
pub use folder::FolderError;
pub use stats::StoredStats;
