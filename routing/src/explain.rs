//! Why a request goes where it goes: the decision itself, written out, with what would flip it.
//!
//! Nothing here decides. [`explain`] asks [`decide`] and then asks it again with one thing changed.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::decide::{Decision, NotFirst, Query, Reason, Silent, Step, Why, decide};
use crate::facts::{Facts, Known, Source};
use crate::ids::TargetId;
use crate::plan::{Plan, Price};
use crate::signals::{Signals, Usable};
use crate::units::{NanoUsd, PricePerToken};

/// A decision with names in place of indices.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// The target that starts; absent when nothing can be called now.
    pub start: Option<Arc<str>>,
    /// Its tier.
    pub tier: Option<u8>,
    /// The tier that would start with everything healthy.
    pub wanted_tier: u8,
    /// `weaker; reason=held`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
    /// Reasons, in order.
    pub reasons: Vec<Reason>,
    /// The same for people.
    pub because: Vec<String>,
    /// Difficulty it went by: mean, standard deviation, source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difficulty: Option<(f32, f32, Source)>,
    /// Every target of the policy.
    pub targets: Vec<Line>,
    /// Next best.
    pub runner_up: Option<Arc<str>>,
    /// What would change the start.
    pub flips: Vec<Flip>,
    /// Probability of this start over all draws.
    pub propensity: f32,
}

/// One target.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its name.
    pub target: Arc<str>,
    /// Its tier.
    pub tier: u8,
    /// P(good); absent while uncalibrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_good: Option<f32>,
    /// Expected cost; absent where the price is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Expected value, where there was a choice by value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f32>,
    /// `starts`, or why not.
    pub verdict: String,
}

/// One change that would start another target, everything else being equal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flip {
    /// What would have to change, for people.
    pub change: String,
    /// Its machine-readable kind.
    pub kind: FlipKind,
    /// What would start then; absent: the request would be refused or wait.
    pub start: Option<Arc<str>>,
}

/// Kinds of [`Flip`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlipKind {
    /// Difficulty on the logit scale, at least (when above the present one) or at most this.
    Difficulty(f32),
    /// The start's price times this.
    PriceFactor(f32),
    /// The target is off or cannot be called.
    Without(TargetId),
    /// Prompt tokens, at least this.
    PromptTokens(u32),
}

/// Explains a decision that [`decide`] gave for this very query.
pub fn explain(q: &Query<'_>, decision: &Decision) -> Explained {
    let name = |id: TargetId| q.plan.target(id).name.clone();
    let mut targets: Vec<Line> = decision.ladder.iter().map(|r| line(q, decision, r)).collect();
    targets.extend(decision.excluded.iter().map(|e| Line {
        target: name(e.target),
        tier: e.tier,
        p_good: None,
        cost_usd: None,
        value: None,
        verdict: why(&e.why),
    }));
    targets.sort_by_key(|l| l.tier);
    Explained {
        start: decision.start.map(name),
        tier: decision.start.and_then(|s| decision.policy.tier_of(s)),
        wanted_tier: decision.wanted_tier,
        degraded: decision
            .degraded
            .map(|d| format!("{}; reason={}", step_name(d.step), d.reason.as_str())),
        because: decision.reasons.iter().map(|r| sentence(q, r)).collect(),
        reasons: decision.reasons.to_vec(),
        difficulty: decision
            .difficulty
            .map(|d| (d.belief.mean, d.belief.sd, d.source)),
        targets,
        runner_up: decision.runner_up.map(name),
        flips: flips(q, decision),
        propensity: decision.propensity,
    }
}

/// One line of JSON for `x-weir-decision`: no flips (they cost further decisions), less than 2 KB.
pub fn compact(q: &Query<'_>, decision: &Decision) -> String {
    #[derive(Serialize)]
    struct Compact<'a> {
        start: Option<&'a str>,
        wanted_tier: u8,
        reasons: &'a [Reason],
        #[serde(skip_serializing_if = "Option::is_none")]
        difficulty: Option<(f32, f32, Source)>,
        targets: Vec<Line>,
        #[serde(skip_serializing_if = "Option::is_none")]
        runner_up: Option<&'a str>,
    }
    let name = |id: TargetId| -> &str { &q.plan.target(id).name };
    let short = |target: TargetId, tier: u8, p_good: Option<f32>, verdict: String| Line {
        target: q.plan.target(target).name.clone(),
        tier,
        p_good,
        cost_usd: None,
        value: None,
        verdict,
    };
    let ladder = decision
        .ladder
        .iter()
        .map(|r| short(r.target, r.tier, r.p_good, not_first(decision, r)));
    let excluded = decision
        .excluded
        .iter()
        .map(|e| short(e.target, e.tier, None, why(&e.why)));
    let mut all = Compact {
        start: decision.start.map(name),
        wanted_tier: decision.wanted_tier,
        reasons: &decision.reasons,
        difficulty: decision
            .difficulty
            .map(|d| (d.belief.mean, d.belief.sd, d.source)),
        targets: ladder.chain(excluded).collect(),
        runner_up: decision.runner_up.map(name),
    };
    loop {
        // A header is ASCII: what is not goes in as an escape.
        let text = ascii(&serde_json::to_string(&all).unwrap_or_default());
        if text.len() < 2_048 || all.targets.pop().is_none() {
            return text;
        }
    }
}

fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && !c.is_ascii_control() {
            out.push(c);
        } else {
            let mut units = [0_u16; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

fn line(q: &Query<'_>, decision: &Decision, r: &crate::decide::Rung) -> Line {
    Line {
        target: q.plan.target(r.target).name.clone(),
        tier: r.tier,
        p_good: r.p_good,
        cost_usd: r.cost.map(NanoUsd::usd),
        value: decision.difficulty.map(|_| r.value).filter(|v| v.is_finite()),
        verdict: not_first(decision, r),
    }
}

fn not_first(decision: &Decision, r: &crate::decide::Rung) -> String {
    if decision.start == Some(r.target) {
        return "starts".into();
    }
    let text = match (r.not_first, &r.usable) {
        (_, Usable::Held { why, .. }) => why.as_str(),
        (_, Usable::Open { .. }) => "breaker open",
        (_, Usable::Full { .. }) => "no free place",
        (_, Usable::Starting { why }) => return format!("starting: {why}"),
        (Some(NotFirst::Uncalibrated), _) => "uncalibrated, and a stronger one is usable",
        (Some(NotFirst::TooSlow), _) => "would take longer than max_added_ms",
        (Some(NotFirst::BelowStart), _) => "below the tier that starts",
        (Some(NotFirst::AboveStart), _) => "above the tier that starts",
        (Some(NotFirst::Value), _) => "worth less",
        (Some(NotFirst::Drawn), _) => "alike; the draw chose another",
        (Some(NotFirst::NotUsable) | None, _) => "cannot be called now",
    };
    text.into()
}

fn why(why: &Why) -> String {
    match why {
        Why::Off { reason } => format!("off: {reason}"),
        Why::DoesNotServe { kind } => format!("does not serve {kind:?} calls").to_lowercase(),
        Why::Lacks { needs } => format!("cannot do {}", needs.names().collect::<Vec<_>>().join(", ")),
        Why::Context { asked, has } => format!("context of {has} tokens, {asked} asked for"),
        Why::MaxOutput { asked, has } => format!("answers at most {has} tokens, {asked} asked for"),
        Why::BelowFloor { floor } => format!("below tier {floor}, the least allowed"),
        Why::PriceUnknown => "price unknown, and a usd_per_day limit applies".into(),
        Why::Wait { wait_ms, left_ms } => {
            format!("predicted wait of {wait_ms} ms, {left_ms} ms left")
        }
        Why::OtherSpace => "another embedding space".into(),
    }
}

fn sentence(q: &Query<'_>, reason: &Reason) -> String {
    match reason {
        Reason::Pinned => "a target was named: that model or an error".into(),
        Reason::Rule { rule } => {
            let name = q
                .plan
                .rules
                .get(usize::from(*rule))
                .map_or("?", |r| r.name.as_ref());
            format!("rule \"{name}\" matched")
        }
        Reason::StartFirst => "the first tier that can serve starts".into(),
        Reason::StartLast => "start = \"last\"".into(),
        Reason::StartTier { tier } => format!("a rule starts at tier {tier}"),
        Reason::OnlyTier { tier } => format!("only tier {tier} can serve this"),
        Reason::CheapLooks { low, high } => {
            format!("cheap looks settle it: the same start for any difficulty from {low:.2} to {high:.2}")
        }
        Reason::GapTooSmall => "the tiers' prices differ by less than an encoder run costs".into(),
        Reason::EncoderTooSlow => "no encoder within classify.max_ms: cheap looks stand".into(),
        Reason::ClassifierFailed => "the classifier failed: cheap looks stand".into(),
        Reason::Uncalibrated { targets } => {
            format!("{targets} uncalibrated: they start nothing while a stronger one is usable")
        }
        Reason::TooSlow { targets } => format!("{targets} would take longer than max_added_ms"),
        Reason::BestValue => "the best expected value under the route's objective".into(),
        Reason::ObjectiveUnreachable => "the objective cannot be reached: the best there is".into(),
        Reason::WantedNotUsable { tier, because } => {
            format!(
                "tier {tier} was wanted but cannot be called ({})",
                because.as_str()
            )
        }
        Reason::Balanced { among } => format!("drawn among {among} alike"),
    }
}

fn step_name(step: crate::plan::DegradeStep) -> &'static str {
    use crate::plan::DegradeStep as D;
    match step {
        D::Weaker => "weaker",
        D::StaleCache => "stale_cache",
        D::Local => "local",
        D::Message => "message",
    }
}

// ---- what would flip it ------------------------------------------------------------------------------------------

/// What would start: the tier and one target of it; a draw inside a tier is no flip.
type Outcome = (Option<u8>, Option<TargetId>);

fn ask(plan: &Plan, q: &Query<'_>, facts: &Facts, signals: &Signals) -> Outcome {
    let q = Query {
        plan,
        policy: q.policy,
        facts,
        signals,
        ..*q
    };
    match decide(&q, &mut Silent) {
        Step::Decided(d) => (d.start.and_then(|s| d.policy.tier_of(s)), d.start),
        Step::Need { .. } | Step::Refused(_) => (None, None),
    }
}

fn flips(q: &Query<'_>, decision: &Decision) -> Vec<Flip> {
    let mut flips = Vec::new();
    let Some(start) = decision.start else { return flips };
    let now = (decision.policy.tier_of(start), Some(start));
    let named = |at: Outcome| at.1.map(|id| q.plan.target(id).name.clone());
    // With the difficulty that the decision went by: otherwise a question would ask for the encoder again.
    let mut facts = q.facts.clone();
    if let (Some(d), None) = (decision.difficulty, &facts.dear.difficulty) {
        facts.dear.difficulty = Some(Known {
            value: d.belief.mean,
            source: Source::Heuristic,
        });
    }
    if let Some(d) = decision.difficulty {
        for (end, word) in [(10.0, "at least"), (-10.0, "at most")] {
            let at = |x: f32| ask(q.plan, q, &harder(&facts, x, d.source), q.signals);
            if let Some((x, then)) = border(d.belief.mean, d.belief.mean + end, now, at) {
                flips.push(Flip {
                    change: format!("difficulty {word} {x:.2} (now {:.2})", d.belief.mean),
                    kind: FlipKind::Difficulty(x),
                    start: named(then),
                });
            }
        }
        for (end, word) in [(7.0, "at least"), (-7.0, "at most")] {
            let at = |x: f32| ask(&dearer(q.plan, start, x.exp()), q, &facts, q.signals);
            if let Some((x, then)) = border(0.0, end, now, at) {
                flips.push(Flip {
                    change: format!(
                        "{} costing {word} {:.2} times its price",
                        q.plan.target(start).name,
                        x.exp()
                    ),
                    kind: FlipKind::PriceFactor(x.exp()),
                    start: named(then),
                });
            }
        }
    }
    without(q, decision, &facts, now, &mut flips);
    let tokens = q.facts.prompt_tokens as f32;
    let at = |x: f32| ask(q.plan, q, &longer(&facts, x as u32), q.signals);
    if let Some((x, then)) = border(tokens, tokens + 4_000_000.0, now, at) {
        flips.push(Flip {
            change: format!("a prompt of {} tokens (now {tokens})", x.ceil()),
            kind: FlipKind::PromptTokens(x.ceil() as u32),
            start: named(then),
        });
    }
    flips
}

/// Each target taken away by itself (its key absent, its server down).
fn without(q: &Query<'_>, decision: &Decision, facts: &Facts, now: Outcome, flips: &mut Vec<Flip>) {
    for rung in &decision.ladder {
        let mut signals = q.signals.clone();
        if signals.targets.len() <= rung.target.index() {
            signals
                .targets
                .resize_with(rung.target.index() + 1, Default::default);
        }
        if let Some(signal) = signals.targets.get_mut(rung.target.index()) {
            signal.usable = Usable::Off {
                why: "asked by explain".into(),
            };
        }
        let then = ask(q.plan, q, facts, &signals);
        let changed = then.0 != now.0 || now.1 == Some(rung.target);
        if changed {
            flips.push(Flip {
                change: format!("without {}", q.plan.target(rung.target).name),
                kind: FlipKind::Without(rung.target),
                start: then.1.map(|id| q.plan.target(id).name.clone()),
            });
        }
    }
}

/// The nearest value between `from` and `to` at which another tier starts, by 32 steps and then bisection.
fn border(from: f32, to: f32, now: Outcome, at: impl Fn(f32) -> Outcome) -> Option<(f32, Outcome)> {
    const STEPS: u8 = 32;
    let mut same = from;
    for i in 1..=STEPS {
        // Denser near the start: the nearest border is the interesting one.
        let t = f32::from(i) / f32::from(STEPS);
        let x = from + (to - from) * t * t;
        let then = at(x);
        if then.0 == now.0 {
            same = x;
            continue;
        }
        let (mut other, mut outcome) = (x, then);
        for _ in 0..24 {
            let mid = f32::midpoint(same, other);
            let then = at(mid);
            if then.0 == now.0 {
                same = mid;
            } else {
                (other, outcome) = (mid, then);
            }
        }
        return Some((other, outcome));
    }
    None
}

/// The source stays as it was, so that only the value changes.
fn harder(facts: &Facts, value: f32, source: Source) -> Facts {
    let mut facts = facts.clone();
    let source = if source == Source::Failed {
        Source::Heuristic
    } else {
        source
    };
    facts.dear.difficulty = Some(Known { value, source });
    facts
}

fn longer(facts: &Facts, tokens: u32) -> Facts {
    Facts {
        prompt_tokens: tokens,
        ..facts.clone()
    }
}

fn dearer(plan: &Plan, target: TargetId, factor: f32) -> Plan {
    let mut plan = plan.clone();
    let scale = |p: PricePerToken| PricePerToken {
        pico_usd: (p.pico_usd as f64 * f64::from(factor)) as u64,
    };
    if let Some(t) = plan.targets.get_mut(target.index())
        && let Price::PerToken {
            input,
            output,
            cached_input,
            reasoning,
        } = t.price
    {
        t.price = Price::PerToken {
            input: scale(input),
            output: scale(output),
            cached_input: scale(cached_input),
            reasoning: scale(reasoning),
        };
    }
    plan
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.start, self.tier) {
            (Some(start), Some(tier)) => writeln!(f, "starts: {start} (tier {tier})")?,
            (Some(start), None) => writeln!(f, "starts: {start} (outside the tiers)")?,
            (None, _) => writeln!(
                f,
                "starts: nothing now; tier {} is waited for, or the ladder is taken",
                self.wanted_tier
            )?,
        }
        if let Some(degraded) = &self.degraded {
            writeln!(f, "degraded: {degraded}")?;
        }
        if let Some((mean, sd, source)) = self.difficulty {
            let source = match source {
                Source::Encoder => "by the encoder",
                Source::Heuristic => "by cheap looks",
                Source::Failed => "by cheap looks, the classifier failed",
            };
            writeln!(
                f,
                "difficulty: {mean:.2} +- {sd:.2} {source} (a model of ability {mean:.2} answers half of such requests well)"
            )?;
        }
        writeln!(f, "because:")?;
        for reason in &self.because {
            writeln!(f, "  {reason}")?;
        }
        self.write_targets(f)?;
        if let Some(runner_up) = &self.runner_up {
            writeln!(f, "next best: {runner_up}")?;
        }
        if !self.flips.is_empty() {
            writeln!(f, "what would flip it:")?;
            for flip in &self.flips {
                match &flip.start {
                    Some(start) => writeln!(f, "  {}: then {start} starts", flip.change)?,
                    None => writeln!(f, "  {}: then nobody can start", flip.change)?,
                }
            }
        }
        Ok(())
    }
}

impl Explained {
    fn write_targets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "targets:")?;
        let width = self
            .targets
            .iter()
            .map(|l| l.target.chars().count())
            .max()
            .unwrap_or(0);
        for l in &self.targets {
            let p = l.p_good.map_or_else(|| "-".to_owned(), |p| format!("{p:.2}"));
            let cost = l.cost_usd.map_or_else(|| "-".to_owned(), |c| format!("${c:.6}"));
            writeln!(
                f,
                "  tier {}  {:width$}  P(good) {p:>4}  cost {cost:>9}  {}",
                l.tier, l.target, l.verdict
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: &str, tier: u8, p_good: Option<f32>, cost_usd: Option<f64>, verdict: &str) -> Line {
        Line {
            target: target.into(),
            tier,
            p_good,
            cost_usd,
            value: None,
            verdict: verdict.into(),
        }
    }

    fn flip(change: &str, kind: FlipKind, start: Option<&str>) -> Flip {
        Flip {
            change: change.into(),
            kind,
            start: start.map(Arc::from),
        }
    }

    /// For people: names and words, nothing of the plan's indices.
    #[test]
    fn it_reads_as_text() {
        let told = Explained {
            start: Some("small".into()),
            tier: Some(1),
            wanted_tier: 1,
            degraded: None,
            reasons: vec![Reason::BestValue],
            because: vec!["the best expected value under the route's objective".into()],
            difficulty: Some((1.25, 0.5, Source::Encoder)),
            targets: vec![
                line("smollm2", 0, Some(0.25), Some(0.0), "worth less"),
                line("small", 1, Some(0.75), Some(0.000_061), "starts"),
                line("large", 2, None, None, "off: no key"),
            ],
            runner_up: Some("smollm2".into()),
            flips: vec![
                flip(
                    "difficulty at most -2.00 (now 1.25)",
                    FlipKind::Difficulty(-2.0),
                    Some("smollm2"),
                ),
                flip("without small", FlipKind::Without(TargetId(1)), None),
            ],
            propensity: 1.0,
        };
        let expected = "\
starts: small (tier 1)
difficulty: 1.25 +- 0.50 by the encoder (a model of ability 1.25 answers half of such requests well)
because:
  the best expected value under the route's objective
targets:
  tier 0  smollm2  P(good) 0.25  cost $0.000000  worth less
  tier 1  small    P(good) 0.75  cost $0.000061  starts
  tier 2  large    P(good)    -  cost         -  off: no key
next best: smollm2
what would flip it:
  difficulty at most -2.00 (now 1.25): then smollm2 starts
  without small: then nobody can start
";
        assert_eq!(told.to_string(), expected);
    }
}
