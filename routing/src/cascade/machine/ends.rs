//! A try is over, or its clock is: whose fault, and what comes next.

use smallvec::SmallVec;

use super::{Blamed, Machine, Refused, Run, State, later};
use crate::cascade::types::*;
use crate::outcome::{CallerFault, Graded, Neutral, Outcome, TargetFault};
use crate::plan::{ContentFilter, OnFail};
use crate::units::Time;

impl Machine {
    // ---- transitions: ends -------------------------------------------------------------------------------------

    pub(super) fn ended(&mut self, try_: TryId, end: Graded, may_repeat: bool, now: Time, out: &mut Actions) {
        if self.runs.iter().any(|r| r.try_ == try_ && r.ended) {
            return;
        }
        self.patience = None;
        if end.outcome != Outcome::Ok {
            match self.take_run(try_) {
                Some(run) if run.late => self.late_failed(&run, end, now, out),
                Some(run) => self.fault(run, end, may_repeat, now, out),
                None => {}
            }
            return;
        }
        let Some(run) = self.run_mut(try_) else { return };
        run.ended = true;
        run.stop_clocks();
        let (judge, verdict, late) = (run.judge, run.verdict, run.late);
        if !late {
            self.let_rivals_go(try_, out);
        }
        match verdict {
            Some(v) if self.bad(&v) => self.not_good(try_, v, now, out),
            Some(v) if v.seen == Seen::Full => self.commit_whole(try_, out),
            _ if judge => out.push(Action::Judge { try_ }),
            _ => self.commit_whole(try_, out),
        }
    }

    pub(super) fn fault(&mut self, run: Run, end: Graded, may_repeat: bool, now: Time, out: &mut Actions) {
        self.note_fault(&run, end, may_repeat, now);
        match end.outcome {
            Outcome::CallerFault(fault) => self.callers_fault(&run, fault, now, out),
            Outcome::Neutral(Neutral::Deadline) => self.expire(out),
            // Its rival is asked already.
            _ if self.has_rival(&run) => {}
            _ => self.targets_fault(&run, now, out),
        }
    }

    /// What a failed try means for its target in the rest of this request.
    pub(super) fn note_fault(&mut self, run: &Run, end: Graded, may_repeat: bool, now: Time) {
        self.last = Some((run.try_, end.outcome));
        self.patience = None;
        let advice = end.outcome.advice();
        let unsent = matches!(end.outcome, Outcome::TargetFault(f) if f.unsent());
        self.spent |= !unsent;
        if matches!(end.outcome, Outcome::TargetFault(_)) {
            self.blame(run.try_, &end, now);
        }
        let p = &mut self.progress[run.slot];
        if let Some(hold) = end.hold(self.setup.retry.backoff_base) {
            p.callable_at = p.callable_at.max(now + hold);
            p.held = Some(DegradeReason::Held);
        }
        p.out |= advice.target_off;
        p.no_repeat |= !(advice.same_target && may_repeat);
    }

    fn blame(&mut self, try_: TryId, end: &Graded, now: Time) {
        let until = end.retry_after.map(|after| now + after);
        let sooner = match (self.blamed.and_then(|b| b.until), until) {
            (Some(known), Some(until)) => until <= known,
            (Some(known), None) => known <= now,
            (None, _) => true,
        };
        if sooner {
            self.blamed = Some(Blamed {
                try_,
                outcome: end.outcome,
                until,
            });
        }
    }

    pub(super) fn targets_fault(&mut self, run: &Run, now: Time, out: &mut Actions) {
        if let Some(next) = self.beside(run.slot, now) {
            return self.launch(next, StartKind::Failover, now, out);
        }
        if self.repeatable(run.slot) && self.progress[run.slot].callable_at <= now && !self.last_is_reserved()
        {
            let until = later(now, self.backoff(run.slot));
            if until < self.setup.deadline {
                self.state = State::Waiting {
                    slot: run.slot,
                    kind: StartKind::Retry,
                    until,
                };
                return;
            }
        }
        match self.onward(run.slot, now).filter(|_| !self.last_is_reserved()) {
            Some(next) => self.launch(next, StartKind::Failover, now, out),
            None => self.stuck(now, out),
        }
    }

    /// Never again as it was: a larger context for an overflow, another model for a parameter that this one does not
    /// take, a stronger one for a filter where the route says so.
    pub(super) fn callers_fault(&mut self, run: &Run, fault: CallerFault, now: Time, out: &mut Actions) {
        self.progress[run.slot].out = true;
        self.progress[run.slot].refused = true;
        let advice = Outcome::CallerFault(fault).advice();
        if advice.larger_context {
            self.rule_out_smaller(run.slot);
        }
        let elsewhere = advice.elsewhere && !(advice.only_if_chosen && self.setup.pinned);
        // Of several the last one: it comes from the target with most room.
        self.caller = Some(Refused {
            try_: run.try_,
            fault,
            elsewhere,
        });
        if elsewhere && self.has_rival_elsewhere(run) {
            return;
        }
        self.let_rivals_go(run.try_, out);
        let next = match fault {
            CallerFault::ContextOverflow if elsewhere => {
                self.larger(run.slot, now).or_else(|| self.larger_below(now))
            }
            CallerFault::ContentFilter if self.setup.content_filter == ContentFilter::Escalate => {
                self.replacement(run.slot, now)
            }
            _ if elsewhere => self.onward(run.slot, now).or_else(|| self.beside(run.slot, now)),
            _ => None,
        };
        match next {
            Some(next) => self.launch(next, StartKind::Failover, now, out),
            // Somebody who would take it may be back soon.
            None if elsewhere => self.stuck(now, out),
            None => self.settle_for(out),
        }
    }

    // ---- transitions: clocks -----------------------------------------------------------------------------------

    pub(super) fn clocks(&mut self, now: Time, out: &mut Actions) {
        if now >= self.setup.deadline {
            return self.expire(out);
        }
        let due: SmallVec<[TryId; 2]> = self
            .runs
            .iter()
            .filter(|r| r.due() <= now)
            .map(|r| r.try_)
            .collect();
        for try_ in due {
            self.clock(try_, now, out);
        }
    }

    pub(super) fn clock(&mut self, try_: TryId, now: Time, out: &mut Actions) {
        let Some(run) = self.runs.iter().find(|r| r.try_ == try_).copied() else {
            return;
        };
        if run.first_by <= now {
            return self.clock_fault(run, TargetFault::FirstTokenTimeout, now, out);
        }
        if run.attempt_by <= now && !self.setup.stream {
            return self.overdue(run, now, out);
        }
        if run.attempt_by <= now {
            return self.clock_fault(run, TargetFault::AttemptTimeout, now, out);
        }
        if run.added_by <= now {
            if let Some(next) = self.replacement(run.slot, now) {
                let outcome = Outcome::TargetFault(TargetFault::TooSlow);
                self.take_run(try_);
                self.spent = true;
                self.last = Some((try_, outcome));
                out.push(Action::Cancel {
                    try_,
                    why: CancelWhy::Clock(outcome),
                });
                self.let_rivals_go(try_, out);
                return self.launch(next, StartKind::Escalate, now, out);
            }
            if let Some(run) = self.run_mut(try_) {
                run.added_by = Time::NEVER;
            }
        }
        if run.judge_by <= now {
            if let Some(run) = self.run_mut(try_) {
                run.judge_by = Time::NEVER;
            }
            out.push(Action::Judge { try_ });
        }
        if run.hedge_by <= now {
            self.hedge(try_, now, out);
        }
    }

    pub(super) fn clock_fault(&mut self, run: Run, fault: TargetFault, now: Time, out: &mut Actions) {
        let outcome = Outcome::TargetFault(fault);
        self.take_run(run.try_);
        out.push(Action::Cancel {
            try_: run.try_,
            why: CancelWhy::Clock(outcome),
        });
        let end = Graded {
            maybe_billed: true,
            ..Graded::plain(outcome)
        };
        self.fault(run, end, false, now, out);
    }

    /// The deadline: whatever is good enough to hand out is handed out now.
    pub(super) fn expire(&mut self, out: &mut Actions) {
        let here = self
            .runs
            .iter()
            .find(|r| {
                (r.ended || (self.setup.stream && r.content)) && !r.verdict.is_some_and(|v| self.bad(&v))
            })
            .copied();
        if let Some(run) = here {
            return if run.ended {
                self.commit_whole(run.try_, out)
            } else {
                self.commit(run.try_, out)
            };
        }
        for run in std::mem::take(&mut self.runs) {
            out.push(Action::Cancel {
                try_: run.try_,
                why: CancelWhy::Deadline,
            });
        }
        if self.kept.is_some_and(|k| k.complete) && self.setup.on_fail == OnFail::Return {
            return self.deliver_kept(out);
        }
        let failed = Failed {
            why: FailWhy::Deadline,
            last: self.last,
            retry_after: None,
        };
        self.finish(Finish::Failed(failed), out);
    }

    pub(super) fn client_gone(&mut self, out: &mut Actions) {
        for run in std::mem::take(&mut self.runs) {
            if !run.ended {
                out.push(Action::Cancel {
                    try_: run.try_,
                    why: CancelWhy::ClientGone,
                });
            }
        }
        self.finish(Finish::ClientGone, out);
    }
}
