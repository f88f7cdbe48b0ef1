//! The decision before the first try: who can serve, who starts, and why.
//!
//! Names and cheap rules are behind us ([`crate::resolve`]); here the rules that waited for a dear fact are finished,
//! targets that cannot serve are taken out, and a start is chosen: the first tier, the last, or by expected value. Dear
//! facts are asked for only where they could change the outcome.

mod choose;
mod sift;
#[cfg(test)]
mod tests;
mod types;

use std::time::Duration;

use smallvec::SmallVec;

use crate::balance::{self, Candidate};
use crate::cascade::{Action, DegradeReason, Degraded, Event, Machine, Setup, StartKind, callable};
use crate::facts::{CallKind, DearFact, Source};
use crate::ids::TargetId;
use crate::plan::{DegradeStep, Start};
use crate::predict::{self, Belief};
use crate::resolve::{Policy, RefineStep, WaitFor, refine};
use crate::units::Time;

use choose::Pick;
pub use types::*;

/// Chooses the first try, or says what has to be found out first.
///
/// Pure: the same query gives the same answer. A driver that answers every [`Step::Need`] (also a failed look, with
/// [`Source::Failed`]) gets a choice after at most one round for each dear fact.
pub fn decide(q: &Query<'_>, recorder: &mut dyn Recorder) -> Step {
    let policy = match refine(q.plan, q.policy, q.facts) {
        RefineStep::Done(policy) => policy,
        RefineStep::Need { fact, wait, .. } => return Step::Need { fact, wait },
        RefineStep::Refused(error) => return Step::Refused(NoWay::Rule(error)),
    };
    let sifted = sift::sift(q, &policy);
    if sifted.rungs.is_empty() {
        sifted.excluded.iter().for_each(|e| recorder.excluded(e));
        return Step::Refused(sift::no_way(q.facts.kind, &sifted.excluded));
    }
    let mut draft = Draft::new(q, policy, sifted);
    if let Err(fact) = draft.want() {
        return Step::Need {
            fact,
            wait: WaitFor::Classify,
        };
    }
    draft.one_space();
    draft.start();
    let decision = draft.finish();
    tell(&decision, recorder);
    Step::Decided(Box::new(decision))
}

/// A target as balancing sees it.
pub(crate) fn candidate(q: &Query<'_>, target: TargetId) -> Candidate {
    let signal = sift::signal(q, target);
    Candidate {
        target,
        weight: q.plan.target(target).weight,
        in_flight: signal.in_flight,
        latency_us: balance::faded(signal.latency_us, Duration::from_micros(signal.silent_us)),
        share: signal.slow_start.unwrap_or(1_000),
    }
}

fn tell(decision: &Decision, recorder: &mut dyn Recorder) {
    decision.excluded.iter().for_each(|e| recorder.excluded(e));
    decision.ladder.iter().for_each(|r| recorder.rung(r));
    decision.reasons.iter().for_each(|r| recorder.reason(r));
}

/// A decision in the making.
struct Draft<'a> {
    q: &'a Query<'a>,
    policy: Policy,
    rungs: SmallVec<[Rung; 6]>,
    excluded: SmallVec<[Excluded; 4]>,
    outside: SmallVec<[Rung; 2]>,
    reasons: SmallVec<[Reason; 8]>,
    /// Chosen by expected value.
    predicted: bool,
    difficulty: Difficulty,
    wanted: u8,
    start: Option<TargetId>,
    lambda: f64,
    propensity: f32,
}

impl<'a> Draft<'a> {
    fn new(q: &'a Query<'a>, policy: Policy, sifted: sift::Sifted) -> Self {
        let mut reasons = SmallVec::new();
        if policy.pinned {
            reasons.push(Reason::Pinned);
        }
        if let Some(rule) = policy.rule {
            reasons.push(Reason::Rule { rule });
        }
        let (belief, source) = match &q.facts.dear.difficulty {
            Some(known) => (predict::difficulty_of(known, q.facts), known.source),
            None => (predict::cheap_difficulty(q.facts), Source::Heuristic),
        };
        Self {
            q,
            policy,
            rungs: sifted.rungs,
            excluded: sifted.excluded,
            outside: sifted.outside,
            reasons,
            predicted: false,
            difficulty: Difficulty { belief, source },
            wanted: 0,
            start: None,
            lambda: 0.0,
            propensity: 1.0,
        }
    }

    /// The tier that would start with everything healthy.
    fn want(&mut self) -> Result<(), DearFact> {
        let lowest = self.rungs.iter().map(|r| r.tier).min().unwrap_or(0);
        let highest = self.rungs.iter().map(|r| r.tier).max().unwrap_or(0);
        if let Some(tier) = self.policy.start_tier {
            self.reasons.push(Reason::StartTier { tier });
            self.wanted = lowest;
        } else if lowest == highest {
            self.reasons.push(Reason::OnlyTier { tier: lowest });
            self.wanted = lowest;
        } else {
            match self.policy.start {
                Start::Predicted if self.q.facts.kind != CallKind::Embeddings => {
                    return self.want_predicted();
                }
                Start::Predicted | Start::First => {
                    self.reasons.push(Reason::StartFirst);
                    self.wanted = lowest;
                }
                Start::Last => {
                    self.reasons.push(Reason::StartLast);
                    self.wanted = highest;
                }
            }
        }
        Ok(())
    }

    fn want_predicted(&mut self) -> Result<(), DearFact> {
        self.predicted = true;
        self.count(NotFirst::Uncalibrated);
        self.count(NotFirst::TooSlow);
        self.look()?;
        if let Some(pick) = self.pick(true, 0) {
            self.wanted = pick.tier;
            self.lambda = pick.scale.lambda;
            self.reasons.push(match pick.reached {
                true => Reason::BestValue,
                false => Reason::ObjectiveUnreachable,
            });
        }
        Ok(())
    }

    /// Says how many are barred for this reason.
    fn count(&mut self, why: NotFirst) {
        let barred = |&i: &usize| choose::barred(&self.rungs, &self.policy, true, i) == Some(why);
        let targets = u8::try_from((0..self.rungs.len()).filter(barred).count()).unwrap_or(u8::MAX);
        match why {
            _ if targets == 0 => {}
            NotFirst::Uncalibrated => self.reasons.push(Reason::Uncalibrated { targets }),
            _ => self.reasons.push(Reason::TooSlow { targets }),
        }
    }

    /// Is the cheap look enough, or is the encoder worth asking?
    fn look(&mut self) -> Result<(), DearFact> {
        match self.q.facts.dear.difficulty {
            Some(known) if known.source == Source::Failed => {
                self.reasons.push(Reason::ClassifierFailed);
                return Ok(());
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let cheap = self.difficulty.belief;
        let (low, high) = predict::band(cheap);
        let sd = predict::head_sd();
        let ends = [low, high].map(|mean| Belief { mean, sd });
        if choose::settled(&self.rungs, &self.policy, cheap, ends) {
            self.reasons.push(Reason::CheapLooks { low, high });
            return Ok(());
        }
        if choose::gap(&self.rungs, &self.policy, ends).is_some_and(|gap| gap < predict::ENCODER_COST.0) {
            self.reasons.push(Reason::GapTooSmall);
            return Ok(());
        }
        let most = self.q.plan.classify.max.as_micros();
        if self.q.signals.encoder_us.is_none_or(|us| u128::from(us) > most) {
            self.reasons.push(Reason::EncoderTooSlow);
            return Ok(());
        }
        Err(DearFact::Difficulty)
    }

    fn pick(&self, healthy: bool, least: u8) -> Option<Pick> {
        choose::pick(&self.rungs, &self.policy, self.difficulty.belief, healthy, least)
    }

    /// The target: at the tier that was wanted or above, among those that can be called now.
    fn start(&mut self) {
        let tier = if self.predicted {
            self.pick(false, self.wanted).map(|pick| pick.tier)
        } else {
            let usable = self
                .rungs
                .iter()
                .filter(|r| r.usable.yes() && r.tier >= self.wanted);
            usable.map(|r| r.tier).min()
        };
        self.score();
        if let Some(tier) = tier {
            self.draw(tier);
        }
        if tier != Some(self.wanted) {
            let because = self.because();
            self.reasons.push(Reason::WantedNotUsable {
                tier: self.wanted,
                because,
            });
        }
    }

    fn because(&self) -> DegradeReason {
        let now = self.q.signals.now;
        let wanted = self.rungs.iter().filter(|r| r.tier == self.wanted);
        wanted
            .filter_map(|r| callable(&r.usable, now).1)
            .next()
            .unwrap_or(DegradeReason::Failed)
    }

    /// P(good) and value of every rung; then order by tier and value.
    fn score(&mut self) {
        let belief = self.difficulty.belief;
        let pick = self.predicted.then(|| self.pick(true, 0)).flatten();
        let last = self.policy.start == Start::Last && self.policy.start_tier.is_none();
        for (i, rung) in self.rungs.iter_mut().enumerate() {
            rung.p_good = rung.ability.map(|a| predict::p_good(a, belief));
            let tier = f32::from(rung.tier);
            rung.value = match pick.as_ref() {
                Some(pick) => pick.values.get(i).copied().flatten().unwrap_or(f32::NEG_INFINITY),
                None if last => tier,
                None => -tier,
            };
        }
        for rung in &mut self.outside {
            rung.p_good = rung.ability.map(|a| predict::p_good(a, belief));
        }
        for i in 0..self.rungs.len() {
            self.rungs[i].not_first = match choose::barred(&self.rungs, &self.policy, false, i) {
                Some(why) if self.predicted || why == NotFirst::NotUsable => Some(why),
                _ => None,
            };
        }
        self.rungs
            .sort_by(|a, b| a.tier.cmp(&b.tier).then(b.value.total_cmp(&a.value)));
    }

    fn draw(&mut self, tier: u8) {
        let may = |r: &&Rung| r.tier == tier && r.not_first.is_none();
        let candidates: SmallVec<[Candidate; 6]> = self
            .rungs
            .iter()
            .filter(may)
            .map(|r| candidate(self.q, r.target))
            .collect();
        let Some(choice) = balance::choose(&candidates, self.q.seed) else {
            return;
        };
        self.start = Some(choice.target);
        self.propensity = choice.propensity;
        if candidates.len() > 1 {
            self.reasons.push(Reason::Balanced {
                among: u8::try_from(candidates.len()).unwrap_or(u8::MAX),
            });
        }
    }

    /// Embeddings never change model: only targets whose vectors are like those of the tier that was wanted stay, also
    /// while that tier cannot be called.
    fn one_space(&mut self) {
        if self.q.facts.kind != CallKind::Embeddings {
            return;
        }
        let wanted = self.rungs.iter().find(|r| r.tier == self.wanted);
        let Some(first) = wanted.or(self.rungs.first()).map(|r| r.target) else {
            return;
        };
        let plan = self.q.plan;
        let first = plan.target(first);
        let excluded = &mut self.excluded;
        self.rungs.retain(|r| {
            let other = plan.target(r.target);
            let alike = match (&first.embedding_space, &other.embedding_space) {
                (Some(a), Some(b)) => a == b,
                (None, None) => first.kind == other.kind && first.model == other.model,
                _ => false,
            };
            if !alike {
                excluded.push(Excluded {
                    target: r.target,
                    tier: r.tier,
                    why: Why::OtherSpace,
                });
            }
            alike
        });
    }

    fn finish(mut self) -> Decision {
        let start_tier = self.start.and_then(|s| self.policy.tier_of(s));
        for rung in &mut self.rungs {
            rung.not_first = match (rung.not_first, start_tier) {
                _ if Some(rung.target) == self.start => None,
                (Some(why), _) => Some(why),
                (None, Some(tier)) if rung.tier == tier => Some(NotFirst::Drawn),
                (None, _) if self.predicted => Some(NotFirst::Value),
                (None, Some(tier)) if rung.tier < tier => Some(NotFirst::BelowStart),
                (None, _) if rung.tier < self.wanted => Some(NotFirst::BelowStart),
                (None, _) => Some(NotFirst::AboveStart),
            };
        }
        let runner_up = self.runner_up(start_tier);
        let retry_at = self.retry_at();
        let mut decision = Decision {
            policy: self.policy,
            ladder: self.rungs,
            excluded: self.excluded,
            outside: self.outside,
            start: self.start,
            wanted_tier: self.wanted,
            runner_up,
            difficulty: self.predicted.then_some(self.difficulty),
            lambda: self.lambda,
            reasons: self.reasons,
            propensity: self.propensity,
            seed: self.q.seed,
            degraded: None,
            retry_at,
        };
        if decision.start.is_none() {
            forecast(self.q, &mut decision);
        }
        decision
    }

    fn runner_up(&self, start_tier: Option<u8>) -> Option<TargetId> {
        let others = self
            .rungs
            .iter()
            .filter(|r| Some(r.target) != self.start && r.usable.yes());
        others
            .max_by(|a, b| {
                let key = |r: &Rung| {
                    (
                        Some(r.tier) != start_tier,
                        r.not_first != Some(NotFirst::Uncalibrated),
                    )
                };
                key(a)
                    .cmp(&key(b))
                    .then(a.value.total_cmp(&b.value))
                    .then(b.tier.cmp(&a.tier))
            })
            .map(|r| r.target)
    }

    fn retry_at(&self) -> Option<Time> {
        let now = self.q.signals.now;
        if self.start.is_some() {
            return None;
        }
        let times = self.rungs.iter().map(|r| callable(&r.usable, now).0);
        times.filter(|&t| t != Time::NEVER && t > now).min()
    }
}

/// Nothing that was wanted can be called now: what the cascade will do is asked of the cascade itself.
fn forecast(q: &Query<'_>, decision: &mut Decision) {
    let mut machine = Machine::new(Setup::of(q, decision));
    let actions = machine.step(Event::Begin, q.signals.now);
    for action in actions {
        if let Action::Start {
            target,
            tier,
            kind: StartKind::Degrade,
            ..
        } = action
        {
            let step = if tier == u8::MAX {
                DegradeStep::Local
            } else {
                DegradeStep::Weaker
            };
            let reason = decision
                .reasons
                .iter()
                .find_map(|r| match r {
                    Reason::WantedNotUsable { because, .. } => Some(*because),
                    _ => None,
                })
                .unwrap_or(DegradeReason::Failed);
            decision.start = Some(target);
            decision.degraded = Some(Degraded { step, reason });
            for rung in &mut decision.ladder {
                if rung.target == target {
                    rung.not_first = None;
                }
            }
        }
    }
}
