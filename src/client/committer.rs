//! Committing apart from the subscription.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::error::ClientError;
use super::follow::Follower;
use crate::log::Position;

/// Commits for a [`Subscription`](super::Subscription), from anywhere: while a stream combinator has the subscription,
/// or from tasks that process its records side by side. Created by
/// [`Subscription::committer`](super::Subscription::committer); clones commit for the same subscription.
///
/// The subscription sends the commits, so somebody must go on taking its events. After its end, nothing can be
/// committed.
///
/// ```no_run
/// # async fn example(mut orders: psa::client::Subscription) -> Result<(), psa::client::ClientError> {
/// use psa::client::{ClientError, Event, Record};
///
/// let (send, mut receive) = tokio::sync::mpsc::channel::<Record>(100);
/// let committer = orders.committer();
/// tokio::spawn(async move {
///     while let Some(record) = receive.recv().await {
///         // ... process it, in order: a commit covers all records before it ...
///         committer.commit_later(record.position())?;
///     }
///     Ok::<_, ClientError>(())
/// });
/// while let Some(event) = orders.next().await {
///     if let Event::Record(record) = event? {
///         let _ = send.send(record).await;
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Committer {
    shared: Arc<CommitShared>,
}

/// What the subscription and its committers share.
#[derive(Debug)]
pub(super) struct CommitShared {
    state: Mutex<CommitState>,
    /// Notified when the state has changed for those who wait for a confirmation.
    changed: Notify,
    timeout: Duration,
    has_lease: bool,
}

#[derive(Debug)]
struct CommitState {
    /// The position after the last record that was taken.
    taken: Position,
    /// What is wanted, in the epoch of `taken`.
    wanted: u64,
    committed: u64,
    ended: bool,
    /// The task that takes the events.
    task: Option<Waker>,
}

impl Committer {
    /// Commits all records before `position`, for example [`Record::position`](super::Record::position), and waits for
    /// the server's confirmation. *Cancel safe:* if it is dropped, the commit stays wanted.
    ///
    /// # Errors
    ///
    /// * [`ClientError::Commit`] without a lease, for records that were not taken, or if the topic has been recreated
    ///   since.
    /// * [`ClientError::Timeout`] after the request timeout: perhaps nobody takes the subscription's events.
    /// * [`ClientError::Ended`] if the subscription has ended, or was dropped.
    pub async fn commit(&self, position: Position) -> Result<(), ClientError> {
        self.commit_later(position)?;
        let after = self.shared.timeout;
        let confirmed = async {
            loop {
                // Before the look: what changes after it is heard.
                let changed = self.shared.changed.notified();
                if self.shared.lock().is_committed(position)? {
                    return Ok(());
                }
                changed.await;
            }
        };
        match timeout(after, confirmed).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout { after }),
        }
    }

    /// Commits all records before `position`, without waiting. The subscription sends the commit when it is polled
    /// next, and is woken for that. Commits in quick succession are merged.
    ///
    /// # Errors
    ///
    /// [`ClientError::Commit`], as for [`commit`](Self::commit), and [`ClientError::Ended`].
    pub fn commit_later(&self, position: Position) -> Result<(), ClientError> {
        if !self.shared.has_lease {
            let what = "there is no lease to commit to; subscribe with one";
            return Err(ClientError::Commit { what });
        }
        let mut state = self.shared.lock();
        state.check(position)?;
        if position.next > state.taken.next {
            let what = "the record was not taken yet; commit what was processed";
            return Err(ClientError::Commit { what });
        }
        state.is_committed(position)?;
        state.wanted = state.wanted.max(position.next);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
        Ok(())
    }

    /// The first offset that is not known to be committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.shared.lock().committed
    }
}

impl CommitState {
    fn is_committed(&self, position: Position) -> Result<bool, ClientError> {
        self.check(position)?;
        let is_committed = self.committed >= position.next;
        if self.ended && !is_committed { Err(ClientError::Ended) } else { Ok(is_committed) }
    }

    /// Offsets mean nothing in another epoch.
    fn check(&self, position: Position) -> Result<(), ClientError> {
        if position.epoch == self.taken.epoch {
            return Ok(());
        }
        let what = "the record is of another epoch: the topic was recreated";
        Err(ClientError::Commit { what })
    }
}

impl CommitShared {
    fn lock(&self) -> MutexGuard<'_, CommitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The subscription's end of it: nothing until there is a committer.
#[derive(Default)]
pub(super) struct CommitLink(Option<Arc<CommitShared>>);

impl CommitLink {
    pub(super) fn committer(&mut self, taken: Position, follower: &Follower) -> Committer {
        let shared = self.0.get_or_insert_with(|| {
            let state = CommitState {
                taken,
                wanted: 0,
                committed: follower.committed(),
                ended: follower.is_ended(),
                task: None,
            };
            Arc::new(CommitShared {
                state: Mutex::new(state),
                changed: Notify::new(),
                timeout: follower.request_timeout(),
                has_lease: follower.has_lease(),
            })
        });
        Committer { shared: shared.clone() }
    }

    /// The caller of the subscription has taken everything before this.
    pub(super) fn taken(&self, taken: Position) {
        let Some(shared) = &self.0 else { return };
        let mut state = shared.lock();
        if state.taken.epoch != taken.epoch {
            (state.wanted, state.committed) = (0, 0);
        }
        state.taken = taken;
    }

    /// Before the subscription is polled: what the committers want.
    pub(super) fn before(&self, cx: &Context<'_>, follower: &mut Follower) {
        let Some(shared) = &self.0 else { return };
        let _before;
        let mut state = shared.lock();
        // Kept until a commit takes it, so that one commit wakes the task once. Another task's is dropped outside of the
        // lock: it is foreign code.
        let is_new = !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker()));
        _before = if is_new { state.task.replace(cx.waker().clone()) } else { None };
        if state.taken.epoch == follower.expected().epoch && state.wanted > 0 {
            follower.progress.want(state.wanted);
        }
    }

    /// After it was polled: what has become of that.
    pub(super) fn after(&self, follower: &Follower) {
        let Some(shared) = &self.0 else { return };
        let mut state = shared.lock();
        let (committed, ended) = (follower.committed(), follower.is_ended());
        let known = (state.committed, state.ended);
        if state.taken.epoch == follower.expected().epoch {
            state.committed = state.committed.max(committed);
        }
        state.ended = ended;
        let changed = known != (state.committed, state.ended);
        drop(state);
        if changed {
            shared.changed.notify_waiters();
        }
    }
}

impl Drop for CommitLink {
    fn drop(&mut self) {
        let Some(shared) = &self.0 else { return };
        shared.lock().ended = true;
        shared.changed.notify_waiters();
    }
}
