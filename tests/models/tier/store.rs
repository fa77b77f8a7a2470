//! The files of one topic, in memory. Each frame is a file of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use super::budget::Share;
use super::error::PublishError;
use super::state::{Settings, State};
use crate::disk::{Began, Files, Folder, Owned, Reader};
use crate::log::{Overflow, Packed, Retention};
use crate::sync::time::Instant;
use crate::sync::{Arc, Mutex};

pub(crate) const EPOCH: u64 = 7;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Open(#[from] crate::disk::OpenError),
    #[error("no files")]
    Unfinished,
}

pub(crate) struct Store<D: Folder> {
    settings: Settings,
    /// What readers see.
    files: Arc<Mutex<Files>>,
    /// What they do not see yet.
    written: Vec<Owned>,
    next: u64,
    size: u64,
    first: u64,
    sizes: BTreeMap<u64, u64>,
    pub(crate) figures: Figures,
    folder: PhantomData<D>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) syncs: u64,
    pub(crate) sync_time: Duration,
    pub(crate) groups: u64,
}

pub(crate) struct Recovered {
    pub(crate) records: u64,
    pub(crate) cut: u64,
}

// All threads of a model run on one thread of the operating system, and each test on another one.
thread_local! {
    /// The settings and the frames of the topic that is opened next.
    static FOUND: RefCell<Option<(Settings, Vec<Owned>)>> = const { RefCell::new(None) };
}

/// Puts down what the next one that is opened finds.
pub(crate) fn put_down(settings: Settings, frames: Vec<Owned>) {
    FOUND.replace(Some((settings, frames)));
}

pub(super) fn least(_: &Settings) -> u64 {
    0
}

impl<D: Folder> Store<D> {
    pub(crate) fn create(
        _: D,
        _: u64,
        _: u64,
        _: Settings,
        _: Arc<Share>,
        _: impl Fn() -> Vec<u8> + Send + 'static,
    ) -> Result<Self, StoreError> {
        Err(StoreError::Unfinished)
    }

    pub(crate) fn open(_: D) -> Result<(Self, State, Recovered), StoreError> {
        let (settings, frames) = FOUND.take().ok_or(StoreError::Unfinished)?;
        let next = frames.last().map_or(0, Owned::next);
        let size = frames.iter().map(Owned::size).sum();
        let sizes = frames.iter().map(|frame| (frame.next(), frame.size())).collect();
        let files = Arc::new(Mutex::new(Files { first: 0, next, frames: frames.into() }));
        let (written, figures, folder) = (Vec::new(), Figures::default(), PhantomData);
        let store =
            Store { settings, files, written, next, size, first: 0, sizes, figures, folder };
        Ok((store, State::new("t".into(), settings), Recovered { records: next, cut: 0 }))
    }

    pub(crate) fn begin(
        &mut self,
        epoch: Option<u64>,
        _: impl Fn() -> Vec<u8> + Send + 'static,
    ) -> Result<(), StoreError> {
        assert_eq!(epoch, None);
        Ok(())
    }

    pub(crate) fn epoch(&self) -> u64 {
        EPOCH
    }

    pub(crate) fn history(&self) -> Vec<Began> {
        vec![Began { epoch: EPOCH, first: 0 }]
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn durable(&self) -> u64 {
        self.next
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn written(&self) -> u64 {
        0
    }

    pub(crate) fn files(&self) -> usize {
        self.sizes.len()
    }

    pub(crate) fn reader(&self) -> Reader<D> {
        Reader::new(self.files.clone())
    }

    pub(crate) fn force_at(&mut self, _: Instant) -> Option<Instant> {
        None
    }

    pub(crate) fn use_share(&mut self, _: Arc<Share>) {}

    pub(crate) fn give_back(&self) {}

    pub(crate) fn needs(&self) -> u64 {
        self.size
    }

    pub(crate) fn records_limit(&self) -> u64 {
        self.settings.disk_limit
    }

    pub(crate) fn is_marked(&self) -> bool {
        true
    }

    pub(crate) fn append(
        &mut self,
        _: u64,
        _: &[u8],
        records: Packed<'_>,
        needed: impl Fn() -> u64,
    ) -> Result<u64, PublishError> {
        let frame = Owned::new(self.next, records);
        while self.size + frame.size() > self.settings.disk_limit {
            let oldest = self.sizes.keys().next().copied();
            let may_go = |end: &u64| {
                *end <= self.shown()
                    && (self.settings.overflow == Overflow::Evict || *end <= needed())
            };
            let Some(end) = oldest.filter(may_go) else {
                return Err(PublishError::DiskLimit { limit: self.settings.disk_limit });
            };
            self.give_up(end);
        }
        let first = self.next;
        self.next = frame.next();
        self.size += frame.size();
        self.sizes.insert(frame.next(), frame.size());
        self.written.push(frame);
        Ok(first)
    }

    pub(crate) fn note(&mut self, _: u64, _: &[u8]) -> Result<(), PublishError> {
        Ok(())
    }

    pub(crate) fn settle(&mut self, _: Instant) -> Result<(), PublishError> {
        self.sync()
    }

    pub(crate) fn sync(&mut self) -> Result<(), PublishError> {
        let mut files = self.files.lock().unwrap();
        files.frames.extend(self.written.drain(..));
        files.next = self.next;
        Ok(())
    }

    pub(crate) fn mark(&mut self) -> Result<(), PublishError> {
        self.sync()
    }

    /// Nothing is retained, or everything.
    pub(crate) fn trim(&mut self, needed: impl Fn() -> u64, _: u64) -> io::Result<bool> {
        if self.settings.retention == Retention::Nothing {
            let needed = needed();
            while let Some(end) = self.sizes.keys().next().copied().filter(|end| *end <= needed)
                && self.files() > 1
            {
                self.give_up(end);
            }
        }
        Ok(false)
    }

    fn shown(&self) -> u64 {
        self.files.lock().unwrap().next
    }

    /// Gives up the oldest file, which ends here.
    fn give_up(&mut self, end: u64) {
        self.size -= self.sizes.remove(&end).unwrap();
        self.first = end;
        let mut files = self.files.lock().unwrap();
        files.frames.pop_front().unwrap();
        files.first = end;
    }
}
