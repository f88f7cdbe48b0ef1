//! What a try may come to, before it starts: tokens as they usually are, money at most; and what it did come to.

use std::time::Duration;

use routing::facts::{CallKind, Facts};
use routing::outcome::Outcome;
use routing::plan::TargetConfig;
use routing::units::{NanoUsd, Time};

use super::account;
use super::running::Running;
use crate::limits::Estimate;
use crate::providers::event::Usage;
use crate::providers::failure::{AttemptError, Fault};
use crate::target_state::Learned;

/// The longest answer of a target that nobody has said anything about.
const LONG_ANSWER: u64 = 4_096;
/// A usual answer of a target that has not answered yet.
const USUAL_ANSWER: u64 = 256;
/// Tokens a second of one answer that are taken to be thought or written while nothing is seen. Few providers are faster;
/// a bill is better served by too many than by too few.
const UNSEEN_PER_SECOND: u64 = 500;

/// Answers that are made, and billed: each prompt of a completion has as many as were asked for.
pub fn answers(facts: &Facts) -> u64 {
    u64::from(facts.choices.max(facts.best_of).max(1)).saturating_mul(u64::from(facts.prompts()))
}

/// How long a try is: tokens of all its prompts, and of each of its answers.
struct Length {
    prompt: u64,
    usual: u64,
    most: u64,
}

impl Length {
    fn of(facts: &Facts, target: &TargetConfig, learned: Learned) -> Self {
        let prompt = learned.prompt(u64::from(facts.prompt_tokens));
        if facts.kind == CallKind::Embeddings {
            let (usual, most) = (0, 0);
            return Self { prompt, usual, most };
        }
        let given = target.max_output.map(u64::from);
        let most = match (facts.max_output.map(u64::from), given) {
            (Some(asked), Some(given)) => asked.min(given),
            (asked, given) => asked.or(given).unwrap_or(LONG_ANSWER),
        };
        // Each of several prompts has the context for itself, and how they share their length is not known.
        let taken = if facts.prompts() > 1 { 0 } else { prompt };
        let room = target
            .context
            .map_or(u64::MAX, |c| u64::from(c).saturating_sub(taken));
        let most = most.min(room);
        let usual = learned.answer.map_or(USUAL_ANSWER, u64::from).min(most);
        Self { prompt, usual, most }
    }
}

/// Tokens as this target usually counts and answers them; money for the longest answer that was asked for, or that it
/// gives. A request that says nothing of its length, at a target whose longest answer is unknown, may cost more: it is
/// settled in full all the same.
pub fn expected(facts: &Facts, target: &TargetConfig, learned: Learned) -> Estimate {
    let Length { prompt, usual, most } = Length::of(facts, target, learned);
    let answers = answers(facts);
    let longest = Usage {
        prompt,
        completion: most.saturating_mul(answers),
        ..Usage::default()
    };
    Estimate {
        tokens: prompt.saturating_add(usual.saturating_mul(answers)),
        money: account::cost_at_most(&target.price, &longest).unwrap_or_default(),
    }
}

/// What of a try nobody has told and nobody has seen, though it may be on the bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// Nothing: its figures are told or counted, or it was never sent, or it was refused.
    Nothing,
    /// What can be written in the time that it ran.
    For(Duration),
    /// All that it may write: nobody tells its provider to stop.
    All,
}

/// The end of a try, as far as its bill hangs on it.
#[derive(Clone, Copy, Debug)]
pub struct Ending<'a> {
    /// The try.
    pub run: &'a Running,
    /// It answers as a stream.
    pub stream: bool,
    /// It runs inside this process: nobody sends a bill.
    pub local: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, when it failed.
    pub error: Option<&'a AttemptError>,
    /// What was told or counted of it.
    pub usage: Option<&'a Usage>,
    /// Now.
    pub now: Time,
}

impl Ending<'_> {
    /// See [`Unseen`].
    pub fn unseen(&self) -> Unseen {
        let whole = self.run.is_whole() || self.run.is_judging();
        if whole || !self.was_sent() {
            return Unseen::Nothing;
        }
        let words = self.run.first_content.is_some() || self.usage.is_some_and(|usage| usage.reasoning > 0);
        let ran = self.now.since(self.run.began);
        if self.stream {
            // What it has said is counted.
            return if words { Unseen::Nothing } else { Unseen::For(ran) };
        }
        match self.error.map(AttemptError::fault) {
            // Its provider has come to an end, though not to an answer.
            Some(Fault::InBand(_) | Fault::BadAnswer) => Unseen::For(ran),
            _ => Unseen::All,
        }
    }

    /// One that we ended was sent, as far as anybody knows.
    fn was_sent(&self) -> bool {
        match self.error {
            Some(error) => error.graded().maybe_billed,
            None => self.outcome != Outcome::Ok && !self.local,
        }
    }
}

/// What a try is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bill {
    /// To whoever's limits it runs under.
    pub used: Estimate,
    /// The same money for the record; absent where nothing was used, or the price is unknown.
    pub cost: Option<NanoUsd>,
}

/// What a try came to: what was told or counted, and what may have been made unseen.
pub fn came_to(
    facts: &Facts,
    target: &TargetConfig,
    learned: Learned,
    usage: Option<&Usage>,
    unseen: Unseen,
) -> Bill {
    let length = Length::of(facts, target, learned);
    let each = match unseen {
        Unseen::Nothing => {
            return bill(usage, usage.and_then(|usage| account::cost(&target.price, usage)));
        }
        Unseen::For(ran) => written_in(ran).min(length.most),
        Unseen::All => length.most,
    };
    let known = usage.copied().unwrap_or(Usage {
        prompt: length.prompt,
        ..Usage::default()
    });
    let made = each.saturating_mul(answers(facts));
    let all = Usage {
        completion: known.completion.max(made),
        ..known
    };
    let mut bill = bill(Some(&all), account::cost_at_most(&target.price, &all));
    // Tokens a minute are held as they usually come, and no guess takes more than that: `max_tokens` may name any number.
    let held = expected(facts, target, learned).tokens;
    bill.used.tokens = bill.used.tokens.min(held).max(known.total());
    bill
}

fn bill(usage: Option<&Usage>, cost: Option<NanoUsd>) -> Bill {
    Bill {
        used: Estimate {
            tokens: usage.map_or(0, Usage::total),
            money: cost.unwrap_or_default(),
        },
        cost,
    }
}

/// Tokens of one answer, rounded up.
fn written_in(time: Duration) -> u64 {
    let tokens = time.as_micros().saturating_mul(u128::from(UNSEEN_PER_SECOND));
    u64::try_from(tokens.div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use routing::plan::Price;
    use routing::units::PricePerToken;

    use super::*;
    use crate::testing;

    fn target(more: &str) -> TargetConfig {
        let plan = testing::plan(&format!(
            "[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n[targets.t]\nprovider = \"p\"\n\
             model = \"m\"\nprice = {{ input = 1.0, output = 4.0 }}\n{more}"
        ));
        plan.targets.into_iter().find(|t| &*t.name == "t").unwrap()
    }
    fn facts(max_output: Option<u32>, choices: u16) -> Facts {
        Facts {
            prompt_tokens: 100,
            max_output,
            choices,
            ..Facts::default()
        }
    }

    #[test]
    fn money_is_for_the_longest_answer_and_tokens_for_the_usual_one() {
        let known = Learned {
            answer: Some(50),
            ..Learned::default()
        };
        let of = |max, choices, more: &str| expected(&facts(max, choices), &target(more), known);
        assert_eq!(of(Some(1_000), 1, "").money, NanoUsd(100_000 + 4_000_000));
        assert_eq!(of(Some(1_000), 1, "").tokens, 150);
        assert_eq!(of(Some(20), 1, "").tokens, 120, "no more than was asked for");
        // Many choices, an absurd wish, no wish at all: none of them is a way past.
        assert_eq!(of(Some(1_000), 8, "").money, NanoUsd(100_000 + 8 * 4_000_000));
        let best_of = Facts {
            best_of: 8,
            ..facts(Some(1_000), 1)
        };
        assert_eq!(
            expected(&best_of, &target(""), known).money,
            NanoUsd(100_000 + 8 * 4_000_000)
        );
        assert_eq!(
            of(Some(u32::MAX), 1, "max_output = 500").money,
            NanoUsd(100_000 + 2_000_000)
        );
        assert_eq!(
            of(None, 1, "max_output = 500").money,
            NanoUsd(100_000 + 2_000_000)
        );
        assert_eq!(of(None, 1, "").money, NanoUsd(100_000 + 4 * 4_096_000));
        assert_eq!(of(None, 1, "context = 300").money, NanoUsd(100_000 + 800_000));
        assert_eq!(
            expected(&facts(None, 1), &target("max_output = 500"), Learned::default()).tokens,
            356
        );
    }

    #[test]
    fn each_prompt_of_a_completion_has_its_answers() {
        let completion = |turns, choices, best_of| Facts {
            kind: CallKind::Completion,
            turns,
            best_of,
            ..facts(Some(10), choices)
        };
        let known = Learned {
            answer: Some(5),
            ..Learned::default()
        };
        let of = |facts: &Facts, more: &str| expected(facts, &target(more), known);
        // Three prompts, two answers to each.
        let held = of(&completion(3, 2, 0), "");
        assert_eq!(held.money, NanoUsd(100_000 + 6 * 40_000));
        assert_eq!(held.tokens, 100 + 6 * 5);
        assert_eq!(of(&completion(3, 2, 4), "").money, NanoUsd(100_000 + 12 * 40_000));
        // Together they are as long as a context; each of them has one.
        assert_eq!(
            of(&completion(3, 1, 0), "context = 100").money,
            NanoUsd(100_000 + 3 * 40_000)
        );
        // Turns of a conversation are one prompt.
        let chat = Facts {
            turns: 3,
            ..facts(Some(10), 1)
        };
        assert_eq!(of(&chat, "").money, NanoUsd(100_000 + 40_000));
    }

    #[test]
    fn what_may_be_thought_is_held_for_at_the_dearer_price() {
        let mut target = target("");
        target.price = match target.price {
            Price::PerToken {
                input,
                output,
                cached_input,
                ..
            } => Price::PerToken {
                input,
                output,
                cached_input,
                reasoning: PricePerToken::from_usd_per_million(9.0),
            },
            other => other,
        };
        let held = expected(&facts(Some(10), 1), &target, Learned::default());
        assert_eq!(held.money, NanoUsd(100_000 + 90_000));
        let lost = came_to(
            &facts(Some(10), 1),
            &target,
            Learned::default(),
            None,
            Unseen::All,
        );
        assert_eq!(lost.used.money, held.money);
    }

    #[test]
    fn what_was_sent_and_lost_is_charged_as_far_as_it_may_have_gone() {
        let facts = Facts {
            max_output: Some(1_000),
            ..facts(None, 2)
        };
        let target = target("");
        let of = |usage: Option<&Usage>, unseen| came_to(&facts, &target, Learned::default(), usage, unseen);
        // Of tokens a minute no more than was held, which is two usual answers.
        let most = 100 + 2 * USUAL_ANSWER;
        let charged = |prompt: u64, completion: u64| Bill {
            used: Estimate {
                tokens: (prompt + completion).min(most),
                money: NanoUsd(prompt * 1_000 + completion * 4_000),
            },
            cost: Some(NanoUsd(prompt * 1_000 + completion * 4_000)),
        };
        // Each of the two answers as long as it may be: what was held for it.
        assert_eq!(of(None, Unseen::All), charged(100, 2_000));
        let held = expected(&facts, &target, Learned::default()).money;
        assert_eq!(of(None, Unseen::All).used.money, held);
        assert_eq!(
            of(None, Unseen::For(Duration::from_millis(800))),
            charged(100, 800)
        );
        assert_eq!(
            of(None, Unseen::For(Duration::from_secs(60))),
            charged(100, 2_000),
            "no more than was held"
        );
        assert_eq!(of(None, Unseen::For(Duration::ZERO)), charged(100, 0));
        // What was told or counted is never charged for less.
        let told = Usage {
            prompt: 120,
            completion: 900,
            ..Usage::default()
        };
        let mut in_full = charged(120, 900);
        in_full.used.tokens = 1_020;
        assert_eq!(of(Some(&told), Unseen::For(Duration::from_millis(800))), in_full);
        assert_eq!(of(Some(&told), Unseen::Nothing), in_full);
        // Never sent, or refused.
        let nothing = Bill {
            used: Estimate::default(),
            cost: None,
        };
        assert_eq!(of(None, Unseen::Nothing), nothing);
    }
}
