//! How many tries a target takes at once: additive increase, multiplicative decrease.
//!
//! *What lowers it*: a refusal (429, 503, 529), a first word that did not come in time, and first words that take twice as
//! long as the target's own while as many run as may (a try that ends without a word, because its caller leaves or can wait no
//! longer, counts with the time it had). Never how long an answer takes in all: that is its length.
//! *By how much*: to nine tenths of what ran at a refusal, to half at a time-out, in between for slowness; where far fewer ran
//! than might have, the limit alone comes nearer. At most once a round: a round is as many ends as tries ran when it began,
//! and the one behind a cut says nothing, since what ends in it began before.
//! *What raises it*: a round in which it was reached. By one; after eight such rounds by twice as much each time, so that a
//! cut for nothing is soon forgotten. Where one more was refused it stands still at first, and tries that one ever less often:
//! refusals cost everyone a pause.
//! *What is no sign of too much*: a refusal or time-out of a try that ran alone; one where twice as many went well of late; one
//! after another with nothing that went well between them. Those speak of a quota or an outage, which holds and breakers are for.
//! *When it is forgotten*: each ten seconds in which it was not reached double it; by then nobody knows whether it still holds.
//! *When slowness is not ours*: where half as many are no quicker, the target is slower by itself. Then that is what it takes,
//! and the limit is given back.
//!
//! It begins at its ceiling. Nobody is restrained before there is a sign that it is too much.

use std::time::Duration;

use super::first_word::{FirstWord, Slow};
use crate::units::Time;

/// Rounds that raise it by one, before the steps grow.
const SMALL_STEPS: u32 = 8;
/// Rounds until one more than was refused is tried, at first and at last.
const PROBE: (u32, u32) = (8, 64);
/// A limit that is not reached doubles in this time.
const STALE: Duration = Duration::from_secs(10);
/// Where so few run, one refusal or time-out by itself does not bring the limit down to them ...
const LEASH: f64 = 64.0;
/// ... and where so few run, slowness does not: it is hardly ours.
const FEW: f64 = 8.0;

/// What a try made felt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Felt {
    /// It was refused, and not for what it asked.
    Refused,
    /// Its first word did not come in time.
    TimedOut,
    /// Its first word came after so long.
    Word(Duration),
    /// It ended after so long without a word, whoever ended it: its caller left, or could wait no longer.
    NoWord(Duration),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Adaptive {
    ceiling: u32,
    limit: f64,
    /// Ends until the round is over.
    left: u32,
    /// The round behind a cut.
    settling: bool,
    /// The limit was reached in this round.
    reached: bool,
    /// Rounds since the last cut in which it was reached.
    rounds: u32,
    /// Something went well since the last cut, and while so many ran of late.
    well: Option<u32>,
    /// When it was last reached, lowered or doubled.
    known_at: Time,
    /// So many ran when one more was refused.
    refused_beyond: Option<u32>,
    /// Rounds until one more than that is tried.
    probe_after: u32,
    word: FirstWord,
    /// The first of the cuts for slowness: what ran, what a first word took, and the limit before.
    slowed: Option<(u32, u64, f64)>,
    /// What a good try usually takes from beginning to end, in microseconds; 0 while unknown. For telling waits, nothing else.
    held_us: u64,
}

impl Adaptive {
    /// As many as `ceiling`.
    pub fn new(ceiling: u32) -> Self {
        let ceiling = ceiling.max(1);
        Self {
            ceiling,
            limit: f64::from(ceiling),
            left: 1,
            settling: false,
            reached: false,
            rounds: 0,
            well: None,
            known_at: Time(0),
            refused_beyond: None,
            probe_after: PROBE.0,
            word: FirstWord::default(),
            slowed: None,
            held_us: 0,
        }
    }

    /// Another ceiling, from a new plan. What was learned stays.
    pub fn set_ceiling(&mut self, ceiling: u32) {
        let free = self.room() == self.ceiling;
        self.ceiling = ceiling.max(1);
        let most = f64::from(self.ceiling);
        self.limit = if free { most } else { self.limit.min(most) };
    }

    /// It was mended: nothing that lowered the limit holds any more.
    pub fn forgive(&mut self) {
        *self = Self {
            held_us: self.held_us,
            word: self.word.clone(),
            ..Self::new(self.ceiling)
        };
    }

    /// Tries at once, now.
    pub fn room(&self) -> u32 {
        (self.limit as u32).clamp(1, self.ceiling)
    }

    /// From one end to the next while as many run as may; `None` while unknown.
    pub fn turn(&self) -> Option<Duration> {
        let us = self.held_us.checked_div(u64::from(self.room()))?;
        (self.held_us > 0).then(|| Duration::from_micros(us.max(1)))
    }

    /// A try made this felt while `running` ran, it included.
    pub fn felt(&mut self, felt: Felt, running: u32, now: Time) {
        // What began before the last cut was begun under another limit. Only how slow that really was can still be learned.
        if self.settling {
            if let (Felt::Word(after) | Felt::NoWord(after), Some((_, took, _))) = (felt, &mut self.slowed)
                && let Some(quick) = self.word.quick(after)
            {
                *took = quick.max(*took);
            }
            return;
        }
        match felt {
            Felt::Refused | Felt::TimedOut if !self.speaks_of_too_much(running) => {}
            Felt::Refused => self.refused(running, now),
            Felt::TimedOut => self.cut(0.5, running, now),
            Felt::Word(after) => self.word(after, true, running, now),
            // A word would have come later still. Without that, who lets everybody wait too long would look quick.
            Felt::NoWord(after) if self.word.is_slow(after) => self.word(after, false, running, now),
            Felt::NoWord(_) => {}
        }
    }

    /// A try went well while `running` ran, it included.
    pub fn went_well(&mut self, running: u32) {
        self.well = Some(self.well.unwrap_or(0).max(running));
    }

    fn speaks_of_too_much(&self, running: u32) -> bool {
        running > 1 && self.well.is_some_and(|most| most / 2 < running)
    }

    fn word(&mut self, after: Duration, is_word: bool, running: u32, now: Time) {
        match self.word.came(after, is_word, now) {
            None => {}
            Some(Ok(())) => self.slowed = None,
            Some(Err(slow)) => self.slow(slow, running, now),
        }
    }

    /// A try ended while `running` ran, it included. `held`: for how long it ran, where it went well: what hangs or fails at once
    /// says nothing of how fast places become free. `reached`: since the last end the limit was.
    pub fn ended(&mut self, running: u32, held: Option<Duration>, reached: bool, now: Time) {
        if let Some(held) = held {
            let us = u64::try_from(held.as_micros()).unwrap_or(u64::MAX).max(1);
            self.held_us = match self.held_us {
                0 => us,
                old => (old - old / 16).saturating_add(us / 16).max(1),
            };
        }
        self.reached |= reached;
        if reached {
            self.known_at = now;
        }
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return;
        }
        self.left = running.saturating_sub(1).max(1);
        let settled = std::mem::take(&mut self.settling);
        let reached = std::mem::take(&mut self.reached);
        self.well = self.well.map(|most| most - most / 4);
        if settled {
            self.word.anew();
        } else if reached {
            self.rounds = self.rounds.saturating_add(1);
            self.grow();
        } else if now.since(self.known_at) >= STALE {
            self.known_at = now;
            (self.refused_beyond, self.probe_after) = (None, PROBE.0);
            self.limit = (self.limit * 2.0).min(f64::from(self.ceiling));
        }
    }

    fn grow(&mut self) {
        let step = 1_u32 << self.rounds.saturating_sub(SMALL_STEPS).min(10);
        let room = self.room();
        let grown = match self.refused_beyond {
            // A whole round beyond it, and nobody was refused: it takes more by now.
            Some(most) if room > most => {
                (self.refused_beyond, self.probe_after) = (None, PROBE.0);
                self.limit + 1.0
            }
            Some(most) if room < most => (self.limit + f64::from(step)).min(f64::from(most)),
            Some(_) if self.rounds < self.probe_after => self.limit,
            Some(most) => {
                self.rounds = 0;
                f64::from(most) + 1.0
            }
            None => self.limit + f64::from(step),
        };
        self.limit = grown.min(f64::from(self.ceiling));
    }

    fn refused(&mut self, running: u32, now: Time) {
        let most = running.saturating_sub(1).max(1);
        let same = self
            .refused_beyond
            .is_some_and(|known| most <= known + (known / 8).max(1));
        self.probe_after = match same {
            true => (self.probe_after * 2).min(PROBE.1),
            false => PROBE.0,
        };
        self.refused_beyond = Some(most);
        self.cut(0.9, running, now);
    }

    fn slow(&mut self, slow: Slow, running: u32, now: Time) {
        if let Some((_, took, limit)) = self.slowed.filter(|(ran, ..)| running <= ran / 2) {
            if slow.us.saturating_mul(5) >= took.saturating_mul(4) {
                // Half as many, and it is no quicker: it takes so long by itself.
                self.word.is_own(slow.us);
                self.slowed = None;
                self.limit = limit.min(f64::from(self.ceiling));
                return;
            }
            // It helped; from here on the next half is looked at.
            self.slowed = Some((running, slow.us, limit));
        }
        self.slowed.get_or_insert((running, slow.us, self.limit));
        if self.reached || running >= self.room() {
            self.cut(slow.keep, running, now);
        } else {
            // Less than may run cannot be too much because of the limit; it only comes nearer.
            self.limit = self.limit.min(f64::from(running).max(FEW));
            self.reached = false;
        }
    }

    fn cut(&mut self, keep: f64, running: u32, now: Time) {
        let ran = f64::from(running);
        let nearer = (self.limit / 2.0).min(ran.max(LEASH));
        self.limit = (keep * ran).max(nearer).min(self.limit).max(1.0);
        self.left = running.max(1);
        self.settling = true;
        self.well = None;
        self.known_at = now;
        self.reached = false;
        self.rounds = 0;
        self.word.anew();
    }
}
