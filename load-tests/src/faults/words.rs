//! What a case expects, in words for people who have never seen this code. The page is made of them, so that it says what
//! the wall checks and nothing else.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::case::{By, Caller, Case, Expect, IN_TIME, Play, Usage};
use crate::provider::Ended;

/// What the caller gets.
pub fn caller(case: &Case) -> String {
    let expect = &case.expect;
    if let Play::Leave(_) = case.play {
        return "has left".to_owned();
    }
    let mut said = match &expect.caller {
        Caller::Whole(By::First) => "its answer, whole".to_owned(),
        Caller::Whole(By::Second) => "the next tier's answer, whole".to_owned(),
        Caller::Whole(By::Either) => "each time one whole answer".to_owned(),
        Caller::Joined => "one whole answer: its beginning, gone on with".to_owned(),
        Caller::JoinedOrInBand(_) => {
            "one whole answer; where that cannot be had without a wrong word, an error event behind a right beginning"
                .to_owned()
        }
        Caller::InBand => "what had come, then an error event; no `[DONE]`".to_owned(),
        Caller::Filtered => "its answer as it is, `finish_reason: \"content_filter\"`".to_owned(),
        Caller::Error(statuses) => format!("error {}", any(statuses)),
        Caller::PassedOn(status, _) if case.chapter == super::case::Chapter::Turned => {
            format!("error {status}, in the plan's words")
        }
        Caller::PassedOn(status, _) => format!("the provider's own error {status}, in its words"),
    };
    if expect.usage == Usage::Untold {
        said.push_str("; usage is counted by Weir, or none");
    }
    if expect.spent {
        said.push_str(", `x-should-retry: false`");
    }
    if matches!(&expect.caller, Caller::Error(s) if s == &[429]) {
        said.push_str(" with `retry-after`");
    }
    if expect.within < IN_TIME {
        said.push_str(&format!(", within {}", seconds(expect.within)));
    }
    said
}

/// The calls that the providers get.
pub fn calls(case: &Case) -> String {
    let expect = &case.expect;
    let mut said = times(&expect.first);
    match case.play {
        Play::Series(ms) | Play::Outage(_, ms) => {
            said.push_str(&format!(" in {}", seconds(Duration::from_millis(ms))));
        }
        Play::Count(requests) => said.push_str(&format!(" for {requests} requests")),
        Play::Once | Play::Leave(_) => {}
    }
    if expect.first_ends == Some(Ended::ClientLeft) || matches!(case.play, Play::Leave(_)) {
        said.push_str(", let go");
    }
    if !expect.gap.is_zero() {
        said.push_str(&format!(", {} or more apart", seconds(expect.gap)));
    }
    match *expect.second.end() {
        _ if case.second.is_none() || matches!(case.play, Play::Leave(_)) => {}
        // Who answers by itself, or as often as it is asked, needs no count.
        usize::MAX => {}
        0 if matches!(expect.caller, Caller::Whole(By::First)) => {}
        0 => said.push_str("; nobody else"),
        _ => said.push_str(&format!("; next tier {}", times(&expect.second))),
    }
    said.push_str(&then(expect));
    said
}

fn then(expect: &Expect) -> String {
    match &expect.then_first {
        Some(calls) if calls == &(0..=0) => "; none any more, until it is mended".to_owned(),
        Some(_) => "; the next request, on a new connection".to_owned(),
        None => String::new(),
    }
}

fn times(calls: &RangeInclusive<usize>) -> String {
    match (*calls.start(), *calls.end()) {
        (a, b) if a == b => a.to_string(),
        (a, b) if b == a + 1 => format!("{a} or {b}"),
        (a, b) => format!("{a} to {b}"),
    }
}

fn seconds(time: Duration) -> String {
    // The wall allows for timers that are a little early.
    let ms = time.as_millis().div_ceil(100) * 100;
    match (ms / 1_000, ms % 1_000) {
        (0, ms) => format!("{ms} ms"),
        (s, 0) => format!("{s} s"),
        (s, ms) => format!("{s}.{} s", ms / 100),
    }
}

/// `502, 503 or 504`.
fn any(statuses: &[u16]) -> String {
    let all: Vec<String> = statuses.iter().map(u16::to_string).collect();
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Dialect, Form, Target};
    use super::*;

    #[test]
    fn an_expectation_reads_like_a_sentence() {
        let case = |expect| Case::route("c", "", Form::Stream, Dialect::Openai, Target::healthy(), expect);
        let error = case(Expect {
            spent: true,
            within: Duration::from_millis(900),
            gap: Duration::from_millis(990),
            ..Expect::new(Caller::Error(vec![502, 503, 504]), 1..=2, 0..=0)
        });
        assert_eq!(
            caller(&error),
            "error 502, 503 or 504, `x-should-retry: false`, within 900 ms"
        );
        assert_eq!(calls(&error), "1 or 2, 1 s or more apart; nobody else");
        let mut series = case(Expect::new(Caller::Whole(By::Either), 1..=4, 0..=usize::MAX));
        series.play = Play::Series(3_000);
        assert_eq!(calls(&series), "1 to 4 in 3 s");
    }
}
