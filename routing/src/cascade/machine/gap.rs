//! A committed stream broke: somebody goes on with it, or the caller is told.
//!
//! ```text
//!   Committed --cut--> Broken --Continue--> (held until it joins) --Joined: Adopt--> Committed
//!                        ^                        |
//!                        +---- unfit, refused, ---+        nobody left, or `continue_ms` over: Finish::Cut
//!                              broken
//! ```

use smallvec::SmallVec;

use super::{Machine, OUTSIDE, Run, State, later};
use crate::cascade::types::*;
use crate::continuation::{Way, Ways};
use crate::outcome::{Graded, Outcome, TargetFault};
use crate::plan::ContinueWith;
use crate::units::Time;

/// The time between a cut and the first new content.
#[derive(Clone, Debug)]
pub(super) struct Gap {
    /// Whose stream broke.
    cut: TryId,
    slot: usize,
    outcome: Outcome,
    verdict: Option<Judged>,
    ways: Ways,
    /// Somebody must have joined by then.
    until: Time,
    /// Somebody who is held may be asked then; never, while somebody is being asked.
    wake: Time,
    /// How often somebody held was waited for.
    waits: u8,
    /// Who was asked, and how.
    asked: SmallVec<[(usize, Way); 4]>,
    /// Who failed at it in a way that another way does not mend.
    failed: SmallVec<[usize; 2]>,
}

impl Machine {
    /// A committed stream broke.
    pub(super) fn cut(
        &mut self,
        run: Run,
        end: Graded,
        may_repeat: bool,
        ways: Ways,
        now: Time,
        out: &mut Actions,
    ) {
        self.note_fault(&run, end, may_repeat, now);
        let p = &mut self.progress[run.slot];
        p.cuts = p.cuts.saturating_add(1);
        let mut gap = Gap {
            cut: run.try_,
            slot: run.slot,
            outcome: end.outcome,
            verdict: run.verdict,
            ways,
            until: (now + self.setup.slots[run.slot].continue_within).min(self.setup.until),
            wake: Time::NEVER,
            waits: 0,
            asked: SmallVec::new(),
            failed: SmallVec::new(),
        };
        // The ratio budget bounds repeats here too; that the target broke off is no reason not to ask it.
        if !may_repeat || self.progress[run.slot].out {
            gap.failed.push(run.slot);
        }
        // What the caller's own request brought about, or a bug of ours, is not mended by asking somebody else.
        let mendable = matches!(end.outcome, Outcome::TargetFault(_));
        self.state = State::Broken;
        self.gap = Some(gap);
        if !mendable || self.setup.continue_with == ContinueWith::Never || self.setup.effects {
            return self.give_up(out);
        }
        self.go_on(now, out);
    }

    /// Between a cut and the first new content.
    pub(super) fn broken(&mut self, event: Event, now: Time, out: &mut Actions) {
        match event {
            Event::ClientGone => self.client_gone(out),
            Event::Timer => self.gap_clocks(now, out),
            Event::FirstContent { try_ } => {
                if let Some(run) = self.run_mut(try_) {
                    run.content = true;
                    run.stop_clocks();
                }
            }
            Event::SignOfLife { try_ } => self.sign_of_life(try_, now),
            Event::Joined { try_ } => self.joined(try_, out),
            Event::Unfit { try_ } => {
                if self.take_run(try_).is_some() {
                    out.push(Action::Cancel {
                        try_,
                        why: CancelWhy::Unfit,
                    });
                    self.go_on(now, out);
                }
            }
            Event::Refused { try_, why, until } => {
                let Some(run) = self.runs.iter().find(|r| r.try_ == try_ && !r.content).copied() else {
                    return;
                };
                self.take_run(try_);
                self.note_refusal(&run, why, until, now);
                if let Some(gap) = &mut self.gap {
                    // Nothing was asked: the same way may be tried when it is free again.
                    gap.asked.pop();
                    if why == Refusal::RetryBudget {
                        gap.failed.push(run.slot);
                    }
                }
                self.go_on(now, out);
            }
            Event::Ended {
                try_,
                end,
                may_repeat,
            }
            | Event::Cut {
                try_,
                end,
                may_repeat,
                ..
            } => {
                if let Some(run) = self.take_run(try_) {
                    self.continuation_failed(&run, end, may_repeat, now, out);
                }
            }
            Event::Begin | Event::Verdict { .. } => {}
        }
    }

    /// It goes on: from here on it is the answer.
    fn joined(&mut self, try_: TryId, out: &mut Actions) {
        let verdict = self.gap.as_ref().and_then(|g| g.verdict);
        let Some(run) = self.run_mut(try_) else { return };
        run.content = true;
        run.stop_clocks();
        // What was thought of the part that was checked still holds.
        run.verdict = verdict;
        self.gap = None;
        self.state = State::Committed(try_);
        out.push(Action::Adopt { try_ });
    }

    fn continuation_failed(
        &mut self,
        run: &Run,
        end: Graded,
        may_repeat: bool,
        now: Time,
        out: &mut Actions,
    ) {
        let way = self
            .gap
            .as_ref()
            .and_then(|g| g.asked.last())
            .map(|&(_, way)| way);
        // It may be the way that is refused (a prefill; a conversation that grew too long), not the request: that was
        // taken before.
        let callers = matches!(end.outcome, Outcome::CallerFault(_));
        if !callers {
            self.note_fault(run, end, may_repeat, now);
        }
        let the_way = callers && way != Some(Way::Whole);
        if let Some(gap) = self
            .gap
            .as_mut()
            .filter(|_| !the_way && end.outcome != Outcome::Ok)
        {
            gap.failed.push(run.slot);
        }
        self.go_on(now, out);
    }

    fn gap_clocks(&mut self, now: Time, out: &mut Actions) {
        let Some((until, wake)) = self.gap.as_ref().map(|g| (g.until, g.wake)) else {
            return;
        };
        if now >= until {
            return self.give_up(out);
        }
        let silent = self.runs.iter().find(|r| r.first_by <= now).copied();
        if let Some(run) = silent {
            let outcome = Outcome::TargetFault(TargetFault::FirstTokenTimeout);
            self.take_run(run.try_);
            out.push(Action::Cancel {
                try_: run.try_,
                why: CancelWhy::Clock(outcome),
            });
            return self.continuation_failed(&run, Graded::plain(outcome), false, now, out);
        }
        if now >= wake && self.runs.is_empty() {
            self.go_on(now, out);
        }
    }

    /// The next target and way; else the next time that somebody can be asked; else the end.
    fn go_on(&mut self, now: Time, out: &mut Actions) {
        let Some(until) = self.gap.as_ref().map(|g| g.until) else {
            return;
        };
        if now >= until || !self.attempts_left() {
            return self.give_up(out);
        }
        if let Some((slot, way)) = self.next_to_go_on(|m, i| m.progress[i].callable_at <= now) {
            return self.continue_at(slot, way, now, out);
        }
        let soon = |m: &Self, i: usize| m.progress[i].callable_at < until;
        let wake = self
            .next_to_go_on(soon)
            .map(|(slot, _)| self.progress[slot].callable_at);
        let most = self.setup.retry.max_attempts;
        match (wake, &mut self.gap) {
            (Some(at), Some(gap)) if gap.waits < most => {
                gap.waits += 1;
                gap.wake = at;
            }
            _ => self.give_up(out),
        }
    }

    /// Who is asked next: the gentlest way first; for each, another target of the tier, the same one, a stronger one. One
    /// that answers alike every time is asked for the whole first of all.
    fn next_to_go_on(&self, callable: impl Fn(&Self, usize) -> bool) -> Option<(usize, Way)> {
        let gap = self.gap.as_ref()?;
        let may = |i: usize| {
            !self.progress[i].out
                && !gap.failed.contains(&i)
                && self.may_go_on(gap.slot, i)
                && callable(self, i)
        };
        let pairs = Way::ALL.into_iter().flat_map(|way| {
            let can = move |i: &usize| way != Way::Prefill || self.setup.slots[*i].prefill;
            (0..self.progress.len()).filter(can).map(move |i| (i, way))
        });
        pairs
            .filter(|&(i, way)| may(i) && gap.ways.has(way) && !gap.asked.contains(&(i, way)))
            .min_by_key(|&(i, way)| (way, self.distance(gap, i, way), i))
    }

    /// The same or a stronger tier; any; behind a promised name all are the same model.
    fn may_go_on(&self, cut: usize, slot: usize) -> bool {
        let (was, is) = (self.tier(cut), self.tier(slot));
        match self.setup.continue_with {
            ContinueWith::Never => false,
            ContinueWith::Any => true,
            // A local model outside the tiers is below them all.
            ContinueWith::Stronger if was == OUTSIDE => true,
            ContinueWith::Stronger => is != OUTSIDE && is >= was,
        }
    }

    fn distance(&self, gap: &Gap, slot: usize, way: Way) -> u16 {
        let (was, is) = (self.tier(gap.slot), self.tier(slot));
        let silent = gap.outcome == Outcome::TargetFault(TargetFault::IdleTimeout);
        let cuts: u8 = self.progress.iter().map(|p| p.cuts).fold(0, u8::saturating_add);
        match (slot == gap.slot, silent) {
            // It has just fallen silent.
            (true, true) => u16::MAX,
            // Not the first gap: whoever broke off in this request comes last.
            _ if cuts > 1 && self.progress[slot].cuts > 0 => u16::MAX,
            (true, false) if way == Way::Whole && self.setup.deterministic => 0,
            (true, false) => 2,
            (false, _) if is == was => 1,
            (false, _) => 3 + u16::from(is.abs_diff(was)),
        }
    }

    fn continue_at(&mut self, slot: usize, way: Way, now: Time, out: &mut Actions) {
        let config = &self.setup.slots[slot];
        let (target, tier, first_token) = (config.target, config.tier, config.first_token);
        let try_ = TryId(self.next_try);
        self.next_try = self.next_try.saturating_add(1);
        self.attempts = self.attempts.saturating_add(1);
        self.progress[slot].tries = self.progress[slot].tries.saturating_add(1);
        let Some(gap) = &mut self.gap else { return };
        gap.asked.push((slot, way));
        gap.wake = Time::NEVER;
        // Nobody may be silent for so long that there is no time left to ask another.
        let half = later(now, gap.until.since(now) / 2);
        self.runs.push(Run {
            try_,
            slot,
            kind: StartKind::Continue,
            hold: None,
            judge: false,
            content: false,
            ended: false,
            late: false,
            verdict: None,
            first_by: half.min(later(now, first_token)),
            attempt_by: Time::NEVER,
            added_by: Time::NEVER,
            judge_by: Time::NEVER,
            hedge_by: Time::NEVER,
        });
        out.push(Action::Continue {
            try_,
            target,
            tier,
            way,
        });
    }

    /// Nobody goes on: the caller is told.
    fn give_up(&mut self, out: &mut Actions) {
        for run in std::mem::take(&mut self.runs) {
            out.push(Action::Cancel {
                try_: run.try_,
                why: CancelWhy::Deadline,
            });
        }
        if let Some(gap) = self.gap.take() {
            let finish = Finish::Cut {
                try_: gap.cut,
                outcome: gap.outcome,
            };
            self.finish(finish, out);
        }
    }

    pub(super) fn gap_due(&self) -> Time {
        let Some(gap) = &self.gap else { return Time::NEVER };
        let runs = self.runs.iter().map(Run::due);
        runs.fold(gap.until.min(gap.wake), Time::min)
    }
}
