//! The question, the decision, and every reason in it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use smallvec::SmallVec;

use crate::cascade::{DegradeReason, Degraded};
use crate::facts::{CallKind, DearFact, Facts, Needs, Source};
use crate::ids::TargetId;
use crate::plan::Plan;
use crate::predict::Belief;
use crate::resolve::{Policy, ResolveError, WaitFor};
use crate::signals::{Signals, Usable};
use crate::units::{NanoUsd, Time};

/// All that a decision looks at.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What [`crate::resolve::resolve`] made of names and cheap rules.
    pub policy: &'a Policy,
    /// What is known of the request; grows when [`Step::Need`] is answered.
    pub facts: &'a Facts,
    /// What is known of the targets, now.
    pub signals: &'a Signals,
    /// The request's deadline.
    pub deadline: Time,
    /// Randomness for the choice among equals; recorded, so that a replay chooses the same.
    pub seed: u64,
}

/// What comes of a question.
#[derive(Clone, Debug)]
pub enum Step {
    /// The choice, with every reason.
    Decided(Box<Decision>),
    /// Find this out, put it into the facts (also when it failed: with [`Source::Failed`]), and ask again.
    Need {
        /// What.
        fact: DearFact,
        /// How long it is worth waiting for.
        wait: WaitFor,
    },
    /// No target can serve this request.
    Refused(NoWay),
}

/// Why no target can serve a request.
#[derive(Clone, Debug, PartialEq)]
pub enum NoWay {
    /// A rule denies, refuses a pin, or the tier asked for is not there.
    Rule(ResolveError),
    /// 400: no target of the policy can do this.
    Lacks {
        /// What is missing at the target that comes closest.
        needs: Needs,
    },
    /// 400, `context_length_exceeded`: longer than the largest context.
    ContextLength {
        /// The endpoint: which field is too long.
        kind: CallKind,
        /// Prompt and answer asked for, or one text to embed, in tokens (estimated).
        asked: u32,
        /// The largest context there is.
        most: u32,
    },
    /// 400: `max_tokens` is above every target's own limit.
    MaxOutput {
        /// What was asked for.
        asked: u32,
        /// The most that a target can.
        most: u32,
    },
    /// 404 or 400: no target of the policy serves this endpoint.
    DoesNotServe(CallKind),
    /// 503, `price_unknown`: a money limit applies, and no target that is left has a known price.
    PriceUnknown,
    /// 503, `local_queue_full`: the local models' queues are longer than the time left.
    Busy {
        /// The shortest predicted wait, in milliseconds: a true `retry-after`.
        wait_ms: u64,
    },
    /// 503, `min_tier_not_available`: every target at or above the least tier allowed is off; one below it could serve.
    MinTier {
        /// That tier.
        floor: u8,
        /// The first target's reason, for people; absent where no target stands so high.
        why: Option<Arc<str>>,
    },
    /// 503: every target is off.
    AllOff {
        /// The first target's reason, for people.
        why: Arc<str>,
    },
}

/// The choice for one request.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The policy with no rule left undecided.
    pub policy: Policy,
    /// Everything that may serve this request now or within it, by tier and then by value: the cascade's own list.
    pub ladder: SmallVec<[Rung; 6]>,
    /// Everything else in the policy's tiers.
    pub excluded: SmallVec<[Excluded; 4]>,
    /// Local targets outside the tiers that could serve; only where the ladder `degrade` has `local`.
    pub outside: SmallVec<[Rung; 2]>,
    /// Where the first try goes. `None`: nothing may start now (the cascade waits, or goes down its ladder).
    pub start: Option<TargetId>,
    /// The tier that would start with everything healthy; starting lower is degraded.
    pub wanted_tier: u8,
    /// Next best start: in another tier where there is one.
    pub runner_up: Option<TargetId>,
    /// Difficulty that the choice went by; absent where nothing was predicted.
    pub difficulty: Option<Difficulty>,
    /// What a dollar is worth in P(good), from the objective; 0 where tiers are ranked by order instead of price.
    pub lambda: f64,
    /// Reasons, in order.
    pub reasons: SmallVec<[Reason; 8]>,
    /// Probability with which this start was chosen among equals (1 where nothing was drawn).
    pub propensity: f32,
    /// The seed of that draw.
    pub seed: u64,
    /// The start is less than what would have been chosen with everything healthy.
    pub degraded: Option<Degraded>,
    /// When the first of the held or full targets may be called, where none can be called now.
    pub retry_at: Option<Time>,
}

/// Difficulty and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difficulty {
    /// Mean and standard deviation on the logit scale of abilities.
    pub belief: Belief,
    /// Who said so.
    pub source: Source,
}

/// A target that may serve this request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rung {
    /// Which.
    pub target: TargetId,
    /// Its tier in the refined policy. Targets outside the tiers have the number of tiers.
    pub tier: u8,
    /// May it be called now.
    pub usable: Usable,
    /// Ability, where enough outcomes are known.
    pub ability: Option<Belief>,
    /// P(good) at the difficulty of this request.
    pub p_good: Option<f32>,
    /// Expected cost of one answer; `None`: unknown.
    pub cost: Option<NanoUsd>,
    /// Expected value; larger is better. Only comparable inside one decision.
    pub value: f32,
    /// Expected time until its answer could be released (streams: the hold-back; whole answers: the verdict).
    pub added: Option<Duration>,
    /// Why it may not start, though it could serve.
    pub not_first: Option<NotFirst>,
}

/// Why a target that could serve does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotFirst {
    /// Too few graded outcomes of its own, and a stronger one is usable.
    Uncalibrated,
    /// Expected to take longer than `max_added_ms`, and a stronger one is usable.
    TooSlow,
    /// Below the tier that starts (a rule's `start_tier`, `start = "last"`).
    BelowStart,
    /// `start = "first"`: a lower tier starts.
    AboveStart,
    /// Worth less than the start.
    Value,
    /// As good as the start; the draw chose another.
    Drawn,
    /// Cannot be called now.
    NotUsable,
}

/// A target of the policy that cannot serve this request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Excluded {
    /// Which.
    pub target: TargetId,
    /// Its tier.
    pub tier: u8,
    /// Why.
    pub why: Why,
}

/// Why a target cannot serve a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// Off by the plan or by an operator.
    Off {
        /// For people.
        reason: Arc<str>,
    },
    /// Another endpoint's model.
    DoesNotServe {
        /// The endpoint asked for.
        kind: CallKind,
    },
    /// It cannot do this.
    Lacks {
        /// What it lacks.
        needs: Needs,
    },
    /// Too long for it.
    Context {
        /// Prompt and answer asked for, or one text to embed, in tokens.
        asked: u32,
        /// What it holds.
        has: u32,
    },
    /// The answer asked for is longer than it may give.
    MaxOutput {
        /// Asked for.
        asked: u32,
        /// Its limit.
        has: u32,
    },
    /// Below `min_tier`, `x-weir-min-tier` or a rule's floor.
    BelowFloor {
        /// The floor.
        floor: u8,
    },
    /// Its price is unknown, and a money limit applies.
    PriceUnknown,
    /// Its queue is longer than the time left.
    Wait {
        /// Predicted wait until its first token, in milliseconds.
        wait_ms: u64,
        /// Time left, in milliseconds.
        left_ms: u64,
    },
    /// Another embedding space than the first choice's: vectors would not be alike.
    OtherSpace,
}

/// One reason of a decision, in the order in which it was met.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// The name is a promise: that model or an error.
    Pinned,
    /// A rule matched.
    Rule {
        /// Its index in the plan.
        rule: u16,
    },
    /// `start = "first"`.
    StartFirst,
    /// `start = "last"`.
    StartLast,
    /// A rule's `start_tier`.
    StartTier {
        /// That tier.
        tier: u8,
    },
    /// Only one tier could serve.
    OnlyTier {
        /// That tier.
        tier: u8,
    },
    /// The cheap looks settled it: within their uncertainty the start is the same, so the encoder was not asked.
    CheapLooks {
        /// Lower end of the band of difficulty.
        low: f32,
        /// Upper end.
        high: f32,
    },
    /// The encoder was not worth its cost: the tiers' prices differ by less.
    GapTooSmall,
    /// The encoder is absent, or its wait and run would exceed `classify.max_ms`.
    EncoderTooSlow,
    /// The encoder failed: the careful side.
    ClassifierFailed,
    /// Some targets are not measured: careful.
    Uncalibrated {
        /// How many.
        targets: u8,
    },
    /// Some targets would take longer than `max_added_ms`.
    TooSlow {
        /// How many.
        targets: u8,
    },
    /// The best expected value.
    BestValue,
    /// The objective cannot be met: the best there is.
    ObjectiveUnreachable,
    /// What would have been chosen cannot be called now.
    WantedNotUsable {
        /// The tier that was wanted.
        tier: u8,
        /// Why it cannot.
        because: DegradeReason,
    },
    /// Drawn among the targets of the tier.
    Balanced {
        /// Among how many.
        among: u8,
    },
}

/// Hears what a decision looks at, while it is being made. `explain` listens; serving does not.
pub trait Recorder {
    /// A reason, as it is met.
    fn reason(&mut self, _reason: &Reason) {}
    /// A target that cannot serve.
    fn excluded(&mut self, _excluded: &Excluded) {}
    /// A target that could, with its scores.
    fn rung(&mut self, _rung: &Rung) {}
}

/// Does not listen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;
impl Recorder for Silent {}
