//! The ratio budget: repeats on the same target may be at most a share of first tries, so that an outage is not
//! multiplied; and hedges, so that slowness is not. Process-wide, one word of memory, no lock.
//!
//! A bucket of tokens as in Finagle's `RetryBudget`: each first try puts `ratio` tokens in, each repeat takes one out, and
//! `min_per_second` tokens come in regardless. It holds ten seconds' worth at most, so that a quiet night does not
//! save up for a storm in the morning.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::plan::{Hedge, Retry};
use crate::units::Time;

/// Thousandths of a token: the smallest share that a ratio can add.
const TOKEN: u64 = 1_000;
/// Seconds of `min_per_second` (and first tries' worth of `ratio`) that are kept.
const KEPT_SECONDS: u64 = 10;

/// See the module.
#[derive(Debug)]
pub struct RetryBudget {
    per_try: u64,
    per_second: u64,
    most: u64,
    /// Milliseconds of the clock at the last refill in the upper 40 bits, thousandths of tokens in the lower 24.
    state: AtomicU64,
}

/// The budgets of a process.
#[derive(Debug)]
pub struct Budgets {
    /// For repeats on the same target.
    pub repeats: RetryBudget,
    /// For second tries beside slow ones.
    pub hedges: RetryBudget,
}

impl Budgets {
    /// From `[retry]` and `[hedge]`.
    pub fn new(retry: &Retry, hedge: &Hedge) -> Self {
        Self {
            repeats: RetryBudget::new(retry),
            hedges: RetryBudget::of_hedges(hedge),
        }
    }
}

const BALANCE_BITS: u32 = 24;
const BALANCE: u64 = (1 << BALANCE_BITS) - 1;

impl RetryBudget {
    /// From `[retry] budget`.
    pub fn new(retry: &Retry) -> Self {
        Self::of(retry.budget_ratio, retry.budget_min_per_second)
    }

    /// For hedges: `[hedge] max_ratio`, and nothing that comes with time alone.
    pub fn of_hedges(hedge: &Hedge) -> Self {
        Self::of(hedge.max_ratio, 0)
    }

    fn of(ratio: f32, per_second: u32) -> Self {
        let per_second = u64::from(per_second) * TOKEN;
        let per_try = (f64::from(ratio.max(0.0)) * TOKEN as f64) as u64;
        Self {
            per_try,
            per_second,
            most: (per_second * KEPT_SECONDS)
                .max(per_try * 100)
                .clamp(TOKEN, BALANCE),
            state: AtomicU64::new(0),
        }
    }

    /// A first try was started.
    pub fn deposit(&self, now: Time) {
        self.change(now, |balance| Some(balance.saturating_add(self.per_try)));
    }

    /// Takes what one repeat costs; `false`: it is not there.
    #[must_use]
    pub fn withdraw(&self, now: Time) -> bool {
        self.change(now, |balance| balance.checked_sub(TOKEN))
    }

    /// What one repeat costs is there now.
    pub fn covers(&self, now: Time) -> bool {
        let (balance, _) = self.refilled(self.state.load(Ordering::Relaxed), now);
        balance >= TOKEN
    }

    /// Repeats that it covers now.
    pub fn left(&self, now: Time) -> f64 {
        let (balance, _) = self.refilled(self.state.load(Ordering::Relaxed), now);
        balance as f64 / TOKEN as f64
    }

    fn refilled(&self, state: u64, now: Time) -> (u64, u64) {
        let now_ms = now.0 / 1_000;
        let (then_ms, balance) = (state >> BALANCE_BITS, state & BALANCE);
        let gained = now_ms.saturating_sub(then_ms).saturating_mul(self.per_second) / 1_000;
        (balance.saturating_add(gained).min(self.most), now_ms.max(then_ms))
    }

    fn change(&self, now: Time, f: impl Fn(u64) -> Option<u64>) -> bool {
        self.state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                let (balance, at_ms) = self.refilled(state, now);
                Some((at_ms << BALANCE_BITS) | f(balance)?.min(self.most))
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn retry(ratio: f32, min_per_second: u32) -> Retry {
        Retry {
            max_attempts: 4,
            same_target: 1,
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(2),
            jitter: true,
            budget_ratio: ratio,
            budget_min_per_second: min_per_second,
            honor_retry_after: Duration::from_secs(5),
        }
    }

    #[test]
    fn a_fifth_of_first_tries() {
        let budget = RetryBudget::new(&retry(0.2, 0));
        let now = Time::from_millis(1_000);
        for _ in 0..100 {
            budget.deposit(now);
        }
        assert!(budget.covers(now));
        assert_eq!((0..100).filter(|_| budget.withdraw(now)).count(), 20);
        assert!(!budget.covers(now));
    }

    #[test]
    fn some_a_second_whatever_comes() {
        let budget = RetryBudget::new(&retry(0.0, 5));
        let start = Time::from_millis(1_000);
        while budget.withdraw(start) {}
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| budget.withdraw(later)).count(), 5);
    }

    proptest! {
        /// Repeats never exceed the share of first tries plus what time brought, whatever the arrival pattern.
        #[test]
        fn never_more_than_it_was_given(steps in proptest::collection::vec((0u64..50, any::<bool>()), 1..400)) {
            let budget = RetryBudget::new(&retry(0.2, 5));
            let mut now = Time::from_millis(1);
            let (mut first, mut repeats) = (0u64, 0u64);
            let mut ms = 1u64;
            for (wait, repeat) in steps {
                ms += wait;
                now = Time::from_millis(ms).max(now);
                if repeat { repeats += u64::from(budget.withdraw(now)); } else { first += 1; budget.deposit(now); }
            }
            prop_assert!(repeats as f64 <= first as f64 * 0.2 + ms as f64 * 0.005 + 1e-9, "{repeats} of {first} in {ms} ms");
        }
    }
}
