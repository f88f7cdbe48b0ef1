//! One test for each sentence of the drawing that the machine carries.

use std::time::Duration;

use smallvec::SmallVec;

use super::sim::{Act, Story, World, run};
use super::*;
use crate::continuation::Ways;
use crate::ids::TargetId;
use crate::outcome::{CallerFault as C, Graded, Outcome, TargetFault as T};
use crate::plan::{Check, ContentFilter, ContinueWith, DegradeStep, HoldBack, OnFail, Retry};
use crate::predict::Belief;
use crate::units::Time;

pub(super) fn ms(n: u64) -> Time {
    Time::from_millis(n)
}
pub(super) fn d(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn slot(target: u16, tier: u8) -> Slot {
    Slot {
        target: TargetId(target),
        tier,
        callable_at: Time(0),
        held: None,
        ability: None,
        p_good: None,
        cost: None,
        context: None,
        first_token: d(20_000),
        attempt: d(60_000),
        prefill: false,
        continue_within: d(30_000),
        hedge_after: None,
    }
}

/// One target a tier, stream, checks on, 24 tokens held back, the contract's retry.
pub(super) fn setup(tiers: u16) -> Setup {
    Setup {
        stream: true,
        effects: false,
        pinned: false,
        deadline: ms(600_000),
        retry: Retry {
            max_attempts: 4,
            same_target: 1,
            backoff_base: d(100),
            backoff_max: d(2_000),
            jitter: false,
            budget_ratio: 0.2,
            budget_min_per_second: 5,
            honor_retry_after: d(5_000),
        },
        verify: true,
        on_fail: OnFail::Return,
        hold_back: HoldBack::Tokens(24),
        hold_back_max: d(1_500),
        max_added: None,
        content_filter: ContentFilter::Pass,
        degrade: SmallVec::new(),
        degrade_floor: 0.5,
        stale: false,
        slots: (0..tiers).map(|i| slot(i, i as u8)).collect(),
        start: (tiers > 0).then_some(TargetId(0)),
        wanted_tier: 0,
        degraded: None,
        difficulty: None,
        lambda: 0.0,
        seed: 1,
        continue_with: ContinueWith::Stronger,
        deterministic: false,
        until: Time::NEVER,
    }
}

fn whole(tiers: u16) -> Setup {
    Setup {
        stream: false,
        ..setup(tiers)
    }
}

pub(super) fn judged(grade: Grade) -> Judged {
    Judged {
        grade,
        seen: Seen::Full,
        p_good: None,
    }
}
pub(super) fn good() -> Act {
    Act::Answer {
        first: d(100),
        whole: d(1_000),
        verdict: judged(Grade::Pass),
        early: false,
    }
}
pub(super) fn bad() -> Act {
    Act::Answer {
        first: d(100),
        whole: d(1_000),
        verdict: judged(Grade::Fail(Check::Arithmetic)),
        early: false,
    }
}
pub(super) fn fails(outcome: Outcome) -> Act {
    Act::Fail {
        after: d(50),
        end: Graded::plain(outcome),
    }
}
pub(super) fn fault(f: T) -> Act {
    fails(Outcome::TargetFault(f))
}
fn limited(after: u64) -> Act {
    Act::Fail {
        after: d(50),
        end: Graded {
            retry_after: Some(d(after)),
            ..Graded::plain(Outcome::TargetFault(T::RateLimited))
        },
    }
}

pub(super) fn tell(setup: Setup, scripts: &[&[Act]]) -> Story {
    let world = World {
        scripts: scripts
            .iter()
            .enumerate()
            .map(|(i, s)| (TargetId(i as u16), s.to_vec()))
            .collect(),
        may_repeat: true,
        leaves: None,
        ways: Ways::NONE,
    };
    let story = run(setup, &world, Time(0));
    assert_eq!(story.broken, None, "{story:#?}");
    story
}
pub(super) fn targets(story: &Story) -> Vec<u16> {
    story.started().iter().map(|t| t.0).collect()
}
pub(super) fn kinds(story: &Story) -> Vec<StartKind> {
    let kinds = story.actions.iter().filter_map(|(_, a)| match a {
        Action::Start { kind, .. } => Some(*kind),
        _ => None,
    });
    kinds.collect()
}
pub(super) fn answered(story: &Story) -> (u16, Grade, Option<Degraded>) {
    match story.finish() {
        Some(Finish::Answered {
            try_,
            verdict,
            degraded,
        }) => (try_.0, verdict.grade, *degraded),
        other => panic!("{other:?}\n{story:#?}"),
    }
}
pub(super) fn failed(story: &Story) -> FailWhy {
    match story.finish() {
        Some(Finish::Failed(failed)) => failed.why,
        other => panic!("{other:?}\n{story:#?}"),
    }
}
fn committed_at(story: &Story) -> Time {
    let commit = story
        .actions
        .iter()
        .find(|(_, a)| matches!(a, Action::Commit { .. }));
    commit.unwrap().0
}

// ---- try, verify, escalate ---------------------------------------------------------------------------------------

#[test]
fn a_good_answer_is_kept_and_released_when_enough_was_seen() {
    let story = tell(setup(2), &[&[good()], &[good()]]);
    assert_eq!(targets(&story), [0]);
    assert_eq!(
        committed_at(&story),
        ms(550),
        "at the verdict over the prefix, not at its end"
    );
    assert_eq!(answered(&story), (0, Grade::Pass, None));
}

#[test]
fn a_failing_prefix_escalates_before_the_commit() {
    let story = tell(setup(2), &[&[bad()], &[good()]]);
    assert_eq!(targets(&story), [0, 1]);
    assert_eq!(kinds(&story), [StartKind::First, StartKind::Escalate]);
    assert_eq!(answered(&story).0, 1);
}

#[test]
fn nothing_is_held_back_when_nothing_could_replace_it() {
    let story = tell(setup(1), &[&[bad()]]);
    assert_eq!(committed_at(&story), ms(100));
    match &story.actions[0].1 {
        Action::Start { hold, judge, .. } => assert!(hold.is_none() && !judge),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_instead_of_a_bad_answer_is_a_reason_to_hold_back() {
    let s = Setup {
        on_fail: OnFail::Error,
        ..setup(1)
    };
    assert_eq!(failed(&tell(s, &[&[bad()]])), FailWhy::Verdict(Check::Arithmetic));
}

#[test]
fn the_hold_back_is_bounded_in_time() {
    let slow = Act::Answer {
        first: d(100),
        whole: d(30_000),
        verdict: Judged {
            seen: Seen::Prefix(3),
            ..judged(Grade::Pass)
        },
        early: false,
    };
    let story = tell(setup(2), &[&[slow], &[good()]]);
    assert_eq!(
        committed_at(&story),
        ms(1_600),
        "first content at 100 ms, 1,500 ms held"
    );
}

#[test]
fn a_failing_prefix_of_a_whole_answer_escalates_at_once() {
    let early = Act::Answer {
        first: d(100),
        whole: d(9_100),
        verdict: judged(Grade::Fail(Check::Repetition)),
        early: true,
    };
    let story = tell(whole(2), &[&[early], &[good()]]);
    assert_eq!(story.started_at(1), Some(ms(4_600)));
    assert_eq!(answered(&story).0, 1);
}

#[test]
fn a_whole_answer_commits_when_it_is_complete_and_verified() {
    let story = tell(whole(2), &[&[good()], &[good()]]);
    assert_eq!(committed_at(&story), ms(1_000));
    assert_eq!(answered(&story), (0, Grade::Pass, None));
}

#[test]
fn a_whole_answer_that_is_still_being_judged_is_not_shown() {
    let mut machine = Machine::new(whole(2));
    let try_ = TryId(0);
    machine.step(Event::Begin, ms(0));
    let ended = Event::Ended {
        try_,
        end: Graded::plain(Outcome::Ok),
        may_repeat: true,
    };
    assert!(machine.step(ended, ms(1_000)).contains(&Action::Judge { try_ }));
    assert!(!machine.is_committed() && !machine.is_done());
    let verdict = judged(Grade::Fail(Check::Arithmetic));
    let actions = machine.step(Event::Verdict { try_, verdict }, ms(1_100));
    let escalates = |a: &Action| {
        matches!(
            a,
            Action::Start {
                kind: StartKind::Escalate,
                ..
            }
        )
    };
    assert!(actions.iter().any(escalates), "{actions:?}");
}

#[test]
fn a_whole_answer_that_is_being_judged_at_the_deadline_is_handed_out() {
    let mut machine = Machine::new(Setup {
        deadline: ms(5_000),
        ..whole(2)
    });
    let try_ = TryId(0);
    machine.step(Event::Begin, ms(0));
    let ended = Event::Ended {
        try_,
        end: Graded::plain(Outcome::Ok),
        may_repeat: true,
    };
    machine.step(ended, ms(4_900));
    let actions = machine.step(Event::Timer, ms(5_000));
    let answered = |a: &Action| {
        let Action::Finish(Finish::Answered { verdict, .. }) = a else {
            return false;
        };
        verdict.grade == Grade::Unchecked
    };
    assert!(actions.iter().any(answered), "{actions:?}");
}

#[test]
fn the_best_answer_comes_back_when_nothing_is_left() {
    let story = tell(whole(2), &[&[bad()], &[fault(T::FirstTokenTimeout)]]);
    assert_eq!(answered(&story), (0, Grade::Fail(Check::Arithmetic), None));
    assert_eq!(targets(&story), [0, 1]);
}

#[test]
fn on_fail_error_gives_an_error_naming_the_check() {
    let s = Setup {
        on_fail: OnFail::Error,
        ..whole(2)
    };
    assert_eq!(
        failed(&tell(s, &[&[bad()], &[bad()]])),
        FailWhy::Verdict(Check::Arithmetic)
    );
}

#[test]
fn of_two_bad_answers_the_better_one_comes_back() {
    let with = |p| Act::Answer {
        first: d(1),
        whole: d(2),
        verdict: Judged {
            p_good: Some(p),
            ..judged(Grade::Fail(Check::Confidence))
        },
        early: false,
    };
    assert_eq!(answered(&tell(whole(2), &[&[with(0.4)], &[with(0.2)]])).0, 0);
    assert_eq!(answered(&tell(whole(2), &[&[with(0.2)], &[with(0.4)]])).0, 1);
}

#[test]
fn a_stream_let_go_is_asked_again_when_nothing_better_came() {
    let story = tell(setup(2), &[&[bad()], &[fault(T::FirstTokenTimeout)]]);
    assert_eq!(
        kinds(&story),
        [StartKind::First, StartKind::Escalate, StartKind::Again]
    );
    assert_eq!(targets(&story), [0, 1, 0]);
    let Some(Finish::Answered { verdict, .. }) = story.finish() else {
        panic!("{:?}", story.finish())
    };
    assert!(verdict.failed(), "handed out with its verdict, not as unchecked");
}

#[test]
fn a_tier_that_takes_too_long_is_left_but_never_the_last() {
    let slow = Act::Answer {
        first: d(8_000),
        whole: d(9_000),
        verdict: judged(Grade::Pass),
        early: false,
    };
    let s = Setup {
        max_added: Some(d(5_000)),
        ..setup(2)
    };
    let story = tell(s, &[&[slow], &[slow]]);
    assert_eq!(targets(&story), [0, 1]);
    assert_eq!(story.started_at(1), Some(ms(5_000)));
    assert_eq!(answered(&story).0, 1, "the last tier is waited for");
}

#[test]
fn after_a_failure_the_step_worth_most_comes_next() {
    let belief = |mean| Some(Belief { mean, sd: 0.1 });
    let mut s = Setup {
        difficulty: Some(Belief { mean: 0.0, sd: 2.0 }),
        ..setup(3)
    };
    s.slots[0].ability = belief(0.5);
    s.slots[1].ability = belief(0.6);
    s.slots[2].ability = belief(3.0);
    let story = tell(s, &[&[bad()], &[good()], &[good()]]);
    assert_eq!(
        targets(&story),
        [0, 2],
        "the middle one is hardly better than what just failed"
    );
}

#[test]
fn a_filtered_answer_is_passed_on_unless_the_route_says_otherwise() {
    let filtered = Act::Answer {
        first: d(1),
        whole: d(2),
        verdict: judged(Grade::Filtered),
        early: false,
    };
    assert_eq!(answered(&tell(whole(2), &[&[filtered], &[good()]])).0, 0);
    let s = Setup {
        content_filter: ContentFilter::Escalate,
        ..whole(2)
    };
    assert_eq!(answered(&tell(s, &[&[filtered], &[good()]])).0, 1);
}

// ---- retry, fail over ----------------------------------------------------------------------------------------------

#[test]
fn a_500_once_is_one_retry() {
    let story = tell(setup(2), &[&[fault(T::ServerError), good()], &[good()]]);
    assert_eq!(targets(&story), [0, 0]);
    assert_eq!(kinds(&story)[1], StartKind::Retry);
    assert_eq!(story.started_at(1), Some(ms(150)), "after one step of backoff");
}

#[test]
fn repeats_are_bounded_then_another_tier_is_asked() {
    let story = tell(setup(2), &[&[fault(T::Overloaded)], &[good()]]);
    assert_eq!(targets(&story), [0, 0, 1]);
}

#[test]
fn without_the_ratio_budget_there_is_no_repeat_but_failover_goes_on() {
    let world = World {
        scripts: [
            (TargetId(0), vec![fault(T::ServerError)]),
            (TargetId(1), vec![good()]),
        ]
        .into(),
        may_repeat: false,
        leaves: None,
        ways: Ways::NONE,
    };
    let story = run(setup(2), &world, Time(0));
    assert_eq!(targets(&story), [0, 1]);
}

#[test]
fn a_first_content_time_out_is_never_tried_again_on_the_same_target() {
    let story = tell(setup(2), &[&[Act::Silent { alive: None }], &[good()]]);
    assert_eq!(targets(&story), [0, 1]);
    assert_eq!(story.started_at(1), Some(ms(20_000)));
    assert!(matches!(
        story.actions[1].1,
        Action::Cancel {
            why: CancelWhy::Clock(Outcome::TargetFault(T::FirstTokenTimeout)),
            ..
        }
    ));
}

#[test]
fn a_sign_of_life_starts_the_first_clock_anew_and_the_try_still_ends() {
    let story = tell(
        setup(2),
        &[
            &[Act::Silent {
                alive: Some(d(15_000)),
            }],
            &[good()],
        ],
    );
    assert_eq!(story.started_at(1), Some(ms(60_000)), "its attempt clock");
}

#[test]
fn the_other_target_of_the_tier_comes_before_a_repeat() {
    let mut s = setup(0);
    s.slots = [slot(0, 0), slot(1, 0), slot(2, 1)].into_iter().collect();
    s.start = Some(TargetId(0));
    let story = tell(s, &[&[fault(T::ServerError)], &[good()], &[good()]]);
    assert_eq!(targets(&story), [0, 1]);
}

#[test]
fn retry_after_is_waited_for_only_when_nothing_else_is_callable() {
    let story = tell(setup(2), &[&[limited(3_000), good()], &[good()]]);
    assert_eq!(targets(&story), [0, 1]);
    let story = tell(setup(1), &[&[limited(3_000), good()]]);
    assert_eq!(targets(&story), [0, 0]);
    assert_eq!(story.started_at(1), Some(ms(3_050)));
}

#[test]
fn a_long_retry_after_is_told_and_not_waited_for() {
    let story = tell(setup(1), &[&[limited(60_000), good()]]);
    match story.finish() {
        Some(Finish::Failed(f)) => {
            assert_eq!(f.why, FailWhy::Upstream);
            assert_eq!(f.retry_after, Some(d(60_000)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_429_without_retry_after_holds_for_one_backoff_step() {
    let story = tell(setup(1), &[&[fault(T::RateLimited), good()]]);
    assert_eq!(story.started_at(1), Some(ms(150)));
}

#[test]
fn our_own_account_is_never_tried_again() {
    for f in [T::Auth, T::Quota, T::ModelNotFound] {
        assert_eq!(targets(&tell(setup(2), &[&[fault(f)], &[good()]])), [0, 1]);
        assert_eq!(failed(&tell(setup(1), &[&[fault(f)]])), FailWhy::Upstream);
    }
}

#[test]
fn a_callers_fault_is_passed_on_as_it_was() {
    let story = tell(
        setup(2),
        &[&[fails(Outcome::CallerFault(C::InvalidRequest))], &[good()]],
    );
    assert_eq!(targets(&story), [0]);
    assert_eq!(
        story.finish(),
        Some(&Finish::PassOn {
            try_: TryId(0),
            fault: C::InvalidRequest
        })
    );
}

#[test]
fn an_unsupported_parameter_goes_elsewhere_only_where_we_chose() {
    let act = fails(Outcome::CallerFault(C::UnsupportedParameter));
    assert_eq!(targets(&tell(setup(2), &[&[act], &[good()]])), [0, 1]);
    // Nobody takes it: the caller is told what to change.
    let fault = C::UnsupportedParameter;
    assert_eq!(
        tell(setup(2), &[&[act], &[act]]).finish(),
        Some(&Finish::PassOn {
            try_: TryId(1),
            fault
        })
    );
    let mut s = setup(0);
    s.slots = [slot(0, 0), slot(1, 0)].into_iter().collect();
    s.start = Some(TargetId(0));
    s.pinned = true;
    assert!(matches!(
        tell(s, &[&[act], &[good()]]).finish(),
        Some(Finish::PassOn { .. })
    ));
}

#[test]
fn an_overflow_goes_only_to_more_context_and_to_the_unknown_last() {
    let act = fails(Outcome::CallerFault(C::ContextOverflow));
    let mut s = setup(4);
    for (i, context) in [Some(8_000), Some(8_000), None, Some(32_000)]
        .into_iter()
        .enumerate()
    {
        s.slots[i].context = context;
    }
    assert_eq!(
        targets(&tell(s.clone(), &[&[act], &[good()], &[act], &[act]])),
        [0, 3, 2]
    );
    s.slots.truncate(2);
    let story = tell(s, &[&[act], &[good()]]);
    assert_eq!(targets(&story), [0]);
    assert!(matches!(
        story.finish(),
        Some(Finish::PassOn {
            fault: C::ContextOverflow,
            ..
        })
    ));
}

#[test]
fn what_no_wanted_target_can_hold_goes_to_the_strongest_weaker_one_with_more_room() {
    let over = fails(Outcome::CallerFault(C::ContextOverflow));
    let mut s = setup(4);
    for (slot, context) in s
        .slots
        .iter_mut()
        .zip([Some(128_000), Some(64_000), None, Some(32_000)])
    {
        slot.context = context;
    }
    (s.start, s.wanted_tier) = (Some(TargetId(3)), 3);
    // Not the one of which nobody knows how much it holds; the ladder is empty, and nothing has failed that it is for.
    let story = tell(s.clone(), &[&[good()], &[good()], &[good()], &[over]]);
    assert_eq!(targets(&story), [3, 1]);
    let weaker = Degraded {
        step: DegradeStep::Weaker,
        reason: DegradeReason::Failed,
    };
    assert_eq!(answered(&story).2, Some(weaker));
    // No room there either: whoever stands above it, and then the next one down, which has more.
    let story = tell(s.clone(), &[&[good()], &[over], &[over], &[over]]);
    assert_eq!(targets(&story), [3, 1, 2, 0]);
    // A wanted one with more room comes first ...
    let mut wanted = s.clone();
    wanted.wanted_tier = 2;
    let story = tell(wanted, &[&[good()], &[good()], &[good()], &[over]]);
    assert_eq!(targets(&story), [3, 2]);
    // ... and where it is away, the refusal is not the whole truth, and no weaker one steps in unasked.
    let mut away = s.clone();
    away.slots.push(slot(4, 3));
    away.slots[4].context = Some(256_000);
    (away.slots[4].callable_at, away.slots[4].held) = (ms(60_000), Some(DegradeReason::Held));
    let story = tell(away, &[&[good()], &[good()], &[good()], &[over], &[good()]]);
    assert_eq!(failed(&story), FailWhy::NoneCallable);
    // Nobody is known to have more.
    s.slots[3].context = Some(128_000);
    let story = tell(s, &[&[good()], &[good()], &[good()], &[over]]);
    assert!(matches!(story.finish(), Some(Finish::PassOn { .. })));
}

#[test]
fn a_refusal_of_one_target_does_not_hide_that_a_better_one_is_away() {
    // It overflows the small one; the large one, which has room, is limited: come back then.
    let over = fails(Outcome::CallerFault(C::ContextOverflow));
    let mut s = setup(2);
    (s.slots[0].context, s.slots[1].context) = (Some(8_000), Some(32_000));
    let story = tell(s.clone(), &[&[over], &[limited(60_000)]]);
    assert_eq!(targets(&story), [0, 1]);
    match story.finish() {
        Some(Finish::Failed(f)) => {
            assert_eq!(f.why, FailWhy::Upstream);
            assert_eq!(f.last, Some((TryId(1), Outcome::TargetFault(T::RateLimited))));
            assert_eq!(f.retry_after, Some(d(60_000)));
        }
        other => panic!("{other:?}"),
    }
    // Held from the beginning: nobody asked it, and that is what is said.
    let mut held = s.clone();
    (held.slots[1].callable_at, held.slots[1].held) = (ms(60_000), Some(DegradeReason::Held));
    let story = tell(held, &[&[over], &[good()]]);
    assert_eq!(failed(&story), FailWhy::NoneCallable);
    // Back soon: it is waited for.
    let mut soon = s.clone();
    (soon.slots[1].callable_at, soon.slots[1].held) = (ms(2_000), Some(DegradeReason::Held));
    let story = tell(soon, &[&[over], &[good()]]);
    assert_eq!(targets(&story), [0, 1]);
    assert_eq!(story.started_at(1), Some(ms(2_000)));
    // No room there either: the refusal of the larger one.
    let story = tell(s, &[&[over], &[over]]);
    assert_eq!(
        story.finish(),
        Some(&Finish::PassOn {
            try_: TryId(1),
            fault: C::ContextOverflow
        })
    );
}

#[test]
fn of_several_faults_the_one_that_says_when_to_come_back_is_told() {
    let last = |story: &Story| match story.finish() {
        Some(Finish::Failed(f)) => (f.last, f.retry_after),
        other => panic!("{other:?}"),
    };
    let mut s = setup(3);
    s.retry.same_target = 0;
    let limit = |try_| Some((TryId(try_), Outcome::TargetFault(T::RateLimited)));
    let story = tell(
        s.clone(),
        &[&[limited(60_000)], &[limited(30_000)], &[fault(T::Connect)]],
    );
    assert_eq!(last(&story), (limit(1), Some(d(29_950))));
    let story = tell(s, &[&[fault(T::Auth)], &[fault(T::Connect)], &[fault(T::Reset)]]);
    assert_eq!(last(&story).0, Some((TryId(2), Outcome::TargetFault(T::Reset))));
}

#[test]
fn a_filters_refusal_is_passed_on_unless_the_route_says_otherwise() {
    let act = fails(Outcome::CallerFault(C::ContentFilter));
    assert!(matches!(
        tell(setup(2), &[&[act], &[good()]]).finish(),
        Some(Finish::PassOn { .. })
    ));
    let s = Setup {
        content_filter: ContentFilter::Escalate,
        ..setup(2)
    };
    assert_eq!(targets(&tell(s, &[&[act], &[good()]])), [0, 1]);
}

#[test]
fn effects_are_never_sent_twice_but_what_was_not_sent_may_go_elsewhere() {
    let s = Setup {
        effects: true,
        ..setup(2)
    };
    assert_eq!(
        failed(&tell(s.clone(), &[&[fault(T::Reset)], &[good()]])),
        FailWhy::Effects
    );
    assert_eq!(targets(&tell(s.clone(), &[&[bad()], &[good()]])), [0]);
    assert_eq!(
        targets(&tell(s, &[&[fault(T::FirstTokenTimeout)], &[good()]])),
        [0]
    );
    let s = Setup {
        effects: true,
        ..setup(2)
    };
    assert_eq!(targets(&tell(s, &[&[fault(T::Connect)], &[good()]])), [0, 0, 1]);
}

#[test]
fn a_refused_start_is_not_an_attempt_and_goes_elsewhere() {
    let no = Act::Refuse {
        why: Refusal::Permit,
        until: None,
    };
    let mut s = setup(2);
    s.retry.max_attempts = 1;
    let story = tell(s, &[&[no], &[good()]]);
    assert_eq!(targets(&story), [0, 1]);
    assert_eq!(answered(&story).2, None, "a stronger tier is not degraded");
}

#[test]
fn attempts_are_one_budget() {
    let mut s = setup(6);
    s.retry.max_attempts = 3;
    s.retry.same_target = 0;
    let dead: &[Act] = &[fault(T::ServerError)];
    let story = tell(s, &[dead, dead, dead, dead, dead, dead]);
    assert_eq!(targets(&story), [0, 1, 2]);
}

#[test]
fn backoff_doubles_is_bounded_and_has_full_jitter() {
    let mut s = setup(1);
    s.retry.same_target = 3;
    let dead: &[Act] = &[fault(T::ServerError)];
    let story = tell(s.clone(), &[dead]);
    let at: Vec<_> = (0..4).map(|i| story.started_at(i).unwrap()).collect();
    assert_eq!(at, [ms(0), ms(150), ms(400), ms(850)]);
    s.retry.jitter = true;
    let waits: std::collections::BTreeSet<_> = (0..50)
        .map(|seed| {
            let story = tell(Setup { seed, ..s.clone() }, &[dead]);
            let wait = story.started_at(1).unwrap();
            assert!(wait >= ms(50) && wait <= ms(150));
            wait
        })
        .collect();
    assert!(waits.len() > 40, "jitter is spread");
}

// ---- deadline, commit, leaving -------------------------------------------------------------------------------------

#[test]
fn the_deadline_ends_it_and_nothing_starts_after() {
    let s = Setup {
        deadline: ms(5_000),
        ..setup(2)
    };
    let story = tell(s, &[&[Act::Silent { alive: None }], &[good()]]);
    assert_eq!(targets(&story), [0]);
    assert_eq!(failed(&story), FailWhy::Deadline);
}

#[test]
fn at_the_deadline_an_answer_at_hand_is_better_than_none() {
    let s = Setup {
        deadline: ms(5_000),
        ..whole(2)
    };
    let story = tell(s, &[&[bad()], &[Act::Silent { alive: None }]]);
    assert_eq!(answered(&story), (0, Grade::Fail(Check::Arithmetic), None));
    let held = Act::Answer {
        first: d(4_900),
        whole: d(90_000),
        verdict: judged(Grade::Pass),
        early: false,
    };
    let s = Setup {
        deadline: ms(5_000),
        ..setup(2)
    };
    assert_eq!(committed_at(&tell(s, &[&[held], &[good()]])), ms(5_000));
}

#[test]
fn the_deadline_of_a_stream_ends_at_its_commit() {
    let long = Act::Answer {
        first: d(100),
        whole: d(50_000),
        verdict: judged(Grade::Pass),
        early: false,
    };
    let s = Setup {
        deadline: ms(30_000),
        ..setup(1)
    };
    assert_eq!(answered(&tell(s, &[&[long]])).0, 0);
}

#[test]
fn after_the_commit_a_cut_is_told_in_band_and_nobody_else_is_asked() {
    let cut = Act::Break {
        first: d(100),
        after: d(3_000),
        end: Graded::plain(Outcome::TargetFault(T::Cut)),
    };
    let s = Setup {
        verify: false,
        ..setup(2)
    };
    let story = tell(s, &[&[cut], &[good()]]);
    assert_eq!(targets(&story), [0]);
    assert!(matches!(story.finish(), Some(Finish::Cut { .. })));
}

#[test]
fn a_stream_cut_while_it_is_held_back_fails_over() {
    let cut = Act::Break {
        first: d(100),
        after: d(300),
        end: Graded::plain(Outcome::TargetFault(T::IdleTimeout)),
    };
    assert_eq!(targets(&tell(setup(2), &[&[cut], &[good()]])), [0, 1]);
}

#[test]
fn a_caller_who_leaves_cancels_what_runs() {
    let world = World {
        scripts: [(TargetId(0), vec![good()])].into(),
        may_repeat: true,
        leaves: Some(ms(70)),
        ways: Ways::NONE,
    };
    let story = run(setup(2), &world, Time(0));
    assert_eq!(story.broken, None);
    assert!(matches!(
        story.actions[1].1,
        Action::Cancel {
            why: CancelWhy::ClientGone,
            ..
        }
    ));
    assert_eq!(story.finish(), Some(&Finish::ClientGone));
}

#[test]
fn late_events_about_a_try_that_is_over_change_nothing() {
    let mut machine = Machine::new(setup(2));
    machine.step(Event::Begin, ms(0));
    let end = Graded::plain(Outcome::TargetFault(T::FirstTokenTimeout));
    let event = |end| Event::Ended {
        try_: TryId(0),
        end,
        may_repeat: true,
    };
    assert_eq!(machine.step(event(end), ms(1)).len(), 2, "a start and a timer");
    assert!(machine.step(event(end), ms(2)).is_empty());
    assert!(
        machine
            .step(Event::FirstContent { try_: TryId(0) }, ms(3))
            .is_empty()
    );
}

// ---- degrade -------------------------------------------------------------------------------------------------------

fn top_down(p_weak: Option<f32>, ladder: &[DegradeStep]) -> Setup {
    let mut s = setup(2);
    s.start = Some(TargetId(1));
    s.wanted_tier = 1;
    s.slots[0].p_good = p_weak;
    s.degrade = ladder.iter().copied().collect();
    s
}

#[test]
fn a_weaker_tier_must_reach_the_floor_and_is_marked() {
    let ladder = [DegradeStep::Weaker, DegradeStep::Message];
    let dead: &[Act] = &[fault(T::FirstTokenTimeout)];
    let story = tell(top_down(Some(0.6), &ladder), &[&[good()], dead]);
    let marked = Degraded {
        step: DegradeStep::Weaker,
        reason: DegradeReason::Failed,
    };
    assert_eq!(answered(&story), (1, Grade::Unchecked, Some(marked)));
    for p in [Some(0.4), None] {
        let story = tell(top_down(p, &ladder), &[&[good()], dead]);
        assert_eq!(targets(&story), [1]);
        assert!(matches!(
            story.finish(),
            Some(Finish::Instead {
                step: DegradeStep::Message,
                reason: DegradeReason::Failed,
                ..
            })
        ));
    }
    let mut any = top_down(None, &ladder);
    any.degrade_floor = 0.0;
    assert_eq!(targets(&tell(any, &[&[good()], dead])), [1, 0]);
}

#[test]
fn the_ladder_is_taken_in_its_order() {
    let dead: &[Act] = &[fault(T::FirstTokenTimeout)];
    let mut s = top_down(Some(0.9), &[DegradeStep::StaleCache, DegradeStep::Weaker]);
    s.stale = true;
    let story = tell(s.clone(), &[&[good()], dead]);
    assert!(matches!(
        story.finish(),
        Some(Finish::Instead {
            step: DegradeStep::StaleCache,
            ..
        })
    ));
    s.stale = false;
    assert_eq!(targets(&tell(s, &[&[good()], dead])), [1, 0]);
}

#[test]
fn a_local_model_outside_the_tiers_is_a_rung_of_its_own() {
    let dead: &[Act] = &[fault(T::FirstTokenTimeout)];
    let mut s = top_down(None, &[DegradeStep::Local]);
    let mut local = slot(2, u8::MAX);
    local.p_good = Some(0.7);
    s.slots.push(local);
    let story = tell(s, &[&[good()], dead, &[good()]]);
    assert_eq!(targets(&story), [1, 2]);
    assert_eq!(answered(&story).2.map(|d| d.step), Some(DegradeStep::Local));
}

#[test]
fn a_held_target_of_the_wanted_tier_is_waited_for_before_going_weaker() {
    let mut s = top_down(Some(0.9), &[DegradeStep::Weaker]);
    s.slots[1].callable_at = ms(2_000);
    s.slots[1].held = Some(DegradeReason::Held);
    let story = tell(s.clone(), &[&[good()], &[good()]]);
    assert_eq!(targets(&story), [1]);
    assert_eq!(story.started_at(0), Some(ms(2_000)));
    s.slots[1].callable_at = ms(90_000);
    let story = tell(s, &[&[good()], &[good()]]);
    let marked = Degraded {
        step: DegradeStep::Weaker,
        reason: DegradeReason::Held,
    };
    assert_eq!(answered(&story), (0, Grade::Unchecked, Some(marked)));
}

/// Many wait for one probe, and it may take a while: who looks again and is told "not yet" has sent nothing, and may look
/// again, up to `honor_retry_after`.
#[test]
fn who_waits_for_a_probe_waits_as_long_as_the_plan_says() {
    let no = Act::Refuse {
        why: Refusal::Breaker,
        until: Some(d(500)),
    };
    let mut s = setup(1);
    s.slots[0].callable_at = ms(1_000);
    s.slots[0].held = Some(DegradeReason::Open);
    let mut script = vec![no; 7];
    script.push(good());
    let story = tell(s.clone(), &[&script]);
    assert_eq!(answered(&story).0, 7);
    assert_eq!(story.started_at(7), Some(ms(4_500)));
    // And no longer.
    let story = tell(s, &[&vec![no; 100]]);
    assert_eq!(failed(&story), FailWhy::NoneCallable);
    assert_eq!(story.actions.last().map(|(at, _)| *at), Some(ms(5_000)));
}

#[test]
fn who_waits_does_not_look_again_at_once() {
    let no = Act::Refuse {
        why: Refusal::Held,
        until: Some(d(1)),
    };
    let mut s = setup(1);
    s.slots[0].callable_at = ms(1);
    s.slots[0].held = Some(DegradeReason::Held);
    let story = tell(s, &[&vec![no; 10_000]]);
    assert_eq!(failed(&story), FailWhy::NoneCallable);
    assert!(targets(&story).len() < 60, "{}", targets(&story).len());
}

#[test]
fn the_last_resort_is_waited_for_too() {
    let dead: &[Act] = &[fault(T::FirstTokenTimeout)];
    let mut s = top_down(Some(0.9), &[DegradeStep::Weaker, DegradeStep::Message]);
    s.slots[0].callable_at = ms(2_000);
    s.slots[0].held = Some(DegradeReason::Open);
    let story = tell(s.clone(), &[&[good()], dead]);
    assert_eq!(targets(&story), [1, 0]);
    assert_eq!(story.started_at(1), Some(ms(2_000)));
    let marked = Degraded {
        step: DegradeStep::Weaker,
        reason: DegradeReason::Failed,
    };
    assert_eq!(answered(&story), (1, Grade::Unchecked, Some(marked)));
    // Another one is its probe just now.
    let probed = Act::Refuse {
        why: Refusal::Breaker,
        until: Some(d(500)),
    };
    s.slots[0].callable_at = Time(0);
    s.slots[0].held = None;
    let story = tell(s.clone(), &[&[probed, good()], dead]);
    assert_eq!(targets(&story), [1, 0, 0]);
    // Not for longer than the plan allows, and not where a step before it can be taken.
    s.slots[0].callable_at = ms(90_000);
    s.slots[0].held = Some(DegradeReason::Open);
    assert_eq!(targets(&tell(s.clone(), &[&[good()], dead])), [1]);
    s.slots[0].callable_at = ms(2_000);
    s.degrade = [DegradeStep::Message, DegradeStep::Weaker].into_iter().collect();
    assert_eq!(targets(&tell(s, &[&[good()], dead])), [1]);
}

#[test]
fn nothing_callable_at_all_says_when_to_come_back() {
    let mut s = setup(1);
    s.slots[0].callable_at = ms(30_000);
    s.slots[0].held = Some(DegradeReason::Open);
    match tell(s, &[&[good()]]).finish() {
        Some(Finish::Failed(f)) => {
            assert_eq!(f.why, FailWhy::NoneCallable);
            assert_eq!(f.retry_after, Some(d(30_000)));
        }
        other => panic!("{other:?}"),
    }
}
