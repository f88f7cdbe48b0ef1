//! A minute's allowance with the whole minute as burst: GCRA (ITU-T I.371) on one word of memory, without a lock.
//!
//! The word is the *theoretical arrival time*: where the clock would have to stand for everything that was taken to be
//! paid for. A take moves it on; it may lie a minute ahead of the clock at most. What was taken in advance by an estimate
//! can be given back or charged later, so the same word serves requests and tokens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::units::Time;

/// A minute in the bucket's own units, about: fine enough for one request a minute and for a million million tokens.
const MINUTE_UNITS: u64 = 1 << 40;
const MINUTE_US: u128 = 60_000_000;

/// See the module.
#[derive(Debug)]
pub struct Bucket {
    per_minute: u64,
    /// Units of one request or token.
    unit: u64,
    /// The theoretical arrival time, in units.
    arrival: AtomicU64,
}

/// When a take would succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// After exactly so long, if nobody else takes anything until then.
    After(Duration),
    /// Never: more was asked for than a whole minute has.
    TooLarge,
}

/// How full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// A minute's allowance.
    pub limit: u64,
    /// What could be taken now.
    pub remaining: u64,
    /// Until it is full again.
    pub reset: Duration,
}

impl Bucket {
    /// A full one. `per_minute` is at least 1.
    pub fn new(per_minute: u64) -> Self {
        let per_minute = per_minute.clamp(1, MINUTE_UNITS);
        Self {
            per_minute,
            unit: MINUTE_UNITS / per_minute,
            arrival: AtomicU64::new(0),
        }
    }

    /// Another allowance from now on; what was taken from the old one stays taken, so that a reload fills nothing up.
    pub fn resumed(&self, per_minute: u64, now: Time) -> Self {
        let taken = self
            .ahead(self.arrival.load(Ordering::Relaxed), now)
            .div_ceil(self.unit);
        let new = Self::new(per_minute);
        let arrival = new.at(now).saturating_add(taken.saturating_mul(new.unit));
        new.arrival.store(arrival, Ordering::Relaxed);
        new
    }

    /// A minute's allowance.
    pub fn per_minute(&self) -> u64 {
        self.per_minute
    }

    /// Takes `cost`, or nothing.
    ///
    /// # Errors
    /// When it would succeed.
    pub fn take(&self, cost: u64, now: Time) -> Result<(), Wait> {
        if cost > self.per_minute {
            return Err(Wait::TooLarge);
        }
        let (at, cost) = (self.at(now), cost * self.unit);
        let latest = at.saturating_add(self.minute());
        let took = self
            .arrival
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |arrival| {
                Some(arrival.max(at).saturating_add(cost)).filter(|&next| next <= latest)
            });
        match took {
            Ok(_) => Ok(()),
            Err(arrival) => {
                let over = arrival.max(at).saturating_add(cost) - latest;
                // Rounded up, and one microsecond for the rounding of the clock itself.
                let us = (u128::from(over) * MINUTE_US).div_ceil(u128::from(self.minute())) + 1;
                Err(Wait::After(Duration::from_micros(
                    u64::try_from(us).unwrap_or(u64::MAX),
                )))
            }
        }
    }

    /// Takes `cost` whatever is left: it was used already. What is missing has to be waited for by whoever comes next.
    pub fn charge(&self, cost: u64, now: Time) {
        let (at, cost) = (self.at(now), cost.saturating_mul(self.unit));
        let charged = |arrival: u64| Some(arrival.max(at).saturating_add(cost));
        let _ = self
            .arrival
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, charged);
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&self, cost: u64) {
        let cost = cost.saturating_mul(self.unit);
        let _ = self
            .arrival
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |arrival| {
                Some(arrival.saturating_sub(cost))
            });
    }

    /// How full it is.
    pub fn level(&self, now: Time) -> Level {
        let ahead = self.ahead(self.arrival.load(Ordering::Relaxed), now);
        let us = (u128::from(ahead) * MINUTE_US).div_ceil(u128::from(self.minute()));
        Level {
            limit: self.per_minute,
            remaining: self.minute().saturating_sub(ahead) / self.unit,
            reset: Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX)),
        }
    }

    fn minute(&self) -> u64 {
        self.per_minute * self.unit
    }

    fn at(&self, now: Time) -> u64 {
        let units = u128::from(now.0) * u128::from(self.minute()) / MINUTE_US;
        u64::try_from(units).unwrap_or(u64::MAX)
    }

    fn ahead(&self, arrival: u64, now: Time) -> u64 {
        arrival.saturating_sub(self.at(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(us: u64) -> Time {
        Time(1_000_000 + us)
    }

    #[test]
    fn the_whole_minute_is_the_burst_and_then_one_by_one() {
        let bucket = Bucket::new(60);
        assert_eq!((0..100).filter(|_| bucket.take(1, at(0)).is_ok()).count(), 60);
        let Err(Wait::After(wait)) = bucket.take(1, at(0)) else {
            panic!("it is empty")
        };
        assert!(
            wait >= Duration::from_secs(1) && wait < Duration::from_micros(1_000_010),
            "{wait:?}"
        );
        assert!(bucket.take(1, at(0) + wait).is_ok());
        assert!(bucket.take(1, at(0) + wait).is_err());
        assert_eq!(bucket.take(61, at(0)), Err(Wait::TooLarge));
    }

    #[test]
    fn what_was_estimated_is_corrected_in_both_directions() {
        let bucket = Bucket::new(1_000);
        bucket.take(600, at(0)).unwrap();
        bucket.give_back(400);
        assert_eq!(bucket.level(at(0)).remaining, 800);
        bucket.charge(1_300, at(0));
        assert_eq!(bucket.level(at(0)).remaining, 0);
        // Half a minute of debt: for so long nobody gets anything.
        assert!(bucket.take(1, at(29_000_000)).is_err());
        assert!(bucket.take(1, at(31_000_000)).is_ok());
    }

    #[test]
    fn another_allowance_does_not_fill_it_up() {
        let bucket = Bucket::new(100);
        (0..100).for_each(|_| bucket.take(1, at(0)).unwrap());
        let larger = bucket.resumed(150, at(0));
        assert_eq!(larger.level(at(0)).remaining, 50);
        assert_eq!(larger.resumed(20, at(0)).level(at(0)).remaining, 0);
    }

    #[test]
    fn the_ends_of_the_scale() {
        let one = Bucket::new(1);
        one.take(1, at(0)).unwrap();
        assert!(one.take(1, at(59_900_000)).is_err());
        assert!(one.take(1, at(60_000_002)).is_ok());
        let huge = Bucket::new(1_000_000_000_000);
        let year = Time(365 * 24 * 3_600 * 1_000_000);
        huge.take(1_000_000_000_000, year).unwrap();
        assert_eq!(huge.level(year).remaining, 0);
        assert!(huge.take(1_000, year).is_err());
    }

    proptest! {
        /// Never more than the burst and what time has brought; and a client that waits as long as it is told gets in.
        #[test]
        fn never_more_than_it_was_given(
            per_minute in 1_u64..5_000,
            steps in proptest::collection::vec((0_u64..400_000, 1_u64..40, any::<bool>()), 1..300),
        ) {
            let bucket = Bucket::new(per_minute);
            let (mut us, mut taken) = (0_u64, 0_u64);
            for (wait, cost, patient) in steps {
                us += wait;
                match bucket.take(cost, at(us)) {
                    Ok(()) => taken += cost,
                    Err(Wait::After(told)) if patient => {
                        us += told.as_micros() as u64;
                        prop_assert!(bucket.take(cost, at(us)).is_ok(), "waited {told:?} for {cost} of {per_minute}");
                        taken += cost;
                    }
                    Err(Wait::TooLarge) => prop_assert!(cost > per_minute),
                    Err(Wait::After(_)) => {}
                }
                let most = per_minute as f64 * (1.0 + us as f64 / 60e6) + 1e-3;
                prop_assert!(taken as f64 <= most, "{taken} of {most}");
            }
        }
    }
}
