//! What topics share, without a folder.

use std::io;
use std::path::{Path, PathBuf};

use super::budget::DiskBudget;
use super::catch_up::CatchUps;
use super::conditions::Room;
use super::pool::{Pool, Task};
use super::queue::Intake;
use super::topic::StoredTopic;
use crate::sync::Arc;
use crate::sync::stored::all_time_passes;

#[derive(Debug, thiserror::Error)]
#[error("no folder")]
pub(crate) struct FolderError;

pub(super) const DELETED: &str = "deleted";
pub(super) const NEW_EPOCH: &str = "begin-a-new-epoch";

pub(super) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

pub(crate) struct Tier {
    pub(super) writers: Pool,
    pub(super) catch_ups: Arc<CatchUps>,
    pub(super) intake: Arc<Intake>,
    pub(crate) room: Arc<Room>,
    pub(crate) budget: DiskBudget,
}

impl Tier {
    /// With so many threads that write.
    pub(crate) fn start(writers: usize) -> Self {
        let writers = Pool::start("writer", writers).unwrap();
        let catch_ups = Arc::new(CatchUps::start().unwrap());
        let budget = DiskBudget;
        Tier { writers, catch_ups, intake: Arc::default(), room: Arc::default(), budget }
    }

    pub(crate) fn topics(&self) -> PathBuf {
        PathBuf::new()
    }

    /// As the one that ships.
    pub(crate) fn leave(self, topics: impl IntoIterator<Item = Arc<Task<StoredTopic>>>) {
        all_time_passes();
        let Tier { writers, catch_ups, .. } = self;
        drop(writers);
        for topic in topics {
            topic.finish().unwrap();
        }
        drop(catch_ups);
    }
}
