//! What a request's tries cost and how they ended: the part of the record that the cascade knows.

use std::sync::Arc;

use routing::cascade::{Grade, Judged, Seen};
use routing::outcome::Outcome;
use routing::plan::{Plan, Price};
use routing::units::{NanoUsd, Time};

use super::running::Running;
use crate::providers::event::Usage;
use crate::providers::failure::AttemptError;
use crate::telemetry::record;

/// Handed to the record when the body has ended, in whatever way.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Every try, in order of its end.
    pub attempts: Vec<record::Attempt>,
    /// Index of the target whose answer the caller got.
    pub answered: Option<usize>,
    /// Its tier.
    pub tier: Option<u8>,
    /// What was thought of that answer.
    pub verdict: Option<record::Verdict>,
    /// Tokens of that answer.
    pub usage: Option<record::Usage>,
    /// Cost of all tries; absent when the price of one is unknown.
    pub cost: Option<NanoUsd>,
    /// `step; reason=why`, when degraded.
    pub degraded: Option<Box<str>>,
    /// When the first content was released to the caller.
    pub first_content: Option<Time>,
    /// The answer came to its end.
    pub whole: bool,
}

/// A try that is over, with all that is written down of it.
pub struct Ended<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// When the request's head came.
    pub request_began: Time,
    /// Now.
    pub now: Time,
    /// The try.
    pub run: &'a Running,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, when it failed.
    pub error: Option<&'a AttemptError>,
    /// What was thought of its answer.
    pub judged: Option<&'a Judged>,
    /// What it used, and who counted.
    pub usage: Option<(Usage, &'static str)>,
    /// What it is charged, see `expect::came_to`; more than its usage where more may have been made unseen.
    pub cost: Option<NanoUsd>,
    /// More may have been made than anybody has told or seen.
    pub unseen: bool,
}

/// What a provider takes for prompt tokens that it writes to its cache, in percent of its price for input: for minutes,
/// and for an hour. These are the multiples of the one vendor that charges for it (Anthropic), the same for all its
/// models; other dialects report no such tokens.
const CACHE_WRITE_PERCENT: [u64; 2] = [125, 200];

/// Cost of an answer of which nobody knows how much was thought and how much said: at the dearer of the two prices.
pub fn cost_at_most(price: &Price, usage: &Usage) -> Option<NanoUsd> {
    let of = |reasoning| cost(price, &Usage { reasoning, ..*usage });
    of(0).max(of(usage.completion))
}

/// Cost of an answer; `None`: the price is unknown. Reasoning tokens are told inside of the completion's, and priced apart.
pub fn cost(price: &Price, usage: &Usage) -> Option<NanoUsd> {
    match price {
        Price::Unknown => None,
        Price::Unmetered => Some(NanoUsd(0)),
        Price::PerToken {
            input,
            output,
            cached_input,
            reasoning,
        } => {
            let cached = usage.cached.min(usage.prompt);
            let written = usage.cache_write.min(usage.prompt - cached);
            let hour = usage.cache_write_hour.min(written);
            let thought = usage.reasoning.min(usage.completion);
            let [short, long] = CACHE_WRITE_PERCENT.map(|percent| input.percent(percent));
            let parts = [
                (usage.prompt - cached - written, *input),
                (cached, *cached_input),
                (written - hour, short),
                (hour, long),
                (usage.completion - thought, *output),
                (thought, *reasoning),
            ];
            let sum = parts.into_iter().fold(NanoUsd(0), |sum, (tokens, price)| {
                sum.saturating_add(NanoUsd::of_tokens(tokens, price))
            });
            Some(sum)
        }
    }
}

/// A verdict in the record's words.
pub fn verdict(judged: &Judged) -> record::Verdict {
    let (result, check) = match &judged.grade {
        Grade::Pass => ("pass", None),
        Grade::Fail(check) => ("fail", Some(check.name())),
        Grade::Filtered => ("fail", Some("content_filter")),
        Grade::Unchecked => ("unchecked", None),
    };
    record::Verdict {
        result,
        check,
        seen: seen(judged.seen).into(),
        p_good_ppm: judged
            .p_good
            .map(|p| (f64::from(p.clamp(0.0, 1.0)) * 1e6).round() as u32),
    }
}

/// The value of `x-weir-verified`.
pub fn seen(seen: Seen) -> String {
    match seen {
        Seen::Full => "full".to_owned(),
        Seen::Prefix(n) => format!("prefix:{n}"),
        Seen::None => "none".to_owned(),
    }
}

/// The value of `x-weir-verdict`.
pub fn grade(judged: &Judged) -> String {
    match &judged.grade {
        Grade::Pass => "pass".to_owned(),
        Grade::Fail(check) => format!("fail:{}", check.name()),
        Grade::Filtered => "fail:content_filter".to_owned(),
        Grade::Unchecked => "unchecked".to_owned(),
    }
}

/// The coarse word for an outcome, and the exact one.
pub fn outcome_words(outcome: Outcome) -> (&'static str, Option<Box<str>>) {
    let exact = Some(Box::from(outcome.label()));
    match outcome {
        Outcome::Ok => ("ok", None),
        Outcome::TargetFault(_) => ("target_fault", exact),
        Outcome::CallerFault(_) => ("caller_fault", exact),
        Outcome::Neutral(_) => ("neutral", exact),
    }
}

impl Account {
    /// Cost of all tries together; absent when one of them used tokens of unknown price.
    pub fn add_up(&mut self) {
        self.cost = self.attempts.iter().try_fold(NanoUsd(0), |sum, attempt| {
            let own = match (attempt.cost_nano_usd, &attempt.usage) {
                (Some(cost), _) => cost,
                (None, None) => 0,
                (None, Some(_)) => return None,
            };
            Some(sum.saturating_add(NanoUsd(own)))
        });
    }

    /// Writes down a try that is over.
    pub fn ended(&mut self, ended: Ended<'_>) {
        let Ended {
            plan,
            request_began,
            now,
            run,
            outcome,
            error,
            judged,
            usage,
            cost,
            unseen,
        } = ended;
        let target = plan.target(run.target);
        let (word, fault) = outcome_words(outcome);
        self.attempts.push(record::Attempt {
            target: Arc::clone(&target.name),
            tier: run.tier,
            kind: run.kind.as_str(),
            probe: run.leave.is_probe(),
            outcome: word,
            fault,
            status: run.status.or_else(|| error.and_then(AttemptError::status)),
            start_us: micros(run.began, request_began),
            first_content_us: run.first_content.map(|at| micros(at, request_began)),
            end_us: micros(now, request_began),
            reused: run.reused,
            redialled: run.redialled || error.is_some_and(AttemptError::was_redialled),
            // Ended by us before all of it was seen: its provider may have worked on it.
            maybe_billed: error.map_or(unseen, |error| error.graded().maybe_billed),
            continued: run.joining.as_ref().map(|joining| record::Continued {
                way: joining.way.label(),
                result: joining.result(outcome),
            }),
            verdict: judged.map(verdict),
            usage: usage.map(|(u, from)| recorded(&u, from)),
            cost_nano_usd: cost.map(|c| c.0),
        });
    }
}

/// Usage in the record's words.
pub fn recorded(usage: &Usage, from: &'static str) -> record::Usage {
    record::Usage {
        prompt: usage.prompt,
        completion: usage.completion,
        cached: usage.cached,
        cache_write: usage.cache_write,
        reasoning: usage.reasoning,
        from,
    }
}

fn micros(at: Time, origin: Time) -> u64 {
    u64::try_from(at.since(origin).as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use routing::units::PricePerToken;

    #[test]
    fn what_is_written_to_a_cache_costs_its_multiple_of_input() {
        let price = |usd| PricePerToken::from_usd_per_million(usd);
        let price = Price::PerToken {
            input: price(4.0),
            output: price(20.0),
            cached_input: price(0.4),
            reasoning: price(20.0),
        };
        // 100 read, 1,000 written (of which 400 for an hour), 10 plain, 3 said.
        let usage = Usage {
            prompt: 1_110,
            cached: 100,
            cache_write: 1_000,
            cache_write_hour: 400,
            completion: 3,
            ..Usage::default()
        };
        let nano = 10 * 4_000 + 100 * 400 + 600 * 5_000 + 400 * 8_000 + 3 * 20_000;
        assert_eq!(cost(&price, &usage), Some(NanoUsd(nano)));
        // Figures that contradict each other never cost less than the prompt as plain input.
        let odd = Usage {
            prompt: 10,
            cache_write: 50,
            cache_write_hour: 70,
            ..Usage::default()
        };
        assert_eq!(cost(&price, &odd), Some(NanoUsd(80_000)));
    }

    #[test]
    fn what_was_thought_has_a_price_of_its_own() {
        let usd = PricePerToken::from_usd_per_million;
        let price = |reasoning| Price::PerToken {
            input: usd(1.0),
            output: usd(2.0),
            cached_input: usd(1.0),
            reasoning: usd(reasoning),
        };
        let usage = |completion, reasoning| Usage {
            prompt: 10,
            completion,
            reasoning,
            ..Usage::default()
        };
        // 30 of the 100 were thought.
        let sum = 10 * 1_000 + 70 * 2_000 + 30 * 5_000;
        assert_eq!(cost(&price(5.0), &usage(100, 30)), Some(NanoUsd(sum)));
        // More than there are: never below zero.
        assert_eq!(
            cost(&price(5.0), &usage(4, 30)),
            Some(NanoUsd(10_000 + 4 * 5_000))
        );
        // Where nobody tells them apart, the dearer price is taken, whichever that is.
        let at_most = |reasoning| cost_at_most(&price(reasoning), &usage(100, 30));
        assert_eq!(at_most(5.0), Some(NanoUsd(10_000 + 100 * 5_000)));
        assert_eq!(at_most(0.5), Some(NanoUsd(10_000 + 100 * 2_000)));
        assert_eq!(cost_at_most(&Price::Unknown, &usage(1, 0)), None);
    }
}
