//! Whole answers that come after their attempt's clock. Such a try is blamed and others are asked, but it is not given up
//! at once: what it brings is taken when nothing better came first. It gets as long again as it had: who never answers
//! must not hold a caller until the deadline.

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
        // Two run at most, and the next one is to have its place.
        if let Some(older) = self.runs.iter().find(|r| r.late).copied() {
            self.take_run(older.try_);
            out.push(Action::Cancel {
                try_: older.try_,
                why: CancelWhy::Clock(LATE),
            });
        }
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

    /// It had as long again and nothing came.
    fn give_up_late(&mut self, run: &Run, now: Time, out: &mut Actions) {
        self.take_run(run.try_);
        out.push(Action::Cancel {
            try_: run.try_,
            why: CancelWhy::Clock(LATE),
        });
        self.without_late(run, now, out);
    }

    /// The last hope is gone. Who could not be called while it was waited for may be callable now.
    fn without_late(&mut self, run: &Run, now: Time, out: &mut Actions) {
        if self.runs.is_empty() && self.state == State::Trying {
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
        let others = self.runs.iter().any(|r| r.try_ != run.try_) || self.state != State::Trying;
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
