//! One waiter's node, and its states, which say who may use its call (whom to wake).
//!
//! | from | to | who, and when |
//! | --- | --- | --- |
//! | `IDLE` | `WAITING` | the owner, which then links it: it waits |
//! | `WAITING`, `ASIDE` | `BUSY` | the owner: it changes the call |
//! | `BUSY` | `WAITING` | the owner: it waits, with another call or the same |
//! | `BUSY` | `ASIDE` | the owner: it has stopped waiting |
//! | `WAITING`, `ASIDE`, `BUSY` | `TAKEN` | a notifier, which has unlinked it |
//! | `TAKEN` | `IDLE` | the notifier, once the call is out; if it was `BUSY`, the owner |
//!
//! No user code runs while a node is `BUSY` or `TAKEN`: wakers are cloned before and dropped after.

use crate::sync::rescue::Call;
use crate::sync::{Arc, AtomicPtr, AtomicU32, Ordering, UnsafeCell, contain};

/// One waiter's node. Shared between its owner and, while linked, a stack.
pub(super) struct Node {
    pub(super) state: AtomicU32,
    /// The next node of the same chain.
    pub(super) next: AtomicPtr<Node>,
    /// On the first node of a chain in a list of chains: the next chain.
    pub(super) next_chain: AtomicPtr<Node>,
    /// Whom to wake. Accessed by the owner in `IDLE` and `BUSY`, and by the thread that moved `WAITING` to `TAKEN`.
    pub(super) call: UnsafeCell<Option<Call>>,
}

impl Node {
    /// A node that is in no stack.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Node {
            state: AtomicU32::new(IDLE),
            next: AtomicPtr::default(),
            next_chain: AtomicPtr::default(),
            call: UnsafeCell::new(None),
        })
    }
}

// SAFETY: `call` is the only field that is not atomic, and the states give it one user at a time,
// handed over with Acquire and Release (see the fields). `Call` is Send.
unsafe impl Send for Node {}
// SAFETY: as above.
unsafe impl Sync for Node {}

/// Not linked; the owner may do what it wants.
pub(super) const IDLE: u32 = 0;
/// Linked, and to be woken.
pub(super) const WAITING: u32 = 1;
/// Linked; the owner is changing the call.
pub(super) const BUSY: u32 = 2;
/// Linked, but the owner has stopped waiting.
pub(super) const ASIDE: u32 = 3;
/// Unlinked by a notifier. If it was `WAITING`, the notifier has the call until it stores `IDLE`;
/// if it was `BUSY`, the owner finds out and stores `IDLE` itself.
pub(super) const TAKEN: u32 = 4;

/// Marks a node taken and returns whom to wake. Consumes the reference that its stack held.
///
/// # Safety
///
/// The node was taken from a stack, whose reference comes with it.
pub(super) unsafe fn unlink(node: *mut Node) -> Option<Call> {
    // SAFETY: the caller's promise; the reference was leaked when the node was pushed.
    let node = unsafe { Arc::from_raw(node.cast_const()) };
    // Acquire: pairs with the owner's Release of WAITING, to have the call that it put in. Release: an owner that
    // finds TAKEN sees what we did before: what the notifier had done, and what was put back into `waking`
    // (`Waiter::is_waiting`).
    let call = match node.state.swap(TAKEN, Ordering::AcqRel) {
        // SAFETY: the move from WAITING to TAKEN gives the call to us, until IDLE.
        WAITING => unsafe { (*node.call.get()).take() },
        // The call belongs to the owner all the time.
        ASIDE => None,
        // BUSY: the owner is in `register` or `cancel` and finds TAKEN when it is done.
        _ => return None,
    };
    // Release: pairs with the Acquire of IDLE by the owner, which may touch the call and the links again, and sees what
    // the swap above shows.
    node.state.store(IDLE, Ordering::Release);
    call
}

/// Moves a node between states, unless a notifier took it meanwhile.
pub(super) fn move_state(node: &Node, from: u32, to: u32) -> bool {
    // Release: pairs with the Acquire of `unlink`: hands the call over together with WAITING. (Success shows only what
    // the owner itself has written.) Acquire, of the failure: an owner that finds its node taken sees what the notifier
    // had done.
    node.state.compare_exchange(from, to, Ordering::Release, Ordering::Acquire).is_ok()
}

/// Cuts the first node off a list of chains: the node, and the rest of the list.
///
/// # Safety
///
/// The list is the caller's alone, its nodes are kept by the references of the stack that it came from, and
/// it is not empty.
pub(super) unsafe fn cut(list: *mut Node) -> (*mut Node, *mut Node) {
    // SAFETY: the caller's promise. Relaxed here and below: the thread that gave the list to the caller has published
    // its links.
    unsafe {
        let others = (*list).next_chain.load(Ordering::Relaxed);
        let next = (*list).next.load(Ordering::Relaxed);
        if next.is_null() {
            return (list, others);
        }
        // What is left of the chain takes its place in the list.
        (*next).next_chain.store(others, Ordering::Relaxed);
        (list, next)
    }
}

/// Frees a list of chains.
///
/// # Safety
///
/// As for [`cut`], but that the list may be empty.
pub(super) unsafe fn free(mut list: *mut Node) {
    while !list.is_null() {
        // SAFETY: the caller's promise; the reference was leaked when the node was pushed.
        let node = unsafe {
            let (node, rest) = cut(list);
            list = rest;
            Arc::from_raw(node.cast_const())
        };
        // A node whose owner was forgotten has its waker here, which is user code.
        contain(|| drop(node));
    }
}

/// The first node of the last chain of a list.
///
/// # Safety
///
/// As for [`cut`].
pub(super) unsafe fn last_chain(mut list: *mut Node) -> *mut Node {
    loop {
        // SAFETY: the caller's promise.
        let next = unsafe { (*list).next_chain.load(Ordering::Relaxed) };
        if next.is_null() {
            return list;
        }
        list = next;
    }
}
