//! The stand-in for `src/disk`: what a reader sees of files in memory.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::path::Path;

use crate::log::Packed;
use crate::sync::{Arc, Mutex};

pub(crate) trait Folder {}

pub(crate) struct OsFolder;

impl OsFolder {
    pub(crate) fn new(_: &Path) -> Self {
        OsFolder
    }
}

impl Folder for OsFolder {}

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{file}: {error}")]
    Io { file: String, error: io::Error },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    pub(crate) epoch: u64,
    pub(crate) first: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("trimmed before {first}")]
    Trimmed { first: u64 },
    #[error("it ends at {next}")]
    Beyond { next: u64 },
}

/// One frame.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    first: u64,
    ends: Vec<u8>,
    payload: Vec<u8>,
}

impl Owned {
    pub(crate) fn new(first: u64, records: Packed<'_>) -> Self {
        Owned { first, ends: records.ends().to_vec(), payload: records.payload().to_vec() }
    }

    pub(crate) fn next(&self) -> u64 {
        self.first + self.ends.len() as u64 / 4
    }

    pub(crate) fn size(&self) -> u64 {
        (self.ends.len() + self.payload.len()) as u64
    }
}

/// What readers see.
pub(crate) struct Files {
    pub(crate) first: u64,
    pub(crate) next: u64,
    pub(crate) frames: VecDeque<Owned>,
}

pub(crate) struct Reader<D> {
    files: Arc<Mutex<Files>>,
    folder: PhantomData<D>,
}

pub(crate) struct Frame<'a> {
    pub(crate) first: u64,
    pub(crate) time: u64,
    pub(crate) records: Packed<'a>,
}

pub(crate) struct Frames(Vec<Owned>);

impl Frames {
    pub(crate) fn get(&self, number: usize) -> Option<Frame<'_>> {
        let Owned { first, ends, payload } = self.0.get(number)?;
        Some(Frame { first: *first, time: 1, records: Packed::new(ends, payload).unwrap() })
    }
}

impl<D> Reader<D> {
    pub(crate) fn new(files: Arc<Mutex<Files>>) -> Self {
        Reader { files, folder: PhantomData }
    }

    pub(crate) fn first(&self) -> u64 {
        self.files.lock().unwrap().first
    }

    /// Two frames at most.
    pub(crate) fn read(&mut self, from: u64, _: usize) -> Result<Frames, ReadError> {
        let files = self.files.lock().unwrap();
        if from >= files.next {
            return Err(ReadError::Beyond { next: files.next });
        }
        if from < files.first {
            return Err(ReadError::Trimmed { first: files.first });
        }
        let frames = files.frames.iter().skip_while(|frame| frame.next() <= from);
        Ok(Frames(frames.take(2).cloned().collect()))
    }

    pub(crate) fn reuse(&mut self, _: Frames) {}

    pub(crate) fn since(&self, _: u64) -> io::Result<u64> {
        unreachable!("no model begins at a time")
    }
}

impl<D> Clone for Reader<D> {
    fn clone(&self) -> Self {
        Reader::new(self.files.clone())
    }
}
