//! What each step writes into the open record.

use std::time::Duration;

use routing::cascade::StartKind;
use routing::decide::Decision;
use routing::facts::Facts;
use routing::plan::Plan;
use routing::resolve::Policy;
use routing::signals::Signals;

use crate::call::Call;
use crate::cascade::Account;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::limits::Over;
use crate::steps::auth::Principal;
use crate::steps::cache::{Served, Sighting};
use crate::steps::intake;
use crate::telemetry::record::{Eligible, Record, Who, ppm};

/// Bytes of a model's name that are kept.
const MAX_MODEL: usize = 128;

/// Step 1: our headers.
pub fn asked(record: &mut Record, asked: &intake::Asked) {
    record.trace.clone_from(&asked.trace);
    record.idempotent = asked.idempotency_key.is_some();
}

/// Step 3: who asks, as long as the facts do not say it.
pub fn who(record: &mut Record, principal: &Principal) {
    record.who = Some(Who {
        tenant: principal.tenant.clone(),
        key: principal.key.clone(),
    });
}

/// Step 4: the call.
pub fn call(record: &mut Record, call: &Call) {
    record.kind = Some(call.kind);
    let cut = call.model.floor_char_boundary(MAX_MODEL);
    record.model = call.model.get(..cut).unwrap_or_default().into();
}

/// Step 5: the policy as far as cheap facts reach.
pub fn policy(record: &mut Record, plan: &Plan, policy: &Policy) {
    record.route = policy
        .route
        .and_then(|id| plan.routes.get(id.index()))
        .map(|r| r.name.clone());
    record.pinned = policy.pinned;
    record.policy = Some(policy.fingerprint);
    record.rule = policy
        .rule
        .and_then(|i| plan.rules.get(usize::from(i)))
        .map(|r| r.name.clone());
    record.rule_tags.clone_from(&policy.tags);
}

/// Facts, dear ones included.
pub fn facts(record: &mut Record, facts: Facts) {
    record.who = None;
    record.facts = Some(facts);
}

/// Step 10: the choice, with what it was made from.
pub fn decision(record: &mut Record, plan: &Plan, decision: &Decision, signals: &Signals) {
    policy(record, plan, &decision.policy);
    let name = |id: routing::ids::TargetId| {
        plan.targets
            .get(id.index())
            .map(|t| t.name.clone())
            .unwrap_or_default()
    };
    record.eligible = decision
        .ladder
        .iter()
        .map(|rung| Eligible {
            target: name(rung.target),
            tier: rung.tier,
            p_good_ppm: rung.p_good.map(|p| ppm(f64::from(p))),
            score: rung
                .value
                .is_finite()
                .then(|| (f64::from(rung.value) * 1e6).round() as i64),
            signal: signals.targets.get(rung.target.index()).cloned(),
        })
        .collect();
    let why = |why| serde_json::to_string(why).unwrap_or_default().into_boxed_str();
    record.excluded = decision
        .excluded
        .iter()
        .map(|e| (name(e.target), why(&e.why)))
        .collect();
    record.choice = decision.start.map(name);
    record.propensity_ppm = Some(ppm(f64::from(decision.propensity)));
    record.seed = Some(decision.seed);
    record.reasons = decision
        .reasons
        .iter()
        .map(|r| serde_json::to_string(r).unwrap_or_default().into())
        .collect();
}

/// Steps 6 and 8: somebody is over a limit.
pub fn over(ledger: &Ledger, over: &Over) -> Error {
    ledger.handles().over(over.owner.kind(), over.what.key());
    over.error()
}

/// Step 7: nothing was found, and this request leads.
pub fn looked(ledger: &mut Ledger) {
    ledger.record.cache = "miss";
    ledger.handles().looked(ledger.route, "miss");
}

/// Step 7: questions that mean the same were looked for.
///
/// How long the encoder took over it.
pub fn sought(ledger: &mut Ledger, sighting: Option<Sighting>) -> Duration {
    let Some(sighting) = sighting else {
        return Duration::ZERO;
    };
    ledger.waited.classify += sighting.took;
    ledger.record.heads.extend(sighting.heads);
    if let Some(told) = sighting.told {
        ledger
            .handles()
            .sought(ledger.record.route.as_deref(), told.came_to);
        ledger.record.semantic = Some(told);
    }
    sighting.took
}

/// Step 7: an answer that another request paid for.
pub fn served(ledger: &mut Ledger, served: &Served) {
    ledger.record.cache = served.how;
    ledger.handles().looked(ledger.route, served.how);
    ledger.answered = served.head.target.map(routing::ids::TargetId::index);
    let record = &mut ledger.record;
    record.answered = Some(served.target.clone());
    record.tier = Some(served.head.tier);
    record.usage = served.usage;
    record.cost_nano_usd = Some(0);
    record.degraded = served.head.degraded.as_deref().map(Box::from);
}

/// Step 11 and the body: every try, who answered, what it cost. Counts them too.
pub fn account(ledger: &mut Ledger, account: Account) {
    ledger.answered = account.answered;
    let started = ledger.started;
    let handles = ledger.handles().clone();
    for attempt in &account.attempts {
        if let Some(continued) = attempt.continued {
            handles.continuation(continued.way, continued.result);
        }
        let Some(target) = handles.target_named(&attempt.target) else {
            continue;
        };
        target.attempt(attempt.outcome);
        target.started(attempt.kind);
        if attempt.kind == StartKind::Hedge.as_str() {
            handles.hedge(&attempt.target, attempt.outcome == "ok");
        }
        if let Some(verdict) = &attempt.verdict {
            target.verdict(verdict.check.unwrap_or(verdict.result));
        }
        if let Some(usage) = &attempt.usage {
            target.input.increment(usage.prompt.saturating_sub(usage.cached));
            target.cached.increment(usage.cached);
            target
                .output
                .increment(usage.completion.saturating_sub(usage.reasoning));
            target.reasoning.increment(usage.reasoning);
        }
        target.cost.increment(attempt.cost_nano_usd.unwrap_or(0));
    }
    if let Some(words) = &account.degraded {
        handles.degraded(words);
    }
    let record = &mut ledger.record;
    record.answered = account
        .answered
        .and_then(|i| handles.targets.get(i))
        .map(|t| t.name().clone());
    record.tier = account.tier;
    record.verdict = account.verdict;
    record.usage = account.usage;
    record.cost_nano_usd = account.cost.map(|c| c.0);
    record.degraded = account.degraded;
    if let Some(at) = account.first_content {
        let us = u64::try_from(at.since(started).as_micros()).unwrap_or(u64::MAX);
        record.first_release_us = Some(us);
    }
    record.attempts = account.attempts;
    if let Some(reservation) = &ledger.reservation {
        reservation.settle();
    }
}
