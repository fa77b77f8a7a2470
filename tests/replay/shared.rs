//! Two logs, one of values and one of bytes, that share a budget.

use std::rc::Rc;
use std::sync::Arc;

use super::books::BudgetBooks;
use super::kind::{Bytes, Kind, Values};
use super::log::Budget;
use super::meter::Meter;
use super::model::Rules;
use super::world::{HOUR, Machine, Op, World};

/// Two logs and their models.
pub(crate) struct Pair {
    values: World<Values>,
    bytes: World<Bytes>,
    budget: Arc<Budget>,
    books: Rc<BudgetBooks>,
    meter: Rc<Meter>,
    rules: [Rules; 2],
}

impl Pair {
    /// Two fresh logs, whose budget has room for two segments of the larger kind, and `more` bytes.
    pub(crate) fn new(more: u64, bytes: Bytes, rules: [Rules; 2], machine: Machine) -> Self {
        let largest = Values::segment(Values::ROOM).max(Bytes::segment(Bytes::ROOM));
        let limit = 2 * largest + more;
        let (budget, books) = (Arc::new(Budget::new(limit)), Rc::new(BudgetBooks::new(limit)));
        let meter = Rc::new(Meter::new(Some(machine.allocated)));
        let shared = || (meter.clone(), Some((budget.clone(), books.clone())));
        let (one, same) = (shared(), shared());
        Pair {
            values: World::beside(Values, rules[0], Some(machine), one.0, one.1),
            bytes: World::beside(bytes, rules[1], Some(machine), same.0, same.1),
            budget,
            books,
            meter,
            rules,
        }
    }

    /// A step of one of them.
    pub(crate) fn step(&mut self, first: bool, op: Op) {
        // They have their clock in common.
        if let Op::Pass { hours } = op {
            let time = HOUR * hours as u32;
            if first { self.bytes.passed(time) } else { self.values.passed(time) }
        }
        if first { self.values.step(op) } else { self.bytes.step(op) }
    }

    /// Each as if it were alone; and together, what they hold of the budget, and what they have allocated.
    pub(crate) fn check(&self) {
        self.values.check_log();
        self.bytes.check_log();
        assert_eq!(self.budget.used(), self.books.used());
        assert!(self.budget.used() <= self.budget.limit());
        let modelled = self.values.allocated() + self.bytes.allocated();
        assert_eq!(self.meter.bytes(), Some(modelled), "allocated, not as the models say");
    }

    /// The end of a program: both logs give back all that they had.
    pub(crate) fn finish(self) {
        let Pair { values, bytes, budget, rules, .. } = self;
        values.finish(rules[0].retention);
        bytes.finish(rules[1].retention);
        assert_eq!(budget.used(), 0);
    }
}
