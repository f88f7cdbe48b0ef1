//! Plays a world to its end: arrivals, events of every running request, timers; in the order of virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fleet::Fleet;
use super::watch::{Asked, Rules};
use super::{Arrival, Mood, Off, Report, Scenario};
use crate::balance::mix;
use crate::breaker::Sign;
use crate::cascade::sim::Watch;
use crate::cascade::{
    Action, CancelWhy, Event, Finish, Grade, Judged, Machine, Seen, Setup, StartKind, TryId,
};
use crate::continuation::Ways;
use crate::decide::{Query, Silent, Step, decide};
use crate::facts::{Facts, Known, Source};
use crate::outcome::{Graded, Outcome, TargetFault};
use crate::plan::Check;
use crate::resolve::resolve;
use crate::units::Time;

/// Time that a refused connection takes.
const REFUSED: Duration = Duration::from_millis(1);
/// More events than any world needs: reaching it means that something does not end.
const MOST_EVENTS: u64 = 1_000_000;

enum Due {
    Arrives(usize),
    Hears(usize, Event),
    Timer(usize),
}

/// What a try is for.
#[derive(Clone, Copy)]
enum How {
    /// It answers; `judge`: its answer is looked at.
    Answers { judge: bool },
    /// It goes on with a stream that broke.
    GoesOn,
}

struct Request {
    machine: Machine,
    watch: Watch,
    timer: Time,
    arrival: Arrival,
    deadline: Time,
    asked: Asked,
    /// Which target each try went to.
    tries: Vec<(TryId, usize)>,
}

struct World<'a> {
    scenario: &'a Scenario,
    fleet: Fleet<'a>,
    rules: Rules,
    requests: BTreeMap<usize, Request>,
    queue: BTreeMap<(Time, u64), Due>,
    order: u64,
    report: Report,
}

/// Plays a world. `off` switches a part off; `None` is the real thing.
pub fn run(scenario: &Scenario, off: Option<Off>) -> Report {
    let mut world = World {
        scenario,
        fleet: Fleet::new(scenario, off),
        rules: Rules::new(scenario),
        requests: BTreeMap::new(),
        queue: BTreeMap::new(),
        order: 0,
        report: Report {
            calls: vec![0; scenario.servers.len()],
            opened: vec![0; scenario.servers.len()],
            ..Report::default()
        },
    };
    for (i, arrival) in scenario.arrivals.iter().enumerate() {
        world.put(arrival.at, Due::Arrives(i));
    }
    while let Some(((now, _), due)) = world.queue.pop_first() {
        match due {
            Due::Arrives(i) => world.arrives(i, now),
            Due::Hears(i, event) => world.hears(i, event, now),
            Due::Timer(i) => {
                if world.requests.get(&i).is_some_and(|r| r.timer == now) {
                    world.hears(i, Event::Timer, now);
                }
            }
        }
        if world.report.events > MOST_EVENTS {
            world.rules.check(false, "R-3", "it does not end");
        }
        if world.rules.broken.is_some() {
            break;
        }
    }
    world.finish()
}

impl World<'_> {
    fn put(&mut self, at: Time, due: Due) {
        self.order += 1;
        self.queue.insert((at, self.order), due);
    }

    fn arrives(&mut self, i: usize, now: Time) {
        let arrival = self.scenario.arrivals[i];
        let plan = &self.scenario.plan;
        let mut facts = Facts {
            tenant: "default".into(),
            stream: arrival.stream,
            prompt_tokens: 20,
            choices: 1,
            ..Facts::default()
        };
        let signals = self.fleet.signals(now);
        let deadline = now + arrival.patience;
        let Ok(policy) = resolve(plan, "auto", &facts) else {
            return self.rules.check(false, "plan", "`auto` does not resolve");
        };
        let mut setup = loop {
            let query = Query {
                plan,
                policy: &policy,
                facts: &facts,
                signals: &signals,
                deadline,
                seed: self.scenario.seed ^ i as u64,
            };
            match decide(&query, &mut Silent) {
                Step::Decided(decision) => break self.hedged(Setup::of(&query, &decision), &arrival),
                Step::Need { .. } => {
                    facts.dear.difficulty = Some(Known {
                        value: 0.0,
                        source: Source::Failed,
                    });
                }
                Step::Refused(no) => {
                    return self.rules.check(false, "plan", &format!("refused: {no:?}"));
                }
            }
        };
        if arrival.resent {
            setup.is_sent_again();
        }
        let due = self.rules.arrived(&self.fleet, now);
        let before = due.and_then(|at| self.report.calls.get(at).copied());
        let callable = setup
            .slots
            .iter()
            .filter(|s| s.callable_at != Time::NEVER && s.tier >= setup.wanted_tier);
        let asked = Asked {
            callable: callable.map(|s| (s.target.index(), s.callable_at)).collect(),
            asked: Vec::new(),
        };
        let request = Request {
            watch: Watch::new(&setup),
            machine: Machine::new(setup),
            timer: Time::NEVER,
            arrival,
            deadline,
            asked,
            tries: Vec::new(),
        };
        self.requests.insert(i, request);
        if let Some(leaves) = arrival.leaves {
            self.put(now + leaves, Due::Hears(i, Event::ClientGone));
        }
        self.hears(i, Event::Begin, now);
        if let Some(at) = due {
            let calls = self.report.calls.get(at).copied();
            self.rules.check(
                calls > before,
                "R-23",
                "the first tier is well and may be asked, and is passed by",
            );
        }
    }

    /// As in the gateway: what a client has sent again is not multiplied.
    fn hedged(&self, mut setup: Setup, arrival: &Arrival) -> Setup {
        for slot in setup.slots.iter_mut().filter(|_| !arrival.resent) {
            slot.hedge_after = self.fleet.slow_after(slot.target.index(), arrival.stream);
        }
        setup
    }

    fn hears(&mut self, i: usize, event: Event, now: Time) {
        let Some(mut request) = self.requests.remove(&i) else {
            return;
        };
        self.report.events += 1;
        self.before(i, &event, now);
        request.watch.event(&event);
        let actions = request.machine.step(event, now);
        request.watch.actions(&actions, now);
        for action in actions {
            self.carry_out(i, &mut request, action, now);
        }
        let done = request.machine.is_done();
        if done {
            request.watch.end(&request.machine);
        }
        if let Some(broken) = request.watch.broken.take() {
            self.rules.check(false, &broken, "in one request");
        }
        if !done {
            self.requests.insert(i, request);
        }
        self.rules.leases(&self.fleet);
    }

    /// What an event means for the fleet, before the machine hears it.
    fn before(&mut self, i: usize, event: &Event, now: Time) {
        let key = |try_: &TryId| (i, *try_);
        let (key, sign) = match event {
            Event::FirstContent { try_ } => (key(try_), Sign::Good),
            Event::Ended { try_, end, .. } | Event::Cut { try_, end, .. } => {
                if let Some(leave) = self.fleet.leaves.get(&key(try_)) {
                    self.fleet.heed(leave.target, end, now);
                }
                let sign = match end.outcome {
                    Outcome::TargetFault(TargetFault::RateLimited)
                        if self.fleet.off == Some(Off::Limited) =>
                    {
                        Sign::Failed
                    }
                    outcome => Sign::of(outcome),
                };
                (key(try_), sign)
            }
            _ => return,
        };
        self.tell(key, sign, now);
        if matches!(event, Event::Ended { .. } | Event::Cut { .. }) {
            self.over(key, false, now);
        }
    }

    fn over(&mut self, key: (usize, TryId), given_up: bool, now: Time) {
        if let Some(leave) = self.fleet.leaves.get(&key) {
            self.rules.over(leave, now);
        }
        self.fleet.end(key, given_up, now);
    }

    fn tell(&mut self, key: (usize, TryId), sign: Sign, now: Time) {
        if let Some(leave) = self.fleet.leaves.get(&key) {
            self.rules.said(leave, sign, now);
        }
        if let Some((target, change)) = self.fleet.told(key, sign, now) {
            self.rules.changed(&self.fleet, target, change, now);
            if matches!(change, crate::breaker::Change::Opened(_)) {
                self.report.opened[target] += 1;
            }
        }
    }

    fn carry_out(&mut self, i: usize, request: &mut Request, action: Action, now: Time) {
        match action {
            Action::Start {
                try_,
                target,
                kind,
                judge,
                ..
            } => self.start(
                i,
                request,
                try_,
                target.index(),
                kind,
                How::Answers { judge },
                now,
            ),
            Action::Continue { try_, target, .. } => {
                // As in the gateway: the same target again is a repeat, and draws on the ratio budget like one.
                let target = target.index();
                let again = request.tries.iter().any(|(_, t)| *t == target);
                let kind = if again {
                    StartKind::Retry
                } else {
                    StartKind::Continue
                };
                self.start(i, request, try_, target, kind, How::GoesOn, now);
            }
            Action::Adopt { .. } => self.report.continued += 1,
            Action::Cancel { try_, why } => {
                match why {
                    CancelWhy::Clock(outcome) => self.tell((i, try_), Sign::of(outcome), now),
                    CancelWhy::Outrun => self.fleet.outrun((i, try_), now),
                    _ => {}
                }
                self.over((i, try_), true, now);
            }
            Action::Judge { try_ } => {
                let verdict = Judged::unchecked();
                self.put(now, Due::Hears(i, Event::Verdict { try_, verdict }));
            }
            Action::ArmTimer { at } => {
                request.timer = at;
                if at != Time::NEVER {
                    self.put(at, Due::Timer(i));
                }
            }
            Action::Commit { .. } | Action::Forget { .. } => {}
            Action::Finish(finish) => self.finished(request, &finish, now),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one action")]
    fn start(
        &mut self,
        i: usize,
        request: &mut Request,
        try_: TryId,
        target: usize,
        kind: StartKind,
        how: How,
        now: Time,
    ) {
        let arrival = request.arrival;
        let kind = match kind {
            StartKind::Failover if self.fleet.off == Some(Off::Failover) => {
                let why = crate::cascade::Refusal::Off;
                let until = None;
                return self.put(now, Due::Hears(i, Event::Refused { try_, why, until }));
            }
            kind => kind,
        };
        request.asked.asked.push(target);
        match self.fleet.admit(target, kind, &arrival, now) {
            Err((why, until)) => {
                self.put(now, Due::Hears(i, Event::Refused { try_, why, until }));
            }
            Ok(leave) => {
                self.report.calls[target] += 1;
                request.tries.push((try_, target));
                self.report.hedges += u32::from(kind == StartKind::Hedge);
                self.report.escalated += u32::from(kind == StartKind::Escalate);
                self.report.rungs += u32::from(kind == StartKind::Degrade);
                self.rules.called(&self.fleet, target, kind, arrival.resent, now);
                self.fleet.leaves.insert((i, try_), leave);
                self.play(i, try_, target, how, request.arrival.stream, now);
            }
        }
    }

    /// What the target does with it. A target that dies takes its answers with it.
    fn play(&mut self, i: usize, try_: TryId, target: usize, how: How, stream: bool, now: Time) {
        let server = &self.scenario.servers[target];
        let (mood, ends) = (server.mood(now), server.dies(now));
        let dies = ends != Time::NEVER;
        let fault = |fault, retry_after| Graded {
            retry_after,
            ..Graded::plain(Outcome::TargetFault(fault))
        };
        match mood {
            Mood::Down => self.ends(i, try_, false, fault(TargetFault::Connect, None), now + REFUSED),
            Mood::Broken(after) => {
                self.ends(i, try_, false, fault(TargetFault::ServerError, None), now + after);
            }
            Mood::Limited(again) => {
                self.ends(
                    i,
                    try_,
                    false,
                    fault(TargetFault::RateLimited, again),
                    now + REFUSED,
                );
            }
            Mood::Silent => {}
            Mood::Cuts(first) => {
                let (content, broke) = (now + first, now + first + first);
                // One that dies before its first content resets, and nobody hears from it while it is dead.
                let silent = dies && content >= ends;
                if stream && !silent {
                    self.put(content, Due::Hears(i, Event::FirstContent { try_ }));
                }
                let end = fault(
                    if silent {
                        TargetFault::Reset
                    } else {
                        TargetFault::Cut
                    },
                    None,
                );
                let at = if dies { broke.min(ends) } else { broke };
                if !silent {
                    self.joins(i, try_, how, content, at);
                }
                self.ends(i, try_, stream && !silent, end, at);
            }
            Mood::Well { first, whole } => {
                let (first, whole) = (now + first, now + whole.max(first));
                if stream && !(dies && first >= ends) {
                    self.put(first, Due::Hears(i, Event::FirstContent { try_ }));
                }
                if dies && whole >= ends {
                    let broke = if first < ends {
                        TargetFault::Cut
                    } else {
                        TargetFault::Reset
                    };
                    if first < ends {
                        self.joins(i, try_, how, first, ends);
                    }
                    return self.ends(i, try_, stream && first < ends, fault(broke, None), ends);
                }
                self.joins(i, try_, how, first, whole);
                if let How::Answers { judge: true } = how {
                    let verdict = self.verdict(i, try_);
                    self.put(whole, Due::Hears(i, Event::Verdict { try_, verdict }));
                }
                self.ends(i, try_, false, Graded::plain(Outcome::Ok), whole);
            }
        }
    }

    /// A continuation is seen to go on with what was sent, or not to, half-way between its first content and its end.
    fn joins(&mut self, i: usize, try_: TryId, how: How, first: Time, end: Time) {
        let How::GoesOn = how else { return };
        let half = first + end.since(first) / 2;
        let event = if self.one_in(5, i, try_) {
            Event::Unfit { try_ }
        } else {
            Event::Joined { try_ }
        };
        self.put(half, Due::Hears(i, event));
    }

    /// What the checks say of a whole answer.
    fn verdict(&self, i: usize, try_: TryId) -> Judged {
        Judged {
            grade: if self.one_in(4, i, try_) {
                Grade::Fail(Check::Finish)
            } else {
                Grade::Pass
            },
            seen: Seen::Full,
            p_good: None,
        }
    }

    /// A draw of this try's own: the same in every run of the world.
    fn one_in(&self, n: u64, i: usize, try_: TryId) -> bool {
        mix(self.scenario.seed ^ ((i as u64) << 16) ^ u64::from(try_.0)).is_multiple_of(n)
    }

    fn ends(&mut self, i: usize, try_: TryId, cut: bool, end: Graded, at: Time) {
        // What the budget covers is asked when the end comes, as in the gateway; here it is close enough to ask now, since
        // the start itself is refused when the budget is gone by then.
        let may_repeat = self.fleet.budget.covers(at);
        let event = if cut {
            Event::Cut {
                try_,
                end,
                may_repeat,
                ways: Ways::ALL,
            }
        } else {
            Event::Ended {
                try_,
                end,
                may_repeat,
            }
        };
        self.put(at, Due::Hears(i, event));
    }

    fn finished(&mut self, request: &Request, finish: &Finish, now: Time) {
        match finish {
            Finish::Answered { try_, .. } => {
                self.report.answered += 1;
                let who = request.tries.iter().find(|(t, _)| t == try_);
                let who = who.and_then(|(_, target)| u16::try_from(*target).ok());
                self.report.timeline.extend(who.map(|who| (now, who)));
            }
            Finish::ClientGone => {}
            Finish::Cut { .. } => self.report.failed += 1,
            Finish::PassOn { .. } | Finish::Instead { .. } => self.report.failed += 1,
            Finish::Failed(failed) => {
                self.report.failed += 1;
                if now < request.deadline && !request.arrival.resent {
                    let attempts = request.machine.attempts();
                    self.rules
                        .failed(&self.fleet, &request.asked, attempts, failed, now);
                }
            }
        }
    }

    fn finish(mut self) -> Report {
        if self.rules.broken.is_none() {
            self.rules
                .check(self.requests.is_empty(), "R-3", "a request did not end");
            self.rules.end(&mut self.fleet);
        }
        self.report.broken = self.rules.broken;
        self.report
    }
}
