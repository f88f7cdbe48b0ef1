//! Keys of the plan, turned: what the page says of a key must be seen in a case that goes otherwise with it.

use std::time::Duration;

use super::super::case::{At, By, Caller, Case, Chapter, Dialect, Expect, Form, House, Play, Target};
use super::super::key::Key;
use super::each;
use crate::provider::{Behaviour, Ending, Fault, State};

const SECONDS_3: &str = "timeouts = { first_token_ms = 3_000, idle_ms = 3_000, attempt_ms = 3_000 }";

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (form, dialect) in each() {
        let case = |key: Key, about: &str, first: Target, expect: Expect| {
            let name = key.turned_by().unwrap_or_default();
            Case::route(name, about, form, dialect, first, expect).told(Chapter::Turned, &[key])
        };
        all.extend(clocks(form, &case));
        all.extend(routes(form, &case));
        all.extend(houses(&case));
        // Both draw on what their gateway's requests pay in, whatever the dialect: more of them would be another case.
        if dialect == Dialect::Openai {
            all.extend(thrifty(&case));
        }
    }
    all
}

type Make<'a> = &'a dyn Fn(Key, &str, Target, Expect) -> Case;

fn of(fault: Fault) -> Target {
    Target::that(Behaviour::of(fault))
}

/// Each with more patience than the usual plan has.
fn clocks(form: Form, case: Make<'_>) -> Vec<Case> {
    let patient = |behaviour| Target {
        lines: SECONDS_3,
        ..Target::that(behaviour)
    };
    let first = Expect::first;
    if form == Form::Whole {
        let late = patient(Behaviour {
            headers_ms: Some(1_600),
            ..Behaviour::default()
        });
        return vec![case(
            Key::Attempt,
            "the answer comes after 1.6 s, and the target has 3",
            late,
            first(),
        )];
    }
    let slow = patient(Behaviour {
        first_token_ms: Some(1_200),
        ..Behaviour::default()
    });
    let mut pauses = case(
        Key::Idle,
        "1.2 s of silence between words, and the target has 3",
        patient(Behaviour {
            token_ms: Some(1_200),
            ..Behaviour::default()
        }),
        first(),
    );
    pauses.text = "One, two, three.".to_owned();
    let about =
        "cut in the middle; who goes on needs 1.2 s for its first words, and there are 6 s for the search";
    let cut = Target {
        lines: "timeouts = { continue_ms = 6_000 }",
        ..Target::that(Behaviour {
            ending: Some(Ending::Cut),
            end_after: Some(16),
            ..Behaviour::default()
        })
    };
    let second = patient(Behaviour {
        first_token_ms: Some(1_200),
        ..Behaviour::default()
    });
    let search = case(
        Key::ContinueMs,
        about,
        cut,
        Expect::new(Caller::Joined, 1..=2, 0..=2),
    );
    vec![
        case(
            Key::FirstToken,
            "the first words come after 1.2 s, and the target has 3",
            slow,
            first(),
        ),
        pauses,
        search.with_second(second),
    ]
}

/// What a route, or a target of it, may say for itself.
fn routes(form: Form, case: Make<'_>) -> Vec<Case> {
    let mut all = Vec::new();
    if form == Form::Stream {
        let mut never = case(
            Key::Continue,
            "cut after two thirds, and the route says `continue = \"never\"`",
            of(Fault::Cut),
            Expect::new(Caller::InBand, 1..=1, 0..=0),
        );
        never.lines = "continue = \"never\"";
        all.push(never);
    }
    let mut filter = case(
        Key::ContentFilter,
        "400 from a content filter, and the route says `content_filter = \"escalate\"`",
        of(Fault::ContentFilter),
        Expect::second(1..=1),
    );
    filter.lines = "content_filter = \"escalate\"";
    all.push(filter);
    let mut message = case(
        Key::Message,
        "both say 503, and the route has a message of its own, with status 500",
        of(Fault::Unavailable),
        Expect::new(Caller::PassedOn(500, "Closed on Sundays."), 1..=2, 1..=2),
    );
    message.lines = "message = { status = 500, text = \"Closed on Sundays.\" }";
    all.push(message.with_second(of(Fault::Unavailable)));
    let small = Target {
        context: Some(64),
        ..of(Fault::ContextLength)
    };
    all.push(case(
        Key::Context,
        "the plan says that the first has room for 64 tokens: it is not asked at all",
        small,
        Expect::second(0..=0),
    ));
    all
}

/// Keys that are one for the whole plan: each of these has a gateway of its own.
fn houses(case: Make<'_>) -> Vec<Case> {
    let at = |house, case: Case| Case { house, ..case };
    let alone = |case: Case| Case { second: None, ..case };
    let same_target = case(
        Key::SameTarget,
        "503, and `same_target = 0`",
        of(Fault::Unavailable),
        Expect::second(1..=1),
    );
    let honor = case(
        Key::HonorRetryAfter,
        "429 with retry-after: 1 at a named target, and `honor_retry_after_ms = 0`: told at once",
        of(Fault::RateLimited),
        Expect {
            within: Duration::from_millis(900),
            // The hold is on still, and nobody waits.
            then: None,
            ..Expect::new(Caller::Error(vec![429]), 1..=1, 0..=0)
        },
    );
    let attempts = case(
        Key::MaxAttempts,
        "503, and `max_attempts = 1`: nobody else is asked",
        of(Fault::Unavailable),
        Expect {
            spent: true,
            ..Expect::new(Caller::Error(vec![502, 503, 504]), 1..=1, 0..=0)
        },
    );
    let mut breaker = case(
        Key::Row,
        "503 for two seconds under load, and `consecutive_failures = 2`: then probes",
        Target {
            at: At::Own,
            ..Target::healthy()
        },
        Expect::new(Caller::Whole(By::Either), 2..=4, 0..=usize::MAX),
    );
    breaker.play = Play::Outage(State::Unavailable, 2_000);
    vec![
        at(House::Curt, same_target),
        at(House::Curt, alone(honor)),
        at(House::OneTry, attempts),
        at(House::Curt, breaker),
    ]
}

/// The budget for repeats, and the backoff.
fn thrifty(case: Make<'_>) -> Vec<Case> {
    // Without the budget each of the hundred would be two. The other form's hundred pay in too.
    let mut budget = case(
        Key::Budget,
        "a hundred requests, 503 for each of them, and `budget = { ratio = 0.1, min_per_second = 0 }`",
        of(Fault::Unavailable),
        Expect {
            then: None,
            ..Expect::new(Caller::Whole(By::Second), 101..=120, 100..=100)
        },
    );
    budget.play = Play::Count(100);
    // After 100, 300 and 700 ms, then once a second; the usual plan's steps end at 100 ms.
    let mut backoff = case(
        Key::Backoff,
        "429 without a word for three seconds under load, and `backoff = { base_ms = 100, max_ms = 1_000 }`: ever less often",
        of(Fault::RateLimitedBare),
        Expect {
            then: None,
            ..Expect::new(Caller::Whole(By::Either), 4..=7, 0..=usize::MAX)
        },
    );
    backoff.play = Play::Series(3_000);
    let at = |case: Case| Case {
        house: House::Thrifty,
        ..case
    };
    vec![at(budget), at(backoff)]
}
