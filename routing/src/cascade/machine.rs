//! The machine: one small function a state, the rest are its transitions.

mod ends;
mod gap;
mod hedge;
mod late;
mod next;
mod stuck;

use std::time::Duration;

use smallvec::SmallVec;

use self::gap::Gap;
use super::setup::Setup;
use super::types::*;
use crate::outcome::{CallerFault, Outcome};
use crate::plan::{ContentFilter, HoldBack, OnFail};
use crate::predict::{self, Belief};
use crate::units::Time;

/// Tier of local targets outside the tiers.
const OUTSIDE: u8 = u8::MAX;

/// The cascade of one request.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) setup: Setup,
    state: State,
    /// Running tries; two at most.
    pub(super) runs: SmallVec<[Run; 2]>,
    progress: SmallVec<[Progress; 6]>,
    /// The best answer that did not pass.
    kept: Option<Kept>,
    next_try: u16,
    pub(super) attempts: u8,
    waits: u8,
    /// Somebody who is held is being waited for, until then at most. A start that is refused is no end of it: nothing was
    /// sent (many wait for one probe), and it may be looked at again.
    patience: Option<Time>,
    /// A try may have had effects upstream.
    spent: bool,
    last: Option<(TryId, Outcome)>,
    caller: Option<Refused>,
    /// The fault of a target that a caller can do most about: the one that said soonest when to come back, else the last.
    blamed: Option<Blamed>,
    difficulty: Option<Belief>,
    degraded: Option<Degraded>,
    /// A committed stream that broke, while somebody is sought to go on with it.
    gap: Option<Gap>,
    /// The slot that was slow, once a second try was started beside it.
    hedged: Option<usize>,
    armed: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Trying,
    Waiting {
        slot: usize,
        kind: StartKind,
        until: Time,
    },
    Committed(TryId),
    /// Committed, and broken: see [`Gap`].
    Broken,
    Done,
}

/// What a slot has seen in this request.
#[derive(Clone, Copy, Debug)]
struct Progress {
    callable_at: Time,
    held: Option<DegradeReason>,
    tries: u8,
    out: bool,
    /// It does not take this request, or is known to have no room for it.
    refused: bool,
    /// No (further) repeat: the ratio budget or the kind of fault says so.
    no_repeat: bool,
    /// Committed streams of it that broke.
    cuts: u8,
}

/// A running try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) try_: TryId,
    slot: usize,
    kind: StartKind,
    hold: Option<HoldBack>,
    judge: bool,
    content: bool,
    ended: bool,
    /// Its attempt's clock has run out, and its answer may still come.
    late: bool,
    verdict: Option<Judged>,
    first_by: Time,
    attempt_by: Time,
    added_by: Time,
    judge_by: Time,
    /// From then on it is slow for its target.
    hedge_by: Time,
}

impl Run {
    fn due(&self) -> Time {
        self.first_by
            .min(self.attempt_by)
            .min(self.added_by)
            .min(self.judge_by)
            .min(self.hedge_by)
    }
    fn stop_clocks(&mut self) {
        self.first_by = Time::NEVER;
        self.attempt_by = Time::NEVER;
        self.added_by = Time::NEVER;
        self.judge_by = Time::NEVER;
        self.hedge_by = Time::NEVER;
    }
}

/// A provider's refusal of the request.
#[derive(Clone, Copy, Debug)]
struct Refused {
    try_: TryId,
    fault: CallerFault,
    /// Of that target only: another one may take the request as it is.
    elsewhere: bool,
}

/// A target's fault that an error may speak of.
#[derive(Clone, Copy, Debug)]
struct Blamed {
    try_: TryId,
    outcome: Outcome,
    /// It said when to come back.
    until: Option<Time>,
}

/// An answer that did not pass.
#[derive(Clone, Copy, Debug)]
struct Kept {
    try_: TryId,
    slot: usize,
    verdict: Judged,
    /// All of it is here; otherwise its try was let go, and only a new one could bring it.
    complete: bool,
}

impl Machine {
    /// A machine that waits for [`Event::Begin`].
    pub fn new(setup: Setup) -> Self {
        let progress = setup.slots.iter().map(|slot| Progress {
            callable_at: slot.callable_at,
            held: slot.held,
            tries: 0,
            out: slot.callable_at == Time::NEVER,
            refused: false,
            no_repeat: false,
            cuts: 0,
        });
        Self {
            progress: progress.collect(),
            difficulty: setup.difficulty,
            setup,
            state: State::Ready,
            runs: SmallVec::new(),
            kept: None,
            next_try: 0,
            attempts: 0,
            waits: 0,
            patience: None,
            spent: false,
            last: None,
            caller: None,
            blamed: None,
            degraded: None,
            gap: None,
            hedged: None,
            armed: Time::NEVER,
        }
    }

    /// Tries that were really made: refused ones do not count.
    pub fn attempts(&self) -> u8 {
        self.attempts
    }
    /// How the answer is less than what would have been chosen with everything healthy. Valid from [`Action::Commit`]
    /// on, and the same as in [`Finish::Answered`].
    pub fn degraded(&self) -> Option<Degraded> {
        self.degraded
    }
    /// [`Action::Commit`] was given.
    pub fn is_committed(&self) -> bool {
        matches!(self.state, State::Committed(_) | State::Broken)
    }
    /// [`Action::Finish`] was given.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// One event in, what to do about it out. `now` must not run backwards.
    pub fn step(&mut self, event: Event, now: Time) -> Actions {
        let mut out = Actions::new();
        let timer = matches!(event, Event::Timer);
        match self.state {
            State::Ready => self.ready(&event, now, &mut out),
            State::Trying => self.trying(event, now, &mut out),
            State::Waiting { slot, kind, until } => self.waiting(event, slot, kind, until, now, &mut out),
            State::Committed(try_) => self.committed(try_, &event, now, &mut out),
            State::Broken => self.broken(event, now, &mut out),
            State::Done => return out,
        }
        self.arm(timer, &mut out);
        out
    }

    // ---- states ------------------------------------------------------------------------------------------------

    fn ready(&mut self, event: &Event, now: Time, out: &mut Actions) {
        match event {
            Event::Begin => self.begin(now, out),
            Event::ClientGone => self.finish(Finish::ClientGone, out),
            _ => {}
        }
    }

    fn trying(&mut self, event: Event, now: Time, out: &mut Actions) {
        match event {
            Event::ClientGone => self.client_gone(out),
            Event::Timer => self.clocks(now, out),
            Event::Refused { try_, why, until } => self.refused(try_, why, until, now, out),
            Event::SignOfLife { try_ } => self.sign_of_life(try_, now),
            Event::FirstContent { try_ } => self.first_content(try_, now, out),
            Event::Verdict { try_, verdict } => self.verdict(try_, verdict, now, out),
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
            } => self.ended(try_, end, may_repeat, now, out),
            Event::Begin | Event::Joined { .. } | Event::Unfit { .. } => {}
        }
    }

    fn waiting(
        &mut self,
        event: Event,
        slot: usize,
        kind: StartKind,
        until: Time,
        now: Time,
        out: &mut Actions,
    ) {
        match event {
            Event::ClientGone => self.client_gone(out),
            Event::Timer => {
                // The clocks of one that is late, and the deadline.
                self.clocks(now, out);
                if matches!(self.state, State::Waiting { .. }) && now >= until {
                    self.launch(slot, kind, now, out);
                }
            }
            // Of one that is late.
            Event::Verdict { .. } | Event::Ended { .. } => self.trying(event, now, out),
            _ => {}
        }
    }

    /// After the commit only the end, an error or the caller's leaving count.
    fn committed(&mut self, committed: TryId, event: &Event, now: Time, out: &mut Actions) {
        match event {
            Event::ClientGone => self.client_gone(out),
            Event::Verdict { try_, verdict } if *try_ == committed => {
                if let Some(run) = self.run_mut(committed) {
                    run.verdict = Some(*verdict);
                }
            }
            Event::Ended { try_, end, .. } if *try_ == committed => {
                let run = self.take_run(committed);
                match end.outcome {
                    Outcome::Ok => self.answered(committed, run.and_then(|r| r.verdict), out),
                    outcome => self.finish(
                        Finish::Cut {
                            try_: committed,
                            outcome,
                        },
                        out,
                    ),
                }
            }
            Event::Cut {
                try_,
                end,
                may_repeat,
                ways,
            } if *try_ == committed => {
                if let Some(run) = self.take_run(committed) {
                    self.cut(run, *end, *may_repeat, *ways, now, out);
                }
            }
            _ => {}
        }
    }

    // ---- transitions: start ------------------------------------------------------------------------------------

    fn begin(&mut self, now: Time, out: &mut Actions) {
        self.state = State::Trying;
        let start = self
            .setup
            .start
            .and_then(|target| self.setup.slots.iter().position(|s| s.target == target))
            .filter(|&i| {
                self.fresh(i, now) && self.tier(i) >= self.setup.wanted_tier && self.tier(i) != OUTSIDE
            });
        match start {
            Some(slot) => self.launch(slot, StartKind::First, now, out),
            None => self.stuck(now, out),
        }
    }

    fn launch(&mut self, slot: usize, kind: StartKind, now: Time, out: &mut Actions) {
        if now >= self.setup.deadline {
            return self.expire(out);
        }
        if !self.attempts_left() {
            // Nobody asks for a start without an attempt left; should it happen, it ends rather than goes on.
            return self.settle_for(out);
        }
        self.make_room(out);
        self.state = State::Trying;
        self.attempts = self.attempts.saturating_add(1);
        self.progress[slot].tries = self.progress[slot].tries.saturating_add(1);
        let replaceable = self.replacement(slot, now).is_some();
        // An answer that is asked for again because nothing better came is handed out whatever it is: its verdict is told.
        let matters = replaceable || self.setup.on_fail == OnFail::Error || kind == StartKind::Again;
        let judge = self.setup.verify;
        let hold = match self.setup.hold_back {
            HoldBack::Tokens(0) => None,
            hold => (judge && matters && self.setup.stream).then_some(hold),
        };
        let config = &self.setup.slots[slot];
        let run = Run {
            try_: TryId(self.next_try),
            slot,
            kind,
            hold,
            judge: judge && (hold.is_some() || !self.setup.stream),
            content: false,
            ended: false,
            late: false,
            verdict: None,
            first_by: if self.setup.stream {
                later(now, config.first_token)
            } else {
                Time::NEVER
            },
            attempt_by: later(now, config.attempt),
            added_by: match self.setup.max_added {
                Some(most) if replaceable => later(now, most),
                _ => Time::NEVER,
            },
            judge_by: Time::NEVER,
            hedge_by: self.slow_at(slot, kind, now),
        };
        self.next_try = self.next_try.saturating_add(1);
        out.push(Action::Start {
            try_: run.try_,
            target: config.target,
            tier: config.tier,
            kind,
            hold,
            judge: run.judge,
        });
        self.runs.push(run);
    }

    /// Permit, breaker or budget said no: not an attempt. Somebody else, or the same one later.
    fn refused(&mut self, try_: TryId, why: Refusal, until: Option<Time>, now: Time, out: &mut Actions) {
        // Only what has not begun can be refused.
        let begun = |r: &Run| r.content || r.ended;
        if self.runs.iter().any(|r| r.try_ == try_ && begun(r)) {
            return;
        }
        let Some(run) = self.take_run(try_) else { return };
        if run.kind == StartKind::Hedge {
            return self.hedge_refused(run, now, out);
        }
        self.note_refusal(&run, why, until, now);
        if self.patience.is_some() {
            // All who wait are woken at one time: not again at once.
            let p = &mut self.progress[run.slot];
            p.callable_at = p.callable_at.max(later(now, self.setup.retry.backoff_base));
        }
        let kind = match run.kind {
            StartKind::Retry | StartKind::Again => StartKind::Failover,
            kind => kind,
        };
        match self.beside(run.slot, now).or_else(|| self.onward(run.slot, now)) {
            Some(next) => self.launch(next, kind, now, out),
            None => self.stuck(now, out),
        }
    }

    /// What a refusal means for its target in the rest of this request.
    fn note_refusal(&mut self, run: &Run, why: Refusal, until: Option<Time>, now: Time) {
        self.attempts = self.attempts.saturating_sub(1);
        let p = &mut self.progress[run.slot];
        p.tries = p.tries.saturating_sub(1);
        match why {
            Refusal::RetryBudget if run.kind == StartKind::Retry => p.no_repeat = true,
            // Somebody else may go on, and so may it when it is asked anew.
            Refusal::RetryBudget if run.kind == StartKind::Continue => {}
            // A budget for repeats that refuses a first try means nothing; it must not be asked for ever.
            Refusal::RetryBudget | Refusal::Off | Refusal::Reserve => p.out = true,
            Refusal::Permit | Refusal::Breaker | Refusal::Held => {
                p.callable_at = until.filter(|&t| t > now).unwrap_or(Time::NEVER);
                p.out = p.callable_at == Time::NEVER;
            }
        }
        p.held = match why {
            Refusal::RetryBudget => p.held,
            Refusal::Off => None,
            Refusal::Reserve => Some(DegradeReason::Budget),
            Refusal::Permit => Some(DegradeReason::Full),
            Refusal::Breaker => Some(DegradeReason::Open),
            Refusal::Held => Some(DegradeReason::Held),
        };
    }

    // ---- transitions: the answer as it comes -------------------------------------------------------------------

    fn sign_of_life(&mut self, try_: TryId, now: Time) {
        let slots = &self.setup.slots;
        if let Some(run) = self.runs.iter_mut().find(|r| r.try_ == try_)
            && run.first_by != Time::NEVER
        {
            run.first_by = later(now, slots[run.slot].first_token);
            run.hedge_by = Time::NEVER;
        }
    }

    fn first_content(&mut self, try_: TryId, now: Time, out: &mut Actions) {
        if !self.setup.stream {
            return;
        }
        let hold_back_max = self.setup.hold_back_max;
        let Some(run) = self.runs.iter_mut().find(|r| r.try_ == try_) else {
            return;
        };
        if run.content {
            return;
        }
        self.patience = None;
        run.content = true;
        run.first_by = Time::NEVER;
        run.attempt_by = Time::NEVER;
        run.hedge_by = Time::NEVER;
        let held = run.hold.is_some();
        if held {
            run.judge_by = later(now, hold_back_max);
        }
        self.let_rivals_go(try_, out);
        if !held {
            self.commit(try_, out);
        }
    }

    fn verdict(&mut self, try_: TryId, verdict: Judged, now: Time, out: &mut Actions) {
        let bad = self.bad(&verdict);
        let stream = self.setup.stream;
        let Some(run) = self.run_mut(try_) else { return };
        if !run.judge {
            return;
        }
        run.verdict = Some(verdict);
        let (ended, held) = (run.ended, run.content);
        if bad && verdict.seen == Seen::Full && !ended {
            // The whole of it is here; its end is told next, and then it can be kept.
            return;
        }
        if bad {
            self.not_good(try_, verdict, now, out);
        } else if ended {
            self.commit_whole(try_, out);
        } else if stream && held {
            self.commit(try_, out);
        }
    }

    /// The answer, or what is there of it, failed. A stronger target if there is one; else this is the best there is.
    fn not_good(&mut self, try_: TryId, verdict: Judged, now: Time, out: &mut Actions) {
        let Some(run) = self.runs.iter().find(|r| r.try_ == try_).copied() else {
            return;
        };
        if self.keep_late(&run, verdict, out) {
            return;
        }
        let known = self.difficulty.zip(self.setup.slots[run.slot].ability);
        let next = self.replacement_after(run.slot, known, now);
        if let Some(next) = next.filter(|_| run.kind != StartKind::Again) {
            self.difficulty = known
                .map(|(d, a)| predict::after_failure(d, a))
                .or(self.difficulty);
            self.take_run(try_);
            if !run.ended {
                out.push(Action::Cancel {
                    try_,
                    why: CancelWhy::Verdict,
                });
                self.spent = true;
            }
            self.keep(
                Kept {
                    try_,
                    slot: run.slot,
                    verdict,
                    complete: run.ended,
                },
                out,
            );
            self.let_rivals_go(try_, out);
            return self.launch(next, StartKind::Escalate, now, out);
        }
        match (self.setup.on_fail, verdict.grade) {
            (OnFail::Error, Grade::Fail(check)) => {
                self.take_run(try_);
                if run.ended && self.awaits_late() {
                    let (slot, complete) = (run.slot, true);
                    return self.keep(
                        Kept {
                            try_,
                            slot,
                            verdict,
                            complete,
                        },
                        out,
                    );
                }
                if !run.ended {
                    out.push(Action::Cancel {
                        try_,
                        why: CancelWhy::Verdict,
                    });
                }
                self.fail(FailWhy::Verdict(check), now, out);
            }
            _ if run.ended => {
                self.take_run(try_);
                self.keep(
                    Kept {
                        try_,
                        slot: run.slot,
                        verdict,
                        complete: true,
                    },
                    out,
                );
                self.deliver_kept(out);
            }
            _ if self.setup.stream && run.content => self.commit(try_, out),
            // A whole answer goes on to its end: it is the best there is.
            _ => {}
        }
    }

    // ---- transitions: commit and finish ------------------------------------------------------------------------

    fn commit(&mut self, try_: TryId, out: &mut Actions) {
        if let Some(kept) = self.kept.take().filter(|k| k.complete) {
            out.push(Action::Forget { try_: kept.try_ });
        }
        let mut slot = None;
        if let Some(run) = self.run_mut(try_) {
            run.stop_clocks();
            slot = Some(run.slot);
        }
        self.degraded = slot.and_then(|slot| self.degraded_by(slot));
        self.state = State::Committed(try_);
        out.push(Action::Commit { try_ });
    }

    fn commit_whole(&mut self, try_: TryId, out: &mut Actions) {
        self.commit(try_, out);
        let run = self.take_run(try_);
        self.answered(try_, run.and_then(|r| r.verdict), out);
    }

    fn deliver_kept(&mut self, out: &mut Actions) {
        let Some(kept) = self.kept.take() else { return };
        self.degraded = self.degraded_by(kept.slot);
        out.push(Action::Commit { try_: kept.try_ });
        self.answered(kept.try_, Some(kept.verdict), out);
    }

    fn answered(&mut self, try_: TryId, verdict: Option<Judged>, out: &mut Actions) {
        let finish = Finish::Answered {
            try_,
            verdict: verdict.unwrap_or_else(Judged::unchecked),
            degraded: self.degraded,
        };
        self.finish(finish, out);
    }

    fn finish(&mut self, finish: Finish, out: &mut Actions) {
        self.end_the_rest(out);
        self.state = State::Done;
        out.push(Action::Finish(finish));
    }

    /// Keeps the better of two answers that did not pass.
    fn keep(&mut self, new: Kept, out: &mut Actions) {
        let rank = |k: &Kept, m: &Self| (k.complete, k.verdict.p_good.unwrap_or(0.0), m.tier(k.slot));
        let drop = match self.kept {
            Some(old) if rank(&old, self) > rank(&new, self) => new,
            old => {
                self.kept = Some(new);
                let Some(old) = old else { return };
                old
            }
        };
        if drop.complete {
            out.push(Action::Forget { try_: drop.try_ });
        }
    }

    // ---- small things ------------------------------------------------------------------------------------------

    fn bad(&self, verdict: &Judged) -> bool {
        match verdict.grade {
            Grade::Fail(_) => true,
            Grade::Filtered => self.setup.content_filter == ContentFilter::Escalate,
            Grade::Pass | Grade::Unchecked => false,
        }
    }

    fn run_mut(&mut self, try_: TryId) -> Option<&mut Run> {
        self.runs.iter_mut().find(|r| r.try_ == try_)
    }
    fn take_run(&mut self, try_: TryId) -> Option<Run> {
        let at = self.runs.iter().position(|r| r.try_ == try_)?;
        Some(self.runs.remove(at))
    }

    /// One timer for everything; set only when it changes, and always after it fired.
    fn arm(&mut self, fired: bool, out: &mut Actions) {
        let at = match self.state {
            State::Trying => self
                .runs
                .iter()
                .map(Run::due)
                .fold(self.setup.deadline, Time::min),
            State::Waiting { until, .. } => self
                .runs
                .iter()
                .map(Run::due)
                .fold(until.min(self.setup.deadline), Time::min),
            State::Broken => self.gap_due(),
            State::Ready | State::Committed(_) | State::Done => Time::NEVER,
        };
        if self.state == State::Done {
            return;
        }
        if at != self.armed || (fired && at != Time::NEVER) {
            self.armed = at;
            out.push(Action::ArmTimer { at });
        }
    }
}

/// A clock of no length still lies ahead: a timer that is always due would fire for ever.
fn later(now: Time, wait: Duration) -> Time {
    now + wait.max(Duration::from_micros(1))
}
