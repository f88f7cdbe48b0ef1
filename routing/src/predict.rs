//! Prediction: from an ability and a difficulty to P(good), and from prices and lengths to an expected value.
//!
//! P(good) = sigmoid(ability - difficulty), both on one logit scale whose zero is the mean difficulty of the training
//! rows. Neither is known exactly, so both are normal beliefs.

use std::time::Duration;

use serde::Serialize;

use crate::facts::{Facts, Known, Source};
use crate::plan::{HoldBack, Price, TargetConfig};
use crate::signals::{Ability, TargetSignal};
use crate::units::NanoUsd;

/// A normal belief about a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Belief {
    /// Mean.
    pub mean: f32,
    /// Standard deviation.
    pub sd: f32,
}

/// Standard deviation of a prompt's true difficulty around [`cheap_difficulty`]. Measured: Rasch model with a regression
/// on the length over nine models' scores on 2,890 prompts (`multimodel_llmrouter`, part train; maximum marginal
/// likelihood, nine Gauss-Hermite nodes).
pub const CHEAP_SD: f32 = 1.99;

/// Difficulty at 200 bytes of the last user turn, on the scale of the committed head: `look` in `models/heads/heads.json`,
/// as are the next two. `weir train` fits them; a test in the gateway holds them together.
pub const LOOK_AT_200: f32 = -2.1768;
/// Rise of it with the natural logarithm of the length.
pub const LOOK_PER_LN: f32 = 0.145_98;
/// Standard deviation of what the encoder's head says around that line: so much can the encoder change.
pub const LOOK_SPREAD: f32 = 0.481_72;

/// Mean tokens of an answer where the caller names no limit. Measured: 714 recorded answers (`routerarena_sub10`).
pub const EXPECTED_OUTPUT: u32 = 77;

/// What one encoder run costs, in nano-dollars: 20 ms of a core at 0.04 USD an hour. A price gap smaller than this does
/// not pay for the look.
pub const ENCODER_COST: NanoUsd = NanoUsd(222);

/// Width of the band of cheap looks, in standard deviations of what the encoder could say.
const BAND: f32 = 2.0;

/// Difficulty from the length alone. Code and sums in the text gain next to nothing over it (0.01 nats a row on 462 rows
/// kept apart); the spread says how little is known.
pub fn cheap_difficulty(facts: &Facts) -> Belief {
    let bytes = facts.last_turn_bytes.clamp(20, 1_000_000) as f32;
    let mean = LOOK_AT_200 + LOOK_PER_LN * (bytes / 200.0).ln();
    Belief { mean, sd: CHEAP_SD }
}

/// The belief behind a difficulty that somebody found out.
pub fn difficulty_of(known: &Known<f32>, facts: &Facts) -> Belief {
    match known.source {
        Source::Encoder if known.value.is_finite() => Belief {
            mean: known.value,
            sd: head_sd(),
        },
        Source::Heuristic if known.value.is_finite() => Belief {
            mean: known.value,
            sd: CHEAP_SD,
        },
        _ => cheap_difficulty(facts),
    }
}

/// Standard deviation of the true difficulty around what the encoder's head says.
pub fn head_sd() -> f32 {
    (CHEAP_SD * CHEAP_SD - LOOK_SPREAD * LOOK_SPREAD).max(0.0).sqrt()
}

/// Where the encoder's mean will lie, given only the cheap looks: both ends of the band, lower first. When the choice is
/// the same at both ends (P(good) is monotonic in difficulty, so also between them), the encoder cannot change it.
pub fn band(cheap: Belief) -> (f32, f32) {
    let reach = BAND * LOOK_SPREAD;
    (cheap.mean - reach, cheap.mean + reach)
}

/// A measured ability, when there are enough outcomes behind it.
pub fn calibrated(ability: Option<Ability>) -> Option<Belief> {
    ability
        .filter(|a| a.outcomes >= Ability::ENOUGH && a.mean.is_finite() && a.stderr.is_finite())
        .map(|a| Belief {
            mean: a.mean,
            sd: a.stderr.max(0.0),
        })
}

/// P(good): the mean of a logit-normal, by the usual approximation sigmoid(mean / sqrt(1 + pi * variance / 8)); off by
/// less than 0.02 anywhere.
pub fn p_good(ability: Belief, difficulty: Belief) -> f32 {
    let variance = ability.sd * ability.sd + difficulty.sd * difficulty.sd;
    sigmoid((ability.mean - difficulty.mean) / (1.0 + std::f32::consts::PI * variance / 8.0).sqrt())
}

/// The difficulty after a target of this ability has given a wrong answer: harder than was thought. Moments of prior
/// times likelihood over nine nodes.
pub fn after_failure(difficulty: Belief, ability: Belief) -> Belief {
    let (mut total, mut first, mut second) = (0.0_f32, 0.0_f32, 0.0_f32);
    for (node, weight) in NODES {
        for (z, w) in [(node, weight), (-node, weight)] {
            let d = difficulty.mean + difficulty.sd * z;
            let bad = 1.0 - p_good(ability, Belief { mean: d, sd: 0.0 });
            let mass = w * bad;
            total += mass;
            first += mass * d;
            second += mass * d * d;
        }
    }
    if total <= f32::EPSILON {
        return difficulty;
    }
    let mean = first / total;
    Belief {
        mean,
        sd: (second / total - mean * mean).max(0.0).sqrt(),
    }
}

/// Gauss-Hermite nodes for a standard normal, upper half; the one at zero has half its weight, since both signs count.
const NODES: [(f32, f32); 5] = [
    (0.0, 0.203_175),
    (1.023_256, 0.244_098),
    (2.076_848, 0.049_916),
    (3.205_429, 0.002_789),
    (4.512_746, 0.000_022_35),
];

/// Tokens of the answer that are to be expected.
pub fn expected_output(facts: &Facts) -> u32 {
    let each = facts
        .max_output
        .map_or(EXPECTED_OUTPUT, |most| most.min(EXPECTED_OUTPUT));
    each.saturating_mul(u32::from(facts.choices.max(1)))
}

/// Expected cost of one answer; `None` where the price is unknown, which is not zero.
pub fn expected_cost(price: Price, facts: &Facts) -> Option<NanoUsd> {
    match price {
        Price::Unknown => None,
        Price::Unmetered => Some(NanoUsd(0)),
        Price::PerToken { input, output, .. } => {
            let prompt = NanoUsd::of_tokens(u64::from(facts.prompt_tokens), input);
            let answer = NanoUsd::of_tokens(u64::from(expected_output(facts)), output);
            Some(prompt.saturating_add(answer))
        }
    }
}

/// Expected time from the start of a try to the release of the hold-back (streams) or to the verdict (whole answers);
/// `None` while nothing is known of the target's speed.
pub fn expected_added(
    target: &TargetConfig,
    signal: &TargetSignal,
    facts: &Facts,
    hold: HoldBack,
) -> Option<Duration> {
    let whole = expected_output(facts);
    let tokens = match hold {
        HoldBack::Tokens(n) if facts.stream => n.min(whole),
        _ => whole,
    };
    if target.is_local() {
        let wait = signal.predicted_wait_us?;
        let each = u64::from(signal.us_per_token.unwrap_or(0));
        return Some(Duration::from_micros(
            wait.saturating_add(each.saturating_mul(u64::from(tokens))),
        ));
    }
    // Peak EWMA of a remote is to its first content (streams) or of the whole answer: the part that is known.
    (signal.latency_us > 0).then(|| Duration::from_micros(signal.latency_us))
}

/// 1 / (1 + e^-x).
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(mean: f32, sd: f32) -> Belief {
        Belief { mean, sd }
    }

    /// The same integral by brute force.
    fn exact(mean: f32, sd: f32) -> f32 {
        let (mut sum, mut mass) = (0.0_f64, 0.0_f64);
        for i in -4000..=4000 {
            let z = f64::from(i) / 500.0;
            let w = (-z * z / 2.0).exp();
            sum += w / (1.0 + (-(f64::from(mean) + f64::from(sd) * z)).exp());
            mass += w;
        }
        (sum / mass) as f32
    }

    #[test]
    fn the_approximation_is_within_two_hundredths() {
        for mean in [-6.0, -3.0, -1.0, -0.2, 0.0, 0.5, 2.0, 4.0] {
            for sd in [0.0, 0.3, 1.0, 2.0, 3.0] {
                let (got, want) = (p_good(b(mean, sd), b(0.0, 0.0)), exact(mean, sd));
                assert!((got - want).abs() < 0.02, "{mean} {sd}: {got} against {want}");
            }
        }
    }

    #[test]
    fn more_uncertainty_goes_towards_a_half() {
        let sure = p_good(b(2.0, 0.1), b(0.0, 0.1));
        let unsure = p_good(b(2.0, 1.0), b(0.0, 2.0));
        assert!(sure > unsure && unsure > 0.5);
    }

    #[test]
    fn a_failure_makes_the_question_harder_and_a_strong_ones_failure_more_so() {
        let prior = b(0.0, 2.0);
        let weak = after_failure(prior, b(-2.0, 0.1));
        let strong = after_failure(prior, b(2.0, 0.1));
        assert!(weak.mean > 0.0 && strong.mean > weak.mean, "{weak:?} {strong:?}");
        assert!(strong.sd < prior.sd);
        assert_eq!(after_failure(b(0.0, 0.0), b(1.0, 0.0)).mean, 0.0);
    }

    #[test]
    fn unknown_is_not_zero() {
        let facts = Facts {
            prompt_tokens: 1_000,
            ..Facts::default()
        };
        assert_eq!(expected_cost(Price::Unknown, &facts), None);
        assert_eq!(expected_cost(Price::Unmetered, &facts), Some(NanoUsd(0)));
        let price = Price::PerToken {
            input: crate::units::PricePerToken::from_usd_per_million(1.0),
            output: crate::units::PricePerToken::from_usd_per_million(10.0),
            cached_input: crate::units::PricePerToken::default(),
            reasoning: crate::units::PricePerToken::from_usd_per_million(10.0),
        };
        // 1,000 at 1 micro-dollar and 77 at 10.
        assert_eq!(expected_cost(price, &facts), Some(NanoUsd(1_770_000)));
        let short = Facts {
            max_output: Some(7),
            ..facts
        };
        assert_eq!(expected_cost(price, &short), Some(NanoUsd(1_070_000)));
    }

    #[test]
    fn an_ability_without_enough_outcomes_is_none() {
        let ability = |outcomes| {
            Some(Ability {
                mean: 1.0,
                stderr: 0.1,
                outcomes,
            })
        };
        assert_eq!(calibrated(ability(Ability::ENOUGH - 1)), None);
        assert!(calibrated(ability(Ability::ENOUGH)).is_some());
        assert_eq!(calibrated(None), None);
    }

    #[test]
    fn a_failed_classifier_is_not_believed() {
        let facts = Facts::default();
        let failed = Known {
            value: -9.0,
            source: Source::Failed,
        };
        assert_eq!(difficulty_of(&failed, &facts), cheap_difficulty(&facts));
    }
}
