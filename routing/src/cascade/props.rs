//! The invariants under random fleets and under random events. A failure names the invariant and the seed.

use std::time::Duration;

use super::sim::{Act, Watch, World, run};
use super::tests::{ms, setup, slot};
use super::*;
use crate::balance::mix;
use crate::continuation::{Way, Ways};
use crate::outcome::{CallerFault as C, Graded, Neutral, Outcome, TargetFault as T};
use crate::plan::{Check, ContentFilter, ContinueWith, DegradeStep, HoldBack, OnFail};
use crate::predict::Belief;
use crate::units::{NanoUsd, Time};

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    fn pick<X: Copy>(&mut self, from: &[X]) -> X {
        from[self.below(from.len() as u64) as usize]
    }
    fn ms(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most + 1))
    }
}

const OUTCOMES: &[Outcome] = &[
    Outcome::Ok,
    Outcome::TargetFault(T::RateLimited),
    Outcome::TargetFault(T::Overloaded),
    Outcome::TargetFault(T::ServerError),
    Outcome::TargetFault(T::ConnectTimeout),
    Outcome::TargetFault(T::Connect),
    Outcome::TargetFault(T::FirstTokenTimeout),
    Outcome::TargetFault(T::IdleTimeout),
    Outcome::TargetFault(T::Reset),
    Outcome::TargetFault(T::Cut),
    Outcome::TargetFault(T::Malformed),
    Outcome::TargetFault(T::Auth),
    Outcome::TargetFault(T::ModelNotFound),
    Outcome::CallerFault(C::ContextOverflow),
    Outcome::CallerFault(C::ContentFilter),
    Outcome::CallerFault(C::UnsupportedParameter),
    Outcome::CallerFault(C::InvalidRequest),
    Outcome::Neutral(Neutral::Internal),
    Outcome::Neutral(Neutral::Cancelled),
];

fn end(r: &mut Rng) -> Graded {
    Graded {
        outcome: r.pick(&OUTCOMES[1..]),
        retry_after: r.one_in(3).then(|| r.ms(8_000)),
        maybe_billed: r.one_in(2),
    }
}

fn verdict(r: &mut Rng) -> Judged {
    Judged {
        grade: r.pick(&[
            Grade::Pass,
            Grade::Pass,
            Grade::Unchecked,
            Grade::Fail(Check::Arithmetic),
            Grade::Fail(Check::Finish),
            Grade::Filtered,
        ]),
        seen: r.pick(&[Seen::Full, Seen::Full, Seen::Prefix(5), Seen::None]),
        p_good: r.one_in(2).then(|| r.below(100) as f32 / 100.0),
    }
}

fn random_setup(r: &mut Rng) -> Setup {
    let mut s = setup(0);
    for i in 0..1 + r.below(5) {
        let mut slot = slot(i as u16, r.below(4) as u8);
        if r.one_in(5) {
            slot.callable_at = r.pick(&[Time::NEVER, ms(2_000), ms(400)]);
            slot.held = Some(DegradeReason::Held);
        }
        slot.context = r.pick(&[None, Some(2_048), Some(128_000)]);
        slot.ability = r.one_in(2).then(|| Belief {
            mean: r.below(6) as f32 - 3.0,
            sd: 0.3,
        });
        slot.p_good = slot.ability.map(|_| r.below(100) as f32 / 100.0);
        slot.cost = r.one_in(2).then(|| NanoUsd(r.below(1_000_000)));
        if r.one_in(8) {
            slot.tier = u8::MAX;
        }
        s.slots.push(slot);
    }
    s.slots.sort_by_key(|slot| slot.tier);
    let at = r.below(s.slots.len() as u64) as usize;
    s.start = if r.one_in(8) {
        None
    } else {
        Some(s.slots[at].target)
    };
    s.wanted_tier = r.below(4) as u8;
    s.stream = r.one_in(2);
    s.effects = r.one_in(10);
    s.pinned = r.one_in(10);
    s.deadline = ms(r.pick(&[300, 5_000, 600_000, 600_000]));
    s.verify = !r.one_in(4);
    s.on_fail = r.pick(&[OnFail::Return, OnFail::Return, OnFail::Error]);
    s.hold_back = r.pick(&[HoldBack::Tokens(0), HoldBack::Tokens(24), HoldBack::All]);
    s.hold_back_max = r.ms(1_500);
    s.max_added = r.one_in(2).then(|| r.ms(3_000));
    s.content_filter = r.pick(&[ContentFilter::Pass, ContentFilter::Escalate]);
    let ladder = [
        DegradeStep::Weaker,
        DegradeStep::StaleCache,
        DegradeStep::Local,
        DegradeStep::Message,
    ];
    s.degrade = ladder.into_iter().filter(|_| r.one_in(2)).collect();
    s.degrade_floor = r.pick(&[0.0, 0.5]);
    s.stale = r.one_in(3);
    s.retry.max_attempts = 1 + r.below(6) as u8;
    s.retry.same_target = r.below(3) as u8;
    s.retry.jitter = r.one_in(2);
    s.difficulty = r.one_in(2).then_some(Belief { mean: 0.0, sd: 2.0 });
    s.lambda = r.below(1_000) as f64;
    s.seed = r.next();
    s.continue_with = r.pick(&[
        ContinueWith::Stronger,
        ContinueWith::Stronger,
        ContinueWith::Any,
        ContinueWith::Never,
    ]);
    s.deterministic = r.one_in(3);
    s.until = r.pick(&[Time::NEVER, Time::NEVER, ms(3_000), ms(40_000)]);
    let hedges = r.one_in(2);
    for slot in &mut s.slots {
        slot.prefill = r.one_in(2);
        slot.hedge_after = (hedges && !r.one_in(4)).then(|| r.ms(2_500));
    }
    s
}

fn ways(r: &mut Rng) -> Ways {
    Way::ALL
        .into_iter()
        .filter(|_| !r.one_in(3))
        .fold(Ways::NONE, Ways::with)
}

fn random_act(r: &mut Rng) -> Act {
    let first = r.ms(2_000);
    match r.below(11) {
        0..=3 => Act::Answer {
            first,
            whole: first + r.ms(4_000),
            verdict: verdict(r),
            early: r.one_in(2),
        },
        4 | 9 => Act::Break {
            first,
            after: first + r.ms(4_000),
            end: end(r),
        },
        5..=7 => Act::Fail {
            after: r.ms(70_000),
            end: end(r),
        },
        8 => Act::Refuse {
            why: r.pick(&[
                Refusal::Permit,
                Refusal::Breaker,
                Refusal::Held,
                Refusal::Reserve,
                Refusal::RetryBudget,
                Refusal::Off,
            ]),
            until: r.one_in(2).then(|| r.ms(6_000)),
        },
        _ => Act::Silent {
            alive: r.one_in(2).then(|| r.ms(30_000)),
        },
    }
}

#[test]
fn invariants_hold_under_random_fleets() {
    let (mut events, mut answered, mut started) = (0_u64, 0, 0);
    let (mut continued, mut joined) = (0, 0);
    for seed in 0..200_000 {
        let mut r = Rng(seed * 1_000_003);
        let setup = random_setup(&mut r);
        let mut world = World {
            may_repeat: !r.one_in(4),
            leaves: r.one_in(8).then(|| Time(r.below(6_000_000))),
            ways: ways(&mut r),
            ..World::default()
        };
        for slot in &setup.slots {
            let script = (0..1 + r.below(3)).map(|_| random_act(&mut r)).collect();
            world.scripts.insert(slot.target, script);
        }
        let story = run(setup.clone(), &world, Time(0));
        assert!(
            story.broken.is_none(),
            "{} at seed {seed}\n{setup:#?}\n{world:#?}\n{story:#?}",
            story.broken.as_deref().unwrap_or("")
        );
        events += u64::from(story.events);
        started += story.started().len();
        continued += story.continued().len();
        let adopts = |(_, a): &&(Time, Action)| matches!(a, Action::Adopt { .. });
        joined += story.actions.iter().filter(adopts).count();
        answered += usize::from(matches!(story.finish(), Some(Finish::Answered { .. })));
    }
    // The fleets are of a kind that reaches every corner, not all dead and not all well.
    assert!(events > 500_000, "{events}");
    assert!(answered > 40_000 && started > 150_000, "{answered} {started}");
    assert!(continued > 4_000 && joined > 2_000, "{continued} {joined}");
}

fn random_event(r: &mut Rng) -> Event {
    // Mostly about tries that may run; some about ones that never were.
    let try_ = TryId(r.below(7) as u16);
    match r.below(20) {
        16 => Event::Cut {
            try_,
            end: end(r),
            may_repeat: !r.one_in(4),
            ways: ways(r),
        },
        17 => Event::Joined { try_ },
        18 => Event::Unfit { try_ },
        0 => Event::Refused {
            try_,
            why: r.pick(&[
                Refusal::Permit,
                Refusal::Breaker,
                Refusal::RetryBudget,
                Refusal::Off,
            ]),
            until: None,
        },
        1 => Event::SignOfLife { try_ },
        2..=4 => Event::FirstContent { try_ },
        5..=7 => Event::Verdict {
            try_,
            verdict: verdict(r),
        },
        8..=9 => Event::Ended {
            try_,
            end: end(r),
            may_repeat: !r.one_in(4),
        },
        10..=11 => Event::Ended {
            try_,
            end: Graded::plain(Outcome::Ok),
            may_repeat: true,
        },
        12 if r.one_in(8) => Event::ClientGone,
        13 => Event::Begin,
        _ => Event::Timer,
    }
}

/// Events in no order that makes sense, late and early ones, about tries that are over or never were: no invariant may
/// lean on a well-behaved driver. That it ends is then up to time alone.
#[test]
fn invariants_hold_under_random_events() {
    let (mut events, mut seed) = (0_u64, 0_u64);
    while events < 2_000_000 {
        seed += 1;
        let mut r = Rng(seed * 7_777_777);
        let setup = random_setup(&mut r);
        let mut watch = Watch::new(&setup);
        let mut machine = Machine::new(setup);
        let mut now = Time(0);
        for i in 0..40 {
            let event = if i == 0 {
                Event::Begin
            } else {
                random_event(&mut r)
            };
            watch.event(&event);
            let actions = machine.step(event, now);
            watch.actions(&actions, now);
            now = now + r.ms(400);
            events += 1;
        }
        // Whatever runs is then left alone until its clocks and the deadline have passed, or ended if committed.
        for _ in 0..2 {
            now = now + Duration::from_secs(700);
            let actions = machine.step(Event::Timer, now);
            watch.actions(&actions, now);
        }
        if !machine.is_done() {
            let actions = machine.step(Event::ClientGone, now);
            watch.actions(&actions, now);
        }
        watch.end(&machine);
        assert!(
            watch.broken.is_none(),
            "{} at seed {seed}",
            watch.broken.unwrap_or_default()
        );
    }
}
