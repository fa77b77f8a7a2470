//! How long to wait before the next attempt.

use std::time::Duration;

/// Doubling delays with jitter, so that the many subscribers of a restarted server do not reconnect
/// in step.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// Resets the delay to the minimum, after a success.
    pub(super) const fn reset(&mut self) {
        self.next = self.min;
    }

    /// Returns a random time between half and the whole of the current delay, and doubles the
    /// delay, up to the maximum.
    pub(super) fn delay(&mut self) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.max);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_start_over() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(10), ms(50));
        for whole in [10, 20, 40, 50, 50] {
            let delay = backoff.delay();
            assert!(delay >= ms(whole) / 2 && delay <= ms(whole), "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.delay() <= ms(10));
    }
}
