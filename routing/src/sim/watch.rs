//! The rules over all requests of a world. See the list in the module above.

use super::fleet::{Fleet, Leave};
use super::{Mood, Scenario, Server};
use crate::breaker::{Change, Opened, Sign, Why};
use crate::cascade::{FailWhy, Failed, StartKind};
use crate::plan::{Plan, Start};
use crate::units::Time;

/// What is counted of one target.
#[derive(Clone, Debug, Default)]
struct Count {
    /// When the outage that goes on (or the last one) began.
    dead_since: Time,
    calls: u64,
    /// Tries of the outage that ended without saying anything.
    silent: u64,
    /// Tries that were under way when the breaker opened in the outage.
    at_open: Option<u64>,
    /// The last end of a try that began before the present phase.
    settled: Time,
    last_call: Time,
    /// Good signs of tries that began after it settled and since the breaker opened last; none was bad.
    good: u64,
    opened: u64,
    /// When it opened last.
    opened_at: Time,
}

/// See the module.
pub(super) struct Rules {
    servers: Vec<Server>,
    counts: Vec<Count>,
    /// The one target of the first tier, where requests begin with it and nothing but its breaker keeps them off.
    first: Option<usize>,
    firsts: u64,
    repeats: u64,
    hedges: u64,
    /// The first that broke.
    pub broken: Option<String>,
}

/// What a request knows of its own targets, for the rule about those that were not asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Which targets could be called, and from when on, as far as was known when it came.
    pub callable: Vec<(usize, Time)>,
    /// Was asked, or refused.
    pub asked: Vec<usize>,
}

impl Rules {
    pub fn new(world: &Scenario) -> Self {
        Self {
            servers: world.servers.clone(),
            counts: vec![Count::default(); world.servers.len()],
            first: first(world),
            firsts: 0,
            repeats: 0,
            hedges: 0,
            broken: None,
        }
    }

    pub fn check(&mut self, holds: bool, name: &str, detail: &str) {
        if !holds && self.broken.is_none() {
            self.broken = Some(format!("{name} broken: {detail}"));
        }
    }

    /// The first tier's target, if the request that comes now must be tried there; also looks whether good
    /// probes have closed it.
    pub fn arrived(&mut self, fleet: &Fleet<'_>, now: Time) -> Option<usize> {
        let at = self.first?;
        let server = &self.servers[at];
        if !server.mood(now).is_well() {
            return None;
        }
        let early = fleet
            .leaves
            .values()
            .any(|l| l.target == at && !server.is_same_phase(l.began, now));
        if early {
            return None;
        }
        let config = &fleet.plan.breaker;
        let (since, count) = (server.phase_began(now), &self.counts[at]);
        let settled = since.max(count.settled);
        let view = fleet.targets[at].breaker.view(config, now);
        let enough = count.good >= u64::from(config.probes) && count.settled < count.last_call;
        if enough && view.state != "closed" {
            self.check(
                false,
                "R-28",
                &format!(
                    "{} good tries, and target {at} is {}",
                    self.counts[at].good, view.state
                ),
            );
            return None;
        }
        if now < settled + config.max_open {
            return None;
        }
        let usable = fleet.usable(at, now).yes();
        let asked = self.counts[at].last_call >= settled;
        self.check(
            usable || asked,
            "R-23",
            &format!("target {at} is well since {since:?}, nobody may ask it at {now:?}"),
        );
        usable.then_some(at)
    }

    /// A try was let through.
    pub fn called(&mut self, fleet: &Fleet<'_>, at: usize, kind: StartKind, resent: bool, now: Time) {
        match (kind, resent) {
            (StartKind::First, false) => self.firsts += 1,
            (StartKind::Retry, _) | (StartKind::Failover, true) => self.repeats += 1,
            (StartKind::Hedge, _) => self.hedges += 1,
            _ => {}
        }
        let retry = &fleet.plan.retry;
        let most = f64::from(retry.budget_ratio) * self.firsts as f64
            + f64::from(retry.budget_min_per_second) * now.0 as f64 / 1e6;
        // The budget counts in thousandths, and a ratio is cut to them.
        let kept = self.repeats as f64 <= most + 1e-6 * self.firsts as f64 + 1e-6;
        self.check(kept, "R-22", &format!("{} repeats, {most} covered", self.repeats));
        let most = f64::from(fleet.plan.hedge.max_ratio) * self.firsts as f64;
        let kept = self.hedges as f64 <= most + 1e-6 * self.firsts as f64 + 1e-6;
        self.check(kept, "R-29", &format!("{} hedges, {most} covered", self.hedges));
        self.counts[at].last_call = now;
        self.outage(fleet, at, now);
    }

    ///
    fn outage(&mut self, fleet: &Fleet<'_>, at: usize, now: Time) {
        let Some(since) = self.servers[at].dead_since(now) else {
            return;
        };
        let count = &mut self.counts[at];
        if count.dead_since != since {
            count.dead_since = since;
            count.calls = 0;
            count.silent = 0;
            count.at_open = None;
        }
        count.calls += 1;
        let config = &fleet.plan.breaker;
        let rounds = 1 + now.since(since).as_micros() / config.open.as_micros().max(1);
        let rounds = u64::try_from(rounds).unwrap_or(u64::MAX);
        // Those that run now and have said nothing yet; the one of this call is not among them.
        let running = u64::from(fleet.targets[at].in_flight);
        let most = u64::from(config.consecutive_failures)
            + count.silent
            + count.at_open.unwrap_or(running)
            + u64::from(config.probes) * rounds;
        let calls = count.calls;
        self.check(
            calls <= most,
            "R-20",
            &format!("{calls} calls of dead target {at} since {since:?}, at most {most}"),
        );
    }

    /// A breaker changed.
    pub fn changed(&mut self, fleet: &Fleet<'_>, at: usize, change: Change, now: Time) {
        let Change::Opened(Opened { why, until }) = change else {
            return;
        };
        let longest = until.since(now) <= fleet.plan.breaker.max_open;
        self.check(longest, "R-26", "open for longer than max_open_ms");
        let dead = self.servers[at].dead_since(now);
        let count = &mut self.counts[at];
        count.opened += 1;
        count.opened_at = now;
        count.good = 0;
        if why != Why::Probe && dead == Some(count.dead_since) {
            let running = fleet.leaves.values().filter(|l| l.target == at).count() as u64;
            count.at_open = Some(count.at_open.unwrap_or(0) + running);
        }
    }

    /// A try said something.
    pub fn said(&mut self, leave: &Leave, sign: Sign, now: Time) {
        let server = &self.servers[leave.target];
        let count = &mut self.counts[leave.target];
        match sign {
            // What began before the breaker opened says nothing to it any more.
            Sign::Good
                if server.is_same_phase(leave.began, now)
                    && leave.began >= count.opened_at
                    && !leave.content =>
            {
                count.good += 1;
            }
            Sign::Failed => count.good = 0,
            _ => {}
        }
    }

    /// A try is over.
    pub fn over(&mut self, leave: &Leave, now: Time) {
        let server = &self.servers[leave.target];
        let count = &mut self.counts[leave.target];
        if !server.is_same_phase(leave.began, now) {
            count.settled = now;
            count.good = 0;
        }
        if !leave.pass.is_decided() && server.dead_since(leave.began) == Some(count.dead_since) {
            count.silent += 1;
        }
    }

    /// at any moment.
    pub fn leases(&mut self, fleet: &Fleet<'_>) {
        for (at, target) in fleet.targets.iter().enumerate() {
            let held = fleet.leaves.values().filter(|l| l.target == at).count();
            if held != target.in_flight as usize {
                let detail = format!("target {at}: {} in flight, {held} held", target.in_flight);
                return self.check(false, "R-21", &detail);
            }
            let most = fleet.plan.targets[at].limits.concurrency.unwrap_or(u32::MAX);
            if target.in_flight > most {
                return self.check(
                    false,
                    "R-27",
                    &format!("target {at}: {} of {most}", target.in_flight),
                );
            }
        }
    }

    /// A request failed for want of an answer.
    pub fn failed(&mut self, fleet: &Fleet<'_>, asked: &Asked, attempts: u8, failed: &Failed, now: Time) {
        let tried_out = attempts >= fleet.plan.retry.max_attempts;
        if tried_out || !matches!(failed.why, FailWhy::Upstream | FailWhy::NoneCallable) {
            return;
        }
        let missed = asked.callable.iter().find(|&&(at, from)| {
            let most = fleet.plan.targets[at].limits.concurrency.unwrap_or(u32::MAX);
            from <= now
                && !asked.asked.contains(&at)
                && self.servers[at].mood(now).is_well()
                && fleet.usable(at, now).yes()
                && fleet.targets[at].in_flight < most
        });
        if let Some((at, _)) = missed {
            let detail = format!("a request failed at {now:?}, and target {at} was not asked");
            self.check(false, "R-24", &detail);
        }
    }

    /// At the end of the world.
    pub fn end(&mut self, fleet: &mut Fleet<'_>) {
        self.check(
            fleet.leaves.is_empty(),
            "R-21",
            "a try holds something though all requests are over",
        );
        let later = Time(u64::MAX / 4);
        for at in 0..fleet.targets.len() {
            let closed = fleet.targets[at]
                .breaker
                .may_enter(&fleet.plan.breaker, later)
                .is_ok();
            self.check(closed, "R-21", "a probe's place is gone");
            let limits = |(_, mood): &(Time, Mood)| matches!(mood, Mood::Limited(_) | Mood::Well { .. });
            if self.servers[at].phases.iter().all(limits) {
                self.check(self.counts[at].opened == 0, "R-25", "a 429 opened a breaker");
            }
        }
    }
}

fn first(world: &Scenario) -> Option<usize> {
    let plan: &Plan = &world.plan;
    let route = plan.routes.first().filter(|route| route.start == Start::First)?;
    let [only] = route.tiers.first()?.as_slice() else {
        return None;
    };
    let at = only.index();
    let held = |(_, mood): &(Time, Mood)| matches!(mood, Mood::Limited(_));
    let free = plan.targets[at].limits.concurrency.is_none() && !world.servers[at].phases.iter().any(held);
    free.then_some(at)
}

impl Server {
    fn phase_began(&self, at: Time) -> Time {
        let now = self.phases.iter().rev().find(|(from, _)| *from <= at);
        now.map_or(Time(0), |(from, _)| *from)
    }
    fn is_same_phase(&self, a: Time, b: Time) -> bool {
        self.phase_began(a) == self.phase_began(b)
    }
    /// Since when it has been dead, over phases of any kind of death.
    fn dead_since(&self, at: Time) -> Option<Time> {
        let mut since = None;
        for (from, mood) in self.phases.iter().take_while(|(from, _)| *from <= at) {
            since = match (mood.is_dead(), since) {
                (true, None) => Some(*from),
                (true, since) => since,
                (false, _) => None,
            };
        }
        since
    }
}
