//! Checking what a subscriber receives: everything, once, in each publisher's order.
//!
//! The check runs inside the measurement, so it has to cost next to nothing beside the fastest
//! rival: with one publisher it is a comparison with a counter that stays in a register. Differences
//! are gathered and looked at once, at the end.

use crate::payload::SEQUENCE_BITS;
use crate::rival::Trouble;

/// The most publishers of a cell.
const PUBLISHERS: usize = 4;

/// Checks the numbers that one subscriber receives.
pub trait Check: Default + Send + 'static {
    /// Takes the next number.
    fn take(&mut self, number: u64);

    /// How many numbers were taken.
    fn received(&self) -> u64;

    /// Whether a number was not the one that had to come.
    fn is_wrong(&self) -> bool;

    /// The verdict: `expected` numbers, all of them right.
    fn verdict(&self, expected: u64) -> Result<(), Trouble> {
        let received = self.received();
        match self.is_wrong() || received != expected {
            true => Err(Trouble::Wrong { received, expected }),
            false => Ok(()),
        }
    }
}

/// The check for one publisher, whose numbers are 0, 1, 2 and so on.
#[derive(Debug, Default)]
pub struct OnePublisher {
    next: u64,
    wrong: u64,
}

impl Check for OnePublisher {
    #[inline]
    fn take(&mut self, number: u64) {
        self.wrong |= number ^ self.next;
        self.next += 1;
    }

    #[inline]
    fn received(&self) -> u64 {
        self.next
    }

    fn is_wrong(&self) -> bool {
        self.wrong != 0
    }
}

/// The check for several publishers: the order of each one's records counts, not that among them.
#[derive(Debug, Default)]
pub struct ManyPublishers {
    next: [u64; PUBLISHERS],
    wrong: u64,
}

impl Check for ManyPublishers {
    #[inline]
    fn take(&mut self, number: u64) {
        let publisher = (number >> SEQUENCE_BITS) as usize;
        let sequence = number & ((1 << SEQUENCE_BITS) - 1);
        // A publisher that does not exist is wrong for whichever one it is counted.
        self.wrong |= (publisher / PUBLISHERS) as u64;
        let next = &mut self.next[publisher % PUBLISHERS];
        self.wrong |= sequence ^ *next;
        *next += 1;
    }

    #[inline]
    fn received(&self) -> u64 {
        self.next.iter().sum()
    }

    fn is_wrong(&self) -> bool {
        self.wrong != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict<C: Check>(numbers: &[u64], expected: u64) -> bool {
        let mut check = C::default();
        numbers.iter().for_each(|&number| check.take(number));
        check.verdict(expected).is_ok()
    }

    #[test]
    fn one_publishers_records_are_checked_for_order_gaps_and_repeats() {
        assert!(verdict::<OnePublisher>(&[0, 1, 2, 3], 4));
        for wrong in [&[0, 2, 1, 3][..], &[0, 1, 1, 2], &[0, 1, 3, 4], &[1, 2, 3, 4]] {
            assert!(!verdict::<OnePublisher>(wrong, 4), "{wrong:?}");
        }
        assert!(!verdict::<OnePublisher>(&[0, 1, 2], 4));
    }

    #[test]
    fn many_publishers_may_interleave_but_each_keeps_its_order() {
        let second = |n: u64| 1 << SEQUENCE_BITS | n;
        assert!(verdict::<ManyPublishers>(&[0, second(0), second(1), 1], 4));
        assert!(!verdict::<ManyPublishers>(&[0, second(1), second(0), 1], 4));
        assert!(!verdict::<ManyPublishers>(&[0, 1, 2, 9 << SEQUENCE_BITS], 4));
    }
}
