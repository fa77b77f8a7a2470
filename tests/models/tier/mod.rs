//! Stored topics as they ship, over files that are none: `budget`, `folder` and `store` here stand in for those of `src/tier`, and
//! `crate::disk` for `src/disk`.

mod budget;
#[path = "../../../src/tier/catch_up.rs"]
mod catch_up;
#[path = "../../../src/tier/conditions.rs"]
mod conditions;
#[path = "../../../src/tier/cursor.rs"]
mod cursor;
#[path = "../../../src/tier/error.rs"]
mod error;
#[path = "../../../src/tier/facts.rs"]
mod facts;
mod folder;
#[path = "../../../src/tier/leases.rs"]
mod leases;
#[path = "../../../src/tier/pool.rs"]
pub(crate) mod pool;
#[path = "../../../src/tier/pressure.rs"]
mod pressure;
#[path = "../../../src/tier/queue.rs"]
mod queue;
#[path = "../../../src/tier/start.rs"]
mod start;
#[path = "../../../src/tier/state.rs"]
mod state;
#[path = "../../../src/tier/stats.rs"]
mod stats;
pub(crate) mod store;
#[path = "../../../src/tier/ticket.rs"]
mod ticket;
#[path = "../../../src/tier/topic.rs"]
mod topic;
#[path = "../../../src/tier/writer.rs"]
mod writer;

pub(crate) use crate::durability::Durability;
pub(crate) use cursor::TopicCursor;
pub(crate) use error::PublishError;
pub(crate) use folder::{FolderError, Tier};
pub(crate) use pool::Task;
pub(crate) use state::Settings;
pub(crate) use ticket::Ticket;
pub(crate) use topic::{Opened, StoredTopic};
