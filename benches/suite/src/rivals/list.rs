//! Hand-written: a linked list with a lock in every node and a condition variable, the shape that
//! pub/sub libraries in languages with a tracing collector have. Counted references collect it here.

use std::sync::{Arc, Mutex, RwLock};

use super::bell::Bell;
use crate::payload::Payload;
use crate::rival::{Publish, Receive, Rival, Shape, Trouble, spin};

struct Node<P> {
    /// `None` in the node in front of the first record.
    payload: Option<P>,
    next: RwLock<Option<Arc<Node<P>>>>,
}

impl<P> Node<P> {
    fn new(payload: Option<P>) -> Arc<Self> {
        Arc::new(Node { payload, next: RwLock::new(None) })
    }

    fn next(&self) -> Option<Arc<Node<P>>> {
        self.next.read().expect("nobody panics under this lock").clone()
    }
}

impl<P> Drop for Node<P> {
    fn drop(&mut self) {
        // Node by node: the compiler's own drop would descend as deep as the list is long.
        let mut next = self.next.get_mut().ok().and_then(Option::take);
        while let Some(mut node) = next.and_then(Arc::into_inner) {
            next = node.next.get_mut().ok().and_then(Option::take);
        }
    }
}

struct Shared<P> {
    last: Mutex<Arc<Node<P>>>,
    bell: Bell,
}

/// The rival.
pub struct LockedList;

/// Its publisher.
pub struct Publisher<P>(Arc<Shared<P>>);

/// Its subscriber.
pub struct Subscriber<P> {
    shared: Arc<Shared<P>>,
    /// The node of the last record that was shown.
    at: Arc<Node<P>>,
}

impl<P: Payload> Rival<P> for LockedList {
    const NAME: &'static str = "RwLock list and Condvar";
    type Publisher = Publisher<P>;
    type Subscriber = Subscriber<P>;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let first = Node::new(None);
        let shared = Arc::new(Shared { last: Mutex::new(first.clone()), bell: Bell::default() });
        let publishers = (0..shape.publishers).map(|_| Publisher(shared.clone())).collect();
        let subscriber = |_| Subscriber { shared: shared.clone(), at: first.clone() };
        (publishers, (0..shape.subscribers).map(subscriber).collect())
    }
}

impl<P: Payload> Publish<P> for Publisher<P> {
    #[inline]
    fn publish(&mut self, payloads: impl Iterator<Item = P>) {
        for payload in payloads {
            let node = Node::new(Some(payload));
            let mut last = self.0.last.lock().expect("nobody panics under this lock");
            *last.next.write().expect("nobody panics under this lock") = Some(node.clone());
            let old = std::mem::replace(&mut *last, node);
            drop(last);
            drop(old);
            self.0.bell.ring();
        }
    }
}

impl<P: Payload> Receive<P> for Subscriber<P> {
    fn receive(&mut self, take: &mut impl FnMut(&P)) -> Result<(), Trouble> {
        let is_there = || self.at.next().is_some();
        if !spin(is_there) {
            self.shared.bell.wait(is_there);
        }
        while let Some(next) = self.at.next() {
            next.payload.iter().for_each(&mut *take);
            self.at = next;
        }
        Ok(())
    }
}
