//! A second try beside one that is slow for its target.

use super::sim::{Act, Story};
use super::tests::{answered, d, fault, good, kinds, ms, setup, slot, targets, tell};
use super::*;
use crate::outcome::{CallerFault as C, Graded, Outcome, TargetFault as T};
use crate::plan::{Check, HoldBack};
use crate::units::Time;

/// Two targets of one tier, slow after 300 ms.
fn pair(stream: bool) -> Setup {
    let mut s = setup(0);
    s.stream = stream;
    s.start = Some(crate::ids::TargetId(0));
    for target in 0..2 {
        s.slots.push(Slot {
            hedge_after: Some(d(300)),
            ..slot(target, 0)
        });
    }
    s
}
fn comes(first: u64, whole: u64) -> Act {
    judged(first, whole, Grade::Pass)
}
fn judged(first: u64, whole: u64, grade: Grade) -> Act {
    Act::Answer {
        first: d(first),
        whole: d(whole),
        verdict: Judged {
            grade,
            seen: Seen::Full,
            p_good: None,
        },
        early: false,
    }
}
fn silent() -> Act {
    Act::Silent { alive: None }
}
/// Tries that were let go because another one was first, and when.
fn outrun(story: &Story) -> Vec<(Time, u16)> {
    let gone = story.actions.iter().filter_map(|(at, a)| match a {
        Action::Cancel {
            try_,
            why: CancelWhy::Outrun,
        } => Some((*at, try_.0)),
        _ => None,
    });
    gone.collect()
}
fn ended_at(story: &Story) -> Time {
    story.actions.last().unwrap().0
}

#[test]
fn who_is_as_fast_as_usual_is_left_alone() {
    let story = tell(pair(true), &[&[comes(299, 900)], &[good()]]);
    assert_eq!(kinds(&story), [StartKind::First]);
}

#[test]
fn a_slow_stream_gets_a_rival_and_the_first_content_wins() {
    let story = tell(pair(true), &[&[comes(5_000, 9_000)], &[comes(100, 400)]]);
    assert_eq!(
        (targets(&story), kinds(&story)),
        (vec![0, 1], vec![StartKind::First, StartKind::Hedge])
    );
    assert_eq!(story.started_at(1), Some(ms(300)));
    assert_eq!(answered(&story).0, 1);
    assert_eq!(outrun(&story), [(ms(400), 0)], "at the rival's first content");
    // The slow one may still be first.
    let story = tell(pair(true), &[&[comes(350, 900)], &[comes(100, 400)]]);
    assert_eq!((answered(&story).0, outrun(&story)), (0, vec![(ms(350), 1)]));
}

#[test]
fn whole_answers_race_to_their_end() {
    let story = tell(pair(false), &[&[comes(100, 5_000)], &[comes(100, 400)]]);
    assert_eq!((answered(&story).0, outrun(&story)), (1, vec![(ms(700), 0)]));
    assert_eq!(ended_at(&story), ms(700));
}

#[test]
fn without_a_neighbour_the_same_target_is_asked_again_but_not_more_often_than_it_may_be() {
    let mut alone = pair(true);
    alone.slots.truncate(1);
    let story = tell(alone.clone(), &[&[silent(), comes(100, 400)]]);
    assert_eq!(targets(&story), [0, 0]);
    assert_eq!((answered(&story).0, committed(&story)), (1, ms(400)));
    alone.retry.same_target = 0;
    let story = tell(alone, &[&[comes(1_000, 1_200), good()]]);
    assert_eq!(targets(&story), [0]);
}

fn committed(story: &Story) -> Time {
    let commit = |(_, a): &&(Time, Action)| matches!(a, Action::Commit { .. });
    story.actions.iter().find(commit).unwrap().0
}

#[test]
fn one_a_request_within_the_attempts_and_never_with_effects() {
    let story = tell(pair(true), &[&[silent()], &[silent()]]);
    let hedges = kinds(&story).into_iter().filter(|k| *k == StartKind::Hedge);
    assert_eq!(hedges.count(), 1);
    let mut once = pair(true);
    once.retry.max_attempts = 1;
    assert_eq!(targets(&tell(once, &[&[comes(900, 950)], &[good()]])), [0]);
    let mut effects = pair(true);
    effects.effects = true;
    assert_eq!(targets(&tell(effects, &[&[comes(900, 950)], &[good()]])), [0]);
}

#[test]
fn a_failure_while_a_rival_runs_starts_nobody() {
    // The slow one fails at 500 ms, the rival answers at 1,300 ms.
    let fails = Act::Fail {
        after: d(500),
        end: Graded::plain(Outcome::TargetFault(T::ServerError)),
    };
    let story = tell(pair(false), &[&[fails, good()], &[comes(100, 1_000)]]);
    assert_eq!((targets(&story), ended_at(&story)), (vec![0, 1], ms(1_300)));
    // The rival fails: the slow one goes on.
    let story = tell(
        pair(false),
        &[&[comes(100, 2_000)], &[fault(T::ServerError), good()]],
    );
    assert_eq!((targets(&story), answered(&story).0), (vec![0, 1], 0));
    // Both fail: it goes on as after any failure.
    let story = tell(pair(false), &[&[fails, good()], &[fault(T::ServerError)]]);
    assert!(targets(&story).len() > 2, "{:?}", targets(&story));
    assert_eq!(answered(&story).1, Grade::Pass);
}

#[test]
fn a_hedge_that_is_refused_changes_nothing() {
    let refused = |why| Act::Refuse { why, until: None };
    for why in [Refusal::RetryBudget, Refusal::Permit, Refusal::Breaker] {
        let story = tell(pair(true), &[&[comes(900, 950)], &[refused(why)]]);
        assert_eq!((answered(&story).0, outrun(&story)), (0, vec![]), "{why:?}");
        // And later that target may be asked for another reason: nothing was held against it.
        let fails = Act::Fail {
            after: d(500),
            end: Graded::plain(Outcome::TargetFault(T::ServerError)),
        };
        let story = tell(pair(true), &[&[fails], &[refused(why), good()]]);
        assert_eq!(targets(&story), [0, 1, 1], "{why:?}");
    }
}

#[test]
fn a_refusal_of_the_request_is_one_of_both_unless_another_target_may_take_it() {
    let says = |fault| Act::Fail {
        after: d(500),
        end: Graded::plain(Outcome::CallerFault(fault)),
    };
    let story = tell(pair(false), &[&[says(C::InvalidRequest)], &[comes(100, 5_000)]]);
    assert!(matches!(story.finish(), Some(Finish::PassOn { .. })));
    assert_eq!(ended_at(&story), ms(500));
    let story = tell(
        pair(false),
        &[&[says(C::UnsupportedParameter)], &[comes(100, 1_000)]],
    );
    assert_eq!((answered(&story).0, targets(&story)), (1, vec![0, 1]));
}

#[test]
fn a_sign_of_life_is_worth_waiting_for() {
    let alive = Act::Silent { alive: Some(d(200)) };
    let story = tell(pair(true), &[&[alive], &[good()]]);
    assert_eq!(
        kinds(&story)[1],
        StartKind::Failover,
        "after first_token_ms, not hedged"
    );
}

#[test]
fn an_answer_that_fails_its_checks_escalates_and_lets_the_rival_go() {
    let mut s = pair(true);
    s.slots.push(slot(2, 1));
    s.hold_back = HoldBack::All;
    let bad = judged(350, 900, Grade::Fail(Check::Arithmetic));
    let story = tell(s, &[&[bad], &[comes(2_000, 3_000)], &[good()]]);
    assert_eq!(targets(&story), [0, 1, 2]);
    assert_eq!(outrun(&story), [(ms(350), 1)]);
    assert_eq!(answered(&story).0, 2);
}

#[test]
fn an_overdue_answer_with_a_rival_asks_nobody_else_and_is_still_taken() {
    // attempt_ms is 60 s: the first is overdue, its rival (begun at 300 ms) too, a little later.
    let story = tell(pair(false), &[&[comes(100, 60_200)], &[comes(100, 70_000)]]);
    assert_eq!((targets(&story), answered(&story).0), (vec![0, 1], 0));
    assert_eq!(ended_at(&story), ms(60_200));
}
