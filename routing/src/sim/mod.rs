//! Deterministic simulation: many requests at once against a fleet that fails, in virtual time.
//!
//! What runs here is what serves: names, decision, machine, breaker, balancing, permits, holds and the ratio budget, in the
//! order in which the gateway asks them. Only the providers are made up. A seed makes a whole world (plan, outages,
//! arrivals), so a seed is a test: a failing one is printed, and goes into [`SEEDS`].
//!
//! Some worlds have a route whose streams are gone on with, whose answers are judged and which has a ladder; the report says
//! how many of each were seen.
//!
//! Beside the rules of one request ([`crate::cascade::sim::Watch`], R-1 to R-15) these hold over all of them:
//!
//! * R-20 what a dead target is asked in an outage of T seconds is bounded: the threshold, what was under way when its
//!   breaker opened, and `probes` x (1 + T / `open_ms`)
//! * R-21 every lease is given back: permits and probes
//! * R-22 repeats stay within the ratio budget, whatever the arrival pattern
//! * R-23 after a recovery the target is asked again by the first request that comes `max_open_ms` later, or before
//! * R-24 no request fails with a try left while a target of its route is well, may be called by all
//!   that was known when it came, and has not been asked
//! * R-25 a target that only says 429 is never opened
//! * R-26 nobody stays open for longer than `max_open_ms`
//! * R-27 no more tries at once than a target's concurrency
//! * R-28 as many good tries as `probes`, begun since it opened, close a breaker
//! * R-29 hedges stay within their share of first tries

mod fleet;
mod random;
mod run;
#[cfg(test)]
mod tests;
mod watch;

use std::time::Duration;

use crate::plan::Plan;
use crate::units::Time;

pub use random::scenario;
pub use run::run;

/// Seeds that broke a rule once. Each run plays them first.
pub const SEEDS: &[u64] = &[
    // a late answer was given up, and nobody looked who could be asked by then.
    1095, // R-28 counted a good end of a try that was older than the opening.
    22771,
    // a target that was dead still answered what it had begun two moods before, or with a stream that it was to cut.
    // That was a fault of the world: such a sign of life rightly begins the row of failures anew.
    25895, 69652,
];

/// A world, before it runs.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The plan, with one route `auto`.
    pub plan: Plan,
    /// What each target does, by its index.
    pub servers: Vec<Server>,
    /// Requests, in order of their arrival.
    pub arrivals: Vec<Arrival>,
    /// For the draws of the decision.
    pub seed: u64,
}

/// What a target does from when on; the first phase begins at zero.
#[derive(Clone, Debug)]
pub struct Server {
    /// Phases, in order.
    pub phases: Vec<(Time, Mood)>,
}

/// What a target does with a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Answers: first content, then the end.
    Well {
        /// To the first content.
        first: Duration,
        /// To the end.
        whole: Duration,
    },
    /// Refuses the connection.
    Down,
    /// An error status, after so long.
    Broken(Duration),
    /// Accepts and never answers.
    Silent,
    /// 429, with `retry-after` where there is one.
    Limited(Option<Duration>),
    /// First content, and then the stream breaks; whole answers break before their end.
    Cuts(Duration),
}

impl Mood {
    /// It answers.
    pub fn is_well(self) -> bool {
        matches!(self, Mood::Well { .. })
    }
    /// No content can come from it, and that is its fault: its breaker should see it.
    pub fn is_dead(self) -> bool {
        matches!(self, Mood::Down | Mood::Broken(_) | Mood::Silent)
    }
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When.
    pub at: Time,
    /// A stream is asked for.
    pub stream: bool,
    /// Its patience.
    pub patience: Duration,
    /// When its caller leaves, counted from its arrival.
    pub leaves: Option<Duration>,
    /// Its client has sent it before.
    pub resent: bool,
}

/// A part that is switched off, to see that a rule notices. `None` in every real run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// Nobody asks the breaker.
    Breaker,
    /// What a probe said is never heard.
    Probe,
    /// A try that is given up keeps what it held.
    Lease,
    /// Repeats cost nothing.
    Budget,
    /// Hedges cost nothing.
    HedgeBudget,
    /// A 429 counts as a failure.
    Limited,
    /// Permits are not counted.
    Permit,
    /// The same target only: nobody fails over.
    Failover,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Events that machines were fed.
    pub events: u64,
    /// Requests that were answered.
    pub answered: u32,
    /// Requests that were not, though their caller stayed.
    pub failed: u32,
    /// Tries that were let through, by target.
    pub calls: Vec<u32>,
    /// Second tries beside slow ones.
    pub hedges: u32,
    /// Continuations that joined a stream that had broken.
    pub continued: u32,
    /// Stronger tries after an answer that did not pass.
    pub escalated: u32,
    /// Tries of the ladder's models.
    pub rungs: u32,
    /// Openings, by target.
    pub opened: Vec<u32>,
    /// Targets in the order of the answers they gave, with the time: the timeline of who answered.
    pub timeline: Vec<(Time, u16)>,
    /// The first rule that broke.
    pub broken: Option<String>,
}

impl Server {
    /// What it does at a time.
    pub fn mood(&self, at: Time) -> Mood {
        let now = self.phases.iter().rev().find(|(from, _)| *from <= at);
        now.or(self.phases.first()).map_or(Mood::Down, |(_, mood)| *mood)
    }
    /// When it is dead next: its answers that are under way go with it.
    pub fn dies(&self, at: Time) -> Time {
        let mut next = self.phases.iter().filter(|(from, _)| *from > at);
        next.find(|(_, mood)| mood.is_dead())
            .map_or(Time::NEVER, |(from, _)| *from)
    }
}
