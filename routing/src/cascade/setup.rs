//! What the machine is given at the start: the part of the decision that it acts on, copied, so that it outlives both
//! plan and query.

use std::time::Duration;

use smallvec::SmallVec;

use super::types::{DegradeReason, Degraded};
use crate::balance::{self, Candidate, mix};
use crate::decide::{Decision, Query, Rung, candidate};
use crate::facts::{CallKind, Needs};
use crate::ids::TargetId;
use crate::plan::{ContentFilter, ContinueWith, DegradeStep, HoldBack, OnFail, Retry, Start};
use crate::predict::Belief;
use crate::signals::Usable;
use crate::units::{NanoUsd, Time};

/// Everything that the machine knows. Plain values.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The answer is a stream.
    pub stream: bool,
    /// The request has effects upstream: never sent twice.
    pub effects: bool,
    /// The name was a promise: no other model, whatever the target says.
    pub pinned: bool,
    /// To the commit (streams), to the end (whole answers).
    pub deadline: Time,
    /// `[retry]`.
    pub retry: Retry,
    /// There are checks.
    pub verify: bool,
    /// When the best answer did not pass.
    pub on_fail: OnFail,
    /// How much a stream holds back while it may still be replaced.
    pub hold_back: HoldBack,
    /// And for how long.
    pub hold_back_max: Duration,
    /// What a tier may take while a stronger one is callable; only with `start = "predicted"`.
    pub max_added: Option<Duration>,
    /// A provider's filter.
    pub content_filter: ContentFilter,
    /// The ladder.
    pub degrade: SmallVec<[DegradeStep; 4]>,
    /// Least P(good) of a degraded answer.
    pub degrade_floor: f32,
    /// A stale answer lies ready (the step `cache` saw it). `false` while there is no cache.
    pub stale: bool,
    /// The targets.
    pub slots: SmallVec<[Slot; 6]>,
    /// The first try.
    pub start: Option<TargetId>,
    /// Starting or ending lower than this tier is degraded.
    pub wanted_tier: u8,
    /// What decision time already knew about degradation.
    pub degraded: Option<Degraded>,
    /// Belief about the difficulty; `None`: tiers follow in order.
    pub difficulty: Option<Belief>,
    /// Price of a dollar in P(good); only with `difficulty`.
    pub lambda: f64,
    /// For jitter.
    pub seed: u64,
    /// Who may go on with a stream that broke after the commit; [`ContinueWith::Never`] also where nobody can: several
    /// choices, log-probabilities (their tokens would have to be joined too), effects upstream.
    pub continue_with: ContinueWith,
    /// The same request gives the same answer (temperature 0, or a seed).
    pub deterministic: bool,
    /// Bounds everything, streams after their commit included: an explicit deadline of the caller's. Set by who knows it.
    pub until: Time,
}

/// One target that the cascade may use.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Which.
    pub target: TargetId,
    /// Its tier; `u8::MAX` for local targets outside the tiers.
    pub tier: u8,
    /// Not before this.
    pub callable_at: Time,
    /// Why not before.
    pub held: Option<DegradeReason>,
    /// Ability, where measured.
    pub ability: Option<Belief>,
    /// P(good) at decision time; uncalibrated: `None`.
    pub p_good: Option<f32>,
    /// Expected cost.
    pub cost: Option<NanoUsd>,
    /// Context length, where known.
    pub context: Option<u32>,
    /// First content's clock.
    pub first_token: Duration,
    /// The try's clock.
    pub attempt: Duration,
    /// It goes on from a text that it is given as its own.
    pub prefill: bool,
    /// After its stream broke: to the first new content.
    pub continue_within: Duration,
    /// A try that has no content by then is slow for this target, and may be hedged. Set by who knows it; `None`: never.
    pub hedge_after: Option<Duration>,
}

impl Setup {
    /// From a decision. Borrows nothing.
    pub fn of(q: &Query<'_>, decision: &Decision) -> Self {
        let policy = &decision.policy;
        let predicted = policy.start == Start::Predicted && decision.difficulty.is_some();
        let mut slots: SmallVec<[Slot; 6]> = decision.ladder.iter().map(|r| Slot::of(q, r, r.tier)).collect();
        balanced(q, &mut slots, decision.seed);
        slots.extend(decision.outside.iter().map(|r| Slot::of(q, r, u8::MAX)));
        Self {
            stream: q.facts.stream,
            effects: q.facts.needs.contains(Needs::EFFECTS),
            pinned: policy.pinned,
            deadline: q.deadline,
            retry: q.plan.retry.clone(),
            // Vectors cannot be judged, and never change model.
            verify: !policy.verify.is_empty() && q.facts.kind != CallKind::Embeddings,
            on_fail: policy.on_fail,
            hold_back: policy.hold_back,
            hold_back_max: policy.hold_back_max,
            max_added: (policy.start == Start::Predicted).then_some(policy.max_added),
            content_filter: policy.content_filter,
            degrade: policy.degrade.iter().copied().collect(),
            degrade_floor: policy.degrade_floor,
            stale: false,
            slots,
            start: decision.start,
            wanted_tier: decision.wanted_tier,
            degraded: decision.degraded,
            difficulty: decision.difficulty.filter(|_| predicted).map(|d| d.belief),
            lambda: decision.lambda,
            seed: decision.seed,
            continue_with: continue_with(q, policy.continue_with),
            deterministic: q.facts.deterministic,
            until: Time::NEVER,
        }
    }

    /// The client has sent this before: its own tries are the repeats, and ours on top would multiply them. Each target is
    /// tried once.
    pub fn is_sent_again(&mut self) {
        self.retry.same_target = 0;
    }
}

fn continue_with(q: &Query<'_>, asked: ContinueWith) -> ContinueWith {
    let needs = q.facts.needs;
    let one = q.facts.choices <= 1 && q.facts.kind != CallKind::Embeddings;
    let can = one && !needs.contains(Needs::EFFECTS) && !needs.contains(Needs::LOGPROBS);
    if can { asked } else { ContinueWith::Never }
}

/// Inside a tier the slots stand in the order in which balancing would ask them, so that what one target loses does not
/// all fall on the next one in the file.
fn balanced(q: &Query<'_>, slots: &mut [Slot], seed: u64) {
    for tier in slots.chunk_by_mut(|a, b| a.tier == b.tier) {
        if tier.len() < 2 {
            continue;
        }
        let candidates: SmallVec<[Candidate; 6]> = tier.iter().map(|s| candidate(q, s.target)).collect();
        let order = balance::order(&candidates, mix(seed ^ u64::from(tier[0].tier)));
        tier.sort_by_key(|slot| order.iter().position(|&t| t == slot.target));
    }
}

impl Slot {
    fn of(q: &Query<'_>, rung: &Rung, tier: u8) -> Self {
        let target = q.plan.target(rung.target);
        let (callable_at, held) = callable(&rung.usable, q.signals.now);
        Self {
            target: rung.target,
            tier,
            callable_at,
            held,
            ability: rung.ability,
            p_good: rung.p_good,
            cost: rung.cost,
            context: target.context,
            first_token: target.timeouts.first_token,
            attempt: target.timeouts.attempt,
            // A bare prompt is gone on from by its nature, and the conversation of a model in this process by our template.
            prefill: target.is_local()
                || q.facts.kind == CallKind::Completion
                || target.capabilities.contains(Needs::PREFILL),
            continue_within: target.timeouts.continue_within,
            hedge_after: None,
        }
    }
}

/// When a target may be called, and why not before. Without a known time: not within this request.
pub fn callable(usable: &Usable, now: Time) -> (Time, Option<DegradeReason>) {
    match usable {
        Usable::Yes => (now, None),
        Usable::Off { .. } => (Time::NEVER, None),
        Usable::Starting { .. } => (Time::NEVER, Some(DegradeReason::Starting)),
        Usable::Held { until, .. } => (*until, Some(DegradeReason::Held)),
        Usable::Open { until } => (*until, Some(DegradeReason::Open)),
        Usable::Full { until } => (until.unwrap_or(Time::NEVER), Some(DegradeReason::Full)),
    }
}
