//! Whole answers that come after their attempt's clock. Such a try is blamed and others are asked, but it is not given up
//! at once: what it brings is taken when nothing better came first. It gets as long again as it had, beside whoever is
//! asked, and is given up sooner only for a try that is to be started in its place (two run at most). Not longer: who never
//! answers must not hold a caller until the deadline, and its breaker hears of it only when it is given up.

use std::time::Duration;

use super::{Kept, Machine, Run, State, later};
use crate::cascade::types::*;
use crate::outcome::{Graded, Outcome, TargetFault};
use crate::units::Time;

pub(super) const LATE: Outcome = Outcome::TargetFault(TargetFault::AttemptTimeout);

impl Machine {
    /// The attempt's clock of a whole answer: somebody else is asked, and this one may still come.
    pub(super) fn overdue(&mut self, run: Run, now: Time, out: &mut Actions) {
        if run.late {
            return self.give_up_late(&run, now, out);
        }
        let end = Graded {
            maybe_billed: true,
            ..Graded::plain(LATE)
        };
        self.note_fault(&run, end, false, now);
        let grace = self
            .setup
            .slots
            .get(run.slot)
            .map_or(Duration::ZERO, |s| s.attempt);
        if let Some(run) = self.run_mut(run.try_) {
            run.late = true;
            run.stop_clocks();
            run.attempt_by = later(now, grace);
        }
        if !self.has_rival(&run) {
            self.targets_fault(&run, now, out);
        }
    }

    /// Two run at most: for one that is started now, the oldest of two that are late goes.
    pub(super) fn make_room(&mut self, out: &mut Actions) {
        let running = self.runs.iter().filter(|r| !r.ended).count();
        let older = self.runs.iter().find(|r| r.late && !r.ended).copied();
        if let Some(older) = older.filter(|_| running > 1) {
            self.let_late_go(&older, out);
        }
    }

    fn let_late_go(&mut self, run: &Run, out: &mut Actions) {
        self.take_run(run.try_);
        out.push(Action::Cancel {
            try_: run.try_,
            why: CancelWhy::Clock(LATE),
        });
    }

    /// It had as long again and nothing came.
    fn give_up_late(&mut self, run: &Run, now: Time, out: &mut Actions) {
        self.let_late_go(run, out);
        self.without_late(run, now, out);
    }

    /// One hope less. Who could not be called while it was waited for may be callable now.
    fn without_late(&mut self, run: &Run, now: Time, out: &mut Actions) {
        let nobody_asked = self.runs.iter().all(|r| r.late && !r.ended);
        if nobody_asked && self.state == State::Trying {
            self.targets_fault(run, now, out);
        }
    }

    /// An answer may still come late.
    pub(super) fn awaits_late(&self) -> bool {
        self.runs.iter().any(|r| r.late && !r.ended)
    }

    /// A late one broke: nothing was built on it. Who was asked instead goes on; if nobody was, this was the last hope.
    pub(super) fn late_failed(&mut self, run: &Run, end: Graded, now: Time, out: &mut Actions) {
        self.note_fault(run, end, false, now);
        self.without_late(run, now, out);
    }

    /// A late answer did not pass, while another is asked or about to be: it is kept, in case nothing better comes.
    /// `false`: nobody else is, so it is judged like any other.
    pub(super) fn keep_late(&mut self, run: &Run, verdict: Judged, out: &mut Actions) -> bool {
        // Another late one is no reason to wait: it may never come.
        let better = |r: &Run| r.try_ != run.try_ && (!r.late || r.ended);
        let others = self.runs.iter().any(better) || self.state != State::Trying;
        if !run.late || !run.ended || !others {
            return false;
        }
        self.take_run(run.try_);
        let kept = Kept {
            try_: run.try_,
            slot: run.slot,
            verdict,
            complete: true,
        };
        self.keep(kept, out);
        true
    }

    /// Whatever still runs at the end is ended.
    pub(super) fn end_the_rest(&mut self, out: &mut Actions) {
        for run in std::mem::take(&mut self.runs) {
            if !run.ended {
                let why = if run.late {
                    CancelWhy::Clock(LATE)
                } else {
                    CancelWhy::Outrun
                };
                out.push(Action::Cancel { try_: run.try_, why });
            }
        }
    }
}
