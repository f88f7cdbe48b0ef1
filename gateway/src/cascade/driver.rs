//! The driver: owns the machine, the running tries, what is held back, and one timer.
//!
//! `poll_commit` runs before the head goes out, `poll_frame` afterwards; both turn the same crank. The machine is
//! entered only for a start, a first content, a verdict, an end or the timer: the frames of a committed stream pass by it.

mod gap;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use routing::cascade::{
    Action, CancelWhy, Event, FailWhy, Failed, Finish, Grade, Judged, Machine, Setup, StartKind, TryId,
};
use routing::continuation::Sent;
use routing::decide::{Query, Why};
use routing::facts::Needs;
use routing::ids::TargetId;
use routing::outcome::{Graded, Neutral, Outcome, TargetFault};
use routing::plan::{ContinueWith, DegradeStep, HoldBack};
use routing::signals::{Hold, Usable};
use routing::units::Time;
use smallvec::SmallVec;

use super::account::{self, Account, Ended};
use super::attempt::{self, Sign};
use super::joining::Received;
use super::piece::Piece;
use super::running::{Calling, Running, Said};
use super::watch::Watch;
use super::{Head, Work, errors, expect};
use crate::cache::Entry;
use crate::call::Call;
use crate::clock::Alarm;
use crate::error::{Error, Kind};
use crate::providers::event::{self as said, FinishReason, Frame, Meta, Usage};
use crate::providers::failure::{AttemptError, Fault, TryClock};
use crate::providers::render::{Chunks, Form, WholeAnswer};
use crate::providers::{CallContext, Client};

/// Turns of the crank in one poll; then the task yields, so that one fast stream cannot starve its neighbours.
const MAX_TURNS: usize = 32;

/// See the module.
pub struct Driver {
    work: Work,
    machine: Machine,
    events: VecDeque<Event>,
    /// Tries that run, and answers that are whole and kept until the machine has chosen.
    tries: SmallVec<[Running; 2]>,
    timer: Alarm,
    /// When the machine wants to be woken.
    machine_at: Time,
    /// What the timer is set to.
    armed_at: Time,
    committed: Option<TryId>,
    /// Pieces for the caller; with what they say only where several read them.
    out: VecDeque<Piece>,
    /// A whole answer.
    whole: Option<Piece>,
    finish: Option<Finish>,
    /// Last verdict of each try.
    verdicts: SmallVec<[Given; 2]>,
    /// Last error, by try.
    errors: SmallVec<[Broken; 2]>,
    starts: u8,
    /// Should it break after the commit, the answer may be gone on with: what the caller receives is remembered.
    may_go_on: bool,
    /// What the caller has received of the stream that broke last.
    received: Option<Received>,
    head: Head,
    account: Account,
}

/// A verdict on the answer of a try.
struct Given {
    id: TryId,
    target: TargetId,
    tier: u8,
    judged: Judged,
}

/// A try that failed.
struct Broken {
    id: TryId,
    target: TargetId,
    tier: u8,
    error: AttemptError,
}

/// What one turn of the crank left to do.
enum Turn {
    /// Something moved; turn again.
    Moved,
    /// Nothing can move before a waker fires.
    Waiting,
}

impl Driver {
    /// A driver at its beginning; nothing is started before the first poll.
    pub fn new(work: Work) -> Self {
        let query = Query {
            plan: &work.plan,
            policy: &work.decision.policy,
            facts: &work.facts,
            signals: &work.signals,
            deadline: work.deadline,
            seed: work.seed,
        };
        let mut setup = Setup::of(&query, &work.decision);
        setup.until = work.until;
        setup.stale = work.stale.is_some();
        if work.resent > 0 {
            setup.is_sent_again();
        }
        if !gap::may_go_on(&work) {
            setup.continue_with = ContinueWith::Never;
        }
        hedged(&mut setup, &work);
        let may_go_on = setup.continue_with != ContinueWith::Never;
        let machine = Machine::new(setup);
        let timer = Alarm::new(&work.clock, Time::NEVER);
        // Room for what one step leaves behind, so that it never grows in a request that goes well.
        let mut events = VecDeque::with_capacity(4);
        events.push_back(Event::Begin);
        Self {
            machine,
            events,
            tries: SmallVec::new(),
            timer,
            machine_at: Time::NEVER,
            armed_at: Time::NEVER,
            committed: None,
            out: VecDeque::new(),
            whole: None,
            finish: None,
            verdicts: SmallVec::new(),
            errors: SmallVec::new(),
            starts: 0,
            may_go_on,
            received: None,
            head: Head::default(),
            account: Account::default(),
            work,
        }
    }

    /// Until the commit: `Some` for a whole answer, `None` when the stream may begin.
    ///
    /// # Errors
    /// There is no answer.
    pub fn poll_commit(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, Error>> {
        for _ in 0..MAX_TURNS {
            if let Some(finish) = self.finish.take() {
                return Poll::Ready(self.concluded(finish));
            }
            if self.committed.is_some() && self.work.call.stream {
                return Poll::Ready(Ok(None));
            }
            if let Turn::Waiting = self.turn(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Frames of a committed stream. An error is the in-band error: it is the last thing said, and no `[DONE]` follows.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            return match self.poll_piece(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(piece))) => match piece.wire {
                    Some(wire) => Poll::Ready(Some(Ok(wire))),
                    // What only others would hear of.
                    None => continue,
                },
            };
        }
    }

    /// The same with what the pieces say, where [`Work::shared`] asks for it.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Error>>> {
        for _ in 0..MAX_TURNS {
            if let Some(piece) = self.out.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            if let Some(finish) = self.finish.take() {
                match self.concluded(finish) {
                    // There may be last words.
                    Ok(_) => continue,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
            // Whatever the timer was set to: after the end nothing is waited for.
            if self.machine.is_done() {
                return Poll::Ready(None);
            }
            if let Turn::Waiting = self.turn(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What the head says now.
    pub fn head(&self) -> Head {
        self.head.clone()
    }

    /// The tries so far, for the record; what still runs is written down as cancelled and dropped.
    pub fn account(&mut self) -> Account {
        let now = self.work.clock.now();
        for mut run in std::mem::take(&mut self.tries) {
            let outcome = if run.is_whole() {
                Outcome::Ok
            } else {
                Outcome::Neutral(Neutral::Cancelled)
            };
            self.write_down(&mut run, outcome, None, now);
        }
        let mut account = std::mem::take(&mut self.account);
        account.add_up();
        account.degraded = self.head.degraded.as_deref().map(Box::from);
        account
    }

    /// One turn: events first, then the timer, then the tries.
    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        let now = self.work.clock.now();
        if let Some(event) = self.events.pop_front() {
            for action in self.machine.step(event, now) {
                self.carry_out(action, now);
            }
            return Turn::Moved;
        }
        // Before the tries: an upstream that always has something to say may not starve the clocks.
        if self.machine_at <= now {
            self.rang(now);
            return Turn::Moved;
        }
        for at in 0..self.tries.len() {
            let Some(run) = self.tries.get_mut(at) else { break };
            if let Poll::Ready(said) = run.poll_said(cx, now) {
                let id = run.id;
                self.heard(id, said, now);
                return Turn::Moved;
            }
        }
        self.arm(now);
        if self.armed_at != Time::NEVER && self.timer.poll(cx).is_ready() {
            self.armed_at = Time::NEVER;
            self.rang(now);
            return Turn::Moved;
        }
        Turn::Waiting
    }

    fn carry_out(&mut self, action: Action, now: Time) {
        match action {
            Action::Start {
                try_,
                target,
                tier,
                kind,
                hold,
                judge,
            } => {
                self.start(try_, target, tier, kind, hold, judge, now);
            }
            Action::Cancel { try_, why } => {
                if let Some(mut run) = self.take(try_) {
                    let attempt = self.work.plan.target(run.target).timeouts.attempt;
                    match why {
                        CancelWhy::Clock(outcome) => {
                            feel(&run, outcome, now);
                            tell(&self.work, &mut run, attempt::sign_of(outcome, None), now);
                        }
                        // Its own clock had run out before; it was only waited for because nobody else was left.
                        CancelWhy::Deadline if run.first_content.is_none() && now >= run.began + attempt => {
                            tell(&self.work, &mut run, Sign::Failed, now);
                        }
                        // It would have taken longer still: without that, the slower a target is, the faster it looks.
                        CancelWhy::Outrun if run.first_content.is_none() => {
                            if let Some(to) = self.work.targets.get(run.target.index()) {
                                to.state.observe(self.work.call.stream, now.since(run.began), now);
                            }
                        }
                        _ => {}
                    }
                    self.cancelled(&mut run, why, now);
                }
            }
            Action::Judge { try_ } => self.judge(try_, false),
            Action::Commit { try_ } => self.commit(try_, now),
            Action::Continue {
                try_,
                target,
                tier,
                way,
            } => self.go_on(try_, target, tier, way, now),
            Action::Adopt { try_ } => self.adopt(try_),
            Action::Forget { try_ } => {
                if let Some(mut run) = self.take(try_) {
                    self.write_down(&mut run, Outcome::Ok, None, now);
                }
            }
            Action::ArmTimer { at } => self.machine_at = at,
            Action::Finish(finish) => self.finish = Some(finish),
        }
    }
}

/// Starting and hearing.
impl Driver {
    #[expect(clippy::too_many_arguments, reason = "the fields of one action")]
    fn start(
        &mut self,
        id: TryId,
        target: TargetId,
        tier: u8,
        kind: StartKind,
        hold: Option<HoldBack>,
        judge: bool,
        now: Time,
    ) {
        let seat = self.work.seat.take();
        let (client, leave, means) = match attempt::admit(&self.work, target, kind, seat, now) {
            Ok(admitted) => admitted,
            Err((why, until)) => {
                self.events.push_back(Event::Refused { try_: id, why, until });
                return;
            }
        };
        let left = self.work.deadline.since(now);
        let calling = self.calling(client, Arc::clone(&self.work.call), target, left);
        let checks: &[_] = if judge {
            &self.work.decision.policy.verify
        } else {
            &[]
        };
        let watch = Watch::new(checks, self.work.question.as_ref(), hold, self.work.call.choices);
        self.starts = self.starts.saturating_add(1);
        let mut run = Running::new(id, target, tier, kind, now, watch, calling, leave);
        if self.work.call.stream {
            run.leave.awaits_word();
        }
        run.sent = self.may_go_on.then(Sent::default);
        run.means = means;
        self.tries.push(run);
    }

    /// The call itself, on its way once it is polled. `left`: the time that it may take to be accepted.
    fn calling(&self, client: Client, call: Arc<Call>, target: TargetId, left: Duration) -> Calling {
        let clock = self.work.clock.clone();
        let pool = Arc::clone(&self.work.pool);
        let request_id = Arc::clone(&self.work.request_id);
        let traceparent = self.work.traceparent.clone();
        let connect = self.work.plan.target(target).timeouts.connect.min(left);
        let may_resend = !self.work.facts.needs.contains(Needs::EFFECTS);
        Box::pin(async move {
            let ctx = CallContext {
                clock: &clock,
                pool: &pool,
                connect,
                left: Some(left),
                request_id: &request_id,
                traceparent: traceparent.as_deref(),
                may_resend,
            };
            client.call(&call, &ctx).await
        })
    }

    fn heard(&mut self, id: TryId, said: Said, now: Time) {
        match said {
            Said::Accepted => {}
            Said::Frame(frame) => {
                if self.frame(id, frame, now) {
                    self.judge_if_enough(id);
                }
            }
            Said::Whole(frame) => {
                if self.frame(id, frame, now) {
                    self.came_whole(id, now);
                }
            }
            Said::Judged(verdict) => {
                self.judged(id, verdict);
                self.ended_whole(id);
            }
            Said::Broke(error) => self.broke(id, error, now),
        }
    }

    /// Takes in one frame. `false`: the try is over because of it.
    fn frame(&mut self, id: TryId, frame: Frame, now: Time) -> bool {
        let committed = self.committed == Some(id);
        let stream = self.work.call.stream;
        let Some(run) = self.tries.iter_mut().find(|r| r.id == id) else {
            return false;
        };
        run.watch.see(&frame, committed || run.joining.is_some());
        run.remember(&frame);
        if run.first_content.is_none() {
            if frame.has_content() {
                run.first_content = Some(now);
                if stream {
                    self.events.push_back(Event::FirstContent { try_: id });
                    run.leave.first_word(now);
                    let latency = now.since(run.began);
                    if let Some(to) = self.work.targets.get(run.target.index()) {
                        to.state.observe(stream, latency, now);
                    }
                    tell(&self.work, run, Sign::Good, now);
                }
            } else if frame
                .events
                .iter()
                .any(|e| matches!(e, said::Event::Reasoning { .. }))
            {
                run.leave.first_word(now);
                self.events.push_back(Event::SignOfLife { try_: id });
            }
        }
        if run.joining.is_some() {
            return self.goes_on(id, &frame, now);
        }
        let Some(piece) = Piece::of(frame, self.work.shared) else {
            return true;
        };
        if committed && stream {
            self.out.push_back(piece);
            return true;
        }
        // A whole answer is here at once, and its size was bounded where it was read.
        if run.hold(piece) || !stream {
            return true;
        }
        let error = AttemptError::new(
            Fault::TooLarge,
            "more was said than may be held back before it can be shown",
        );
        self.broke(id, error, now);
        false
    }

    /// Streams that are held back: enough is here to judge, or it fails already.
    fn judge_if_enough(&mut self, id: TryId) {
        let Some(run) = self.tries.iter_mut().find(|r| r.id == id) else {
            return;
        };
        let judged = self.committed == Some(id) || run.joining.is_some();
        if !judged && (run.watch.fails_already() || run.watch.is_enough()) {
            self.judge(id, false);
        }
    }

    /// Feeds a verdict on what is here.
    fn judge(&mut self, id: TryId, complete: bool) {
        let Some(run) = self.tries.iter().find(|r| r.id == id && !r.is_judging()) else {
            return;
        };
        let verdict = run.watch.judge(complete);
        self.judged(id, verdict);
    }

    fn judged(&mut self, id: TryId, verdict: Judged) {
        match self.verdicts.iter_mut().find(|v| v.id == id) {
            Some(last) => last.judged = verdict,
            None => {
                let run = self.tries.iter().find(|r| r.id == id);
                self.verdicts.extend(run.map(|run| Given {
                    id,
                    target: run.target,
                    tier: run.tier,
                    judged: verdict,
                }));
            }
        }
        self.events.push_back(Event::Verdict { try_: id, verdict });
    }

    fn came_whole(&mut self, id: TryId, now: Time) {
        let Some(run) = self.tries.iter_mut().find(|r| r.id == id) else {
            return;
        };
        if !self.work.call.stream
            && let Some(to) = self.work.targets.get(run.target.index())
        {
            to.state.observe(false, now.since(run.began), now);
        }
        tell(&self.work, run, Sign::Good, now);
        if self.committed == Some(id) || run.joining.is_some() {
            self.ended_whole(id);
        } else if run.watch.heavy() {
            run.judge_elsewhere();
        } else {
            self.judge(id, true);
            self.ended_whole(id);
        }
    }

    fn ended_whole(&mut self, id: TryId) {
        self.events.push_back(Event::Ended {
            try_: id,
            end: Graded::plain(Outcome::Ok),
            may_repeat: false,
        });
    }

    fn broke(&mut self, id: TryId, error: AttemptError, now: Time) {
        if self.is_whole_anyway(id, now) {
            return;
        }
        let Some(mut run) = self.take(id) else { return };
        let end = error.graded();
        let may_repeat = !error.asks_no_repeat() && self.work.budgets.repeats.covers(now);
        feel(&run, end.outcome, now);
        tell(
            &self.work,
            &mut run,
            attempt::sign_of(end.outcome, Some(&error)),
            now,
        );
        self.heed(run.target, &end, &error, now);
        self.write_down(&mut run, end.outcome, Some(&error), now);
        self.errors.push(Broken {
            id,
            target: run.target,
            tier: run.tier,
            error,
        });
        let event = if self.committed == Some(id) {
            self.cut(run, end, may_repeat)
        } else {
            Event::Ended {
                try_: id,
                end,
                may_repeat,
            }
        };
        self.events.push_back(event);
    }

    /// A try that we ended. One of its clocks is told as an error is: what was waited for, and how long.
    fn cancelled(&mut self, run: &mut Running, why: CancelWhy, now: Time) {
        let outcome = match why {
            CancelWhy::Clock(outcome) => outcome,
            CancelWhy::Deadline => Outcome::Neutral(Neutral::Deadline),
            CancelWhy::Verdict | CancelWhy::ClientGone | CancelWhy::Unfit | CancelWhy::Outrun => {
                Outcome::Neutral(Neutral::Cancelled)
            }
        };
        let CancelWhy::Clock(Outcome::TargetFault(fault)) = why else {
            return self.write_down(run, outcome, None, now);
        };
        let config = self.work.plan.target(run.target);
        let (clock, detail) = match fault {
            TargetFault::FirstTokenTimeout if run.kind == StartKind::Continue => (
                TryClock::FirstToken,
                "no content in its part of the time that there is to go on with an answer (continue_ms)"
                    .to_owned(),
            ),
            TargetFault::FirstTokenTimeout => (
                TryClock::FirstToken,
                format!(
                    "no content within {} ms (first_token_ms)",
                    config.timeouts.first_token.as_millis()
                ),
            ),
            TargetFault::TooSlow => (
                TryClock::Attempt,
                "it took longer than the route allows while a stronger model is there (max_added_ms)"
                    .to_owned(),
            ),
            _ => (
                TryClock::Attempt,
                format!(
                    "no answer within {} ms (attempt_ms)",
                    config.timeouts.attempt.as_millis()
                ),
            ),
        };
        let error = AttemptError::new(Fault::Timeout(clock), detail);
        let error = if config.is_local() { error } else { error.sent() };
        self.write_down(run, outcome, Some(&error), now);
        self.errors.push(Broken {
            id: run.id,
            target: run.target,
            tier: run.tier,
            error,
        });
    }

    /// What a failed try means for everyone: the target is held back, or goes off until a person has mended it.
    fn heed(&self, target: TargetId, end: &Graded, error: &AttemptError, now: Time) {
        let Some(to) = self.work.targets.get(target.index()) else {
            return;
        };
        // Our own queue refuses one caller (whose patience is shorter than the wait); what it can do for others it tells
        // by its signals.
        let own_queue = error.fault() == Fault::QueueFull;
        let before = if end.is_wordless_limit() {
            to.state.limited(now)
        } else {
            0
        };
        if let Some(pause) = end.hold(self.work.plan.retry.step(before)).filter(|_| !own_queue) {
            to.state.hold(now + pause, end.hold_why());
        }
        if end.outcome.advice().target_off && to.state.switch_off(error.detail()) {
            let name = &self.work.plan.target(target).name;
            tracing::error!(target_name = %name, why = error.detail(), "target switched off: it refuses us. Mend the key, \
                 account or model name and reload the plan");
        }
    }

    fn take(&mut self, id: TryId) -> Option<Running> {
        let at = self.tries.iter().position(|r| r.id == id)?;
        Some(self.tries.remove(at))
    }

    fn write_down(&mut self, run: &mut Running, outcome: Outcome, error: Option<&AttemptError>, now: Time) {
        let judged = self.verdicts.iter().find(|v| v.id == run.id).map(|v| &v.judged);
        let target = self.work.plan.target(run.target);
        let usage = run.watch.usage(target.is_local(), self.work.facts.prompt_tokens);
        if self.committed == Some(run.id) {
            // However it ended: these are the tokens of the answer that the caller received.
            let received = match &run.joining {
                Some(joining) => joining.usage(usage),
                None => usage,
            };
            self.account.usage = received.map(|(u, from)| account::recorded(&u, from));
        }
        let used = usage.as_ref().map(|(usage, _)| usage);
        let ending = expect::Ending {
            run: &*run,
            stream: self.work.call.stream,
            local: target.is_local(),
            outcome,
            error,
            usage: used,
            now,
        };
        let unseen = ending.unseen();
        let learned = self.work.targets.get(run.target.index());
        let learned = learned.map(|to| to.state.learned()).unwrap_or_default();
        let bill = expect::came_to(&self.work.facts, target, learned, used, unseen);
        self.account.ended(Ended {
            plan: &self.work.plan,
            request_began: self.work.began,
            now,
            run,
            outcome,
            error,
            judged,
            usage,
            cost: bill.cost,
            unseen: unseen != expect::Unseen::Nothing,
        });
        run.means.ended(bill.used);
        if let (Some((usage, "provider" | "local")), Outcome::Ok) = (&usage, outcome)
            && let Some(to) = self.work.targets.get(run.target.index())
        {
            to.state.learn(
                self.work.facts.prompt_tokens,
                usage.prompt,
                usage.completion / expect::answers(&self.work.facts),
            );
        }
    }

    /// Nothing was ever sent, because the caller's limits did not cover it: that is the answer, not the ladder's message.
    fn over_limit(&self) -> Option<Error> {
        let over = self.work.reservation.as_ref()?.refused()?;
        (self.machine.attempts() == 0).then(|| over.error())
    }
}

/// Commit and end.
impl Driver {
    fn commit(&mut self, id: TryId, now: Time) {
        self.committed = Some(id);
        let unchecked = Judged::unchecked();
        let judged = self
            .verdicts
            .iter()
            .find(|v| v.id == id)
            .map_or(&unchecked, |v| &v.judged);
        self.head.verified = account::seen(judged.seen);
        self.head.verdict = account::grade(judged);
        self.account.verdict = Some(account::verdict(judged));
        self.head.attempts = self.starts;
        self.head.degraded = self.machine.degraded().map(degraded_words);
        let Some(run) = self.tries.iter_mut().find(|r| r.id == id) else {
            return;
        };
        self.head.target = Some(run.target);
        self.head.tier = run.tier;
        self.head.upstream = std::mem::take(&mut run.headers);
        self.account.answered = Some(run.target.index());
        self.account.tier = Some(run.tier);
        if self.work.plan.target(run.target).is_local() {
            self.head.ignored = self.work.call.ignorable_names().map(str::to_owned).collect();
        }
        let held = run.release();
        if self.work.call.stream {
            self.account.first_content = Some(now);
            self.out.extend(held);
        } else {
            self.whole = Piece::joined(held);
        }
    }

    /// The end: the whole body, the end of a stream, or the error.
    fn concluded(&mut self, finish: Finish) -> Result<Option<Piece>, Error> {
        let spent = self.is_spent(&finish);
        self.conclude(finish)
            .map_err(|error| if spent { error.spent() } else { error })
    }

    /// Tries were made, and no further one would be: a client that sends the same again would only multiply them.
    fn is_spent(&self, finish: &Finish) -> bool {
        let made = self.machine.attempts();
        let tried_everything = match finish {
            Finish::Failed(failed) => match failed.why {
                FailWhy::Upstream | FailWhy::Effects | FailWhy::Verdict(_) => true,
                FailWhy::Deadline | FailWhy::NoneCallable => false,
            },
            Finish::Instead { .. } => true,
            _ => return false,
        };
        made > 0 && (tried_everything || made >= self.work.plan.retry.max_attempts)
    }

    fn conclude(&mut self, finish: Finish) -> Result<Option<Piece>, Error> {
        let now = self.work.clock.now();
        self.head.attempts = self.starts;
        match finish {
            Finish::Answered {
                try_,
                verdict,
                degraded,
            } => {
                self.head.verified = account::seen(verdict.seen);
                self.head.verdict = account::grade(&verdict);
                self.head.degraded = degraded.map(degraded_words);
                self.account.verdict = Some(account::verdict(&verdict));
                self.account.whole = true;
                if let Some(mut run) = self.take(try_) {
                    self.write_down(&mut run, Outcome::Ok, None, now);
                    let told = self.told_usage(&run);
                    let end = run.joining.and_then(|joining| joining.end(told));
                    self.out
                        .extend(end.and_then(|end| Piece::of(end, self.work.shared)));
                }
                self.account.add_up();
                self.head.cost = self.account.cost;
                Ok(self.whole.take())
            }
            Finish::PassOn { try_, .. } => Err(match self.blame(Some(try_)) {
                Some((name, error)) => errors::pass_on(&name, &error),
                None => Error::new(Kind::Bug, "a refusal without its words"),
            }),
            Finish::Instead {
                step,
                reason,
                retry_after,
            } => {
                if let Some(over) = self.over_limit() {
                    return Err(over);
                }
                let stale = (step == DegradeStep::StaleCache).then(|| self.work.stale.clone());
                if let Some(entry) = stale.flatten() {
                    self.head.degraded = Some(format!("stale_cache; reason={}", reason.as_str()));
                    return Ok(self.stale(&entry));
                }
                self.head.degraded = Some(format!("message; reason={}", reason.as_str()));
                self.message(retry_after)
            }
            Finish::Failed(failed) => {
                let last = self.blame(failed.last.map(|(id, _)| id));
                self.tell_verdict(&failed);
                let last = last.as_ref().map(|(name, error)| (&**name, error));
                if let Some(over) = self.over_limit() {
                    return Err(over);
                }
                match self.held_promise(&failed, now) {
                    Some((name, why)) => Err(errors::held(&name, why, failed.retry_after)),
                    None if failed.why == FailWhy::NoneCallable && self.floor_bars() => {
                        Err(errors::min_tier(failed.retry_after))
                    }
                    None => Err(errors::failed(&failed, last, self.starts)),
                }
            }
            Finish::Cut { try_, .. } => {
                let last = self.errors.iter().find(|b| b.id == try_);
                let name = self
                    .account
                    .answered
                    .and_then(|i| self.work.plan.targets.get(i))
                    .map(|t| &*t.name);
                Err(errors::cut(name.unwrap_or("the model"), last.map(|b| &b.error)))
            }
            Finish::ClientGone => Err(Error::new(Kind::ClientGone, "the caller left")),
        }
    }

    /// An answer was there and did not pass: the head says which check, how much of it was seen, and whose it was.
    fn tell_verdict(&mut self, failed: &Failed) {
        let FailWhy::Verdict(check) = failed.why else {
            return;
        };
        let fell = |v: &&Given| matches!(v.judged.grade, Grade::Fail(by) if by == check);
        if let Some(given) = self.verdicts.iter().rfind(fell) {
            self.head.verified = account::seen(given.judged.seen);
            self.head.verdict = account::grade(&given.judged);
            self.account.verdict = Some(account::verdict(&given.judged));
            (self.head.target, self.head.tier) = (Some(given.target), given.tier);
        }
    }

    /// The failed try that an error is about (the last one, where none is named), said in the head too.
    fn blame(&mut self, id: Option<TryId>) -> Option<(Arc<str>, AttemptError)> {
        let named = self.errors.iter().find(|b| Some(b.id) == id);
        let broken = named.or_else(|| self.errors.last())?;
        self.head.target = Some(broken.target);
        self.head.tier = broken.tier;
        self.head.upstream = broken.error.headers().clone();
        let name = Arc::clone(&self.work.plan.target(broken.target).name);
        Some((name, broken.error.clone()))
    }

    /// A name that is a promise, and all behind it are held back (`retry-after`, a 429): the provider's word is the answer.
    fn held_promise(&self, failed: &Failed, now: Time) -> Option<(Arc<str>, Hold)> {
        let decision = &self.work.decision;
        if failed.why != FailWhy::NoneCallable || !decision.policy.pinned {
            return None;
        }
        let held = |target: TargetId| match self.work.targets.get(target.index())?.state.usable(now) {
            Usable::Held { why, .. } => Some(why),
            _ => None,
        };
        let all = decision.ladder.iter().all(|rung| held(rung.target).is_some());
        let first = decision.ladder.first().filter(|_| all)?;
        Some((
            Arc::clone(&self.work.plan.target(first.target).name),
            held(first.target)?,
        ))
    }

    /// Somebody below the tier that was asked for could serve this.
    fn floor_bars(&self) -> bool {
        let excluded = &self.work.decision.excluded;
        excluded.iter().any(|e| matches!(e.why, Why::BelowFloor { .. }))
    }

    /// The route's message: an error with its status, or (below 400, and only where prose is wanted) an answer that people
    /// read.
    fn message(&mut self, retry_after: Option<Duration>) -> Result<Option<Piece>, Error> {
        let message = &self.work.decision.policy.message;
        let shaped = [Needs::TOOLS, Needs::JSON_SCHEMA, Needs::JSON_MODE];
        let prose = !shaped.iter().any(|need| self.work.facts.needs.contains(*need));
        if message.status >= 400 || !prose {
            let status = if message.status >= 400 {
                message.status
            } else {
                503
            };
            let kind = if self.floor_bars() {
                Kind::MinTier
            } else {
                Kind::NoTarget
            };
            let error = Error::new(kind, message.text.to_string()).status_as(status);
            return Err(match retry_after {
                Some(after) => error.retry_after(after),
                None => error,
            });
        }
        let meta = Meta {
            id: self.work.request_id.as_ref().into(),
            created: self.work.clock.unix_ms() / 1_000,
            model: "weir-message".into(),
        };
        let events = [
            said::Event::Meta(Box::new(meta.clone())),
            said::Event::Role { choice: 0 },
            said::Event::Text {
                choice: 0,
                text: (&*message.text).into(),
            },
            said::Event::Finish {
                choice: 0,
                reason: FinishReason::Stop,
            },
            said::Event::Usage(Usage::default()),
            said::Event::Done,
        ];
        let call = &self.work.call;
        self.account.whole = true;
        let wire = if call.stream {
            Chunks::new(call.kind, call.include_usage, &meta).bytes(&events)
        } else {
            let mut whole = WholeAnswer::default();
            events.iter().for_each(|event| whole.push(event));
            Some(whole.body(call.kind))
        };
        Ok(self.instead(Frame {
            events: events.into_iter().collect(),
            wire,
        }))
    }

    /// The answer of an earlier request to the same question, which nobody would give otherwise any more.
    fn stale(&mut self, entry: &Entry) -> Option<Piece> {
        let at = self.work.plan.targets.iter().position(|t| t.name == entry.target);
        self.head.target = at.and_then(|at| u16::try_from(at).ok()).map(TargetId);
        self.head.tier = entry.tier;
        self.head.verified = entry.verified.to_string();
        self.head.verdict = entry.verdict.to_string();
        self.account.answered = at;
        self.account.tier = Some(entry.tier);
        self.account.usage = entry.usage;
        self.account.whole = true;
        self.account.add_up();
        self.head.cost = self.account.cost;
        let frame = Frame {
            events: entry.kept.events().iter().cloned().collect(),
            wire: Some(entry.kept.told(Form::of(&self.work.call))),
        };
        self.instead(frame)
    }

    /// An answer that no try gave: all of it, or the pieces of a stream.
    fn instead(&mut self, frame: Frame) -> Option<Piece> {
        let piece = Piece::of(frame, self.work.shared);
        if !self.work.call.stream {
            return piece;
        }
        self.out.extend(piece);
        None
    }

    /// Sets the one timer to the earlier of the machine's wish and the idle clock. One that was to ring later by now is
    /// left alone and set anew when it rings: a stream moves its idle clock with every event.
    fn arm(&mut self, now: Time) {
        let mut at = self.machine_at;
        if let Some(idle) = self.idle_at(now) {
            at = at.min(idle);
        }
        if at < self.armed_at {
            self.armed_at = at;
            self.timer.set(&self.work.clock, at);
        }
    }

    /// Streams, from their first content on: when the upstream's silence is too long, or when all that it says is that it
    /// lives. Counted only while we listen: after
    /// a pause in which the caller took nothing and nobody polled, silence begins anew.
    fn idle_at(&mut self, now: Time) -> Option<Time> {
        if !self.work.call.stream {
            return None;
        }
        let run = self
            .tries
            .iter_mut()
            .find(|r| r.first_content.is_some() && !r.is_whole())?;
        if self.armed_at != Time::NEVER && now.since(self.armed_at) > LATE {
            (run.last_frame, run.last_words) = (now, now);
        }
        Some(silent_at(&self.work, run))
    }

    fn rang(&mut self, now: Time) {
        if self.machine_at <= now {
            self.machine_at = Time::NEVER;
            self.events.push_back(Event::Timer);
        }
        let silent = self.tries.iter_mut().find(|run| {
            self.work.call.stream
                && run.first_content.is_some()
                && !run.is_whole()
                && now >= silent_at(&self.work, run)
        });
        if let Some(run) = silent {
            let id = run.id;
            let (idle, wordless) = (self.work.idle(run.target), self.work.wordless(run.target));
            let detail = if now >= run.last_frame + idle {
                format!("nothing came for {} ms (idle_ms)", idle.as_millis())
            } else {
                format!(
                    "nothing but signs of life came for {} ms (first_token_ms)",
                    wordless.as_millis()
                )
            };
            let error = AttemptError::new(Fault::Timeout(TryClock::Idle), detail);
            self.broke(id, error.sent(), now);
        }
    }
}

/// From when on a try of each target counts as slow. A model in this process would only wait for itself, and what a client
/// has sent again is not multiplied further.
fn hedged(setup: &mut Setup, work: &Work) {
    let hedge = &work.plan.hedge;
    if !hedge.enabled || work.resent > 0 {
        return;
    }
    for slot in &mut setup.slots {
        let remote = !work.plan.target(slot.target).is_local();
        let to = work.targets.get(slot.target.index()).filter(|_| remote);
        slot.hedge_after = to.and_then(|to| to.state.slow_after(setup.stream, hedge.after_quantile));
    }
}

/// When a stream that says nothing more has been silent for too long.
fn silent_at(work: &Work, run: &Running) -> Time {
    let silence = run.last_frame + work.idle(run.target);
    silence.min(run.last_words + work.wordless(run.target))
}

/// What a try says of its target, to the target's breaker.
fn tell(work: &Work, run: &mut Running, sign: Sign, now: Time) {
    if let Some(change) = run.leave.told(sign, now) {
        attempt::tell(work, run.target, change, now);
    }
}

/// What a try says of how much its target takes at once.
fn feel(run: &Running, outcome: Outcome, now: Time) {
    if let Some(felt) = attempt::felt_of(outcome) {
        run.leave.felt(felt, now);
    }
}

/// A poll so much later than the timer asked for means that the caller was not taking anything: nobody listened.
const LATE: Duration = Duration::from_secs(1);

fn degraded_words(degraded: routing::cascade::Degraded) -> String {
    let step = serde_json::to_value(degraded.step).ok();
    let step = step.as_ref().and_then(|s| s.as_str()).unwrap_or("weaker");
    format!("{step}; reason={}", degraded.reason.as_str())
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("committed", &self.committed)
            .field("tries", &self.tries)
            .field("starts", &self.starts)
            .finish_non_exhaustive()
    }
}
