//! Latencies of one target as a histogram that forgets: from it comes the point from which a try counts as slow *for this
//! target* (hedging, after Dean and Barroso, "The Tail at Scale", 2013: wait for the 95th percentile, then ask once more).
//!
//! Buckets grow by an eighth of a power of two, so a quantile is told at most 12.5% too late and never too early. Atomics
//! without a lock: a count that two threads miss is one sample of an estimate.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Sub-buckets of a power of two.
const STEPS: u32 = 8;
/// Up to 2^36 microseconds, 19 hours; what is longer goes into the last one.
const BUCKETS: usize = 37 * STEPS as usize;
/// From so many observations on everything counts half: the last thousand or two say how it is now.
const HALVE_AT: u32 = 2_048;
/// Fewer observations say nothing of a tail.
pub const ENOUGH: u32 = 50;

/// See the module.
#[derive(Debug)]
pub struct Latencies {
    counts: [AtomicU32; BUCKETS],
    total: AtomicU32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
            total: AtomicU32::new(0),
        }
    }
}

impl Latencies {
    /// Takes one in. A try that was given up counts with the time it had by then: to leave it out would make the target
    /// look faster the more of its slow tries are given up.
    pub fn observe(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get(bucket(micros)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if self.total.fetch_add(1, Ordering::Relaxed) + 1 >= HALVE_AT {
            self.halve();
        }
    }

    /// This share of its tries was faster; `None` while too few were seen.
    pub fn quantile(&self, share: f32) -> Option<Duration> {
        let total: u64 = self.counts.iter().map(count).sum();
        if total < u64::from(ENOUGH) {
            return None;
        }
        let slower = f64::from(1.0 - share.clamp(0.0, 1.0)) * total as f64;
        let mut above = 0_u64;
        for (at, n) in self.counts.iter().enumerate().rev() {
            above += count(n);
            if above as f64 > slower {
                return Some(Duration::from_micros(end_of(at)));
            }
        }
        None
    }

    fn halve(&self) {
        let mut total = 0;
        for count in &self.counts {
            let half = count.load(Ordering::Relaxed) / 2;
            count.store(half, Ordering::Relaxed);
            total += half;
        }
        self.total.store(total, Ordering::Relaxed);
    }
}

fn count(n: &AtomicU32) -> u64 {
    u64::from(n.load(Ordering::Relaxed))
}

fn bucket(micros: u64) -> usize {
    let micros = micros.max(1);
    let power = micros.ilog2();
    let step = ((u128::from(micros) * u128::from(STEPS)) >> power) as u32 - STEPS;
    usize::try_from(power * STEPS + step).map_or(BUCKETS - 1, |at| at.min(BUCKETS - 1))
}

/// The first latency beyond a bucket, in microseconds.
fn end_of(at: usize) -> u64 {
    let at = at as u64;
    let (power, step) = (at / u64::from(STEPS), at % u64::from(STEPS));
    (((u64::from(STEPS) + step + 1) << power) / u64::from(STEPS)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn a_few_say_nothing() {
        let seen = Latencies::default();
        (1..u64::from(ENOUGH)).for_each(|i| seen.observe(us(i * 100)));
        assert_eq!(seen.quantile(0.95), None);
        seen.observe(us(100));
        assert!(seen.quantile(0.95).is_some());
    }

    #[test]
    fn what_was_long_ago_fades() {
        let seen = Latencies::default();
        (0..2_000).for_each(|_| seen.observe(us(1_000_000)));
        (0..8_000).for_each(|_| seen.observe(us(1_000)));
        assert!(
            seen.quantile(0.9).unwrap() < us(1_200),
            "{:?}",
            seen.quantile(0.9)
        );
    }

    proptest! {
        /// Never earlier than the true quantile, at most an eighth later.
        #[test]
        fn near_the_true_quantile(mut all in proptest::collection::vec(1_u64..10_000_000, 100..1_500), share in 0.5_f32..0.99) {
            let seen = Latencies::default();
            all.iter().for_each(|&l| seen.observe(us(l)));
            all.sort_unstable();
            let slower = (f64::from(1.0 - share) * all.len() as f64) as usize;
            let exact = all[all.len() - 1 - slower.min(all.len() - 1)];
            let told = seen.quantile(share).unwrap().as_micros() as u64;
            prop_assert!(told >= exact && told as f64 <= exact as f64 * 1.125 + 2.0, "{} for {}", told, exact);
        }

        #[test]
        fn every_latency_has_a_bucket_that_ends_behind_it(micros in any::<u64>()) {
            let at = bucket(micros);
            prop_assert!(at < BUCKETS);
            prop_assert!(end_of(at) > micros || at == BUCKETS - 1);
        }
    }
}
