//! The bound: how often a hit may be ventured, so that wrong answers stay below a share of all look-ups.
//!
//! # The rule
//!
//! Look-ups are numbered 1, 2, ... For each with a candidate answer a hit is ventured with probability `h`, by a coin of
//! ours; otherwise the model is called and its answer compared with the cached one (an *exploration*). Whether the cached
//! answer would be wrong (`w` = 0 or 1) is settled before the coin is thrown, by anything at all: past, question, an
//! adversary who has seen every earlier coin. If it would be wrong, then with probability `h` there is one more wrong
//! answer (`E` grows by 1), and with probability at least `(1 - h)(1 - m)` the exploration finds it out, where `m` is the
//! share of wrong answers that the comparison does not tell to be different ([`super::evidence::MISS`]). Each exploration
//! that finds the answers different is *charged* with
//!
//! ```text
//! a = -ln( (1 - h e^L - (1 - h) m) / ((1 - h)(1 - m)) )        (L: the current rate, see below)
//! ```
//!
//! which makes `exp(sum of L over wrong hits - sum of charges)` a supermartingale: for `w = 1` its expected factor is
//! `h e^L + (1 - h)(1 - m) e^-a + (1 - h) m = 1`, for `w = 0` it is at most 1. Ville's inequality then says that with
//! probability `1 - alpha` it stays below `1 / alpha` for ever, so that *at all times at once*
//!
//! ```text
//! E <= (A + ln(1 / alpha)) / L        A: all charges so far
//! ```
//!
//! (`L` only ever falls, so the sum of its values over wrong hits is at least the last one times `E`.) A hit is ventured
//! only while the right side, with the charge of this very look-up added in case it is an exploration that goes wrong, is
//! at most `max_error_rate` times the number of look-ups so far. So with probability `1 - alpha` (95%), over our own
//! coins and nothing else, wrong answers are never more than that share of all look-ups, at no time, whatever the world
//! does. Nothing is assumed about similarities, guards or how questions come; those decide only how many hits the
//! bound leaves room for.
//!
//! # What follows
//!
//! * The first hit comes after `ln(1 / alpha) / L_most / max_error_rate` look-ups: about 2,000 at 1%, 400 at 5%.
//! * Some share of the look-ups that could hit is explored for ever (at the lowest rate 4%): it is what the bound lives on.
//! * A charge is booked when an exploration begins and given back unless the answers turn out to be different. One that never
//!   comes to a comparison (the model failed, the caller left) stays charged: nobody knows what it would have shown.

/// The bound fails with at most this probability, over our own coins.
pub const ALPHA: f64 = 0.05;
/// `L` in the beginning: many explorations, but an early first hit.
const RATE_MOST: f64 = 0.15;
/// `L` at least: 4% of explorations.
const RATE_LEAST: f64 = 0.02;
/// `L` falls as far as the bound then takes up at most this share of what is allowed.
const SHARE: f64 = 0.6;
/// Greatest `m` that can be worked with.
const MISS_MOST: f64 = 0.5;

/// Keeps the bound for one tenant and policy. See the module.
#[derive(Clone, Debug)]
pub struct Governor {
    lookups: u64,
    charges: f64,
    rate: f64,
    max_error_rate: f64,
    miss: f64,
}

impl Governor {
    /// `max_error_rate`: wrong answers over look-ups. `miss`: share of wrong answers that the comparison does not tell
    /// to be different, at most 0.5.
    pub fn new(max_error_rate: f64, miss: f64) -> Governor {
        Governor {
            lookups: 0,
            charges: 0.0,
            rate: RATE_MOST,
            max_error_rate: max_error_rate.clamp(0.0, 1.0),
            miss: miss.clamp(0.0, MISS_MOST),
        }
    }

    /// A look-up came, whatever comes of it.
    pub fn count(&mut self) {
        self.lookups += 1;
    }

    /// Wrong answers that are allowed by now.
    fn allowed(&self) -> f64 {
        self.max_error_rate * self.lookups as f64
    }

    /// Upper bound on wrong answers so far if `more` were charged.
    fn bound(&self, more: f64) -> f64 {
        (self.charges + more + (1.0 / ALPHA).ln()) / self.rate
    }

    /// Wrong answers so far are at most so many (with probability 1 - [`ALPHA`]).
    pub fn wrong_at_most(&self) -> f64 {
        self.bound(0.0)
    }

    /// With which probability may this look-up hit, at most `wanted`. Zero while the bound leaves no room.
    pub fn venture(&mut self, wanted: f64) -> f64 {
        let wanted = wanted.clamp(0.0, 1.0);
        if wanted <= 0.0 {
            return 0.0;
        }
        let charge = self.charge_of(wanted.min(self.most()));
        // As low a rate as keeps the bound within its share of what is allowed.
        let lower = (self.charges + charge + (1.0 / ALPHA).ln()) / (SHARE * self.allowed());
        if lower < self.rate {
            self.rate = lower.max(RATE_LEAST);
        }
        let h = wanted.min(self.most());
        if h > 0.0 && self.bound(self.charge_of(h)) <= self.allowed() {
            h
        } else {
            0.0
        }
    }

    /// Greatest probability of a hit at the current rate: there a charge is ln 2. Beyond it charges grow without measure.
    fn most(&self) -> f64 {
        let x = self.rate.exp();
        (1.0 - (x - 1.0) / (x - (1.0 + self.miss) / 2.0)).clamp(0.0, 1.0)
    }

    /// The charge for an exploration where a hit had the probability `h`.
    fn charge_of(&self, h: f64) -> f64 {
        let q = 1.0 - h;
        let left = (1.0 - h * self.rate.exp() - q * self.miss) / (q * (1.0 - self.miss));
        if left > 0.0 { -left.ln() } else { f64::INFINITY }
    }

    /// An exploration begins that was a hit with probability `h`: what it is charged.
    pub fn charge(&mut self, h: f64) -> f64 {
        let charge = self.charge_of(h);
        self.charges += charge;
        charge
    }

    /// It did not turn out that the answers are different.
    pub fn give_back(&mut self, charge: f64) {
        self.charges = (self.charges - charge).max(0.0);
    }

    /// Look-ups counted.
    pub fn lookups(&self) -> u64 {
        self.lookups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hit_before_the_bound_has_room() {
        let mut governor = Governor::new(0.01, 0.0);
        let mut first = None;
        for n in 1..10_000_u64 {
            governor.count();
            if governor.venture(0.9) > 0.0 {
                first = Some(n);
                break;
            }
        }
        let first = first.unwrap();
        assert!((1_900..3_000).contains(&first), "{first}");
    }

    #[test]
    fn nothing_allowed_is_nothing_ventured() {
        let mut governor = Governor::new(0.0, 0.0);
        for _ in 0..10_000 {
            governor.count();
            assert_eq!(governor.venture(1.0), 0.0);
        }
    }

    #[test]
    fn the_factor_of_a_wrong_answer_is_one() {
        for miss in [0.0, 0.05, 0.3] {
            let mut governor = Governor::new(0.05, miss);
            for rate in [RATE_MOST, 0.05, RATE_LEAST] {
                governor.rate = rate;
                for share in [0.1, 0.5, 1.0] {
                    let h = governor.most() * share;
                    let a = governor.charge_of(h);
                    let factor = h * rate.exp() + (1.0 - h) * ((1.0 - miss) * (-a).exp() + miss);
                    assert!((factor - 1.0).abs() < 1e-9, "{miss} {rate} {h} {factor}");
                    assert!(a <= 0.694, "{a}");
                }
            }
        }
    }

    #[test]
    fn what_is_charged_and_given_back_leaves_no_trace() {
        let mut governor = Governor::new(0.05, 0.0);
        let before = governor.wrong_at_most();
        let charge = governor.charge(0.5);
        assert!(governor.wrong_at_most() > before);
        governor.give_back(charge);
        assert!((governor.wrong_at_most() - before).abs() < 1e-9);
    }

    #[test]
    fn what_never_comes_to_a_comparison_ends_the_hits() {
        let mut governor = Governor::new(0.05, 0.0);
        let mut hits = 0.0;
        for _ in 0..100_000 {
            governor.count();
            let h = governor.venture(0.9);
            if h > 0.0 {
                hits += h;
                governor.charge(h);
            }
            assert!(hits == 0.0 || governor.wrong_at_most() <= governor.allowed() + 1e-9);
        }
        assert!(hits < 0.07 * 100_000.0, "{hits}");
    }
}
