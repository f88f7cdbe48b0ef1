//! What is more than one fault at the first target of a route: targets that the caller names, both targets at fault,
//! addresses where nothing answers, deadlines, effects, outages, callers that leave.

use std::time::Duration;

use serde_json::json;

use super::super::case::{At, By, Caller, Case, Chapter, Dialect, Expect, Form, Play, Target};
use super::super::key::Key;
use super::each;
use crate::provider::{Behaviour, Ended, Ending, Fault, State};

/// Statuses of "it is not us, and not you: try again later".
const UPSTREAM: [u16; 3] = [502, 503, 504];

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (form, dialect) in each() {
        all.extend(told(Chapter::Named, named(form, dialect)));
        all.extend(told(Chapter::Both, both(form, dialect)));
        all.extend(told(Chapter::Nowhere, addresses(form, dialect)));
        all.extend(told(Chapter::Limits, limits(form, dialect)));
        all.extend(told(Chapter::OverTime, over_time(form, dialect)));
    }
    all
}

fn told(chapter: Chapter, cases: Vec<Case>) -> impl Iterator<Item = Case> {
    cases.into_iter().map(move |case| {
        let keys = keys(&case.name, case.form);
        case.told(chapter, keys)
    })
}

/// Keys of the plan that change what comes of it.
fn keys(name: &str, form: Form) -> &'static [Key] {
    let stream = form == Form::Stream;
    match name {
        "named_500_once" | "named_reset_once" => &[Key::SameTarget, Key::Budget],
        "named_503" => &[Key::Tiers, Key::SameTarget, Key::Budget],
        "named_hang" | "both_hang" | "deaf" | "named_deaf" if stream => &[Key::FirstToken],
        "named_hang" | "both_hang" | "deaf" | "named_deaf" => &[Key::Attempt],
        "named_429_once" | "named_429_ms_once" | "named_429_date_once" | "named_429" | "both_429" => {
            &[Key::HonorRetryAfter]
        }
        "named_401" => &[Key::ApiKey],
        "named_overflow" => &[Key::Context],
        "named_cut" if stream => &[Key::Continue, Key::SameTarget],
        "named_cut" => &[Key::SameTarget],
        "both_503" | "both_empty" | "both_html" => &[Key::Message, Key::MaxAttempts, Key::SameTarget],
        "refused" | "named_refused" | "reset_at_once" | "named_reset_at_once" => &[Key::SameTarget, Key::Row],
        "late_answer" => &[Key::Attempt],
        "storm_429_bare" => &[Key::Backoff],
        "outage_503" | "outage_refused" | "outage_silent" => &[Key::Row, Key::Open],
        _ => &[],
    }
}

fn of(fault: Fault) -> Target {
    Target::that(Behaviour::of(fault))
}

fn once(fault: Fault) -> Target {
    Target {
        times: Some(1),
        ..of(fault)
    }
}

fn error(calls: std::ops::RangeInclusive<usize>) -> Expect {
    Expect {
        spent: true,
        ..Expect::new(Caller::Error(UPSTREAM.to_vec()), calls, 0..=0)
    }
}

/// The caller names a target: that model, or an error.
fn named(form: Form, dialect: Dialect) -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |name: &str, about: &str, first: Target, expect: Expect| {
        all.push(Case::named(name, about, form, dialect, first, expect));
    };
    let again = || Expect::new(Caller::Whole(By::First), 2..=2, 0..=0);
    add(
        "named_500_once",
        "500 once: one repeat",
        once(Fault::ServerError),
        again(),
    );
    add(
        "named_reset_once",
        "reset before the head once: one repeat",
        once(Fault::ResetBeforeHead),
        again(),
    );
    add("named_503", "503 for ever", of(Fault::Unavailable), error(1..=2));
    add(
        "named_hang",
        "never an answer: an error in time, and no second try",
        of(Fault::Hang),
        Expect {
            first_ends: Some(Ended::ClientLeft),
            ..error(1..=1)
        },
    );
    add(
        "named_429_once",
        "429 with retry-after once: the wait is kept",
        once(Fault::RateLimited),
        Expect {
            gap: Duration::from_millis(990),
            ..again()
        },
    );
    add(
        "named_429_ms_once",
        "429 with retry-after-ms: 300 once: the wait is kept, and is no whole second",
        once(Fault::RateLimitedMs),
        Expect {
            gap: Duration::from_millis(290),
            within: Duration::from_millis(900),
            ..again()
        },
    );
    add(
        "named_429_date_once",
        "429 with retry-after as a date once: the wait is kept",
        once(Fault::RateLimitedDate),
        Expect {
            gap: Duration::from_millis(990),
            ..again()
        },
    );
    add(
        "named_429",
        "429 with retry-after for ever",
        of(Fault::RateLimited),
        Expect {
            gap: Duration::from_millis(990),
            // The hold that the provider asked for is on still.
            then: Some(Duration::from_millis(2_500)),
            ..Expect::new(Caller::Error(vec![429]), 1..=2, 0..=0)
        },
    );
    add(
        "named_401",
        "401: our key, so nobody asks the caller for one",
        of(Fault::Unauthorized),
        Expect {
            then: None,
            ..error(1..=1)
        },
    );
    add(
        "named_overflow",
        "the prompt is too long: the provider's words",
        of(Fault::ContextLength),
        Expect::new(Caller::PassedOn(400, "too long"), 1..=1, 0..=0),
    );
    if dialect == Dialect::Openai
        && let Some(overflow) = all.last_mut()
    {
        overflow.expect.caller = Caller::PassedOn(400, "context_length_exceeded");
    }
    let cut = Expect::new(Caller::InBand, 1..=3, 0..=0);
    let cut = if form == Form::Stream { cut } else { error(1..=2) };
    all.push(Case::named(
        "named_cut",
        "cut for ever",
        form,
        dialect,
        of(Fault::Cut),
        cut,
    ));
    all
}

/// Nobody is left.
fn both(form: Form, dialect: Dialect) -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |name: &str, about: &str, first: Fault, second: Fault, expect: Expect| {
        let case = Case::route(name, about, form, dialect, of(first), expect);
        all.push(case.with_second(of(second)));
    };
    let nobody = |second| Expect {
        spent: true,
        ..Expect::new(Caller::Error(UPSTREAM.to_vec()), 1..=2, second)
    };
    add(
        "both_503",
        "both say 503 for ever: an error inside the budget",
        Fault::Unavailable,
        Fault::Unavailable,
        nobody(1..=2),
    );
    add(
        "both_hang",
        "neither ever answers",
        Fault::Hang,
        Fault::Hang,
        Expect {
            first_ends: Some(Ended::ClientLeft),
            ..Expect::new(Caller::Error(UPSTREAM.to_vec()), 1..=1, 1..=1)
        },
    );
    add(
        "both_empty",
        "both answer 200 with nothing in it",
        Fault::EmptyStream,
        Fault::EmptyStream,
        nobody(1..=2),
    );
    add(
        "both_html",
        "both answer with a page",
        Fault::HtmlAnswer,
        Fault::HtmlAnswer,
        nobody(1..=2),
    );
    add(
        "both_429",
        "both limit us",
        Fault::RateLimited,
        Fault::RateLimited,
        Expect {
            within: Duration::from_millis(5_000),
            then: Some(Duration::from_millis(2_500)),
            ..Expect::new(Caller::Error(vec![429, 502, 503]), 1..=2, 1..=2)
        },
    );
    all
}

/// Nothing is there, or nothing hears.
fn addresses(form: Form, dialect: Dialect) -> Vec<Case> {
    let at = |at| Target {
        at,
        ..Target::healthy()
    };
    let never = |expect: Expect| Expect {
        first: 0..=0,
        ..expect
    };
    [
        ("refused", "nobody listens at the first's address", At::Dead),
        (
            "deaf",
            "the first's address takes connections and reads nothing",
            At::Deaf,
        ),
        (
            "reset_at_once",
            "the first's address resets every connection",
            At::Resetting,
        ),
    ]
    .into_iter()
    .flat_map(|(name, about, place)| {
        let second = Case::route(
            name,
            about,
            form,
            dialect,
            at(place),
            never(Expect::second(0..=0)),
        );
        let expect = Expect {
            then: None,
            ..never(error(0..=0))
        };
        let alone = Case::named(&format!("named_{name}"), about, form, dialect, at(place), expect);
        [second, alone]
    })
    .collect()
}

/// Deadline, effects, and the answer that comes late.
fn limits(form: Form, dialect: Dialect) -> Vec<Case> {
    let mut all = Vec::new();
    let hang = Expect {
        within: Duration::from_millis(900),
        ..Expect::new(Caller::Error(vec![504]), 1..=1, 0..=0)
    };
    let mut deadline = Case::route(
        "deadline",
        "the caller has 500 ms, and the first never answers",
        form,
        dialect,
        of(Fault::Hang),
        hang,
    );
    deadline.deadline_ms = Some(500);
    all.push(deadline);
    if dialect == Dialect::Openai {
        let mut effects = Case::route(
            "effects",
            "the request is stored upstream; its answer is lost: it is not sent again",
            form,
            dialect,
            of(Fault::ResetBeforeHead),
            Expect::new(Caller::Error(UPSTREAM.to_vec()), 1..=1, 0..=0),
        );
        effects.extra = json!({"store": true});
        all.push(effects);
    }
    if form == Form::Whole {
        let late = Target {
            times: Some(1),
            ..Target::that(Behaviour {
                headers_ms: Some(1_700),
                ..Behaviour::default()
            })
        };
        let slow_503 = Target::that(Behaviour {
            headers_ms: Some(900),
            ..Behaviour::of(Fault::Unavailable)
        });
        let case = Case::route(
            "late_answer",
            "the first answers after its attempt's clock, and the second fails: what came late is not lost",
            form,
            dialect,
            late,
            Expect::new(Caller::Whole(By::First), 1..=1, 1..=2),
        );
        all.push(case.with_second(slow_503));
    }
    all
}

/// More than one request.
fn over_time(form: Form, dialect: Dialect) -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |name: &str, about: &str, play: Play, first: Target, expect: Expect| {
        let mut case = Case::route(name, about, form, dialect, first, expect);
        case.play = play;
        all.push(case);
    };
    let either = |calls| Expect::new(Caller::Whole(By::Either), calls, 0..=usize::MAX);
    let own = || Target {
        at: At::Own,
        ..Target::healthy()
    };
    // Threshold 5, then probes: at most one each open_ms, and one under way at each end.
    add(
        "outage_503",
        "503 for three seconds under load, then healthy: breaker, probes, and back",
        Play::Outage(State::Unavailable, 3_000),
        own(),
        either(1..=14),
    );
    // One may slip in before the door is shut.
    add(
        "outage_refused",
        "nobody listens for three seconds under load, then healthy again",
        Play::Outage(State::Refuse, 3_000),
        own(),
        either(0..=1),
    );
    add(
        "outage_silent",
        "no answer for three seconds under load, then healthy again",
        Play::Outage(State::Silent, 3_000),
        own(),
        either(1..=14),
    );
    add(
        "storm_429",
        "429 with retry-after: 1 for three seconds under load: asked once a second at most",
        Play::Series(3_000),
        of(Fault::RateLimited),
        Expect {
            usage: super::super::case::Usage::True,
            ..either(1..=4)
        },
    );
    add(
        "storm_429_bare",
        "429 without a word for three seconds under load: asked again after a step of the backoff each time (here 100 ms at \
         most)",
        Play::Series(3_000),
        of(Fault::RateLimitedBare),
        either(1..=33),
    );
    let slow = Target::that(Behaviour {
        token_ms: Some(60),
        ..Behaviour::default()
    });
    let gone = || Expect::new(Caller::InBand, 1..=1, 0..=0);
    if form == Form::Stream {
        add(
            "caller_leaves",
            "the caller leaves in the middle: the provider is let go",
            Play::Leave(4),
            slow,
            gone(),
        );
        let stalled = Target::that(Behaviour {
            ending: Some(Ending::Stall),
            end_after: Some(6),
            ..Behaviour::default()
        });
        add(
            "caller_leaves_silence",
            "the caller leaves a stream that is silent",
            Play::Leave(5),
            stalled,
            gone(),
        );
    }
    add(
        "caller_leaves_early",
        "the caller leaves before the head",
        Play::Leave(0),
        of(Fault::Hang),
        gone(),
    );
    all
}
