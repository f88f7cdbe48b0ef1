//! Whether a request had a way left: what really was switched on, when, and for how long it may be felt afterwards.
//!
//! An error is excused only where *every* target that the name stands for was touched: by a fault that was on at some
//! moment of the request's life, or by what such a fault leaves behind. What it may leave behind is bounded by the plan:
//!
//! * a try that was begun while the fault was on may fail as late as twice `attempt_ms` after it (a late whole answer is
//!   waited for as long again), and only then open the breaker;
//! * an open breaker lets nobody in for at most `max_open_ms`, then its probe, which others wait for half a second;
//! * a hold by `retry-after` (1 s at most here) is shorter than both;
//! * a target that went off because it refused our key or account stays off until the next plan is accepted.
//!
//! A refusal that is passed on (a 4xx that is not 429) is excused only by a fault that refuses, at one of the targets.

use std::time::Duration;

use super::house::Route;
use super::schedule::{What, Window, passes_on, switches_off};

/// `attempt_ms` of the plan.
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// `max_open_ms` of the plan.
pub const MAX_OPEN: Duration = Duration::from_millis(2_000);
/// While a probe is out, others look again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// What a fault leaves behind lasts at most so long.
pub const AFTER: Duration = Duration::from_millis(2 * ATTEMPT.as_millis() as u64)
    .saturating_add(MAX_OPEN)
    .saturating_add(LOOK_AGAIN);
/// Between our switching something and the provider's doing it, and for a busy machine.
const MARGIN: Duration = Duration::from_millis(250);

/// A fault of one target, as it was.
#[derive(Clone, Copy, Debug)]
struct Spell {
    from: Duration,
    to: Duration,
    /// It is felt until then at most.
    felt: Duration,
    /// Its refusal is the caller's answer.
    refuses: bool,
    /// The target goes off.
    off: bool,
}

/// Why an error is excused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// Every target had a fault on it in the request's own life.
    Faults,
    /// Some had not, and all of those may have been off: nobody had loaded a plan since they refused our key or name.
    Off,
    /// At least one of them only felt an earlier one: its breaker, a hold.
    Aftermath,
    /// A target refused the request.
    Refusal,
}

/// All faults that there were, by target.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    spells: Vec<Vec<Spell>>,
}

impl Ways {
    /// From the windows as they were really switched, and from when to when each accepted reload took.
    pub fn new(windows: &[Window], accepted: &[(Duration, Duration)], targets: usize) -> Self {
        let mut spells = vec![Vec::new(); targets];
        for w in windows {
            let fault = match w.what {
                What::Habit(_) => continue,
                What::Fault(fault) => Some(fault),
                What::State(_) => None,
            };
            let mut felt = w.to + AFTER;
            if fault.is_some_and(switches_off) {
                let mended = accepted.iter().find(|(began, _)| *began >= w.to + MARGIN);
                felt = felt.max(mended.map_or(Duration::MAX, |(_, ended)| *ended));
            }
            for target in w.place.targets() {
                if let Some(of) = spells.get_mut(target) {
                    of.push(Spell {
                        from: w.from.saturating_sub(MARGIN),
                        to: w.to + MARGIN,
                        felt,
                        refuses: fault.is_some_and(passes_on),
                        off: fault.is_some_and(switches_off),
                    });
                }
            }
        }
        Self { spells }
    }

    /// While this machine stood still nobody was well.
    pub fn stalled(mut self, stalls: &[(Duration, Duration)]) -> Self {
        for (from, to) in stalls {
            for of in &mut self.spells {
                of.push(Spell {
                    from: from.saturating_sub(MARGIN),
                    to: *to + MARGIN,
                    felt: *to + AFTER,
                    refuses: false,
                    off: false,
                });
            }
        }
        self
    }

    fn of(&self, target: usize) -> impl Iterator<Item = &Spell> {
        self.spells.get(target).into_iter().flatten()
    }

    /// A fault was on at some moment between these.
    pub fn faulty(&self, target: usize, began: Duration, ended: Duration) -> bool {
        self.of(target).any(|s| s.from <= ended && s.to >= began)
    }

    /// A fault was on, or may have been felt.
    pub fn touched(&self, target: usize, began: Duration, ended: Duration) -> bool {
        self.of(target).any(|s| s.from <= ended && s.felt >= began)
    }

    /// It may have been off, because it refused our key, account or name for the model.
    pub fn may_be_off(&self, target: usize, began: Duration, ended: Duration) -> bool {
        self.of(target)
            .any(|s| s.off && s.from <= ended && s.felt >= began)
    }

    /// Some target of the route was well all the time: the request had a way.
    pub fn had_a_way(&self, route: &Route, began: Duration, ended: Duration) -> bool {
        route.targets().any(|t| !self.touched(t, began, ended))
    }

    /// Some target of the route was on, and no fault was on it all the time. An earlier one may still have been felt.
    pub fn had_a_sound_target(&self, route: &Route, began: Duration, ended: Duration) -> bool {
        let sound = |t: usize| !self.faulty(t, began, ended) && !self.may_be_off(t, began, ended);
        route.targets().any(sound)
    }

    /// Is a status that is no answer excused?
    ///
    /// # Errors
    /// Why not.
    pub fn judge(
        &self,
        route: &Route,
        status: u16,
        began: Duration,
        ended: Duration,
    ) -> Result<Excuse, &'static str> {
        let mut targets = route.targets();
        match status {
            429 | 500..600 => {
                if self.had_a_way(route, began, ended) {
                    Err("though a target of it was well all the time")
                } else if self.had_a_sound_target(route, began, ended) {
                    Ok(Excuse::Aftermath)
                } else if targets.all(|t| self.faulty(t, began, ended)) {
                    Ok(Excuse::Faults)
                } else {
                    Ok(Excuse::Off)
                }
            }
            _ => {
                let refused =
                    targets.any(|t| self.of(t).any(|s| s.refuses && s.from <= ended && s.to >= began));
                refused
                    .then_some(Excuse::Refusal)
                    .ok_or("though no target refused anything")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::house::{ROUTES, TARGETS};
    use super::super::schedule::Place;
    use super::*;
    use crate::provider::{Fault, State};

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn window(place: Place, what: What, from: f64, to: f64) -> Window {
        Window {
            place,
            what,
            from: s(from),
            to: s(to),
            share: None,
        }
    }

    fn ways(windows: &[Window], accepted: &[(Duration, Duration)]) -> Ways {
        Ways::new(windows, accepted, TARGETS.len())
    }

    #[test]
    fn the_clocks_are_those_of_the_plan() {
        let plan = include_str!("../../data/chaos-plan.toml");
        let digits = |ms: Duration| match ms.as_millis() {
            ms if ms >= 1_000 => format!("{}_{:03}", ms / 1_000, ms % 1_000),
            ms => ms.to_string(),
        };
        assert!(plan.contains(&format!("attempt_ms = {}\n", digits(ATTEMPT))));
        assert!(plan.contains(&format!("max_open_ms = {}\n", digits(MAX_OPEN))));
    }

    #[test]
    fn an_error_is_excused_only_where_every_target_was_touched() {
        let fault = What::Fault(Fault::ServerError);
        // ladder: targets 0 and 1.
        let route = &ROUTES[0];
        let one = ways(&[window(Place::Target(0), fault, 10.0, 12.0)], &[]);
        assert!(one.judge(route, 503, s(11.0), s(11.5)).is_err());
        assert!(one.had_a_way(route, s(11.0), s(11.5)));
        let both = ways(
            &[
                window(Place::Target(0), fault, 10.0, 12.0),
                window(Place::Target(1), fault, 11.0, 13.0),
            ],
            &[],
        );
        assert_eq!(both.judge(route, 503, s(11.2), s(11.5)), Ok(Excuse::Faults));
        // Not at one time, but both inside its life.
        assert_eq!(both.judge(route, 502, s(9.0), s(11.0)), Ok(Excuse::Faults));
        assert_eq!(both.judge(route, 429, s(14.0), s(14.1)), Ok(Excuse::Aftermath));
        assert!(both.judge(route, 503, s(20.0), s(20.1)).is_err(), "long over");
        assert!(both.judge(route, 503, s(5.0), s(6.0)).is_err(), "not yet");
        assert!(
            both.judge(&ROUTES[3], 503, s(11.0), s(11.5)).is_err(),
            "elsewhere"
        );
    }

    #[test]
    fn a_provider_touches_all_its_targets_and_a_habit_none() {
        let state = ways(
            &[window(Place::Provider(2), What::State(State::Refuse), 1.0, 2.0)],
            &[],
        );
        assert!(state.faulty(1, s(1.5), s(1.6)) && state.faulty(3, s(1.5), s(1.6)));
        assert!(!state.faulty(0, s(1.5), s(1.6)));
        let habit = ways(
            &[window(Place::Target(6), What::Habit(Fault::Crlf), 1.0, 2.0)],
            &[],
        );
        assert!(habit.judge(&ROUTES[3], 502, s(1.5), s(1.6)).is_err());
    }

    #[test]
    fn a_refused_key_is_felt_until_the_next_plan_and_no_longer() {
        let w = window(Place::Target(6), What::Fault(Fault::Unauthorized), 1.0, 2.0);
        let route = &ROUTES[3];
        let at = |accepted: &[(Duration, Duration)], began| {
            ways(&[w], accepted).judge(route, 502, s(began), s(began + 0.1))
        };
        assert_eq!(at(&[], 60.0), Ok(Excuse::Off));
        let accepted = [(s(1.5), s(1.6)), (s(20.0), s(20.1))];
        assert_eq!(at(&accepted, 19.0), Ok(Excuse::Off));
        assert!(at(&accepted, 20.2).is_err());
        let w = ways(&[w], &accepted);
        assert!(w.may_be_off(6, s(19.0), s(19.1)) && !w.may_be_off(6, s(20.2), s(20.3)));
    }

    #[test]
    fn a_page_of_something_in_front_switches_nobody_off() {
        let w = window(Place::Target(6), What::Fault(Fault::Forbidden), 1.0, 2.0);
        let w = ways(&[w], &[]);
        assert_eq!(w.judge(&ROUTES[3], 502, s(1.5), s(1.6)), Ok(Excuse::Faults));
        assert!(w.judge(&ROUTES[3], 502, s(60.0), s(60.1)).is_err());
        assert!(!w.may_be_off(6, s(60.0), s(60.1)));
    }

    #[test]
    fn a_refusal_needs_somebody_who_refuses() {
        let refuses = ways(
            &[window(
                Place::Target(0),
                What::Fault(Fault::InvalidRequest),
                1.0,
                2.0,
            )],
            &[],
        );
        assert_eq!(
            refuses.judge(&ROUTES[0], 400, s(1.2), s(1.3)),
            Ok(Excuse::Refusal)
        );
        assert!(refuses.judge(&ROUTES[0], 400, s(4.0), s(4.1)).is_err());
        assert!(
            refuses.judge(&ROUTES[0], 503, s(1.2), s(1.3)).is_err(),
            "the other one was well"
        );
    }
}
