//! Stored topics: the folder that they are in, what was found there, and what is left of those that were deleted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    Broker, BrokerConfig, BrokerError, BrokerState, DiskUse, OpenError, ResolvedSettings, Topic,
};
use crate::log::Position;
use crate::tier::{DiskLimits, Opened, StoredTopic, Tier};

/// What a broker found in its folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// How many topics are there.
    pub topics: usize,
    /// How many records they have.
    pub records: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Bytes at the ends of files that were not whole any more: of appends that nobody was told of.
    pub cut: u64,
    /// Topics' folders that cannot be opened, and why. They were left as they are, and their topics are missing.
    pub damaged: Vec<(PathBuf, String)>,
    /// How long that took.
    pub took: Duration,
}

/// # Topics in a folder
impl Broker {
    /// Creates a broker whose topics can be stored in a folder, which is created if it is missing, with the topics that
    /// are stored there already. By default, every topic is.
    ///
    /// Reads the end of each topic's files, and blocks the thread meanwhile.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn with_folder(config: BrokerConfig, folder: &Path) -> Result<Self, OpenError> {
        config.check()?;
        let began = std::time::Instant::now();
        let limits = DiskLimits { files: config.max_disk, kept_free: config.disk_kept_free };
        let (tier, opened, damaged) = Tier::open(folder, limits)?;
        let mut recovered = Recovered::default();
        let mut names = BTreeSet::new();
        for damaged in damaged {
            let (folder, why) = (damaged.folder, damaged.why);
            names.extend(damaged.name);
            tracing::error!(folder = %folder.display(), why, "a stored topic cannot be opened");
            recovered.damaged.push((folder, why));
        }
        let broker = Self::over(config, Some(tier));
        let _ = broker.inner.damaged.set(names);
        for opened in opened {
            if opened.is_hidden() {
                broker.restore(opened)?;
                continue;
            }
            recovered.topics += 1;
            recovered.records += opened.records;
            recovered.bytes += opened.bytes;
            recovered.cut += opened.cut;
            broker.restore(opened)?;
        }
        if let Some(DiskUse { taken, limit: Some(limit), .. }) =
            broker.disk().filter(DiskUse::is_over)
        {
            tracing::warn!(
                taken,
                limit,
                "there is more on the disk than limit.disk allows: all of it stays, and nothing grows until topics were \
                 deleted or have given files up"
            );
        }
        recovered.took = began.elapsed();
        let _ = broker.inner.recovered.set(recovered);
        Ok(broker)
    }

    /// What was found in the folder, if there is one.
    #[must_use]
    pub fn recovered(&self) -> Option<&Recovered> {
        self.inner.recovered.get()
    }

    /// Puts a topic into place whose files were opened.
    fn restore(&self, opened: Opened) -> Result<(), OpenError> {
        let Some(tier) = &self.inner.folder else { unreachable!("it was opened there") };
        let name: Arc<str> = opened.name().into();
        let settings = ResolvedSettings::stored(opened.settings());
        let begin = Position { epoch: opened.epoch, next: opened.next };
        let log = self.log(&settings, Some(begin)).map_err(|error| OpenError::Topic {
            name: name.as_ref().into(),
            why: error.to_string(),
        })?;
        let is_hidden = opened.is_hidden();
        let stored = StoredTopic::go_on(opened, tier, &log);
        let topic =
            Topic::new(name.clone(), log, Some(stored), settings, Vec::new(), false, &self.inner);
        let topic = Arc::new(topic);
        if is_hidden {
            topic.end();
            self.lock_hidden().push(topic);
            return Ok(());
        }
        let mut topics = self.inner.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.insert(name, topic.clone());
        drop(topics);
        topic.remember_all();
        // Leases expire, also those that nobody takes up again.
        self.inner.schedule.at(&topic, Duration::ZERO);
        Ok(())
    }

    /// The folder in which stored topics are, if there is one.
    #[must_use]
    pub fn has_folder(&self) -> bool {
        self.inner.folder.is_some()
    }

    /// The disk that all stored topics share: how much of it is taken, its limit, and what the file system has. `None` without
    /// a folder. Asks the file system.
    #[must_use]
    pub fn disk(&self) -> Option<DiskUse> {
        self.inner.folder.as_ref().map(|tier| tier.budget.look())
    }

    /// A new topic must not take the name of one that is stored and cannot be opened.
    pub(super) fn check_not_damaged(&self, name: &str) -> Result<(), BrokerError> {
        match self.inner.damaged.get() {
            Some(damaged) if damaged.contains(name) => {
                Err(BrokerError::Damaged { name: name.into() })
            }
            _ => Ok(()),
        }
    }

    /// Deletes what is left of a topic that was deleted, when no other topic goes on from its records any more.
    #[cfg(feature = "http")]
    pub(crate) fn forget(&self, topic: &Arc<Topic>) {
        self.lock_hidden().retain(|hidden| !Arc::ptr_eq(hidden, topic));
        if let Err(error) = topic.delete() {
            // It is tried again after the next start.
            tracing::error!(topic = topic.name(), %error, "the files of a topic cannot be removed");
        }
    }

    /// Stored topics that were deleted before this process, and whose records were kept for others then.
    #[cfg(feature = "http")]
    pub(crate) fn hidden(&self) -> Vec<Arc<Topic>> {
        self.lock_hidden().clone()
    }

    fn lock_hidden(&self) -> MutexGuard<'_, Vec<Arc<Topic>>> {
        self.inner.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves the folder so that nothing has to be asked at the next start.
impl Drop for BrokerState {
    fn drop(&mut self) {
        if let Some(tier) = self.folder.take() {
            let topics = self.topics.get_mut().unwrap_or_else(PoisonError::into_inner);
            tier.leave(topics.values().filter_map(|topic| topic.stored_task().cloned()));
        }
    }
}
