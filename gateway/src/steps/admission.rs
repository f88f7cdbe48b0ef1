//! Step 9, `admission`: a part of the work in flight, and a place at a target. Whoever waits for either does so in one row, by
//! class, and whoever would wait in vain is turned away at once.
//!
//! It stands behind the limits, since who may not is not let wait, and before the decision, which should see what is so when
//! the wait is over. The place at a target is asked for when the decision has said which ones are wanted (`request.rs` goes
//! from step 10 back to here while all of them are taken). It must never keep anybody from a target that has room.

use std::sync::Arc;
use std::time::Duration;

use routing::admission::{Ask, Shed, ShedWhy, patience};
use routing::decide::Decision;
use routing::ids::TargetId;
use routing::plan::{Class, DegradeStep, Plan};
use routing::resolve::Policy;
use routing::signals::{Hold, Signals, Usable};
use routing::units::Time;

use crate::admission::{Entry, Gate, Permit, Wants};
use crate::cascade::Target;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::target_state::Seat;

/// Decisions of one request that find somebody quicker, or a place gone, before it goes on with what the last one said.
const MOST_DECISIONS: u8 = 8;
/// A request is told to come back no sooner than a queue can change at all.
const LEAST_RETRY: Duration = Duration::from_millis(50);
/// Of a target's answers so many are as quick as that or quicker: the time that is kept for the answer while it waits.
const MOST_ANSWERS: f32 = 0.95;

/// Who would be admitted.
pub struct Asking<'a> {
    /// Of the process.
    pub gate: &'a Arc<Gate>,
    /// The one clock.
    pub clock: &'a Clock,
    /// The plan.
    pub plan: &'a Plan,
    /// By target index.
    pub targets: &'a [Target],
    /// Of step 5.
    pub policy: &'a Policy,
    /// Of its key.
    pub class: Class,
    /// A stream is asked for.
    pub stream: bool,
    /// The caller's patience.
    pub deadline: Time,
}

/// A request that was admitted.
pub struct Turn<'a> {
    asking: Asking<'a>,
    permit: Option<Permit>,
    seat: Option<(TargetId, Seat)>,
    ask: Ask,
    decisions: u8,
    /// Time in the row.
    pub waited: Duration,
}

/// Lets a request in, after a wait if need be. `tokens`: what it will usually come to, asked for only where somebody waits.
///
/// # Errors
/// 503 `overloaded`, with the time after which coming back is of use.
pub async fn enter(asking: Asking<'_>, tokens: impl FnOnce() -> u64) -> Result<Turn<'_>> {
    let now = asking.clock.now();
    let mut turn = Turn {
        permit: asking.gate.pass(now),
        seat: None,
        ask: Ask {
            class: asking.class,
            tokens: 0,
            came: now,
            until: now,
        },
        decisions: 0,
        waited: Duration::ZERO,
        asking,
    };
    if turn.permit.is_none() {
        turn.ask.tokens = tokens();
        turn.ask.until = turn.until(now, None);
        turn.wait(Wants::default())
            .await
            .map_err(|shed| overloaded(shed, "this gateway"))?;
    }
    Ok(turn)
}

impl<'a> Turn<'a> {
    /// What it holds itself is no reason against the target: corrects the signals for its decision.
    pub fn show(&self, signals: &mut Signals) {
        let Some((at, _)) = &self.seat else { return };
        let state = self.asking.targets.get(at.index()).map(|to| &to.state);
        if let (Some(state), Some(signal)) = (state, signals.targets.get_mut(at.index())) {
            signal.usable = match state.usable(signals.now) {
                Usable::Yes => Usable::Yes,
                _ => signal.usable.clone(),
            };
            signal.in_flight = signal.in_flight.saturating_sub(1);
        }
    }

    /// Takes a place at the target that the decision begins with; where all that it wants are taken, waits for one. `false`:
    /// things have changed, decide anew.
    ///
    /// # Errors
    /// 503 `overloaded`, where nobody else can answer.
    pub async fn seated(&mut self, decision: &Decision) -> Result<bool> {
        self.decisions += 1;
        let last = self.decisions >= MOST_DECISIONS;
        let now = self.asking.clock.now();
        if let Some(start) = decision.start.filter(|_| decision.degraded.is_none()) {
            if self.seat.as_ref().is_some_and(|(at, _)| *at == start) {
                return Ok(true);
            }
            if let Some(seat) = self.target(start).and_then(|to| to.state.sit(now)) {
                self.seat = Some((start, seat));
                return Ok(true);
            }
            // Somebody was quicker; the next decision knows.
            return Ok(last);
        }
        let wanted = self.wanted(decision, now);
        if last || wanted.is_empty() {
            return Ok(true);
        }
        self.ask.until = self.until(now, Some(&wanted));
        self.seat = None;
        match self
            .wait(Wants::at(wanted.iter().map(|(_, to)| Arc::clone(&to.state))))
            .await
        {
            Ok(seat) => {
                let at = |seat: &Seat| {
                    wanted
                        .iter()
                        .find(|(_, to)| seat.is_at(&to.state))
                        .map(|(id, _)| *id)
                };
                self.seat = seat.and_then(|seat| Some((at(&seat)?, seat)));
                Ok(false)
            }
            // A weaker model of the ladder, or its message for people, is better than an error.
            Err(_) if self.may_do_without(decision) => Ok(true),
            Err(shed) => Err(overloaded(shed, "every model that could answer this")),
        }
    }

    /// What it holds: its part of the work in flight, and its place at the target that is asked first.
    pub fn holds(self) -> (Option<Permit>, Option<Seat>) {
        (self.permit, self.seat.map(|(_, seat)| seat))
    }

    fn target(&self, id: TargetId) -> Option<&'a Target> {
        self.asking.targets.get(id.index())
    }

    /// Targets that the decision would have begun with, had they had room: full, or limited by their providers for a while that
    /// may be waited.
    fn wanted(&self, decision: &Decision, now: Time) -> Vec<(TargetId, &'a Target)> {
        let honour = now + self.asking.plan.retry.honor_retry_after;
        let latest = honour.min(self.asking.deadline);
        let rungs = decision
            .ladder
            .iter()
            .filter(|rung| rung.tier >= decision.wanted_tier);
        let full = rungs.filter(|rung| match &rung.usable {
            Usable::Full { until } => until.is_none(),
            Usable::Held { until, why } => *why == Hold::Limited && *until < latest,
            _ => false,
        });
        full.filter_map(|rung| Some((rung.target, self.target(rung.target)?)))
            .filter(|(_, to)| to.client.is_some() && to.state.limit().is_some())
            .collect()
    }

    /// How long it may wait in all. Where everyone whom it wants is limited until then, as long as from then on.
    fn until(&self, now: Time, wanted: Option<&[(TargetId, &Target)]>) -> Time {
        let asking = &self.asking;
        let quick = |to: &Target| to.state.slow_after(asking.stream, MOST_ANSWERS);
        let run = match wanted {
            Some(wanted) => wanted.iter().filter_map(|(_, to)| quick(to)).min(),
            None => {
                let all = asking.policy.tiers.iter().flatten();
                all.filter_map(|id| quick(self.target(*id)?)).min()
            }
        };
        let held = wanted
            .into_iter()
            .flatten()
            .map(|(_, to)| match to.state.usable(now) {
                Usable::Held { until, .. } => until,
                _ => now,
            });
        let from = held.min().unwrap_or(now).max(self.ask.came);
        let max_wait = from.since(self.ask.came) + asking.gate.max_wait();
        patience(self.ask.came, max_wait, asking.deadline, run)
    }

    async fn wait(&mut self, wants: Wants) -> std::result::Result<Option<Seat>, Shed> {
        let from = self.asking.clock.now();
        let gate = self.asking.gate;
        // Boxed: few wait, and a connection holds room for the largest future.
        let told = Box::pin(gate.wait(self.ask, wants, &mut self.permit)).await;
        self.waited += self.asking.clock.now().since(from);
        let Entry { permit, seat } = told?;
        self.permit = Some(permit);
        Ok(seat)
    }

    /// It still has (or gets) its part of the work in flight, and the cascade has something to say without the targets that it
    /// waited for.
    fn may_do_without(&mut self, decision: &Decision) -> bool {
        let message =
            decision.policy.degrade.contains(&DegradeStep::Message) && decision.policy.message.status < 400;
        if decision.degraded.is_none() && !message {
            return false;
        }
        if self.permit.is_none() {
            self.permit = self.asking.gate.pass(self.asking.clock.now());
        }
        self.permit.is_some()
    }
}

fn overloaded(shed: Shed, what: &str) -> Error {
    let why = match shed.why {
        ShedWhy::Full => "the queue ([admission] queue) is full",
        ShedWhy::Wait => "the wait would be longer than allowed ([admission] max_wait_ms, or the time left)",
        ShedWhy::Waited => "no place was free in time ([admission] max_wait_ms, or the time left)",
        ShedWhy::PushedOut => "the queue ([admission] queue) is full of requests of a higher class",
    };
    let error = Error::new(
        Kind::Overloaded,
        format!("{what} has as much to do as it can take, and {why}; try again later"),
    );
    match shed.come_back {
        Some(after) => error.retry_after(after.max(LEAST_RETRY)),
        None => error,
    }
}
