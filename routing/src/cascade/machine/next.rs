//! Who is next: looks only, changes nothing but what is ruled out.

use super::{Machine, OUTSIDE, later};
use crate::cascade::types::DegradeReason;
use crate::plan::{DegradeStep, OnFail};
use crate::predict::{self, Belief};
use crate::units::Time;

impl Machine {
    // ---- who is next -------------------------------------------------------------------------------------------

    pub(super) fn tier(&self, slot: usize) -> u8 {
        self.setup.slots[slot].tier
    }
    pub(super) fn attempts_left(&self) -> bool {
        self.attempts < self.setup.retry.max_attempts
    }
    /// No attempt is left, or what was sent may not be sent twice.
    pub(super) fn out_of_tries(&self) -> bool {
        !self.attempts_left() || (self.setup.effects && self.spent)
    }
    /// The last attempt is for the answer that was let go in mid-stream, should nothing better come.
    pub(super) fn last_is_reserved(&self) -> bool {
        self.kept.is_some_and(|k| !k.complete)
            && self.setup.on_fail == OnFail::Return
            && self.attempts.saturating_add(1) >= self.setup.retry.max_attempts
    }
    /// Not tried yet in this request, and callable now.
    pub(super) fn fresh(&self, slot: usize, now: Time) -> bool {
        let p = &self.progress[slot];
        !p.out && p.tries == 0 && p.callable_at <= now
    }
    pub(super) fn repeatable(&self, slot: usize) -> bool {
        let p = &self.progress[slot];
        !p.out && !p.no_repeat && !self.out_of_tries() && p.tries <= self.setup.retry.same_target
    }

    pub(super) fn best(
        &self,
        now: Time,
        among: impl Fn(usize) -> bool,
        difficulty: Option<Belief>,
    ) -> Option<usize> {
        if self.out_of_tries() {
            return None;
        }
        (0..self.progress.len())
            .filter(|&i| self.tier(i) != OUTSIDE && self.fresh(i, now) && among(i))
            .max_by(|&a, &b| {
                self.rank(a, difficulty)
                    .total_cmp(&self.rank(b, difficulty))
                    .then(b.cmp(&a))
            })
    }

    /// With a difficulty: expected value. Without: nearest tier first. Slots come in order of value inside a tier, so
    /// ties go to the earlier one.
    pub(super) fn rank(&self, slot: usize, difficulty: Option<Belief>) -> f64 {
        let s = &self.setup.slots[slot];
        match difficulty {
            Some(d) => {
                let p = s.ability.map_or(1.0, |a| predict::p_good(a, d));
                f64::from(p) - self.setup.lambda * s.cost.map_or(0.0, |c| c.usd()) - f64::from(s.tier) * 1e-6
            }
            None => -f64::from(s.tier),
        }
    }

    /// Another target of the same tier.
    pub(super) fn beside(&self, slot: usize, now: Time) -> Option<usize> {
        let tier = self.tier(slot);
        self.best(now, |i| i != slot && self.tier(i) == tier, None)
    }

    /// A stronger tier; else a tier between the one that was wanted (or that already gave an answer) and this.
    pub(super) fn onward(&self, slot: usize, now: Time) -> Option<usize> {
        let tier = self.tier(slot);
        let least = self
            .kept
            .map_or(self.setup.wanted_tier, |k| self.tier(k.slot).saturating_add(1));
        self.best(now, |i| self.tier(i) > tier, self.difficulty)
            .or_else(|| {
                self.best(
                    now,
                    |i| self.tier(i) >= least && self.tier(i) < tier,
                    self.difficulty,
                )
            })
    }

    /// Who could still replace this one's answer.
    pub(super) fn replacement(&self, slot: usize, now: Time) -> Option<usize> {
        self.replacement_after(slot, None, now)
    }

    /// ... given that the answer of a target of this ability was wrong.
    pub(super) fn replacement_after(
        &self,
        slot: usize,
        failed: Option<(Belief, Belief)>,
        now: Time,
    ) -> Option<usize> {
        let tier = self.tier(slot);
        let difficulty = failed
            .map(|(d, a)| predict::after_failure(d, a))
            .or(self.difficulty);
        if self.setup.effects {
            return None;
        }
        self.best(now, |i| self.tier(i) > tier, difficulty)
    }

    pub(super) fn rule_out_smaller(&mut self, slot: usize) {
        let Some(limit) = self.setup.slots[slot].context else {
            return;
        };
        for (p, s) in self.progress.iter_mut().zip(&self.setup.slots) {
            let small = s.context.is_some_and(|c| c <= limit);
            p.out |= small;
            p.refused |= small;
        }
    }

    /// After an overflow: a known larger context first, an unknown one last.
    pub(super) fn larger(&self, slot: usize, now: Time) -> Option<usize> {
        let known = |i: usize| self.setup.slots[i].context.is_some();
        let least = self.setup.wanted_tier.min(self.tier(slot));
        self.best(now, |i| i != slot && known(i) && self.tier(i) >= least, None)
            .or_else(|| self.best(now, |i| i != slot && self.tier(i) >= least, None))
    }

    /// ... and where nobody of the wanted tiers can hold the text, the strongest weaker one that is known to have more room:
    /// the one that would have been chosen, had it been known before. Whoever stands below the floor is no slot at all. Not
    /// where somebody of the wanted tiers has only failed, or is held: that is for the ladder to say. Nor where there is an answer.
    pub(super) fn larger_below(&self, now: Time) -> Option<usize> {
        let wanted = self.setup.wanted_tier;
        if self.kept.is_some() || self.out_of_tries() || self.may_be_taken(wanted) {
            return None;
        }
        let slots = self.setup.slots.iter().zip(&self.progress);
        let too_small = slots
            .filter(|(_, p)| p.refused)
            .filter_map(|(s, _)| s.context)
            .max()?;
        let larger = |i: usize| self.setup.slots[i].context.is_some_and(|c| c > too_small);
        (0..self.progress.len())
            .filter(|&i| self.tier(i) < wanted && self.tier(i) != OUTSIDE && self.fresh(i, now) && larger(i))
            .max_by_key(|&i| (self.tier(i), std::cmp::Reverse(i)))
    }

    /// How long somebody who is held may be waited for; `None`: not at all any more.
    fn may_wait_until(&self, now: Time) -> Option<Time> {
        let waits_left = self.patience.is_some() || self.waits < self.setup.retry.max_attempts;
        let latest = self
            .patience
            .unwrap_or(now + self.setup.retry.honor_retry_after)
            .min(Time(self.setup.deadline.0.saturating_sub(1)));
        (waits_left && !self.out_of_tries()).then_some(latest)
    }

    /// The held target of the wanted tiers that is callable first, when that is soon. One that was tried and held may be
    /// asked again as soon as its hold is over, which may have been while another was asked.
    pub(super) fn worth_waiting_for(&self, now: Time) -> Option<(usize, Time)> {
        let latest = self.may_wait_until(now).filter(|_| !self.last_is_reserved())?;
        (0..self.progress.len())
            .filter(|&i| self.tier(i) != OUTSIDE && self.tier(i) >= self.setup.wanted_tier)
            .filter(|&i| {
                let p = &self.progress[i];
                let was_held = p.tries > 0 && p.held == Some(DegradeReason::Held);
                !p.out
                    && (p.callable_at > now || was_held)
                    && p.callable_at <= latest
                    && (p.tries == 0 || self.repeatable(i))
            })
            .map(|i| (i, self.progress[i].callable_at))
            .min_by_key(|&(_, at)| at)
            .map(|(i, at)| (i, later(now, at.since(now))))
    }

    /// The ladder's next model: a weaker tier, strongest first, or a local target outside the tiers. Steps of the ladder
    /// that stand before it and can be taken are taken first.
    pub(super) fn next_rung(&self, now: Time) -> Option<usize> {
        self.rung_that(|i| self.fresh(i, now))
    }

    /// The ladder's next model that is held, when it is callable soon.
    pub(super) fn rung_worth_waiting_for(&self, now: Time) -> Option<(usize, Time)> {
        let latest = self.may_wait_until(now)?;
        let held = |i: usize| {
            let p = &self.progress[i];
            !p.out && p.tries == 0 && p.callable_at > now && p.callable_at <= latest
        };
        let slot = self.rung_that(held)?;
        Some((slot, self.progress[slot].callable_at))
    }

    fn rung_that(&self, can: impl Fn(usize) -> bool) -> Option<usize> {
        for step in &self.setup.degrade {
            let found = match step {
                DegradeStep::Weaker => self.rung(&can, |tier| tier < self.setup.wanted_tier),
                DegradeStep::Local => self.rung(&can, |tier| tier == OUTSIDE),
                DegradeStep::StaleCache if self.setup.stale => return None,
                DegradeStep::Message => return None,
                DegradeStep::StaleCache => None,
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn rung(&self, can: impl Fn(usize) -> bool, tier: impl Fn(u8) -> bool) -> Option<usize> {
        (0..self.progress.len())
            .filter(|&i| can(i) && tier(self.tier(i)))
            .filter(|&i| self.setup.slots[i].p_good.unwrap_or(0.0) >= self.setup.degrade_floor)
            .max_by_key(|&i| (self.tier(i), std::cmp::Reverse(i)))
    }
}
