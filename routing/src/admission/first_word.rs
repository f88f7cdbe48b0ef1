//! How long a target takes to its first word when nobody is in its way, and whether it takes longer now.

use std::time::Duration;

use crate::units::Time;

/// Tries that are looked at together.
const TOGETHER: usize = 16;
/// Of these, the one in whose place the quickest quarter ends: it says less of long prompts than a mean would.
const QUARTER: usize = TOGETHER / 4 - 1;
/// Of these, words that really came, at least.
const LEAST_WORDS: usize = 2;
/// It is slow at twice its own time ...
const SLOW: u64 = 2;
/// ... and at so much more, in microseconds: what is less is the noise of networks and schedulers.
const LEAST_US: u64 = 100_000;
/// What it takes by itself may grow, and then it doubles in this time at most.
const CREEP: Duration = Duration::from_secs(512);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct FirstWord {
    /// The least that the quickest quarter took, in microseconds; 0 while unknown.
    own_us: u64,
    seen_at: Time,
    seen: [u64; TOGETHER],
    count: usize,
    /// Of these, words that came.
    words: usize,
}

/// It takes longer than by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slow {
    /// What the quickest quarter takes now, in microseconds.
    pub(super) us: u64,
    /// How much less should run, as far as that tells: in 0.5 to 0.9.
    pub(super) keep: f64,
}

impl FirstWord {
    /// One more. Says something once enough were seen, and then begins to count anew.
    /// Where hardly any of them was a word that came, that is an outage: it says nothing.
    pub(super) fn came(&mut self, after: Duration, is_word: bool, now: Time) -> Option<Result<(), Slow>> {
        self.words += usize::from(is_word);
        let quick = self.quick(after)?;
        if std::mem::take(&mut self.words) < LEAST_WORDS {
            return None;
        }
        self.own(quick, now);
        if !self.too_long(quick) {
            return Some(Ok(()));
        }
        let keep = (SLOW * self.own_us) as f64 / quick as f64;
        Some(Err(Slow {
            us: quick,
            keep: keep.clamp(0.5, 0.9),
        }))
    }

    /// So long is longer than by itself, as far as that is known.
    pub(super) fn is_slow(&self, after: Duration) -> bool {
        let us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.own_us > 0 && self.too_long(us)
    }

    fn too_long(&self, us: u64) -> bool {
        us > self.own_us.saturating_mul(SLOW) && us - self.own_us > LEAST_US
    }

    /// One more; the quickest quarter's time once enough were seen.
    pub(super) fn quick(&mut self, after: Duration) -> Option<u64> {
        let us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX).max(1);
        *self.seen.get_mut(self.count)? = us;
        self.count += 1;
        if self.count < TOGETHER {
            return None;
        }
        self.count = 0;
        self.seen.sort_unstable();
        self.seen.get(QUARTER).copied()
    }

    /// What came so far was asked for before something changed.
    pub(super) fn anew(&mut self) {
        (self.count, self.words) = (0, 0);
    }

    /// It takes so long by itself.
    pub(super) fn is_own(&mut self, us: u64) {
        self.own_us = us;
    }

    fn own(&mut self, quick: u64, now: Time) {
        let silent = now.since(self.seen_at);
        self.seen_at = now;
        if self.own_us == 0 || quick < self.own_us {
            self.own_us = quick;
            return;
        }
        let creep = self.own_us as f64 * (silent.as_secs_f64() / CREEP.as_secs_f64()).min(1.0);
        self.own_us = self.own_us.saturating_add(creep as u64).min(quick);
    }
}
