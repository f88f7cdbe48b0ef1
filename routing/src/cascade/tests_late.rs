//! Whole answers that come after their attempt's clock (60 s here).

use super::sim::{Act, Story, World, run};
use super::tests::{d, ms, setup};
use super::*;
use crate::continuation::Ways;
use crate::ids::TargetId;
use crate::outcome::{Graded, Outcome, TargetFault as T};
use crate::plan::{Check, OnFail};
use crate::units::Time;

fn whole(tiers: u16) -> Setup {
    Setup {
        stream: false,
        ..setup(tiers)
    }
}
fn judged(after: u64, grade: Grade) -> Act {
    Act::Answer {
        first: d(100),
        whole: d(after),
        verdict: Judged {
            grade,
            seen: Seen::Full,
            p_good: None,
        },
        early: false,
    }
}
fn comes(after: u64) -> Act {
    judged(after, Grade::Pass)
}
fn dead() -> Act {
    Act::Fail {
        after: d(50),
        end: Graded::plain(Outcome::TargetFault(T::Connect)),
    }
}
fn tell(setup: Setup, scripts: &[&[Act]]) -> Story {
    let world = World {
        scripts: (0..)
            .map(TargetId)
            .zip(scripts.iter().map(|s| s.to_vec()))
            .collect(),
        may_repeat: true,
        leaves: None,
        ways: Ways::NONE,
    };
    let story = run(setup, &world, Time(0));
    assert_eq!(story.broken, None, "{story:#?}");
    story
}
fn end(story: &Story) -> (Option<u16>, Time) {
    let who = match story.finish() {
        Some(Finish::Answered { try_, .. }) => Some(try_.0),
        _ => None,
    };
    (who, story.actions.last().unwrap().0)
}

#[test]
fn it_is_taken_when_nothing_better_came() {
    assert_eq!(
        end(&tell(whole(2), &[&[comes(70_000)], &[dead()]])),
        (Some(0), ms(70_000))
    );
    assert_eq!(end(&tell(whole(1), &[&[comes(100_000)]])), (Some(0), ms(100_000)));
}

#[test]
fn another_is_asked_at_the_clock_and_the_first_answer_wins() {
    let story = tell(whole(2), &[&[comes(70_000)], &[comes(1_000)]]);
    assert_eq!(end(&story), (Some(1), ms(61_000)));
    let why = CancelWhy::Clock(Outcome::TargetFault(T::AttemptTimeout));
    let cancelled = Action::Cancel { try_: TryId(0), why };
    assert!(story.actions.iter().any(|(_, a)| *a == cancelled));
    let story = tell(whole(2), &[&[comes(70_000)], &[comes(50_000)]]);
    assert_eq!(end(&story), (Some(0), ms(70_000)));
    let outrun = Action::Cancel {
        try_: TryId(1),
        why: CancelWhy::Outrun,
    };
    assert!(story.actions.iter().any(|(_, a)| *a == outrun));
}

#[test]
fn one_that_does_not_pass_is_kept_in_case() {
    let bad = judged(70_000, Grade::Fail(Check::Arithmetic));
    let story = tell(whole(2), &[&[bad], &[comes(50_000)]]);
    assert_eq!(end(&story), (Some(1), ms(110_000)));
    let broken = Act::Fail {
        after: d(50_000),
        end: Graded::plain(Outcome::TargetFault(T::ServerError)),
    };
    let story = tell(whole(2), &[&[bad], &[broken]]);
    assert_eq!(end(&story).0, Some(0));
}

#[test]
fn an_error_for_a_failed_check_waits_for_the_late_one() {
    let mut s = whole(2);
    s.on_fail = OnFail::Error;
    let bad = judged(1_000, Grade::Fail(Check::Arithmetic));
    assert_eq!(end(&tell(s, &[&[comes(70_000)], &[bad]])), (Some(0), ms(70_000)));
}

#[test]
fn the_deadline_ends_the_waiting() {
    let mut s = whole(2);
    s.deadline = ms(90_000);
    let silent = Act::Silent { alive: None };
    let story = tell(s, &[&[silent], &[dead()]]);
    assert_eq!(end(&story), (None, ms(90_000)));
    assert!(matches!(story.finish(), Some(Finish::Failed(f)) if f.why == FailWhy::Deadline));
}

#[test]
fn who_never_answers_has_as_long_again_and_no_longer() {
    let silent = Act::Silent { alive: None };
    let story = tell(whole(1), &[&[silent]]);
    assert_eq!(end(&story), (None, ms(120_000)));
    assert!(matches!(story.finish(), Some(Finish::Failed(f)) if f.why == FailWhy::Upstream));
    // Both: the second's clock began when the first's ended.
    let story = tell(whole(2), &[&[silent], &[silent]]);
    assert_eq!(end(&story), (None, ms(180_000)));
}

#[test]
fn two_run_at_most() {
    let silent = Act::Silent { alive: None };
    let story = tell(whole(3), &[&[silent], &[silent], &[comes(1_000)]]);
    assert_eq!(end(&story), (Some(2), ms(121_000)));
    // The second one's clock is shorter: the first one's second time is over with it.
    let mut s = whole(3);
    s.slots[1].attempt = d(30_000);
    let story = tell(s, &[&[silent], &[silent], &[comes(1_000)]]);
    assert_eq!(end(&story), (Some(2), ms(91_000)));
    let why = CancelWhy::Clock(Outcome::TargetFault(T::AttemptTimeout));
    let cancelled = (ms(90_000), Action::Cancel { try_: TryId(0), why });
    assert!(story.actions.contains(&cancelled), "{:?}", story.actions);
}

#[test]
fn one_that_is_late_makes_room_only_where_another_is_started() {
    let silent = Act::Silent { alive: None };
    let mut s = whole(2);
    s.slots[1].attempt = d(30_000);
    // At 90 s both are late, and nobody is left: the first one's second time goes on to 120 s.
    let story = tell(s.clone(), &[&[comes(100_000)], &[silent]]);
    assert_eq!(end(&story), (Some(0), ms(100_000)));
    let story = tell(s.clone(), &[&[silent], &[comes(55_000)]]);
    assert_eq!(end(&story), (Some(1), ms(115_000)));
    // No attempt is left for the third.
    let mut three = whole(3);
    three.slots[1].attempt = d(30_000);
    three.retry.max_attempts = 2;
    let story = tell(three, &[&[comes(100_000)], &[silent], &[comes(1_000)]]);
    assert_eq!(end(&story), (Some(0), ms(100_000)));
    // Each still has as long again and no longer.
    assert_eq!(end(&tell(s, &[&[silent], &[silent]])), (None, ms(120_000)));
}

#[test]
fn one_of_two_late_ones_that_does_not_pass_is_handed_out_at_once() {
    let mut s = whole(2);
    s.slots[1].attempt = d(30_000);
    let silent = Act::Silent { alive: None };
    let bad = judged(95_000, Grade::Fail(Check::Arithmetic));
    let story = tell(s.clone(), &[&[bad], &[silent]]);
    assert_eq!(end(&story), (Some(0), ms(95_000)));
    // ... and where that would be an error, the other one is waited for.
    s.on_fail = OnFail::Error;
    let story = tell(s, &[&[bad], &[comes(40_000)]]);
    assert_eq!(end(&story), (Some(1), ms(100_000)));
}
