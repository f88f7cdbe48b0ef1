//! One test for each sentence of the drawing about streams that break after the commit.

use super::sim::{Act, Story, World, run};
use super::tests::{d, ms, setup};
use super::*;
use crate::continuation::{Way, Ways};
use crate::ids::TargetId;
use crate::outcome::{CallerFault as C, Graded, Outcome, TargetFault as T};
use crate::plan::{ContinueWith, HoldBack};
use crate::units::Time;

const A: TargetId = TargetId(0);
const B: TargetId = TargetId(1);
const C2: TargetId = TargetId(2);

/// Streams without hold-back, one target a tier.
fn plain(tiers: u16) -> Setup {
    Setup {
        hold_back: HoldBack::Tokens(0),
        ..setup(tiers)
    }
}

fn breaks_with(outcome: Outcome) -> Act {
    Act::Break {
        first: d(100),
        after: d(1_000),
        end: Graded::plain(outcome),
    }
}
fn cut() -> Act {
    breaks_with(Outcome::TargetFault(T::Cut))
}
fn joins() -> Act {
    Act::Answer {
        first: d(100),
        whole: d(1_000),
        verdict: Judged::unchecked(),
        early: false,
    }
}
fn unfit() -> Act {
    Act::Answer {
        first: d(100),
        whole: d(1_000),
        verdict: Judged {
            grade: Grade::Filtered,
            seen: Seen::None,
            p_good: None,
        },
        early: false,
    }
}
fn fails(outcome: Outcome) -> Act {
    Act::Fail {
        after: d(50),
        end: Graded::plain(outcome),
    }
}

fn tell(setup: Setup, scripts: &[&[Act]]) -> Story {
    told(setup, scripts, Ways::ALL, true)
}

fn told(setup: Setup, scripts: &[&[Act]], ways: Ways, may_repeat: bool) -> Story {
    let world = World {
        scripts: (0..)
            .map(TargetId)
            .zip(scripts.iter().map(|s| s.to_vec()))
            .collect(),
        may_repeat,
        leaves: None,
        ways,
    };
    let story = run(setup, &world, Time(0));
    assert_eq!(story.broken, None, "{story:#?}");
    story
}

fn answered(story: &Story) -> bool {
    matches!(story.finish(), Some(Finish::Answered { .. }))
}
fn is_cut(story: &Story) -> bool {
    matches!(
        story.finish(),
        Some(Finish::Cut {
            try_: TryId(0),
            outcome: Outcome::TargetFault(T::Cut)
        })
    )
}

#[test]
fn a_cut_stream_is_gone_on_with_and_answered() {
    let mut s = plain(2);
    s.slots[1].prefill = true;
    let story = tell(s, &[&[cut()], &[joins()]]);
    assert_eq!(story.continued(), [(B, Way::Prefill)]);
    assert!(answered(&story));
    let adopted = |(_, a): &(Time, Action)| matches!(a, Action::Adopt { try_: TryId(1) });
    assert!(story.actions.iter().any(adopted));
}

#[test]
fn the_whole_is_asked_for_where_a_prefill_cannot_be_said_or_did_not_fit() {
    let story = tell(plain(1), &[&[cut(), joins()]]);
    assert_eq!(story.continued(), [(A, Way::Whole)]);
    let mut s = plain(2);
    s.slots[1].prefill = true;
    let refused = fails(Outcome::CallerFault(C::InvalidRequest));
    for first in [unfit(), refused] {
        let story = tell(s.clone(), &[&[cut()], &[first, joins()]]);
        assert_eq!(story.continued()[0], (B, Way::Prefill));
        assert_eq!(story.continued()[1].1, Way::Whole);
    }
}

#[test]
fn an_instruction_comes_last() {
    let story = tell(plain(1), &[&[cut(), unfit(), joins()]]);
    assert_eq!(story.continued(), [(A, Way::Whole), (A, Way::Instruct)]);
    assert!(answered(&story));
}

#[test]
fn a_weaker_tier_goes_on_only_where_the_plan_says_so() {
    let mut s = plain(2);
    s.start = Some(B);
    s.slots[0].prefill = true;
    let dead = fails(Outcome::TargetFault(T::Connect));
    let story = tell(s.clone(), &[&[joins()], &[cut(), dead]]);
    assert!(story.continued().iter().all(|(t, _)| *t == B), "{story:#?}");
    assert!(is_cut(&story));
    s.continue_with = ContinueWith::Any;
    let story = tell(s.clone(), &[&[joins()], &[cut(), dead]]);
    assert_eq!(story.continued(), [(A, Way::Prefill)]);
    s.continue_with = ContinueWith::Never;
    let story = tell(s, &[&[joins()], &[cut(), joins()]]);
    assert!(story.continued().is_empty() && is_cut(&story));
}

#[test]
fn all_is_under_one_budget_of_attempts() {
    let mut s = plain(3);
    s.retry.max_attempts = 3;
    let story = tell(s.clone(), &[&[cut(), unfit()], &[unfit()], &[unfit()]]);
    assert_eq!(story.started().len(), 3);
    assert!(is_cut(&story));
    s.retry.max_attempts = 1;
    assert!(tell(s, &[&[cut()], &[joins()]]).continued().is_empty());
}

#[test]
fn without_the_ratio_budget_the_same_target_is_not_asked() {
    let story = told(plain(1), &[&[cut(), joins()]], Ways::ALL, false);
    assert!(story.continued().is_empty() && is_cut(&story));
    let story = told(plain(2), &[&[cut()], &[joins()]], Ways::ALL, false);
    assert_eq!(story.continued(), [(B, Way::Whole)]);
}

#[test]
fn effects_are_never_had_twice() {
    let mut s = plain(2);
    s.effects = true;
    let story = tell(s, &[&[cut()], &[joins()]]);
    assert!(story.continued().is_empty() && is_cut(&story));
}

#[test]
fn a_refusal_in_the_middle_is_no_reason_to_ask_somebody_else() {
    let filtered = breaks_with(Outcome::CallerFault(C::ContentFilter));
    let story = tell(plain(2), &[&[filtered], &[joins()]]);
    assert!(story.continued().is_empty());
    assert!(matches!(story.finish(), Some(Finish::Cut { .. })));
}

#[test]
fn a_target_that_refuses_us_in_the_middle_is_not_asked_to_go_on() {
    let refuses = breaks_with(Outcome::TargetFault(T::Auth));
    let story = tell(plain(2), &[&[refuses], &[joins()]]);
    assert!(story.continued().iter().all(|(target, _)| *target == B));
    let story = tell(plain(1), &[&[refuses]]);
    assert_eq!(story.continued(), []);
}

#[test]
fn continue_ms_bounds_the_gap_and_silence_leaves_time_for_another() {
    let mut s = plain(2);
    let silent = Act::Silent { alive: None };
    for slot in &mut s.slots {
        slot.continue_within = d(8_000);
    }
    // B is silent for half of it, then A is asked.
    let story = tell(s.clone(), &[&[cut(), joins()], &[silent]]);
    assert_eq!(
        story.continued(),
        [(A, Way::Whole)],
        "the same target stands nearer"
    );
    let story = tell(s.clone(), &[&[cut(), silent], &[joins()]]);
    assert_eq!(story.continued(), [(A, Way::Whole), (B, Way::Whole)]);
    assert_eq!(story.started_at(2), Some(ms(1_000 + 4_000)));
    assert!(answered(&story));
    let story = tell(s.clone(), &[&[cut(), silent], &[silent]]);
    assert!(is_cut(&story));
    let last = story.actions.last().unwrap().0;
    assert!(last <= ms(1_000 + 8_000), "{last:?}");
    // The caller's own deadline bounds it too.
    s.until = ms(2_000);
    let story = tell(s, &[&[cut(), silent], &[joins()]]);
    assert!(story.actions.last().unwrap().0 <= ms(2_000));
}

#[test]
fn one_that_fell_silent_is_asked_last() {
    let idle = breaks_with(Outcome::TargetFault(T::IdleTimeout));
    let story = tell(plain(2), &[&[idle, joins()], &[joins()]]);
    assert_eq!(story.continued(), [(B, Way::Whole)]);
    // Where only it keeps the promise of a name, it is asked.
    let mut s = plain(1);
    s.pinned = true;
    assert!(answered(&tell(s, &[&[idle, joins()]])));
}

#[test]
fn a_held_target_is_waited_for_when_that_is_soon() {
    let mut s = plain(2);
    s.slots[0].tier = 0;
    let limited = Act::Fail {
        after: d(50),
        end: Graded {
            retry_after: Some(d(3_000)),
            ..Graded::plain(Outcome::TargetFault(T::RateLimited))
        },
    };
    // Held from elsewhere: the step says so when it is asked.
    let held = Act::Refuse {
        why: Refusal::Held,
        until: Some(d(3_000)),
    };
    s.slots.truncate(1);
    let story = tell(s.clone(), &[&[cut(), held, joins()]]);
    assert_eq!(story.started_at(2), Some(ms(4_000)));
    assert!(answered(&story));
    // A 429 of its own is an answer: not again in this gap.
    assert!(is_cut(&tell(s, &[&[cut(), limited, joins()]])));
}

#[test]
fn a_stream_that_breaks_again_is_gone_on_with_again() {
    let story = tell(plain(3), &[&[cut()], &[cut()], &[joins()]]);
    assert_eq!(
        story.continued(),
        [(A, Way::Whole), (B, Way::Whole), (C2, Way::Whole)],
        "who broke off before comes last"
    );
    assert!(answered(&story));
}

#[test]
fn when_nothing_can_be_gone_on_with_nobody_is_asked() {
    let story = told(plain(2), &[&[cut()], &[joins()]], Ways::NONE, true);
    assert!(story.continued().is_empty() && is_cut(&story));
}
