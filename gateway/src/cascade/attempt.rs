//! May this try start? Steps 12 and 13, and the budget for repeats. Tried, never waited for; what a try takes of its
//! target comes back when its [`Leave`] is dropped.

use routing::admission::Felt;
use routing::breaker::{Change, Opened};
use routing::cascade::{Refusal, StartKind};
use routing::ids::TargetId;
use routing::outcome::{Outcome, TargetFault};
use routing::signals::Usable;
use routing::units::Time;

use super::{Work, expect};
use crate::limits::{Cover, Estimate, Granted};
use crate::providers::Client;
use crate::providers::failure::{AttemptError, Fault};
use crate::target_state::{Leave, Seat, Shut};

pub use routing::breaker::Sign;

/// What a try draws on: the request's reservation, and what the target's provider grants. Of a try that never began all of
/// it comes back; of one that began and whose end nobody tells, what was expected is taken for used.
#[derive(Debug, Default)]
pub struct Means {
    cover: Option<Cover>,
    granted: Option<Granted>,
    begun: bool,
}

impl Means {
    /// The try that they were taken for starts now.
    fn begun(mut self) -> Self {
        self.begun = true;
        self
    }

    /// What it came to.
    pub fn ended(&mut self, used: Estimate) {
        if let Some(mut cover) = self.cover.take() {
            cover.ended(used);
        }
        if let Some(granted) = self.granted.take() {
            granted.ended(used);
        }
    }
}

impl Drop for Means {
    fn drop(&mut self) {
        if self.begun {
            return;
        }
        if let Some(mut cover) = self.cover.take() {
            cover.ended(Estimate::default());
        }
        if let Some(granted) = self.granted.take() {
            granted.give_back();
        }
    }
}

/// Who said no to a start, and until when, where that is known.
pub type No = (Refusal, Option<Time>);

/// The way to a target and leave to go it, or who is against it by now, though nobody was when the decision was made.
/// `seat`: a place that step 9 took for the request; of no use at another target.
pub fn admit(
    work: &Work,
    target: TargetId,
    kind: StartKind,
    seat: Option<Seat>,
    now: Time,
) -> Result<(Client, Leave, Means), No> {
    let to = work.targets.get(target.index()).ok_or((Refusal::Off, None))?;
    let client = to.client.clone().ok_or((Refusal::Off, None))?;
    match to.state.usable(now) {
        Usable::Off { .. } | Usable::Starting { .. } => return Err((Refusal::Off, None)),
        Usable::Held { until, .. } => return Err((Refusal::Held, Some(until))),
        Usable::Open { until } => return Err((Refusal::Breaker, Some(until))),
        Usable::Full { until } => return Err((Refusal::Permit, until)),
        Usable::Yes => {}
    }
    // 12 permit: the target's concurrency; none free means elsewhere.
    // 13 breaker: may it be called, and is this a probe.
    let leave = match seat.filter(|seat| seat.is_at(&to.state)) {
        Some(seat) => to.state.begin_in(seat, now),
        None => to.state.begin(now),
    };
    let leave = leave.map_err(|shut| match shut {
        Shut::Full => (Refusal::Permit, None),
        Shut::Breaker(until) => (Refusal::Breaker, Some(until)),
    })?;
    let means = means(work, target, now)?;
    // Last, since what it takes does not come back.
    if !afford(work, kind, now) {
        return Err((Refusal::RetryBudget, None));
    }
    Ok((client, leave, means.begun()))
}

/// Money and tokens: of the caller's limits, and of what the target's provider grants.
fn means(work: &Work, target: TargetId, now: Time) -> Result<Means, No> {
    let Some(to) = work.targets.get(target.index()) else {
        return Ok(Means::default());
    };
    if work.reservation.is_none() && to.granted.is_none() {
        return Ok(Means::default());
    }
    let estimate = expect::expected(&work.facts, work.plan.target(target), to.state.learned());
    let granted = match &to.granted {
        Some(meter) => match Granted::take(meter, estimate, &work.clock) {
            Ok(granted) => Some(granted),
            Err(over) => return Err((Refusal::Permit, over.wait.map(|wait| now + wait))),
        },
        None => None,
    };
    let mut means = Means {
        cover: None,
        granted,
        begun: false,
    };
    if let Some(reservation) = &work.reservation {
        means.cover = reservation.cover(estimate);
        if means.cover.is_none() {
            return Err((Refusal::Reserve, None));
        }
    }
    Ok(means)
}

/// The ratio budget. First tries pay in, repeats on the same target take out. What a client sends again is itself a
/// repeat, of everything behind us: its first try is made, but takes out instead of paying in, and so does each
/// further target, so that three tries of a client times four of ours are not twelve bills in an outage. Hedges have a
/// budget of their own, which first tries alone pay into.
fn afford(work: &Work, kind: StartKind, now: Time) -> bool {
    let budget = &work.budgets.repeats;
    let again = work.resent > 0;
    match kind {
        StartKind::First if again => {
            let _ = budget.withdraw(now);
            true
        }
        StartKind::First => {
            budget.deposit(now);
            work.budgets.hedges.deposit(now);
            true
        }
        StartKind::Hedge => work.budgets.hedges.withdraw(now),
        StartKind::Retry => budget.withdraw(now),
        StartKind::Failover if again => budget.withdraw(now),
        _ => true,
    }
}

/// What the end of a try says of its target. A local queue that is full, or a model that is not loaded, is no failure:
/// their signals say so by themselves.
pub fn sign_of(outcome: Outcome, error: Option<&AttemptError>) -> Sign {
    match error.map(AttemptError::fault) {
        Some(Fault::QueueFull | Fault::NotReady | Fault::Expired) => Sign::Nothing,
        _ => Sign::of(outcome),
    }
}

/// What the end of a try says of how much its target can take. How long an answer took is not among it.
pub fn felt_of(outcome: Outcome) -> Option<Felt> {
    match outcome {
        Outcome::TargetFault(TargetFault::RateLimited | TargetFault::Overloaded) => Some(Felt::Refused),
        Outcome::TargetFault(TargetFault::FirstTokenTimeout) => Some(Felt::TimedOut),
        _ => None,
    }
}

/// Says what a breaker did, and loudly where a route has nobody left.
pub fn tell(work: &Work, target: TargetId, change: Change, now: Time) {
    let name = &work.plan.target(target).name;
    let Change::Opened(Opened { why, until }) = change else {
        tracing::warn!(target_name = %name, "breaker closed: the target answers again, and starts slowly");
        return;
    };
    let (why, open_ms) = (why.as_str(), until.since(now).as_millis());
    tracing::warn!(target_name = %name, why, open_ms = %open_ms, "breaker opened: the target is left alone for a while");
    for route in routes_without(work, target, now) {
        tracing::error!(target_name = %name, %route, open_ms = %open_ms, "this was the last usable target of a route: its \
             requests wait for the next probe, go down the ladder `degrade`, or fail, until one answers again");
    }
}

/// Routes with this target, none of whose targets can be called.
fn routes_without(work: &Work, target: TargetId, now: Time) -> impl Iterator<Item = &str> {
    let usable = move |id: &TargetId| {
        let to = work.targets.get(id.index());
        to.is_some_and(|to| to.client.is_some() && to.state.signal(now, None).usable.yes())
    };
    let routes = work.plan.routes.iter();
    routes
        .filter(move |route| {
            let mut all = route.tiers.iter().flatten();
            all.clone().any(|id| *id == target) && !all.any(usable)
        })
        .map(|route| &*route.name)
}
