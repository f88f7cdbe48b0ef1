//! A UTC day's money: spent, held for requests that run, and charged in advance.
//!
//! What is charged is written to a journal *before* it is spent, in pieces of a hundredth of the limit, so that most
//! requests write nothing and a process that is killed has lost at most one piece, as if it had been spent. All in integer
//! nano-dollars.

use crate::units::NanoUsd;

/// Pieces that a limit is charged in.
const PIECES: u64 = 100;

/// What must be written down before (or, for what cost more than it was expected to, when) it is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Days since 1970, UTC.
    pub day: u32,
    /// Taken for spent if the process ends now.
    pub charged: NanoUsd,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Day {
    limit: Option<NanoUsd>,
    day: u32,
    spent: u64,
    held: u64,
    charged: u64,
}

impl Day {
    /// As the journal left it. `spent` is what was charged when the process ended, or exactly what was spent.
    pub fn restored(day: u32, spent: NanoUsd) -> Self {
        Self {
            limit: None,
            day,
            spent: spent.0,
            held: 0,
            charged: spent.0,
        }
    }

    /// The limit of the plan; `None`: money is only counted.
    pub fn set_limit(&mut self, limit: Option<NanoUsd>) {
        self.limit = limit;
    }

    /// The limit of the plan.
    pub fn limit(&self) -> Option<NanoUsd> {
        self.limit
    }

    /// Holds `amount` for a request, or nothing.
    ///
    /// # Errors
    /// What is left is less: so much.
    pub fn hold(&mut self, amount: NanoUsd, today: u32) -> Result<Option<Charge>, NanoUsd> {
        self.turn(today);
        if let Some(limit) = self.limit {
            let left = limit.0.saturating_sub(self.spent.saturating_add(self.held));
            if amount.0 > left {
                return Err(NanoUsd(left));
            }
        }
        self.held = self.held.saturating_add(amount.0);
        Ok(self.charge())
    }

    /// Gives back what was held and takes what was spent.
    pub fn settle(&mut self, held: NanoUsd, spent: NanoUsd, today: u32) -> Option<Charge> {
        self.turn(today);
        self.held = self.held.saturating_sub(held.0);
        self.spent = self.spent.saturating_add(spent.0);
        self.charge()
    }

    /// What is spent today.
    pub fn spent(&self, today: u32) -> NanoUsd {
        NanoUsd(if today == self.day { self.spent } else { 0 })
    }

    /// What running requests hold.
    pub fn held(&self) -> NanoUsd {
        NanoUsd(self.held)
    }

    /// What is left; `None` without a limit.
    pub fn left(&self, today: u32) -> Option<NanoUsd> {
        let used = self.spent(today).0.saturating_add(self.held);
        self.limit.map(|limit| NanoUsd(limit.0.saturating_sub(used)))
    }

    /// For the journal at an orderly end: nothing is lost then.
    pub fn exact(&self) -> Charge {
        Charge {
            day: self.day,
            charged: NanoUsd(self.spent.saturating_add(self.held)),
        }
    }

    /// What is held goes on into the new day, and is spent there.
    fn turn(&mut self, today: u32) {
        if today > self.day {
            (self.day, self.spent, self.charged) = (today, 0, 0);
        }
    }

    fn charge(&mut self) -> Option<Charge> {
        let needed = self.spent.saturating_add(self.held);
        let limit = self.limit?;
        if needed <= self.charged {
            return None;
        }
        let ahead = needed.saturating_add((limit.0 / PIECES).max(1));
        self.charged = ahead.min(limit.0).max(needed);
        Some(Charge {
            day: self.day,
            charged: NanoUsd(self.charged),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limited(limit: u64) -> Day {
        let mut day = Day::default();
        day.set_limit(Some(NanoUsd(limit)));
        day
    }

    #[test]
    fn what_is_held_is_not_there_for_others() {
        let mut day = limited(1_000);
        day.hold(NanoUsd(900), 7).unwrap();
        assert_eq!(day.hold(NanoUsd(101), 7), Err(NanoUsd(100)));
        day.settle(NanoUsd(900), NanoUsd(300), 7);
        assert_eq!(day.left(7), Some(NanoUsd(700)));
        assert!(day.hold(NanoUsd(700), 7).is_ok());
    }

    #[test]
    fn a_new_day_begins_anew_and_keeps_what_runs() {
        let mut day = limited(1_000);
        day.hold(NanoUsd(400), 7).unwrap();
        day.settle(NanoUsd(0), NanoUsd(600), 7);
        assert_eq!(day.hold(NanoUsd(1), 7), Err(NanoUsd(0)));
        assert!(day.hold(NanoUsd(600), 8).is_ok(), "400 still run");
        day.settle(NanoUsd(400), NanoUsd(400), 8);
        assert_eq!((day.spent(8), day.held()), (NanoUsd(400), NanoUsd(600)));
        // A clock that was set back does not give a day back.
        assert_eq!(day.hold(NanoUsd(1), 7), Err(NanoUsd(0)));
    }

    #[test]
    fn most_requests_write_nothing() {
        let mut day = limited(1_000_000);
        let written = (0..1_000)
            .filter(|_| {
                let before = day.hold(NanoUsd(1_000), 7).unwrap().is_some();
                let after = day.settle(NanoUsd(1_000), NanoUsd(900), 7).is_some();
                before || after
            })
            .count();
        assert!((80..=110).contains(&written), "{written}");
    }

    proptest! {
        /// Killed at any moment: what the journal says is never less than what was spent, and at most what ran and one
        /// piece more.
        #[test]
        fn a_kill_loses_at_most_one_piece(
            limit in 1_000_u64..1_000_000,
            steps in proptest::collection::vec((0_u64..5_000, 0_u64..6_000), 1..200),
        ) {
            let mut day = limited(limit);
            let mut journal = 0;
            let mut running: Vec<u64> = Vec::new();
            for (amount, used) in steps {
                let charge = match day.hold(NanoUsd(amount), 7) {
                    Ok(charge) => {
                        running.push(amount);
                        charge
                    }
                    Err(left) => {
                        prop_assert!(left.0 < amount);
                        None
                    }
                };
                journal = charge.map_or(journal, |c| c.charged.0.max(journal));
                if running.len() > 3 {
                    let held = running.remove(0);
                    let charge = day.settle(NanoUsd(held), NanoUsd(used), 7);
                    journal = charge.map_or(journal, |c| c.charged.0.max(journal));
                }
                let needed = day.spent(7).0 + day.held().0;
                prop_assert!(journal >= needed, "{journal} written, {needed} needed");
                let restored = Day::restored(7, NanoUsd(journal));
                prop_assert!(restored.spent(7).0 >= day.spent(7).0);
            }
        }
    }
}
