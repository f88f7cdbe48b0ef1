//! The parts of a request that are there for a provider's fault, each by itself and with the same inputs: an upper bound
//! of what they cost, whether a plan can switch them off or not.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::clock::{Alarm, Clock};
use gateway::steps::decode::decode;
use gateway::target_state::TargetState;
use routing::balance::{self, Candidate};
use routing::breaker::Sign;
use routing::budget::RetryBudget;
use routing::cascade::{Action, Event, Finish, Grade, Judged, Machine, Seen, Setup};
use routing::decide::{Decision, Query, Silent, Step, decide};
use routing::facts::CallKind;
use routing::ids::TargetId;
use routing::outcome::{Graded, Outcome};
use routing::plan::{self, Plan};
use routing::resolve::resolve;
use routing::signals::{Signals, TargetSignal};
use routing::units::Time;

use super::counted;
use super::request::ON;

const BODY: &[u8] =
    br#"{"model":"auto","stream":true,"messages":[{"role":"user","content":"What is a weir?"}]}"#;

fn on() -> Result<Plan, String> {
    plan::load(ON)
        .map(|compiled| compiled.plan)
        .map_err(|problems| problems.to_string())
}

fn after(now: &mut Time) -> Time {
    *now = *now + Duration::from_millis(2);
    *now
}

/// May it be called, step 12 and 13, first content, the end.
///
/// # Errors
/// A target that only does well was refused.
pub fn breaker(times: u32) -> Result<(), String> {
    let plan = on()?;
    let state = Arc::new(TargetState::default());
    state.configure(&plan.breaker, Some(64));
    let mut now = Time::from_millis(1_000);
    counted(|| {
        for _ in 0..times {
            let now = after(&mut now);
            if !black_box(&state).usable(now).yes() {
                return Err("a target that only does well is not usable".to_owned());
            }
            let mut leave = state.begin(now).map_err(|shut| format!("{shut:?}"))?;
            black_box(leave.told(Sign::Good, now));
            drop(leave);
        }
        Ok(())
    })
}

/// What a first try pays in.
///
/// # Errors
/// The plan does not load.
pub fn budget(times: u32) -> Result<(), String> {
    let budget = RetryBudget::new(&on()?.retry);
    let mut now = Time::from_millis(1_000);
    counted(|| {
        for _ in 0..times {
            black_box(&budget).deposit(after(&mut now));
        }
    });
    Ok(())
}

/// The choice that the decision makes. (The order of the others is in the machine's setup.)
///
/// # Errors
/// None.
pub fn balance(times: u32) -> Result<(), String> {
    let of = |index, latency_us| Candidate {
        target: TargetId(index),
        weight: 1,
        in_flight: 3,
        latency_us,
        share: 1_000,
    };
    let candidates = [of(0, 420_000), of(1, 470_000)];
    counted(|| {
        for seed in 0..u64::from(times) {
            black_box(balance::choose(black_box(&candidates), seed));
        }
    });
    Ok(())
}

/// From the decision to the finish, as a stream that goes well.
///
/// # Errors
/// It did not end in an answer.
pub fn machine(times: u32) -> Result<(), String> {
    let plan = on()?;
    let (_, mut facts) =
        decode(CallKind::Chat, Bytes::from_static(BODY), 7).map_err(|e| e.message().to_owned())?;
    facts.tenant = "default".into();
    let policy = resolve(&plan, "auto", &facts).map_err(|e| format!("{e:?}"))?;
    let signals = Signals {
        now: Time::from_millis(1_000),
        targets: plan.targets.iter().map(|_| TargetSignal::default()).collect(),
        encoder_us: None,
    };
    let query = Query {
        plan: &plan,
        policy: &policy,
        facts: &facts,
        signals: &signals,
        deadline: Time::from_millis(600_000),
        seed: 11,
    };
    let Step::Decided(decision) = decide(&query, &mut Silent) else {
        return Err("no decision".to_owned());
    };
    counted(|| {
        for _ in 0..times {
            let finish = driven(black_box(&query), &decision);
            if !matches!(finish, Some(Finish::Answered { .. })) {
                return Err(format!("the machine ended in {finish:?}"));
            }
        }
        Ok(())
    })
}

fn driven(query: &Query<'_>, decision: &Decision) -> Option<Finish> {
    let mut machine = Machine::new(Setup::of(query, decision));
    let mut now = query.signals.now;
    let mut events = VecDeque::with_capacity(4);
    events.push_back(Event::Begin);
    while let Some(event) = events.pop_front() {
        for action in machine.step(event, after(&mut now)) {
            match action {
                Action::Start { try_, .. } => events.extend([
                    Event::FirstContent { try_ },
                    Event::Verdict {
                        try_,
                        verdict: Judged {
                            grade: Grade::Pass,
                            seen: Seen::Full,
                            p_good: None,
                        },
                    },
                    Event::Ended {
                        try_,
                        end: Graded::plain(Outcome::Ok),
                        may_repeat: false,
                    },
                ]),
                Action::Finish(how) => return Some(how),
                _ => {}
            }
        }
    }
    None
}

/// The driver's timer: made far ahead, set once, for the first content's clock or the attempt's; dropped.
///
/// # Errors
/// The runtime could not be made.
pub fn timer(times: u32) -> Result<(), String> {
    looking(move |clock, cx| {
        for _ in 0..times {
            let mut timer = Alarm::new(clock, Time::NEVER);
            timer.set(clock, clock.now() + Duration::from_secs(60));
            let _ = black_box(timer.poll(cx));
        }
    })
}

/// The body's timer of a stream, for the longest one; dropped.
///
/// # Errors
/// The runtime could not be made.
pub fn longest(times: u32) -> Result<(), String> {
    looking(move |clock, cx| {
        for _ in 0..times {
            let mut longest = Alarm::new(clock, clock.now() + Duration::from_secs(3_600));
            let _ = black_box(longest.poll(cx));
        }
    })
}

/// One event, and the look before it that found nothing: the time is read for each, and the timers are looked at.
///
/// # Errors
/// The runtime could not be made.
pub fn ticks(times: u32) -> Result<(), String> {
    looking(move |clock, cx| {
        let ahead = clock.now() + Duration::from_secs(3_600);
        let (mut timer, mut longest) = (Alarm::new(clock, ahead), Alarm::new(clock, ahead));
        for _ in 0..times {
            black_box(clock.now());
            let _ = black_box(longest.poll(cx));
            let _ = black_box(timer.poll(cx));
            black_box(clock.now());
            let _ = black_box(longest.poll(cx));
        }
    })
}

/// Inside of a poll of a task, as a connection's is.
fn looking(mut work: impl FnMut(&Clock, &mut std::task::Context<'_>) + Send + 'static) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let clock = Clock::system();
        let looked = std::future::poll_fn(move |cx| {
            counted(|| work(&clock, cx));
            std::task::Poll::Ready(())
        });
        tokio::spawn(looked).await.map_err(|e| e.to_string())
    })
}
