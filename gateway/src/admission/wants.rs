//! The targets at one of which somebody who waits wants a place.

use std::sync::Arc;
use std::time::Duration;

use routing::admission::Pace;
use routing::signals::{Hold, Usable};
use routing::units::Time;
use smallvec::SmallVec;

use crate::target_state::{Seat, TargetState};

/// None: it waits for a part of the work in flight alone.
#[derive(Clone, Debug, Default)]
pub struct Wants(SmallVec<[Arc<TargetState>; 2]>);

/// It can go.
pub struct Place {
    /// Its place; none where it wants none, or where waiting for one has become pointless: what can be done without is for the
    /// decision to say.
    pub seat: Option<Seat>,
}

impl Wants {
    /// A place at one of these.
    pub fn at(targets: impl IntoIterator<Item = Arc<TargetState>>) -> Self {
        Self(targets.into_iter().collect())
    }

    /// It wants no place at a target.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The other one could take what this one waits for.
    pub fn shares(&self, other: &Self) -> bool {
        let same = |a: &Arc<TargetState>| other.0.iter().any(|b| Arc::ptr_eq(a, b));
        (self.is_empty() && other.is_empty()) || self.0.iter().any(same)
    }

    /// It waits from now on: places that are given back are told.
    pub fn begins(&self) {
        self.0.iter().for_each(|target| target.want());
    }

    /// It waits no more.
    pub fn ends(&self) {
        self.0.iter().for_each(|target| target.unwant());
    }

    /// Takes a place where there is one.
    pub fn place(&self, now: Time) -> Option<Place> {
        let mut hope = false;
        for target in &self.0 {
            match target.usable(now) {
                Usable::Yes => {
                    if let Some(seat) = target.claim(now) {
                        return Some(Place { seat: Some(seat) });
                    }
                    hope = true;
                }
                Usable::Held {
                    why: Hold::Limited, ..
                } => hope = true,
                _ => {}
            }
        }
        (!hope).then_some(Place { seat: None })
    }

    /// When the next hold is over: nobody tells that.
    pub fn look_at(&self, now: Time) -> Time {
        let until = self.0.iter().filter_map(|target| match target.usable(now) {
            Usable::Held { until, .. } => Some(until),
            _ => None,
        });
        until.min().unwrap_or(Time::NEVER)
    }

    /// How fast places become free, and from when on.
    pub fn pace(&self, now: Time) -> Pace {
        let rate = |target: &Arc<TargetState>| Some(1.0 / target.turn()?.as_secs_f64().max(1e-6));
        let rate: f64 = self.0.iter().filter_map(rate).sum();
        let held = self.look_at(now);
        let may = self.0.iter().any(|target| target.usable(now).yes());
        Pace {
            turn: (rate > 0.0).then(|| Duration::from_secs_f64((1.0 / rate).min(86_400.0))),
            begins: if may || held == Time::NEVER { now } else { held },
        }
    }
}
