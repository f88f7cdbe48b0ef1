//! What is known of the targets, shared by all requests of a world: the same parts as in the gateway's state of a target.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Arrival, Off, Scenario};
use crate::balance;
use crate::breaker::{Breaker, Change, Pass, Sign};
use crate::budget::RetryBudget;
use crate::cascade::{Refusal, StartKind, TryId};
use crate::latency::Latencies;
use crate::outcome::Graded;
use crate::plan::Plan;
use crate::signals::{Hold, Signals, TargetSignal, Usable};
use crate::units::Time;

/// One target.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub breaker: Breaker,
    pub in_flight: u32,
    latency_us: u64,
    observed: Time,
    held: Time,
    /// Whole answers, streams.
    latencies: [Latencies; 2],
    /// Holds for a 429 without a word, one after the other.
    limited: u32,
}

/// What a try holds.
#[derive(Debug)]
pub(super) struct Leave {
    pub target: usize,
    pub pass: Pass,
    pub began: Time,
    pub content: bool,
    pub stream: bool,
}

impl Target {
    fn observe(&mut self, stream: bool, latency: Duration, now: Time) {
        let seen = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_us = balance::peak_ewma(self.latency_us, seen, now.since(self.observed));
        self.observed = now;
        self.latencies[usize::from(stream)].observe(latency);
    }
}

/// All of them.
pub(super) struct Fleet<'a> {
    pub plan: &'a Plan,
    pub targets: Vec<Target>,
    pub budget: RetryBudget,
    pub hedges: RetryBudget,
    /// By request and try.
    pub leaves: BTreeMap<(usize, TryId), Leave>,
    pub off: Option<Off>,
}

impl<'a> Fleet<'a> {
    pub fn new(world: &'a Scenario, off: Option<Off>) -> Self {
        Self {
            plan: &world.plan,
            targets: world.servers.iter().map(|_| Target::default()).collect(),
            budget: RetryBudget::new(&world.plan.retry),
            hedges: RetryBudget::of_hedges(&world.plan.hedge),
            leaves: BTreeMap::new(),
            off,
        }
    }

    fn most(&self, target: usize) -> Option<u32> {
        self.plan.targets[target].limits.concurrency
    }

    pub fn usable(&self, target: usize, now: Time) -> Usable {
        let t = &self.targets[target];
        if t.held > now {
            return Usable::Held {
                until: t.held,
                why: Hold::Failed,
            };
        }
        if self.off == Some(Off::Breaker) {
            return Usable::Yes;
        }
        match t.breaker.may_enter(&self.plan.breaker, now) {
            Ok(()) => Usable::Yes,
            Err(until) => Usable::Open { until },
        }
    }

    pub fn signals(&self, now: Time) -> Signals {
        let targets = self.targets.iter().enumerate().map(|(i, t)| {
            let full = self.most(i).is_some_and(|most| t.in_flight >= most);
            let share = t.breaker.share(&self.plan.breaker, now);
            TargetSignal {
                usable: match self.usable(i, now) {
                    Usable::Yes if full => Usable::Full { until: None },
                    usable => usable,
                },
                in_flight: t.in_flight,
                latency_us: t.latency_us,
                silent_us: now.0.saturating_sub(t.observed.0),
                slow_start: (share < 1_000).then_some(share),
                ..TargetSignal::default()
            }
        });
        Signals {
            now,
            targets: targets.collect(),
            encoder_us: None,
        }
    }

    /// In the order of the gateway: its own word, permit, breaker, budget.
    pub fn admit(
        &mut self,
        target: usize,
        kind: StartKind,
        arrival: &Arrival,
        now: Time,
    ) -> Result<Leave, (Refusal, Option<Time>)> {
        match self.usable(target, now) {
            Usable::Held { until, .. } => return Err((Refusal::Held, Some(until))),
            Usable::Open { until } => return Err((Refusal::Breaker, Some(until))),
            _ => {}
        }
        let most = self.most(target).filter(|_| self.off != Some(Off::Permit));
        let t = &mut self.targets[target];
        if most.is_some_and(|most| t.in_flight >= most) {
            return Err((Refusal::Permit, None));
        }
        let pass = match t.breaker.enter(&self.plan.breaker, now) {
            Ok(pass) => pass,
            Err(_) if self.off == Some(Off::Breaker) => {
                t.breaker.forgive();
                t.breaker
                    .enter(&self.plan.breaker, now)
                    .map_err(|until| (Refusal::Breaker, Some(until)))?
            }
            Err(until) => return Err((Refusal::Breaker, Some(until))),
        };
        t.in_flight += 1;
        let leave = Leave {
            target,
            pass,
            began: now,
            content: false,
            stream: arrival.stream,
        };
        if !self.afford(kind, arrival.resent, now) {
            self.release(leave, now);
            return Err((Refusal::RetryBudget, None));
        }
        Ok(leave)
    }

    fn afford(&self, kind: StartKind, resent: bool, now: Time) -> bool {
        match kind {
            _ if self.off == Some(Off::Budget) => true,
            StartKind::First if resent => {
                let _ = self.budget.withdraw(now);
                true
            }
            StartKind::First => {
                self.budget.deposit(now);
                self.hedges.deposit(now);
                true
            }
            StartKind::Hedge if self.off == Some(Off::HedgeBudget) => true,
            StartKind::Hedge => self.hedges.withdraw(now),
            StartKind::Retry => self.budget.withdraw(now),
            StartKind::Failover if resent => self.budget.withdraw(now),
            _ => true,
        }
    }

    /// A try says something of its target.
    pub fn told(&mut self, key: (usize, TryId), sign: Sign, now: Time) -> Option<(usize, Change)> {
        let leave = self.leaves.get_mut(&key)?;
        let t = &mut self.targets[leave.target];
        if sign == Sign::Good && !leave.content {
            leave.content = true;
            t.limited = 0;
            t.observe(leave.stream, now.since(leave.began), now);
        }
        if self.off == Some(Off::Probe) && leave.pass.is_probe() {
            return None;
        }
        let change = t.breaker.told(&self.plan.breaker, &mut leave.pass, sign, now);
        change.map(|change| (leave.target, change))
    }

    /// A try that was slower than its rival.
    pub fn outrun(&mut self, key: (usize, TryId), now: Time) {
        if let Some(leave) = self.leaves.get(&key)
            && !leave.content
        {
            self.targets[leave.target].observe(leave.stream, now.since(leave.began), now);
        }
    }

    /// When a try counts as slow.
    pub fn slow_after(&self, target: usize, stream: bool) -> Option<Duration> {
        let hedge = &self.plan.hedge;
        let seen = &self.targets[target].latencies[usize::from(stream)];
        hedge
            .enabled
            .then(|| seen.quantile(hedge.after_quantile))
            .flatten()
    }

    /// What its end means for everyone.
    pub fn heed(&mut self, target: usize, end: &Graded, now: Time) {
        let t = &mut self.targets[target];
        // Those that come while it is held belong to the same hold.
        t.limited += u32::from(end.is_wordless_limit() && t.held <= now);
        if let Some(pause) = end.hold(self.plan.retry.step(t.limited.saturating_sub(1))) {
            t.held = t.held.max(now + pause);
        }
    }

    /// A try is over, in whatever way.
    pub fn release(&mut self, mut leave: Leave, now: Time) {
        let t = &mut self.targets[leave.target];
        let _ = t
            .breaker
            .told(&self.plan.breaker, &mut leave.pass, Sign::Nothing, now);
        t.in_flight = t.in_flight.saturating_sub(1);
    }

    /// The same, by its name; `given_up`: we ended it.
    pub fn end(&mut self, key: (usize, TryId), given_up: bool, now: Time) {
        if let Some(leave) = self.leaves.remove(&key)
            && !(given_up && self.off == Some(Off::Lease))
        {
            self.release(leave, now);
        }
    }
}
