//! What a request costs in instructions, and how much of that is for the day on which a provider fails: retry, breaker,
//! clocks, balancing, the ratio budget. Instructions are counted by valgrind's callgrind, so they repeat on a busy
//! machine. Only what runs inside of [`counted`] is, and what a loop of many costs more than a loop of few is divided by the
//! difference, so that neither starting up nor warming up counts.

pub mod ceilings;
pub mod parts;
pub mod request;
pub mod valgrind;

use serde::Serialize;

use self::request::Asked;

/// Instructions are counted in here, and only here. valgrind finds it by its name.
#[inline(never)]
pub fn counted<T>(work: impl FnOnce() -> T) -> T {
    std::hint::black_box(work())
}

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A small whole answer, everything on.
    WholeOn,
    /// The same with all of it off, as far as a plan can say that.
    WholeOff,
    /// A stream of 200 events, everything on.
    StreamOn,
    /// The same with all of it off, as far as a plan can say that.
    StreamOff,
    /// The same answer with every guard on: a key, limits of key, tenant, route and in total (requests, tokens, concurrency,
    /// money), the address's, a question that is new and kept.
    WholeGuarded,
    /// The same stream with every guard on.
    StreamGuarded,
    /// With every guard on, and a question that is kept: whole.
    HitWhole,
    /// With every guard on, and a question that is kept: as a stream.
    HitStream,
    /// Permit and breaker of one try: may it start, its start, its good sign, its end.
    Breaker,
    /// The ratio budget of one request.
    Budget,
    /// Choosing one of two alike targets.
    Balance,
    /// The cascade's machine of one request: made, and driven from its begin to its finish.
    Machine,
    /// The cascade's timer of one request: made, armed, dropped.
    Timer,
    /// The body's timer of one stream: made, armed, dropped.
    Longest,
    /// The clocks for one event of a stream.
    Tick,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::WholeOn,
        Self::WholeOff,
        Self::StreamOn,
        Self::StreamOff,
        Self::WholeGuarded,
        Self::StreamGuarded,
        Self::HitWhole,
        Self::HitStream,
        Self::Breaker,
        Self::Budget,
        Self::Balance,
        Self::Machine,
        Self::Timer,
        Self::Longest,
        Self::Tick,
    ];

    /// As it is written on a command line and in the file of ceilings.
    pub fn name(self) -> &'static str {
        match self {
            Self::WholeOn => "whole-on",
            Self::WholeOff => "whole-off",
            Self::StreamOn => "stream-on",
            Self::StreamOff => "stream-off",
            Self::WholeGuarded => "whole-guarded",
            Self::StreamGuarded => "stream-guarded",
            Self::HitWhole => "hit-whole",
            Self::HitStream => "hit-stream",
            Self::Breaker => "breaker",
            Self::Budget => "budget",
            Self::Balance => "balance",
            Self::Machine => "machine",
            Self::Timer => "timer",
            Self::Longest => "longest",
            Self::Tick => "tick",
        }
    }

    /// How often it is done in the short and in the long run.
    pub fn times(self) -> (u32, u32) {
        match self {
            Self::WholeOn | Self::WholeOff | Self::WholeGuarded => (100, 1_100),
            Self::HitWhole | Self::HitStream => (100, 1_100),
            Self::StreamOn | Self::StreamOff | Self::StreamGuarded => (10, 110),
            _ => (1_000, 11_000),
        }
    }

    /// Does it so often.
    ///
    /// # Errors
    /// The input could not be made, or an answer was not what it must be.
    pub fn run(self, times: u32) -> Result<(), String> {
        match self {
            Self::WholeOn => request::serve(request::ON, false, Asked::Anew, times),
            Self::WholeOff => request::serve(request::OFF, false, Asked::Anew, times),
            Self::StreamOn => request::serve(request::ON, true, Asked::Anew, times),
            Self::StreamOff => request::serve(request::OFF, true, Asked::Anew, times),
            Self::WholeGuarded => request::serve(request::GUARDED, false, Asked::Anew, times),
            Self::StreamGuarded => request::serve(request::GUARDED, true, Asked::Anew, times),
            Self::HitWhole => request::serve(request::GUARDED, false, Asked::Again, times),
            Self::HitStream => request::serve(request::GUARDED, true, Asked::Again, times),
            Self::Breaker => parts::breaker(times),
            Self::Budget => parts::budget(times),
            Self::Balance => parts::balance(times),
            Self::Machine => parts::machine(times),
            Self::Timer => parts::timer(times),
            Self::Longest => parts::longest(times),
            Self::Tick => parts::ticks(times),
        }
    }
}

/// Instructions of each.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts(pub std::collections::BTreeMap<&'static str, u64>);

impl Counts {
    /// Of one.
    pub fn of(&self, what: What) -> u64 {
        self.0.get(what.name()).copied().unwrap_or(0)
    }

    /// How much more a request costs with everything on than with it off, in per cent.
    pub fn more(&self, stream: bool) -> f64 {
        let (on, off) = if stream {
            (self.of(What::StreamOn), self.of(What::StreamOff))
        } else {
            (self.of(What::WholeOn), self.of(What::WholeOff))
        };
        (on as f64 / off.max(1) as f64 - 1.0) * 100.0
    }

    /// How much more a request costs with every guard on than as the plan comes, in per cent.
    pub fn guards(&self, stream: bool) -> f64 {
        let (guarded, on) = if stream {
            (self.of(What::StreamGuarded), self.of(What::StreamOn))
        } else {
            (self.of(What::WholeGuarded), self.of(What::WholeOn))
        };
        (guarded as f64 / on.max(1) as f64 - 1.0) * 100.0
    }

    /// All parts of a request that are there for a provider's fault, whether a plan can switch them off or not.
    pub fn parts(&self, stream: bool) -> u64 {
        let once = [
            What::Breaker,
            What::Budget,
            What::Balance,
            What::Machine,
            What::Timer,
        ];
        let once = once.iter().map(|part| self.of(*part)).sum::<u64>();
        if !stream {
            return once;
        }
        once + self.of(What::Longest) + request::EVENTS as u64 * self.of(What::Tick)
    }

    /// Their share of what the request costs without them, in per cent.
    pub fn share(&self, stream: bool) -> f64 {
        let on = self.of(if stream { What::StreamOn } else { What::WholeOn });
        let parts = self.parts(stream);
        parts as f64 / on.saturating_sub(parts).max(1) as f64 * 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_can_be_done() {
        for what in What::ALL {
            what.run(2).unwrap_or_else(|e| panic!("{}: {e}", what.name()));
        }
    }

    #[test]
    fn shares_are_of_what_is_left_without_the_parts() {
        let mut counts = Counts::default();
        counts.0.insert("whole-on", 1_050);
        counts.0.insert("whole-off", 1_000);
        counts.0.insert("machine", 40);
        counts.0.insert("breaker", 10);
        counts.0.insert("stream-on", 2_000);
        counts.0.insert("tick", 1);
        assert!((counts.more(false) - 5.0).abs() < 1e-9);
        assert!((counts.share(false) - 5.0).abs() < 1e-9);
        assert_eq!(counts.parts(true), 50 + request::EVENTS as u64);
    }
}
