//! Who can serve this request at all.

use smallvec::SmallVec;

use super::types::{Excluded, NoWay, Query, Rung, Why};
use crate::facts::{CallKind, Needs};
use crate::ids::TargetId;
use crate::plan::{DegradeStep, Price, TargetConfig};
use crate::predict;
use crate::resolve::Policy;
use crate::signals::{TargetSignal, Usable};

/// The policy's targets, parted.
pub(super) struct Sifted {
    pub rungs: SmallVec<[Rung; 6]>,
    pub excluded: SmallVec<[Excluded; 4]>,
    pub outside: SmallVec<[Rung; 2]>,
}

pub(super) fn sift(q: &Query<'_>, policy: &Policy) -> Sifted {
    let mut sifted = Sifted {
        rungs: SmallVec::new(),
        excluded: SmallVec::new(),
        outside: SmallVec::new(),
    };
    for (tier, targets) in policy.tiers.iter().enumerate() {
        let tier = u8::try_from(tier).unwrap_or(u8::MAX);
        for &target in targets {
            let floor = (tier < policy.floor_tier).then_some(Why::BelowFloor {
                floor: policy.floor_tier,
            });
            match sift_one(q, policy, target, floor) {
                Ok(signal) => sifted.rungs.push(rung(q, policy, target, tier, signal)),
                Err(why) => sifted.excluded.push(Excluded { target, tier, why }),
            }
        }
    }
    if policy.degrade.contains(&DegradeStep::Local) {
        outside(q, policy, &mut sifted.outside);
    }
    sifted
}

/// Local targets that the tiers do not name. A rule's own tiers are meant: nothing outside them then.
fn outside(q: &Query<'_>, policy: &Policy, found: &mut SmallVec<[Rung; 2]>) {
    if policy.floor_tier > 0 || q.facts.kind == CallKind::Embeddings {
        return;
    }
    let beyond = policy.last_tier().saturating_add(1);
    for (i, config) in q.plan.targets.iter().enumerate() {
        let Ok(i) = u16::try_from(i) else { break };
        let target = TargetId(i);
        if !config.is_local() || policy.tier_of(target).is_some() {
            continue;
        }
        if let Ok(signal) = sift_one(q, policy, target, None) {
            found.push(rung(q, policy, target, beyond, signal));
        }
    }
}

fn rung(q: &Query<'_>, policy: &Policy, target: TargetId, tier: u8, signal: &TargetSignal) -> Rung {
    let config = q.plan.target(target);
    Rung {
        target,
        tier,
        usable: signal.usable.clone(),
        ability: predict::calibrated(signal.ability),
        p_good: None,
        cost: predict::expected_cost(config.price, q.facts),
        value: 0.0,
        added: predict::expected_added(config, signal, q.facts, policy.hold_back),
        not_first: None,
    }
}

static UNMEASURED: TargetSignal = TargetSignal {
    usable: Usable::Yes,
    in_flight: 0,
    latency_us: 0,
    silent_us: 0,
    slow_start: None,
    predicted_wait_us: None,
    us_per_token: None,
    ability: None,
};

/// A target's signal; a target that the state does not know yet reads as usable and unmeasured.
pub(super) fn signal<'a>(q: &Query<'a>, target: TargetId) -> &'a TargetSignal {
    q.signals.targets.get(target.index()).unwrap_or(&UNMEASURED)
}

fn sift_one<'a>(
    q: &Query<'a>,
    policy: &Policy,
    target: TargetId,
    floor: Option<Why>,
) -> Result<&'a TargetSignal, Why> {
    let config = q.plan.target(target);
    let signal = signal(q, target);
    if let Usable::Off { why } = &signal.usable {
        return Err(Why::Off { reason: why.clone() });
    }
    if !config.serves.contains(&q.facts.kind) {
        return Err(Why::DoesNotServe { kind: q.facts.kind });
    }
    let lacks = q.facts.needs.without(config.capabilities);
    if !lacks.is_empty() {
        return Err(Why::Lacks { needs: lacks });
    }
    length(q, config)?;
    if let Some(floor) = floor {
        return Err(floor);
    }
    let other_price = q.facts.service_tier
        && matches!(config.price, Price::PerToken { .. })
        && !config.params.drop.iter().any(|name| &**name == "service_tier");
    if (config.price == Price::Unknown || other_price)
        && (q.facts.key_has_budget
            || q.plan
                .counts_money(target, &q.facts.tenant, q.facts.key.as_deref(), policy.route))
    {
        return Err(Why::PriceUnknown);
    }
    let left = q.deadline.since(q.signals.now);
    match signal.predicted_wait_us.filter(|_| config.is_local()) {
        Some(wait) if u128::from(wait) > left.as_micros() => Err(Why::Wait {
            wait_ms: wait / 1_000,
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        }),
        _ => Ok(signal),
    }
}

fn length(q: &Query<'_>, config: &TargetConfig) -> Result<(), Why> {
    let asked = asked(q);
    // Who embeds in this process counts each text exactly and refuses with its number: no rough figure goes before that.
    let counted = config.is_local() && q.facts.kind == CallKind::Embeddings;
    match config.context.filter(|_| !counted) {
        Some(has) if asked > has => return Err(Why::Context { asked, has }),
        _ => {}
    }
    match (config.max_output, q.facts.max_output) {
        (Some(has), Some(asked)) if asked > has => Err(Why::MaxOutput { asked, has }),
        _ => Ok(()),
    }
}

/// What has to fit at once, in tokens: the prompt and the answer asked for (at least one token of it), or one text of those
/// that are to be embedded.
fn asked(q: &Query<'_>) -> u32 {
    let facts = q.facts;
    match facts.kind {
        // Each text has the context for itself. The longest is no shorter than their average: a list that is refused for
        // that has a text that cannot fit, and one that hides such a text is refused by who counts it.
        CallKind::Embeddings => facts.prompt_tokens.div_ceil(facts.turns.max(1)),
        CallKind::Chat | CallKind::Completion => facts
            .prompt_tokens
            .saturating_add(facts.max_output.unwrap_or(1).max(1)),
    }
}

/// Nobody can: the reason that is nearest to being mended by the caller.
pub(super) fn no_way(kind: CallKind, excluded: &[Excluded]) -> NoWay {
    let mut most = None;
    let mut output = None;
    let mut lacks: Option<Needs> = None;
    let (mut serves, mut busy, mut price, mut off, mut below) = (None, None, false, None, None);
    for e in excluded {
        match &e.why {
            Why::Context { asked, has } => {
                most = Some((*asked, most.map_or(*has, |(_, m): (u32, u32)| m.max(*has))));
            }
            Why::MaxOutput { asked, has } => {
                output = Some((*asked, output.map_or(*has, |(_, m): (u32, u32)| m.max(*has))));
            }
            Why::Lacks { needs } => {
                let fewer = lacks.is_none_or(|l| needs.0.count_ones() < l.0.count_ones());
                lacks = if fewer { Some(*needs) } else { lacks };
            }
            Why::DoesNotServe { kind } => serves = Some(*kind),
            Why::Wait { wait_ms, .. } => busy = Some(busy.map_or(*wait_ms, |b: u64| b.min(*wait_ms))),
            Why::PriceUnknown => price = true,
            Why::Off { reason } => off = off.or(Some(reason.clone())),
            Why::BelowFloor { floor } => below = Some(*floor),
            Why::OtherSpace => {}
        }
    }
    if let Some(wait_ms) = busy {
        NoWay::Busy { wait_ms }
    } else if let Some((asked, most)) = most {
        NoWay::ContextLength { kind, asked, most }
    } else if let Some((asked, most)) = output {
        NoWay::MaxOutput { asked, most }
    } else if let Some(needs) = lacks {
        NoWay::Lacks { needs }
    } else if price {
        NoWay::PriceUnknown
    } else if let Some(kind) = serves {
        NoWay::DoesNotServe(kind)
    } else if let Some(floor) = below {
        NoWay::MinTier { floor, why: off }
    } else {
        NoWay::AllOff {
            why: off.unwrap_or_else(|| "none of its targets can be used".into()),
        }
    }
}
