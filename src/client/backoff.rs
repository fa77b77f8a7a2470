//! How long to wait before the next attempt.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::config::Config;
use super::error::ClientError;

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

/// How long something has been lost, and when to try again.
pub(super) struct Retry {
    backoff: Backoff,
    /// When it was lost, if it is lost now.
    lost_since: Option<Instant>,
}

impl Retry {
    pub(super) const fn new(config: &Config) -> Self {
        Self { backoff: Backoff::new(config.backoff_min, config.backoff_max), lost_since: None }
    }

    /// It works again.
    pub(super) const fn succeed(&mut self) {
        self.lost_since = None;
        self.backoff.reset();
    }

    /// The pause before the next attempt.
    pub(super) fn delay(&mut self) -> Duration {
        self.backoff.delay()
    }

    /// It was lost because of `error`, and the next attempt is after `delay`. Fails if there must not be
    /// one: it would fail in the same way, or come later than `limit` after the loss.
    pub(super) fn lose(
        &mut self,
        error: &ClientError,
        delay: Duration,
        limit: Option<Duration>,
    ) -> Result<(), ClientError> {
        let now = Instant::now();
        let since = *self.lost_since.get_or_insert(now);
        if !error.passes() {
            return Err(error.clone());
        }
        let late = match limit {
            // A time that the clock cannot represent is later than any that it can.
            Some(limit) => since
                .checked_add(limit)
                .is_some_and(|end| now.checked_add(delay).is_none_or(|next| next > end)),
            None => false,
        };
        if late {
            return Err(ClientError::GaveUp { after: now - since, cause: Arc::new(error.clone()) });
        }
        Ok(())
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
