//! One waiter's node, and the states that say whose its waker is.
//!
//! | from | to | who, and when |
//! | --- | --- | --- |
//! | `IDLE` | `WAITING` | the owner, which then links it: it waits |
//! | `WAITING`, `ASIDE` | `BUSY` | the owner: it changes the waker |
//! | `BUSY` | `WAITING` | the owner: it waits with another waker |
//! | `BUSY` | `ASIDE` | the owner: it has stopped waiting |
//! | `WAITING`, `ASIDE`, `BUSY` | `TAKEN` | a notifier, which has unlinked it |
//! | `TAKEN` | `IDLE` | the notifier, once the waker is out; if it was `BUSY`, the owner |

use std::sync::Arc;
use std::task::Waker;

use crate::sync::{AtomicPtr, AtomicU32, Ordering, UnsafeCell};

/// One waiter's node. Shared between its owner and, while linked, a stack.
pub(super) struct Node {
    pub(super) state: AtomicU32,
    /// The next node of the same chain.
    pub(super) next: AtomicPtr<Node>,
    /// On the first node of a chain in `waking`: the next chain.
    pub(super) next_chain: AtomicPtr<Node>,
    /// Whom to wake. Accessed by the owner in `IDLE` and `BUSY`, and by whoever moved `WAITING` to
    /// `TAKEN`.
    pub(super) waker: UnsafeCell<Option<Waker>>,
}

impl Node {
    /// A node that is in no stack.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Node {
            state: AtomicU32::new(IDLE),
            next: AtomicPtr::default(),
            next_chain: AtomicPtr::default(),
            waker: UnsafeCell::new(None),
        })
    }
}

// SAFETY: `waker` is the only field that is not atomic, and the states give it one user at a time,
// handed over with Acquire and Release (see the fields). `Waker` is Send.
unsafe impl Send for Node {}
// SAFETY: as above.
unsafe impl Sync for Node {}

/// Not linked; the owner may do as it likes.
pub(super) const IDLE: u32 = 0;
/// Linked, and to be woken.
pub(super) const WAITING: u32 = 1;
/// Linked; the owner is changing the waker.
pub(super) const BUSY: u32 = 2;
/// Linked, but the owner has stopped waiting.
pub(super) const ASIDE: u32 = 3;
/// Unlinked by a notifier. If it was `WAITING`, the notifier has the waker until it stores `IDLE`;
/// if it was `BUSY`, the owner finds out and stores `IDLE` itself.
pub(super) const TAKEN: u32 = 4;

/// Takes a node out of the game and returns whom to wake.
pub(super) fn unlink(node: &Node) -> Option<Waker> {
    // AcqRel: Acquire to have the waker that the owner put in; Release so that an owner that finds
    // TAKEN sees what the notifier did before.
    match node.state.swap(TAKEN, Ordering::AcqRel) {
        WAITING => {
            // SAFETY: the move from WAITING to TAKEN gives the waker to us, until IDLE.
            let waker = unsafe { (*node.waker.get()).take() };
            // Release: the owner that reads IDLE may touch the waker again.
            node.state.store(IDLE, Ordering::Release);
            waker
        }
        ASIDE => {
            node.state.store(IDLE, Ordering::Release);
            None
        }
        // BUSY: the owner is in `register` or `cancel` and finds TAKEN when it is done.
        _ => None,
    }
}

/// Moves a node between states, unless a notifier took it meanwhile.
pub(super) fn move_state(node: &Node, from: u32, to: u32) -> bool {
    // AcqRel: Release hands the waker over together with WAITING; Acquire shows an owner that finds
    // its node taken what the notifier had done.
    node.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
}
