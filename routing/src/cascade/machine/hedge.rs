//! Hedging: a try that has no content though its target usually would by now gets a second one beside it, at another
//! target of the tier or at the same one. Whichever has content first (whole answers: ends first) is the answer, and the
//! other is let go. One a request, within the attempt budget; whether there is money for it is the caller's to say.

use super::{Machine, Run, State, later};
use crate::cascade::types::*;
use crate::units::Time;

impl Machine {
    /// When a try counts as slow; never where it may not have a rival.
    pub(super) fn slow_at(&self, slot: usize, kind: StartKind, now: Time) -> Time {
        let alone = self.runs.is_empty() && self.hedged.is_none() && !self.setup.effects;
        match self.setup.slots[slot].hedge_after {
            Some(after) if alone && kind != StartKind::Again => later(now, after),
            _ => Time::NEVER,
        }
    }

    /// Its time has come.
    pub(super) fn hedge(&mut self, slow: TryId, now: Time, out: &mut Actions) {
        let alone = self.runs.len() == 1 && self.state == State::Trying && self.hedged.is_none();
        let Some(run) = self.run_mut(slow) else { return };
        run.hedge_by = Time::NEVER;
        let run = *run;
        if !alone || run.content || run.ended || self.last_is_reserved() {
            return;
        }
        let Some(slot) = self.rival_of(run.slot, now) else {
            return;
        };
        self.hedged = Some(run.slot);
        self.launch(slot, StartKind::Hedge, now, out);
        // What a tier may add is counted from its first try.
        if let Some(rival) = self.runs.iter_mut().find(|r| r.kind == StartKind::Hedge) {
            rival.added_by = run.added_by;
        }
    }

    /// Another target of the tier; else the same one, where it may be asked again at all.
    fn rival_of(&self, slot: usize, now: Time) -> Option<usize> {
        let same = || {
            let callable = self.progress[slot].callable_at <= now;
            (callable && self.repeatable(slot)).then_some(slot)
        };
        self.beside(slot, now).or_else(same)
    }

    /// Nothing was asked, and nothing follows from it for anybody; unless the slow one has failed in the meantime.
    pub(super) fn hedge_refused(&mut self, run: Run, now: Time, out: &mut Actions) {
        self.attempts = self.attempts.saturating_sub(1);
        let p = &mut self.progress[run.slot];
        p.tries = p.tries.saturating_sub(1);
        if self.runs.is_empty() && self.state == State::Trying {
            let slot = self.hedged.unwrap_or(run.slot);
            self.targets_fault(&Run { slot, ..run }, now, out);
        }
    }

    /// Somebody else is asked, and may still be first.
    pub(super) fn has_rival(&self, run: &Run) -> bool {
        self.runs
            .iter()
            .any(|r| r.try_ != run.try_ && !r.late && !r.ended)
    }

    /// ... somewhere else.
    pub(super) fn has_rival_elsewhere(&self, run: &Run) -> bool {
        let mut others = self
            .runs
            .iter()
            .filter(|r| r.try_ != run.try_ && !r.late && !r.ended);
        others.any(|r| r.slot != run.slot)
    }

    /// This one is first. One that is late is not asked to go: it was given up as a rival long ago.
    pub(super) fn let_rivals_go(&mut self, first: TryId, out: &mut Actions) {
        let rival = |r: &Run| r.try_ != first && !r.late && !r.ended;
        for run in self.runs.iter().filter(|r| rival(r)) {
            out.push(Action::Cancel {
                try_: run.try_,
                why: CancelWhy::Outrun,
            });
        }
        self.runs.retain(|r| !rival(r));
    }
}
