//! Nothing of the tiers that count can be started: wait, settle for less, or say so.

use std::time::Duration;

use super::{Machine, OUTSIDE, Refused, State};
use crate::balance::mix;
use crate::cascade::types::*;
use crate::outcome::Outcome;
use crate::plan::{DegradeStep, OnFail};
use crate::units::Time;

impl Machine {
    // ---- transitions: nothing left -----------------------------------------------------------------------------

    /// Nothing of the tiers that count can be started now: wait for one of them, if that is short and there is nothing
    /// to hand out; else for a model of the ladder; else settle for what there is.
    pub(super) fn stuck(&mut self, now: Time, out: &mut Actions) {
        let complete = self.kept.is_some_and(|k| k.complete);
        if !complete && let Some((slot, until)) = self.worth_waiting_for(now) {
            let kind = match (self.progress[slot].tries, self.next_try) {
                (0, 0) => StartKind::First,
                (0, _) => StartKind::Failover,
                _ => StartKind::Retry,
            };
            return self.wait_for(slot, kind, until, now);
        }
        if self.kept.is_none() && self.caller.is_none() && !self.out_of_tries() {
            if let Some(next) = self.next_rung(now) {
                return self.launch(next, StartKind::Degrade, now, out);
            }
            if let Some((slot, until)) = self.rung_worth_waiting_for(now) {
                return self.wait_for(slot, StartKind::Degrade, until, now);
            }
        }
        self.settle_at(now, out);
    }

    fn wait_for(&mut self, slot: usize, kind: StartKind, until: Time, now: Time) {
        if self.patience.is_none() {
            self.waits = self.waits.saturating_add(1);
            self.patience = Some(now + self.setup.retry.honor_retry_after);
        }
        self.state = State::Waiting { slot, kind, until };
    }

    pub(super) fn settle_for(&mut self, out: &mut Actions) {
        self.settle_at(Time::NEVER, out);
    }

    /// The best answer, a refusal that is passed on, the rest of the ladder, an error: in this order.
    pub(super) fn settle_at(&mut self, now: Time, out: &mut Actions) {
        let deliverable = self.kept.is_some_and(|k| k.complete) && self.setup.on_fail == OnFail::Return;
        if self.awaits_late() && !deliverable {
            self.state = State::Trying;
            return;
        }
        if let Some(kept) = self.kept {
            if self.setup.on_fail == OnFail::Error
                && let Grade::Fail(check) = kept.verdict.grade
            {
                return self.fail(FailWhy::Verdict(check), now, out);
            }
            if kept.complete {
                return self.deliver_kept(out);
            }
            if !self.out_of_tries() && now != Time::NEVER && self.progress[kept.slot].callable_at <= now {
                // Once: should this fail too, there is no answer.
                self.kept = None;
                self.progress[kept.slot].no_repeat = true;
                return self.launch(kept.slot, StartKind::Again, now, out);
            }
        }
        if let Some(Refused { try_, fault, .. }) =
            self.caller.filter(|c| !c.elsewhere || !self.may_be_taken(0))
        {
            return self.finish(Finish::PassOn { try_, fault }, out);
        }
        for &step in &self.setup.degrade.clone() {
            match step {
                DegradeStep::StaleCache if self.setup.stale => return self.instead(step, now, out),
                DegradeStep::Message => return self.instead(step, now, out),
                DegradeStep::StaleCache | DegradeStep::Weaker | DegradeStep::Local => {}
            }
        }
        let why = match (self.spent && self.setup.effects, self.blamed, self.last) {
            (true, ..) => FailWhy::Effects,
            (false, Some(_), _) => FailWhy::Upstream,
            // Only refusals, by targets that are not the ones that would take it.
            (false, None, Some((_, Outcome::CallerFault(_))) | None) => FailWhy::NoneCallable,
            (false, None, Some(_)) => FailWhy::Upstream,
        };
        self.fail(why, now, out);
    }

    /// A target of this tier or a stronger one that may take what another one refused has failed by itself, or is held: the
    /// refusal is not the whole truth, and to come back later is better advice than to change the request.
    pub(super) fn may_be_taken(&self, least: u8) -> bool {
        let slots = self.setup.slots.iter().zip(&self.progress);
        let mut counted = slots.filter(|(slot, _)| slot.tier != OUTSIDE && slot.tier >= least);
        counted.any(|(_, p)| !p.refused && (p.tries > 0 || p.held.is_some()))
    }

    pub(super) fn instead(&mut self, step: DegradeStep, now: Time, out: &mut Actions) {
        let finish = Finish::Instead {
            step,
            reason: self.reason(),
            retry_after: self.come_back(now),
        };
        self.finish(finish, out);
    }

    pub(super) fn fail(&mut self, why: FailWhy, now: Time, out: &mut Actions) {
        let failed = Failed {
            why,
            last: match (why, self.blamed) {
                (FailWhy::Upstream, Some(blamed)) => Some((blamed.try_, blamed.outcome)),
                (FailWhy::NoneCallable, _) => None,
                _ => self.last,
            },
            retry_after: match why {
                FailWhy::Upstream | FailWhy::NoneCallable => self.come_back(now),
                FailWhy::Deadline | FailWhy::Verdict(_) | FailWhy::Effects => None,
            },
        };
        self.finish(Finish::Failed(failed), out);
    }

    pub(super) fn degraded_by(&self, slot: usize) -> Option<Degraded> {
        let step = match self.tier(slot) {
            OUTSIDE => DegradeStep::Local,
            tier if tier < self.setup.wanted_tier => DegradeStep::Weaker,
            _ => return None,
        };
        Some(Degraded {
            step,
            reason: self.reason(),
        })
    }

    pub(super) fn reason(&self) -> DegradeReason {
        if self.last.is_some() {
            return DegradeReason::Failed;
        }
        let wanted = self.setup.slots.iter().zip(&self.progress);
        wanted
            .filter(|(s, _)| s.tier != OUTSIDE && s.tier >= self.setup.wanted_tier)
            .find_map(|(_, p)| p.held)
            .or(self.setup.degraded.map(|d| d.reason))
            .unwrap_or(DegradeReason::Failed)
    }

    /// When the first target that is held now may be called again.
    pub(super) fn come_back(&self, now: Time) -> Option<Duration> {
        let held = self
            .progress
            .iter()
            .filter(|p| p.held.is_some() && p.callable_at > now && p.callable_at != Time::NEVER);
        held.map(|p| p.callable_at.since(now)).min()
    }

    /// Full jitter over base x 2^repeats, bounded.
    pub(super) fn backoff(&self, slot: usize) -> Duration {
        let retry = &self.setup.retry;
        let step = retry.step(u32::from(self.progress[slot].tries.saturating_sub(1)));
        if !retry.jitter {
            return step;
        }
        let micros = u64::try_from(step.as_micros()).unwrap_or(u64::MAX);
        let draw = mix(self.setup.seed ^ u64::from(self.next_try)) % micros.saturating_add(1).max(1);
        Duration::from_micros(draw)
    }
}
