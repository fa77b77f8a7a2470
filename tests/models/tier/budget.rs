//! A disk without limits.

use std::path::Path;
use std::task::Waker;

use super::error::PublishError;
use crate::sync::Arc;

#[derive(Debug, Default)]
pub(crate) struct DiskBudget;

#[derive(Debug, Default)]
pub(crate) struct Share;

impl DiskBudget {
    pub(super) fn share(&self, _: u64, _: u64) -> Arc<Share> {
        Arc::new(Share)
    }
}

impl Share {
    pub(super) fn check_space(&self, _: u64) -> Result<(), PublishError> {
        Ok(())
    }

    pub(super) fn may_log(&self) -> bool {
        false
    }

    pub(super) fn end(&self, _: bool) {}

    pub(super) fn wait(&self, _: &Waker) -> bool {
        true
    }
}

pub(super) fn bytes_below(_: &Path) -> u64 {
    0
}
