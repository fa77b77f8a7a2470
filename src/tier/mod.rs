//! What stands under a topic's log: files, if the topic is stored.
//!
//! ```text
//! publishers ──> queue ──> files ──> log ──> subscribers
//!                            └──────────────────^
//!                             a subscriber that memory has left behind
//! ```
//!
//! The files come before the log, not after it. If a record were shown first and then written, a crash in between would
//! give its offset, in the same epoch, to another record, and no subscriber could notice.
//!
//! A topic that is stored ([`topic`]) has one writer ([`writer`]), which is the log's only publisher. It uses [`crate::disk`] for the
//! files, and threads of its own ([`pool`]) for whatever blocks.

mod backup;
mod budget;
mod catch_up;
mod conditions;
mod cursor;
mod error;
mod facts;
mod folder;
mod inspect;
mod leases;
mod pool;
mod pressure;
mod queue;
mod start;
pub(crate) mod state;
mod stats;
mod store;
mod stored_lease;
mod ticket;
mod topic;
mod writer;

pub use crate::durability::Durability;
pub use backup::{BackedUpTopic, Backup, BackupError, back_up};
pub use budget::DiskUse;
pub use conditions::{Condition, Producer, Refusal};
pub use cursor::TopicCursor;
pub use error::{PublishError, RepairError};
pub use folder::FolderError;
pub use inspect::{Repair, RepairPlan, VerifiedTopic, verify_folder};
pub use pressure::Pressure;
pub use stats::StoredStats;
pub use ticket::Ticket;

pub(crate) use budget::DiskLimits;
pub(crate) use conditions::{Conditions, Performed, Room};
pub(crate) use facts::Creation;
pub(crate) use folder::Tier;
pub(crate) use pool::Task;
pub(crate) use pressure::Told;
pub(crate) use state::Settings;
pub(crate) use store::least as least_disk;
pub(crate) use stored_lease::StoredLease;
pub(crate) use topic::{Opened, StoredTopic};
