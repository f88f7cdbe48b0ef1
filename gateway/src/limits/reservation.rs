//! What a request holds of its limits: a place among those that run, tokens and money. Each try draws on it before it
//! starts, and what it cannot cover it makes larger or refuses; one settlement at the end, whatever ended it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use routing::units::NanoUsd;
use smallvec::SmallVec;

use super::Meters;
use super::meter::{Meter, Today};
use super::over::Over;
use super::store::all_or_nothing;
use crate::clock::Clock;

/// What a try may come to, or came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Prompt and answer.
    pub tokens: u64,
    /// At most, where that is known.
    pub money: NanoUsd,
}

impl Estimate {
    fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            money: self.money.saturating_add(other.money),
        }
    }
    fn minus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            money: NanoUsd(self.money.0.saturating_sub(other.money.0)),
        }
    }
}

/// See the module. Dropping it settles.
pub struct Reservation {
    meters: Meters,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Taken in advance; by meter, since one may have taken less (see [`Meter::hold_tokens`]).
    tokens: SmallVec<[u64; 4]>,
    held: Estimate,
    /// Of tries that run.
    running: Estimate,
    /// Of tries that are over.
    used: Estimate,
    /// The limit that a try was not covered by.
    refused: Option<Over>,
}

impl Reservation {
    /// Step 8: a place at each meter, and so many tokens.
    ///
    /// # Errors
    /// The limit that is used up. Nothing is held then.
    pub fn take(meters: Meters, tokens: u64, clock: &Clock) -> Result<Arc<Self>, Over> {
        all_or_nothing(&meters, |m| m.enter(), |m, ()| m.leave())?;
        let reservation = Self {
            state: Mutex::new(State {
                tokens: meters.iter().map(|_| 0).collect(),
                ..State::default()
            }),
            meters,
            clock: clock.clone(),
        };
        let first = Estimate {
            tokens,
            ..Estimate::default()
        };
        // Where this fails, dropping gives the places back.
        reservation.grow(&mut reservation.state(), first)?;
        Ok(Arc::new(reservation))
    }

    /// A try is about to start: what it may come to is covered, or it may not.
    pub fn cover(self: &Arc<Self>, estimate: Estimate) -> Option<Cover> {
        let mut state = self.state();
        let needed = state.used.plus(state.running).plus(estimate);
        let more = needed.minus(state.held);
        if let Err(over) = self.grow(&mut state, more) {
            state.refused = Some(over);
            return None;
        }
        state.running = state.running.plus(estimate);
        drop(state);
        Some(Cover {
            reservation: Arc::clone(self),
            estimate: Some(estimate),
        })
    }

    /// The limit that kept a try from starting.
    pub fn refused(&self) -> Option<Over> {
        self.state().refused.clone()
    }

    fn grow(&self, state: &mut State, more: Estimate) -> Result<(), Over> {
        let (now, today) = (self.clock.now(), self.today());
        if more.tokens > 0 {
            let took: Mutex<SmallVec<[u64; 4]>> = Mutex::default();
            all_or_nothing(
                &self.meters,
                |m| {
                    let held = m.hold_tokens(more.tokens, now)?;
                    took.lock().unwrap_or_else(PoisonError::into_inner).push(held);
                    Ok(held)
                },
                |m, held| m.settle_tokens(held, 0, now),
            )?;
            let took = took.into_inner().unwrap_or_else(PoisonError::into_inner);
            for (held, more) in state.tokens.iter_mut().zip(took) {
                *held += more;
            }
            state.held.tokens = state.held.tokens.saturating_add(more.tokens);
        }
        if more.money.0 > 0 {
            all_or_nothing(
                &self.meters,
                |m| m.hold_money(more.money, today),
                |m, ()| m.settle_money(more.money, NanoUsd(0), today),
            )?;
            state.held.money = state.held.money.saturating_add(more.money);
        }
        Ok(())
    }

    fn today(&self) -> Today {
        Today::of(self.clock.unix_ms())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles now, and holds nothing any more; what comes later is charged as it comes.
    pub fn settle(&self) {
        let mut state = self.state();
        let (now, today) = (self.clock.now(), self.today());
        // What still runs is taken for spent: nobody will say what it came to.
        let used = state.used.plus(state.running);
        let money = state.held.money;
        for (meter, held) in self.meters.iter().zip(state.tokens.iter_mut()) {
            meter.settle_tokens(*held, used.tokens, now);
            meter.settle_money(money, used.money, today);
            *held = 0;
        }
        (state.used, state.running, state.held) = Default::default();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.settle();
        for meter in &self.meters {
            meter.leave();
        }
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation")
            .field("state", &*self.state())
            .finish_non_exhaustive()
    }
}

/// What a running try draws on. Dropped without a word on what it came to, it is taken for what was expected.
#[derive(Debug)]
pub struct Cover {
    reservation: Arc<Reservation>,
    estimate: Option<Estimate>,
}

impl Cover {
    /// What it came to.
    pub fn ended(&mut self, used: Estimate) {
        if let Some(estimate) = self.estimate.take() {
            let mut state = self.reservation.state();
            state.running = state.running.minus(estimate);
            state.used = state.used.plus(used);
        }
    }
}

impl Drop for Cover {
    fn drop(&mut self) {
        if let Some(estimate) = self.estimate {
            self.ended(estimate);
        }
    }
}

/// Draws on a target's own meter (what its provider grants us): requests, tokens and money, in one. Dropped without a word
/// on what it came to, it is taken for what was expected.
#[derive(Debug)]
pub struct Granted {
    meter: Arc<Meter>,
    clock: Clock,
    held: Option<Held>,
}

/// What was taken of a meter.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// May be fewer than were expected, see [`Meter::hold_tokens`].
    tokens: u64,
    expected: Estimate,
}

impl Granted {
    /// Takes a request and what it may come to.
    ///
    /// # Errors
    /// The limit that is used up.
    pub fn take(meter: &Arc<Meter>, estimate: Estimate, clock: &Clock) -> Result<Self, Over> {
        let (now, today) = (clock.now(), Today::of(clock.unix_ms()));
        meter.request(now)?;
        let tokens = meter
            .hold_tokens(estimate.tokens, now)
            .inspect_err(|_| meter.request_back())?;
        if let Err(over) = meter.hold_money(estimate.money, today) {
            meter.request_back();
            meter.settle_tokens(tokens, 0, now);
            return Err(over);
        }
        Ok(Self {
            meter: Arc::clone(meter),
            clock: clock.clone(),
            held: Some(Held {
                tokens,
                expected: estimate,
            }),
        })
    }

    /// What it came to.
    pub fn ended(mut self, used: Estimate) {
        self.settle(used);
    }

    /// It was taken for what never began: all comes back, the request too.
    pub fn give_back(mut self) {
        self.meter.request_back();
        self.settle(Estimate::default());
    }

    fn settle(&mut self, used: Estimate) {
        let Some(Held { tokens, expected }) = self.held.take() else {
            return;
        };
        self.meter.settle_tokens(tokens, used.tokens, self.clock.now());
        let today = Today::of(self.clock.unix_ms());
        self.meter.settle_money(expected.money, used.money, today);
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(held) = self.held {
            self.settle(held.expected);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Owner;
    use routing::limit::Day;
    use routing::plan::Limits;
    use routing::units::Time;

    fn meters(limits: &Limits) -> Meters {
        let meter = Meter::new(Owner::Total, Day::default(), None);
        meter.configure(limits, Time(1));
        Meters::from_iter([Arc::new(meter)])
    }
    fn estimate(tokens: u64, money: u64) -> Estimate {
        Estimate {
            tokens,
            money: NanoUsd(money),
        }
    }
    fn left(meters: &Meters, clock: &Clock) -> (u64, Option<NanoUsd>) {
        let meter = meters.first().unwrap();
        let tokens = meter.tokens_level(clock.now()).map_or(0, |l| l.remaining);
        (tokens, meter.money_level(Today::of(clock.unix_ms())).2)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_used_counts_and_the_rest_comes_back() {
        let clock = Clock::system();
        let all = meters(&Limits {
            tokens_per_minute: Some(1_000),
            usd_per_day: Some(NanoUsd(10_000)),
            concurrency: Some(1),
            ..Limits::default()
        });
        let reservation = Reservation::take(all.clone(), 300, &clock).unwrap();
        assert_eq!(left(&all, &clock), (700, Some(NanoUsd(10_000))));
        assert!(Reservation::take(all.clone(), 1, &clock).is_err(), "one at once");
        let mut first = reservation.cover(estimate(300, 4_000)).unwrap();
        assert_eq!(left(&all, &clock), (700, Some(NanoUsd(6_000))));
        // It failed and cost nothing; the next one needs no more than it held.
        first.ended(Estimate::default());
        let mut second = reservation.cover(estimate(250, 3_500)).unwrap();
        assert_eq!(left(&all, &clock), (700, Some(NanoUsd(6_000))));
        // A third beside it makes the reservation larger.
        let third = reservation.cover(estimate(250, 3_500)).unwrap();
        assert_eq!(left(&all, &clock), (500, Some(NanoUsd(3_000))));
        second.ended(estimate(100, 1_000));
        drop((first, second, third));
        drop(reservation);
        assert_eq!(
            left(&all, &clock),
            (650, Some(NanoUsd(5_500))),
            "100 and what was expected of the one that said nothing"
        );
        assert_eq!(all.first().unwrap().running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_covered_does_not_start_and_is_told() {
        let clock = Clock::system();
        let all = meters(&Limits {
            usd_per_day: Some(NanoUsd(10_000)),
            ..Limits::default()
        });
        let reservation = Reservation::take(all.clone(), 0, &clock).unwrap();
        assert!(reservation.cover(estimate(1, 10_001)).is_none());
        assert_eq!(reservation.refused().unwrap().code(), "total_usd_per_day");
        let mut fits = reservation.cover(estimate(1, 10_000)).unwrap();
        // It cost more than it was expected to: that is paid, and nobody else gets in.
        fits.ended(estimate(1, 12_000));
        drop((fits, reservation));
        assert_eq!(left(&all, &clock).1, Some(NanoUsd(0)));
        let next = Reservation::take(all, 0, &clock).unwrap();
        assert!(next.cover(estimate(0, 1)).is_none());
    }
    #[tokio::test(start_paused = true)]
    async fn what_a_provider_grants_is_held_by_nobody_who_is_gone() {
        let clock = Clock::system();
        let all = meters(&Limits {
            requests_per_minute: Some(3),
            tokens_per_minute: Some(1_000),
            usd_per_day: Some(NanoUsd(10_000)),
            ..Limits::default()
        });
        let meter = all.first().unwrap();
        let take = || Granted::take(meter, estimate(300, 4_000), &clock).unwrap();
        let money = || {
            let (spent, held, _) = meter.money_level(Today::of(clock.unix_ms()));
            (spent.0, held.0)
        };
        let requests = || meter.requests_level(clock.now()).unwrap().remaining;
        take().give_back();
        assert_eq!((requests(), left(&all, &clock).0, money()), (3, 1_000, (0, 0)));
        take().ended(estimate(100, 1_000));
        assert_eq!((requests(), left(&all, &clock).0, money()), (2, 900, (1_000, 0)));
        // Nobody said what it came to.
        drop(take());
        assert_eq!((requests(), left(&all, &clock).0, money()), (1, 600, (5_000, 0)));
    }
}
