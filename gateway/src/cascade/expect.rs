//! What a try may come to, before it starts: tokens as they usually are, money at most; and what it did come to.

use routing::facts::{CallKind, Facts};
use routing::plan::{Price, TargetConfig};
use routing::units::NanoUsd;

use super::account;
use crate::limits::Estimate;
use crate::providers::event::Usage;
use crate::target_state::Learned;

/// The longest answer of a target that nobody has said anything about.
const LONG_ANSWER: u64 = 4_096;
/// A usual answer of a target that has not answered yet.
const USUAL_ANSWER: u64 = 256;

/// Tokens as this target usually counts and answers them; money for the longest answer that was asked for, or that it
/// gives. A request that says nothing of its length, at a target whose longest answer is unknown, may cost more: it is
/// settled in full all the same.
pub fn expected(facts: &Facts, target: &TargetConfig, learned: Learned) -> Estimate {
    let prompt = learned.prompt(u64::from(facts.prompt_tokens));
    let choices = u64::from(facts.choices.max(facts.best_of).max(1));
    let (usual, most) = match facts.kind {
        CallKind::Embeddings => (0, 0),
        CallKind::Chat | CallKind::Completion => {
            let given = target.max_output.map(u64::from);
            let most = match (facts.max_output.map(u64::from), given) {
                (Some(asked), Some(given)) => asked.min(given),
                (asked, given) => asked.or(given).unwrap_or(LONG_ANSWER),
            };
            let room = target
                .context
                .map_or(u64::MAX, |c| u64::from(c).saturating_sub(prompt));
            let most = most.min(room);
            (learned.answer.map_or(USUAL_ANSWER, u64::from).min(most), most)
        }
    };
    Estimate {
        tokens: prompt.saturating_add(usual.saturating_mul(choices)),
        money: price(target, prompt, most.saturating_mul(choices)),
    }
}

/// What a try came to. One that was sent and never answered may be billed for its prompt: it counts.
pub fn came_to(facts: &Facts, target: &TargetConfig, usage: Option<&Usage>, maybe_billed: bool) -> Estimate {
    match usage {
        Some(usage) => Estimate {
            tokens: usage.prompt.saturating_add(usage.completion),
            money: account::cost(&target.price, usage).unwrap_or_default(),
        },
        None if maybe_billed => Estimate {
            tokens: u64::from(facts.prompt_tokens),
            money: price(target, u64::from(facts.prompt_tokens), 0),
        },
        None => Estimate::default(),
    }
}

fn price(target: &TargetConfig, input: u64, output: u64) -> NanoUsd {
    match &target.price {
        Price::PerToken {
            input: i, output: o, ..
        } => NanoUsd::of_tokens(input, *i).saturating_add(NanoUsd::of_tokens(output, *o)),
        Price::Unknown | Price::Unmetered => NanoUsd(0),
    }
}

#[cfg(test)]
mod tests {
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
    fn what_was_sent_and_lost_counts_its_prompt() {
        let lost = came_to(&facts(None, 1), &target(""), None, true);
        assert_eq!((lost.tokens, lost.money), (100, NanoUsd(100_000)));
        assert_eq!(
            came_to(&facts(None, 1), &target(""), None, false),
            Estimate::default()
        );
    }
}
