//! The model's books of memory: what is in the chain, what is pooled, and what a budget has left.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The books of one log.
pub(crate) struct Books {
    /// The most bytes that it may hold, by a limit of its own.
    limit: Option<u64>,
    /// Bytes of the segments in the chain.
    live: u64,
    pool: Rc<Pool>,
    budget: Option<Rc<BudgetBooks>>,
}

/// Segments that are kept for later, all of the standard size.
struct Pool {
    most: u64,
    segment: u64,
    pooled: Cell<u64>,
}

/// The books of a budget.
pub(crate) struct BudgetBooks {
    limit: u64,
    used: Cell<u64>,
    pools: RefCell<Vec<Rc<Pool>>>,
}

impl Books {
    /// The books of a log with one segment of this many bytes.
    pub(crate) fn new(
        segment: u64,
        limit: Option<u64>,
        pool: u64,
        budget: Option<Rc<BudgetBooks>>,
    ) -> Self {
        let pool = Rc::new(Pool { most: pool, segment, pooled: Cell::new(0) });
        if let Some(budget) = &budget {
            assert!(budget.take(segment), "a log begins where there is room");
            budget.pools.borrow_mut().push(pool.clone());
        }
        Books { limit, live: segment, pool, budget }
    }

    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    pub(crate) fn pooled(&self) -> u64 {
        self.pool.pooled.get()
    }

    pub(crate) fn pooled_bytes(&self) -> u64 {
        self.pooled() * self.pool.segment
    }

    pub(crate) fn has_limit(&self) -> bool {
        self.limit.is_some() || self.budget.is_some()
    }

    /// The most bytes of a segment that is larger than others: two of them fit.
    pub(crate) fn largest(&self) -> u64 {
        let budget = self.budget.as_ref().map(|budget| budget.limit);
        self.limit.into_iter().chain(budget).min().map_or(u64::MAX, |limit| limit / 2)
    }

    /// Takes memory for a segment, of the standard size or another. False if there is none; all that was pooled is free then.
    pub(crate) fn obtain(&mut self, bytes: u64, standard: bool) -> bool {
        let pooled = standard && self.pool.take();
        if !pooled {
            while !self.allocate(bytes) {
                if !self.pool.take() {
                    return false;
                }
                self.free(self.pool.segment);
            }
        }
        self.live += bytes;
        true
    }

    fn allocate(&self, bytes: u64) -> bool {
        let within = |limit| self.live + self.pooled_bytes() + bytes <= limit;
        let Some(budget) = &self.budget else { return self.limit.is_none_or(within) };
        self.limit.is_none_or(within)
            && (budget.take(bytes) || budget.empty_pools() && budget.take(bytes))
    }

    /// A segment has gone from the chain: it is kept for later, or freed.
    pub(crate) fn take_back(&mut self, bytes: u64, standard: bool) {
        self.live -= bytes;
        let tight = self.budget.as_ref().is_some_and(|b| b.used.get() > b.limit / 2);
        if standard && !tight && self.pooled() < self.pool.most {
            self.pool.pooled.set(self.pooled() + 1);
        } else {
            self.free(bytes);
        }
    }

    fn free(&self, bytes: u64) {
        if let Some(budget) = &self.budget {
            budget.used.set(budget.used() - bytes);
        }
    }
}

impl Pool {
    fn take(&self) -> bool {
        let pooled = self.pooled.get();
        self.pooled.set(pooled.saturating_sub(1));
        pooled > 0
    }
}

impl BudgetBooks {
    #[allow(dead_code, reason = "only where two logs share a budget")]
    pub(crate) fn new(limit: u64) -> Self {
        BudgetBooks { limit, used: Cell::new(0), pools: RefCell::default() }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.get()
    }

    fn take(&self, bytes: u64) -> bool {
        let fits = self.used() + bytes <= self.limit;
        if fits {
            self.used.set(self.used() + bytes);
        }
        fits
    }

    /// Frees what any log keeps for later. False if there is nothing.
    fn empty_pools(&self) -> bool {
        let before = self.used();
        for pool in self.pools.borrow().iter() {
            self.used.set(self.used() - pool.pooled.take() * pool.segment);
        }
        self.used() < before
    }
}
