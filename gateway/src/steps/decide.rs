//! Step 10, `decide`: who is asked first, and why. Dear facts are found out only when the decision asks for them.
//!
//! It stands behind every limit, so that nobody is classified who will not be served (but by a semantic look in step 7, whose
//! reading it then uses). It must never call a target.

use std::sync::Arc;
use std::time::Duration;

use routing::decide::{Decision, Query, Recorder, Step};
use routing::facts::Facts;
use routing::plan::Plan;
use routing::resolve::{Policy, WaitFor};
use routing::signals::Signals;
use routing::units::Time;

use crate::classify::{Classifier, Looking};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::refusal;

/// More questions than there are dear facts are a loop.
const MAX_QUESTIONS: usize = 8;

/// What a decision is made from.
pub struct Asked<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Of step 5.
    pub policy: &'a Policy,
    /// Taken once.
    pub signals: &'a Signals,
    /// To the commit.
    pub deadline: Time,
    /// For the choice among equals.
    pub seed: u64,
    /// The call's text, for the classifier.
    pub looking: Looking<'a>,
}

/// What came of it.
pub struct Decided {
    /// The choice, or why there is none: see [`refusal::of_decide`].
    pub decision: Result<Box<Decision>>,
    /// Time spent on dear facts.
    pub classified: Duration,
    /// Versions of the heads that were asked.
    pub heads: Vec<Arc<str>>,
}

/// Decides; `facts` grows by the dear facts that were asked for.
pub async fn decide(
    asked: Asked<'_>,
    facts: &mut Facts,
    classifier: &Classifier,
    clock: &Clock,
    recorder: &mut (dyn Recorder + Send),
) -> Decided {
    let Asked {
        plan,
        policy,
        signals,
        deadline,
        seed,
        looking,
    } = asked;
    let (mut classified, mut heads) = (Duration::ZERO, Vec::new());
    for _ in 0..MAX_QUESTIONS {
        let step = routing::decide::decide(
            &Query {
                plan,
                policy,
                facts,
                signals,
                deadline,
                seed,
            },
            recorder,
        );
        let decision = match step {
            Step::Decided(decision) => Ok(decision),
            Step::Refused(no_way) => Err(refusal::of_decide(&no_way)),
            Step::Need { fact, wait } => {
                let from = clock.now();
                let until = match wait {
                    WaitFor::Classify => (from + plan.classify.max).min(deadline),
                    WaitFor::Deadline => deadline,
                };
                heads.extend(classifier.find(fact, looking, facts, clock, until).await);
                classified += clock.now().since(from);
                continue;
            }
        };
        return Decided {
            decision,
            classified,
            heads,
        };
    }
    let looped = Error::new(
        Kind::Bug,
        "the decision asks for the same fact again and again; please report this",
    );
    Decided {
        decision: Err(looped),
        classified,
        heads,
    }
}

/// The decision in one line, for `x-weir-decision`.
pub fn compact(
    plan: &Plan,
    policy: &Policy,
    facts: &Facts,
    signals: &Signals,
    deadline: Time,
    decision: &Decision,
) -> String {
    routing::explain::compact(
        &Query {
            plan,
            policy,
            facts,
            signals,
            deadline,
            seed: decision.seed,
        },
        decision,
    )
}
