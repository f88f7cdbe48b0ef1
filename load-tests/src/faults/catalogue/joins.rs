//! Streams that are cut after their beginning was passed on, with second providers that are a help and ones that are none.
//! Each ends as one right text, or as an in-band error behind a right beginning; never as a doubled or a made-up one.

use serde_json::json;

use super::super::case::{Caller, Case, Chapter, Dialect, Expect, Form, Target};
use super::super::key::Key;
use crate::provider::{Behaviour, Ending, Fault, GoOn, Raw, ToolCall, generate_text};

/// What a second that has words of its own says when it goes on.
const OWN_WORDS: &str = " and from there it goes its own way, slowly, down to the sea.";

fn cut_after(tokens: u32) -> Target {
    Target::that(Behaviour {
        ending: Some(Ending::Cut),
        end_after: Some(tokens),
        ..Behaviour::default()
    })
}

fn second(go_on: GoOn, prefill: bool, own: bool) -> Target {
    Target {
        prefill,
        ..Target::that(Behaviour {
            go_on: Some(go_on),
            text: own.then(|| generate_text(4_711, 30)),
            go_on_text: own.then(|| OWN_WORDS.to_owned()),
            ..Behaviour::default()
        })
    }
}

fn joined(others: &[&str]) -> Expect {
    let others = others.iter().map(|o| (*o).to_owned()).collect();
    Expect::new(Caller::JoinedOrInBand(others), 1..=2, 0..=3)
}

fn must_join() -> Expect {
    Expect::new(Caller::Joined, 1..=2, 0..=3)
}

fn must_not() -> Expect {
    Expect::new(Caller::InBand, 1..=2, 0..=3)
}

pub fn cases() -> Vec<Case> {
    [Dialect::Openai, Dialect::Anthropic]
        .into_iter()
        .flat_map(|dialect| {
            let mut all = helpful(dialect);
            all.extend(unhelpful(dialect));
            all.extend(other_contents(dialect));
            all
        })
        .map(|case| {
            let named = case.second.is_none();
            let keys: &[Key] = match case.name.as_str() {
                "join_second_hangs" | "join_second_stalls" => &[Key::ContinueMs],
                "join_two_choices" => &[],
                "join_other_whole" | "join_second_cuts" | "join_second_down" => {
                    &[Key::Tiers, Key::MaxAttempts]
                }
                _ if named => &[Key::SameTarget, Key::Continue],
                _ if case.second.as_ref().is_some_and(|s| s.prefill) => &[Key::Capabilities, Key::Continue],
                _ => &[Key::Continue],
            };
            case.told(Chapter::Join, keys)
        })
        .collect()
}

fn case(name: &str, about: &str, dialect: Dialect, first: Target, second: Target, expect: Expect) -> Case {
    Case::route(name, about, Form::Stream, dialect, first, expect).with_second(second)
}

/// The second says the same, or goes on where the first stopped.
fn helpful(dialect: Dialect) -> Vec<Case> {
    let prefilled = || second(GoOn::Continue, true, false);
    let about = "cut in the middle; the second goes on from a prefill";
    let mut all = vec![case(
        "join_prefill",
        about,
        dialect,
        cut_after(16),
        prefilled(),
        must_join(),
    )];
    for (name, at) in [("join_after_one", 1), ("join_before_last", 23)] {
        let about = format!("cut after {at} of 24 tokens; the second says the same");
        let plain = Target::healthy();
        all.push(case(name, &about, dialect, cut_after(at), plain, must_join()));
    }
    let about = "cut in the middle; the second takes no prefill and says the whole again";
    all.push(case(
        "join_refused_prefill",
        about,
        dialect,
        cut_after(16),
        second(GoOn::Refuse, true, false),
        must_join(),
    ));
    let once = Target {
        times: Some(1),
        ..cut_after(16)
    };
    let about = "the named target cuts once; only it may go on";
    all.push(Case::named(
        "join_same_target",
        about,
        Form::Stream,
        dialect,
        once,
        Expect::new(Caller::JoinedOrInBand(Vec::new()), 1..=2, 0..=0),
    ));
    all
}

/// The second is no help, or not at once.
fn unhelpful(dialect: Dialect) -> Vec<Case> {
    let cut = || cut_after(16);
    let mut all = Vec::new();
    let mut add = |name: &str, about: &str, second: Target, expect: Expect| {
        all.push(case(name, about, dialect, cut(), second, expect));
    };
    add(
        "join_repeats",
        "the second says the last words again before it goes on",
        second(GoOn::Repeat, true, false),
        joined(&[]),
    );
    add(
        "join_announces",
        "the second puts \"Sure, continuing:\" in front",
        second(GoOn::Announce, true, false),
        joined(&[]),
    );
    add(
        "join_ignores",
        "the second takes a prefill and begins anew",
        second(GoOn::Ignore, true, false),
        joined(&[]),
    );
    add(
        "join_other_words",
        "the second has other words, and goes on from a prefill",
        second(GoOn::Continue, true, true),
        joined(&[OWN_WORDS]),
    );
    add(
        "join_other_repeats",
        "other words, and the last ones again",
        second(GoOn::Repeat, true, true),
        joined(&[OWN_WORDS]),
    );
    add(
        "join_other_announces",
        "other words, with an announcement",
        second(GoOn::Announce, true, true),
        joined(&[OWN_WORDS]),
    );
    add(
        "join_other_whole",
        "the second says something else from the start, whatever it is asked",
        second(GoOn::Ignore, true, true),
        must_not(),
    );
    add(
        "join_other_unasked",
        "the second takes no prefill and has other words",
        second(GoOn::Continue, false, true),
        joined(&[OWN_WORDS]),
    );
    add(
        "join_other_chunks",
        "the second says the same, a byte a write",
        Target::that(Behaviour::of(Fault::SplitWrites)),
        must_join(),
    );
    let cut_too = Target::that(Behaviour {
        end_after: Some(8),
        ..Behaviour::of(Fault::Cut)
    });
    add(
        "join_second_cuts",
        "the second breaks off before it is where the first was",
        cut_too,
        must_not(),
    );
    add(
        "join_second_stalls",
        "the second falls silent before it is where the first was",
        Target::that(Behaviour {
            end_after: Some(8),
            ..Behaviour::of(Fault::Stall)
        }),
        must_not(),
    );
    add(
        "join_second_hangs",
        "the second never answers",
        Target::that(Behaviour::of(Fault::Hang)),
        must_not(),
    );
    add(
        "join_second_down",
        "the second says 503",
        Target::that(Behaviour::of(Fault::Unavailable)),
        must_not(),
    );
    all
}

/// Answers that are no plain sentences.
fn other_contents(dialect: Dialect) -> Vec<Case> {
    let mut all = Vec::new();
    let text = "Grüße aus Köln – drei Brücken, zwölf Wehre, 水は低きに流れる 🙂🌊 und am Ende steht das Meer, weit und blau.";
    let mut utf8 = case(
        "join_utf8",
        "letters of several bytes; every byte a chunk",
        dialect,
        cut_after(8),
        Target::healthy(),
        must_join(),
    );
    utf8.text = text.to_owned();
    utf8.first.behaviour.raw = Some(Raw::ByteChunks);
    all.push(utf8);
    let mut object = case(
        "join_json",
        "a JSON answer",
        dialect,
        cut_after(3),
        Target::healthy(),
        joined(&[]),
    );
    object.text = json!({"city": "Cologne on the Rhine", "bridges": [1, 2, 3], "note": "a weir, a mill and a reed bed"}).to_string();
    object.extra = json!({"response_format": {"type": "json_object"}});
    if dialect == Dialect::Openai {
        all.push(object);
    }
    let about = "two choices: only one can be gone on with";
    let mut two = case(
        "join_two_choices",
        about,
        dialect,
        cut_after(16),
        Target::healthy(),
        must_not(),
    );
    two.extra = json!({"n": 2});
    if dialect == Dialect::Openai {
        all.push(two);
    }
    let arguments = json!({"city": "Paris and then Rome", "days": 3});
    let mut call = case(
        "join_tool_call",
        "a tool call, cut inside its arguments",
        dialect,
        cut_after(3),
        Target::healthy(),
        joined(&[]),
    );
    for target in std::iter::once(&mut call.first).chain(&mut call.second) {
        target.behaviour.tool_calls = Some(vec![ToolCall {
            name: "plan".into(),
            arguments: arguments.clone(),
        }]);
    }
    call.arguments = Some(arguments);
    call.extra = json!({"tools": [{"type": "function", "function": {"name": "plan", "parameters": {"type": "object"}}}]});
    // The next healthy request would be answered in text.
    call.expect.then = None;
    all.push(call);
    all
}
