//! Values that are counted: each is dropped once, or never if its owner was forgotten.

use std::cell::Cell;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::watchdog::panic_as_planned;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Alive,
    Forgotten,
    Dropped,
}

/// All values of a test.
#[derive(Default)]
pub(crate) struct Ledger {
    states: Mutex<Vec<State>>,
    wrong: Mutex<Vec<String>>,
}

impl Ledger {
    fn with<U>(&self, f: impl FnOnce(&mut Vec<State>) -> U) -> U {
        f(&mut self.states.lock())
    }

    fn enter(&self) -> usize {
        self.with(|states| {
            states.push(State::Alive);
            states.len() - 1
        })
    }

    /// A value that will never be dropped, because what owns it was forgotten.
    pub(crate) fn forget(&self, id: usize) {
        self.with(|states| states[id] = State::Forgotten);
    }

    /// Notes something that must not be, from where a panic would be contained.
    pub(crate) fn wrong(&self, what: String) {
        self.wrong.lock().push(what);
    }

    /// How many values there were, and how many of them are still there although nobody forgot them.
    pub(crate) fn left(&self) -> (usize, usize) {
        self.with(|states| {
            (states.len(), states.iter().filter(|state| **state == State::Alive).count())
        })
    }

    pub(crate) fn assert_nothing_is_wrong(&self) {
        let wrong = self.wrong.lock();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

type Act = Box<dyn Fn() + Send + Sync>;

/// A value that owns memory, knows what it is, and does something when it is dropped or cloned.
pub(crate) struct Value {
    /// What it says. Clones say the same.
    pub(crate) says: u64,
    /// The same again, behind a pointer.
    again: Box<u64>,
    pub(crate) id: usize,
    ledger: Arc<Ledger>,
    /// Runs when the value is dropped, after it was counted.
    at_end: Option<Act>,
}

impl Value {
    pub(crate) fn new(ledger: &Arc<Ledger>, says: u64) -> Self {
        let id = ledger.enter();
        Value { says, again: Box::new(says), id, ledger: ledger.clone(), at_end: None }
    }

    pub(crate) fn at_end(mut self, act: impl Fn() + Send + Sync + 'static) -> Self {
        self.at_end = Some(Box::new(act));
        self
    }

    /// Looks whether it is what it was.
    pub(crate) fn check(&self) {
        assert_eq!(self.says, *self.again);
        let state = self.ledger.with(|states| states[self.id]);
        assert_eq!(state, State::Alive, "value {} is shown after its end", self.id);
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        let before =
            self.ledger.with(|states| std::mem::replace(&mut states[self.id], State::Dropped));
        if before != State::Alive || self.says != *self.again {
            let what = format!("value {} is dropped, and is {before:?}", self.id);
            self.ledger.wrong(what);
        }
        if let Some(act) = &self.at_end {
            act();
        }
    }
}

thread_local! {
    /// How many of the next clones succeed, before one panics.
    static CLONES: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// Makes a clone of a value panic on this thread, after so many.
pub(crate) fn clones_before_a_panic(clones: u32) {
    CLONES.set(clones);
}

impl Clone for Value {
    fn clone(&self) -> Self {
        self.check();
        match CLONES.get() {
            u32::MAX => {}
            0 => {
                CLONES.set(u32::MAX);
                panic_as_planned();
            }
            left => CLONES.set(left - 1),
        }
        Value::new(&self.ledger, self.says)
    }
}
