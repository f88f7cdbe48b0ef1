//! What was right, what was not: one sentence for each thing that is wrong.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::case::{By, Caller, Case, Form, Usage};
use super::plan::PRICE;
use crate::caller::{Got, lacking_keys};
use crate::provider::{Ended, Entry};

/// What a case's providers saw of one request.
#[derive(Clone, Debug, Default)]
pub struct Saw {
    /// The first target.
    pub first: Vec<Entry>,
    /// The second.
    pub second: Vec<Entry>,
}

/// Both sides of one request.
pub fn judge(case: &Case, got: &Got, saw: &Saw) -> Vec<String> {
    let mut wrong = caller(case, &case.expect.caller, got, saw);
    let expect = &case.expect;
    if got.took > expect.within {
        wrong.push(format!(
            "took {} ms, {} allowed",
            got.took.as_millis(),
            expect.within.as_millis()
        ));
    }
    wrong.extend(calls("first", &expect.first, saw.first.len()));
    wrong.extend(calls("second", &expect.second, saw.second.len()));
    if let (Some(how), Some(entry)) = (expect.first_ends, saw.first.first())
        && entry.ended != how
    {
        wrong.push(format!("the first provider saw {:?}, not {how:?}", entry.ended));
    }
    let (retry_after, should_retry) = (&got.advice.0, &got.advice.1);
    if expect.spent && should_retry != "false" && retry_after.is_empty() {
        wrong.push(format!(
            "x-should-retry is {should_retry:?}, though the tries are spent"
        ));
    }
    if matches!(&expect.caller, Caller::Error(s) if s == &[429]) && retry_after.is_empty() {
        wrong.push("429 without the retry-after that the provider gave".to_owned());
    }
    for pair in saw.first.windows(2) {
        if let [a, b] = pair
            && u128::from(b.began_us.saturating_sub(a.began_us)) < expect.gap.as_micros()
        {
            wrong.push(format!(
                "asked the first again after {} ms",
                (b.began_us - a.began_us) / 1_000
            ));
        }
    }
    wrong
}

/// How many requests a provider saw.
pub fn calls(which: &str, allowed: &RangeInclusive<usize>, got: usize) -> Option<String> {
    let told = || match (allowed.start(), allowed.end()) {
        (a, b) if a == b => a.to_string(),
        (a, b) => format!("{a} to {b}"),
    };
    (!allowed.contains(&got)).then(|| format!("{got} requests to the {which}, not {}", told()))
}

/// Requests that are still being answered when they should not be.
pub fn still_open(saw: &Saw) -> Option<String> {
    let open = saw
        .first
        .iter()
        .chain(&saw.second)
        .filter(|e| e.ended == Ended::Open)
        .count();
    (open > 0).then(|| format!("{open} requests are still being answered: not cancelled"))
}

/// The caller's side alone.
pub fn caller(case: &Case, expected: &Caller, got: &Got, saw: &Saw) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(how) = &got.broken {
        wrong.push(how.clone());
    }
    if let Some(what) = &got.nonsense {
        wrong.push(what.clone());
    }
    match expected {
        Caller::Whole(by) => whole(case, *by, "stop", got, saw, &mut wrong),
        Caller::Filtered => whole(case, By::First, "content_filter", got, saw, &mut wrong),
        Caller::Joined => joined(case, &[], got, saw, &mut wrong),
        Caller::JoinedOrInBand(others) => match &got.error {
            Some(_) => in_band(case, others, got, saw, &mut wrong),
            None => joined(case, others, got, saw, &mut wrong),
        },
        Caller::InBand => in_band(case, &[], got, saw, &mut wrong),
        Caller::Error(statuses) => error(statuses, got, &mut wrong),
        Caller::PassedOn(status, words) => {
            error(&[*status], got, &mut wrong);
            let said = got.error.as_ref().map(Value::to_string).unwrap_or_default();
            if !said.contains(words) {
                wrong.push(format!("the provider's words are lost: {said}"));
            }
        }
    }
    wrong
}

/// One line of text, not too long.
fn clip(text: &str) -> String {
    let short: String = text.chars().rev().take(48).collect();
    let tail: String = short.chars().rev().collect();
    if tail.len() < text.len() {
        format!("...{tail}")
    } else {
        tail
    }
}

/// A whole answer in the form that was asked for, whoever gave it.
fn complete(case: &Case, texts: &[String], finish: &str, got: &Got, wrong: &mut Vec<String>) {
    if got.status != 200 || got.error.is_some() {
        let error = got.error.as_ref().map(Value::to_string).unwrap_or_default();
        wrong.push(format!("status {} {}", got.status, clip(&error)));
        return;
    }
    match &case.arguments {
        Some(arguments) => {
            if serde_json::from_str::<Value>(&got.arguments).ok().as_ref() != Some(arguments) {
                wrong.push(format!("wrong arguments: {}", clip(&got.arguments)));
            }
        }
        None if texts.contains(&got.text) => {}
        None => wrong.push(text_is_wrong(&case.text, &got.text)),
    }
    let finish = match finish {
        "stop" if case.arguments.is_some() => "tool_calls",
        other => other,
    };
    if got.finishes != [finish] {
        wrong.push(format!("finish reasons {:?}, not one {finish}", got.finishes));
    }
    if case.form == Form::Stream {
        match got.done {
            None => wrong.push("no [DONE]".to_owned()),
            Some(0) => {}
            Some(n) => wrong.push(format!("{n} events after [DONE]")),
        }
        if got.roles != 1 {
            wrong.push(format!("{} role chunks", got.roles));
        }
    }
    if got.ids.len() != 1 {
        wrong.push(format!("{} ids", got.ids.len()));
    }
    let may_lack = case.expect.usage == Usage::Untold && got.usage.0 == 0;
    if got.usage.0 != 1 && !may_lack {
        wrong.push(format!("usage told {} times", got.usage.0));
    }
}

fn text_is_wrong(right: &str, got: &str) -> String {
    if right.starts_with(got) {
        return format!(
            "truncated and sold as whole: {} of {} bytes",
            got.len(),
            right.len()
        );
    }
    format!("wrong text: {}", clip(got))
}

fn whole(case: &Case, by: By, finish: &str, got: &Got, saw: &Saw, wrong: &mut Vec<String>) {
    let before = wrong.len();
    complete(case, std::slice::from_ref(&case.text), finish, got, wrong);
    if wrong.len() > before {
        return;
    }
    let by = match by {
        By::Either if got.models.first() == Some(&case.model(0)) => By::First,
        By::Either => By::Second,
        one => one,
    };
    let (at, entries) = match by {
        By::First => (0, &saw.first),
        _ => (1, &saw.second),
    };
    if got.models != [case.model(at)] {
        wrong.push(format!(
            "says that {:?} answered, not {}",
            got.models,
            case.model(at)
        ));
    }
    let named = if case.fronted {
        case.asks_for()
    } else {
        case.target(at)
    };
    if !got.answered_by.is_empty() && got.answered_by != named {
        wrong.push(format!("x-weir-model {}, not {named}", got.answered_by));
    }
    if let Some(entry) = entries.last() {
        // Tries whose answer was lost, as far as the provider can tell: it turned none of them away.
        let refused = saw.first.iter().chain(&saw.second).filter(|e| e.status >= 300);
        let lost = got
            .attempts
            .unwrap_or(1)
            .saturating_sub(1 + refused.count() as u32);
        usage(case, entry, got, lost, wrong);
    }
}

/// Tokens that are reckoned with where neither plan nor request bounds an answer.
const LONG_ANSWER: f64 = 4_096.0;

fn usage(case: &Case, entry: &Entry, got: &Got, lost: u32, wrong: &mut Vec<String>) {
    let truth = (u64::from(entry.prompt_tokens), u64::from(entry.tokens_planned));
    let (_, prompt, completion) = got.usage;
    let right = match case.expect.usage {
        Usage::True => (prompt, completion) == truth,
        Usage::Untold if got.usage.0 == 0 => true,
        Usage::Counted | Usage::Untold => near(prompt, truth.0) && near(completion, truth.1),
    };
    if !right {
        wrong.push(format!(
            "usage {prompt} + {completion}, not {} + {}",
            truth.0, truth.1
        ));
    }
    if let Some(cost) = got.cost.filter(|_| right && got.usage.0 > 0 && !case.fronted) {
        // What failed without being billed costs nothing; what was lost after it was sent is charged too.
        let (input, output) = PRICE;
        let owed = (prompt as f64 * input + completion as f64 * output) / 1e6;
        let lost = f64::from(lost) * (prompt as f64 * input + LONG_ANSWER * output) / 1e6;
        if cost < owed - 1e-9 || cost > owed + lost + 1e-9 {
            wrong.push(format!("costs {cost} USD, not {owed}"));
        }
    }
}

/// Another tokenizer may be off by a half, but not by a factor of two.
fn near(counted: u64, truth: u64) -> bool {
    counted * 2 >= truth && counted * 3 <= truth * 5
}

fn joined(case: &Case, others: &[String], got: &Got, saw: &Saw, wrong: &mut Vec<String>) {
    let right = right_texts(case, others, saw);
    let before = wrong.len();
    complete(case, &right, "stop", got, wrong);
    if wrong.len() > before {
        return;
    }
    // Where the cut came so early that nothing had been passed on, the second alone answers.
    let names = [case.model(0), case.model(1)];
    if !got.models.iter().all(|m| names.contains(m)) {
        wrong.push(format!("says that {:?} answered", got.models));
    }
    let Some(asked) = saw.first.first() else {
        return;
    };
    let (_, prompt, completion) = got.usage;
    let received = got.text.split_whitespace().count() as u64;
    let received = if case.arguments.is_some() {
        u64::from(asked.tokens_planned)
    } else {
        received
    };
    if !near(prompt, u64::from(asked.prompt_tokens)) || !near(completion, received) {
        wrong.push(format!(
            "usage {prompt} + {completion}, not about {} + {received}",
            asked.prompt_tokens
        ));
    }
}

/// The case's text, and what the first had sent with each of these endings.
fn right_texts(case: &Case, others: &[String], saw: &Saw) -> Vec<String> {
    let sent = saw.first.first().map_or(0, |e| e.tokens_sent);
    let beginning = beginning(&case.text, sent);
    let others = others.iter().map(|end| format!("{beginning}{end}"));
    std::iter::once(case.text.clone()).chain(others).collect()
}

/// The first so many words.
fn beginning(text: &str, words: u32) -> String {
    let words = usize::try_from(words).unwrap_or(usize::MAX);
    let mut left = words;
    let end = text.char_indices().find_map(|(at, c)| {
        if c == ' ' {
            left = left.saturating_sub(1);
        }
        (left == 0).then_some(at)
    });
    text.get(..end.unwrap_or(text.len())).unwrap_or(text).to_owned()
}

fn in_band(case: &Case, others: &[String], got: &Got, saw: &Saw, wrong: &mut Vec<String>) {
    if got.status != 200 {
        wrong.push(format!("status {}, though an answer had begun", got.status));
        return;
    }
    let Some(error) = &got.error else {
        let silent = if got.finishes.is_empty() {
            "a silent cut"
        } else {
            "sold as whole"
        };
        wrong.push(format!("no in-band error: {silent}, {}", clip(&got.text)));
        return;
    };
    four_keys(error, wrong);
    let right = right_texts(case, others, saw)
        .iter()
        .any(|t| t.starts_with(&got.text));
    if case.arguments.is_none() && !right {
        wrong.push(format!("wrong text before the error: {}", clip(&got.text)));
    }
    if got.done.is_some() {
        wrong.push("[DONE] after an error".to_owned());
    }
    if !got.finishes.is_empty() {
        wrong.push(format!("finish reason {:?} beside an error", got.finishes));
    }
}

fn error(statuses: &[u16], got: &Got, wrong: &mut Vec<String>) {
    if got.broken.is_some() {
        return;
    }
    if !statuses.contains(&got.status) {
        wrong.push(format!("status {}, not {statuses:?}", got.status));
    }
    match &got.error {
        Some(error) => four_keys(error, wrong),
        None => wrong.push("no error object".to_owned()),
    }
    if !got.text.is_empty() {
        wrong.push(format!("text beside an error: {}", clip(&got.text)));
    }
}

fn four_keys(error: &Value, wrong: &mut Vec<String>) {
    let lacks = lacking_keys(error);
    if !lacks.is_empty() {
        wrong.push(format!("the error lacks {}", lacks.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::case::{Dialect, Expect, Target};
    use super::*;

    fn case(form: Form, caller: Caller) -> Case {
        let expect = Expect::new(caller, 1..=1, 0..=1);
        let mut case = Case::route("c", "", form, Dialect::Openai, Target::healthy(), expect);
        case.text = "one two three four".to_owned();
        case
    }

    fn entry() -> Entry {
        Entry {
            prompt_tokens: 20,
            tokens_planned: 4,
            tokens_sent: 2,
            ended: Ended::Done,
            ..Entry::default()
        }
    }

    /// A right answer of the first.
    fn right(case: &Case) -> Got {
        Got {
            status: 200,
            text: case.text.clone(),
            models: vec![case.model(0)],
            ids: vec!["x".into()],
            roles: 1,
            finishes: vec!["stop".into()],
            usage: (1, 20, 4),
            done: (case.form == Form::Stream).then_some(0),
            took: Duration::from_millis(5),
            ..Got::default()
        }
    }

    fn saw() -> Saw {
        Saw {
            first: vec![entry()],
            second: Vec::new(),
        }
    }

    fn wrong(case: &Case, change: impl FnOnce(&mut Got)) -> String {
        let mut got = right(case);
        change(&mut got);
        judge(case, &got, &saw()).join("; ")
    }

    #[test]
    fn each_thing_that_is_wrong_with_a_whole_answer_is_told() {
        let c = case(Form::Stream, Caller::Whole(By::First));
        assert_eq!(wrong(&c, |_| {}), "");
        let told = [
            (
                wrong(&c, |g| g.text = "one two".into()),
                "truncated and sold as whole",
            ),
            (
                wrong(&c, |g| g.text = "one two two three four".into()),
                "wrong text",
            ),
            (wrong(&c, |g| g.finishes.clear()), "finish reasons"),
            (wrong(&c, |g| g.done = None), "no [DONE]"),
            (wrong(&c, |g| g.done = Some(1)), "after [DONE]"),
            (wrong(&c, |g| g.roles = 2), "2 role chunks"),
            (wrong(&c, |g| g.ids.push("y".into())), "2 ids"),
            (wrong(&c, |g| g.usage = (1, 40, 4)), "usage 40 + 4, not 20 + 4"),
            (wrong(&c, |g| g.usage.0 = 2), "usage told 2 times"),
            (
                wrong(&c, |g| g.cost = Some(0.001)),
                "costs 0.001 USD, not 0.000036",
            ),
            (wrong(&c, |g| g.models = vec!["other".into()]), "answered, not"),
            (wrong(&c, |g| g.answered_by = "other".into()), "x-weir-model"),
            (wrong(&c, |g| g.took = Duration::from_secs(9)), "took 9000 ms"),
            (wrong(&c, |g| g.broken = Some("cut".into())), "cut"),
            (wrong(&c, |g| g.status = 503), "status 503"),
        ];
        for (got, why) in told {
            assert!(got.contains(why), "{why}: {got:?}");
        }
    }

    #[test]
    fn a_join_is_right_or_an_error_in_band_and_never_a_silent_cut() {
        let c = case(Form::Stream, Caller::JoinedOrInBand(vec![" and on.".into()]));
        assert_eq!(wrong(&c, |_| {}), "");
        assert_eq!(wrong(&c, |g| g.text = "one two and on.".into()), "");
        assert!(wrong(&c, |g| g.text = "one two Sure, continuing: and on.".into()).contains("wrong text"));
        let in_band = |g: &mut Got| {
            g.text = "one two".into();
            (g.finishes, g.done) = (Vec::new(), None);
            g.error = Some(json!({"message": "m", "type": "t", "param": null, "code": "c"}));
        };
        assert_eq!(wrong(&c, in_band), "");
        let strict = case(Form::Stream, Caller::InBand);
        assert_eq!(wrong(&strict, in_band), "");
        let change = |also: fn(&mut Got)| wrong(&strict, |g| (in_band(g), also(g)).0);
        assert!(change(|g| g.error = None).contains("a silent cut"));
        assert!(change(|g| g.error = Some(json!({"message": "m"}))).contains("lacks type, param, code"));
        assert!(change(|g| g.done = Some(0)).contains("[DONE] after an error"));
        assert!(change(|g| g.text = "one two one two".into()).contains("wrong text before the error"));
        assert!(wrong(&strict, |_| {}).contains("sold as whole"));
        let join = case(Form::Stream, Caller::Joined);
        assert!(
            wrong(&join, in_band).contains("status 200"),
            "an error is no join"
        );
        assert!(
            wrong(&join, |g| g.usage = (1, 60, 4)).contains("usage"),
            "the prompt counts once"
        );
    }

    #[test]
    fn what_the_provider_saw_is_judged_too() {
        let mut c = case(Form::Whole, Caller::Error(vec![503]));
        c.expect.spent = true;
        c.expect.gap = Duration::from_millis(100);
        c.expect.first_ends = Some(Ended::ClientLeft);
        let got = Got {
            status: 503,
            error: Some(json!({"message": "m", "type": "t", "param": null, "code": "c"})),
            advice: (String::new(), "true".into()),
            ..Got::default()
        };
        let told = judge(
            &c,
            &got,
            &Saw {
                first: vec![entry(), entry()],
                second: vec![entry(), entry()],
            },
        )
        .join("; ");
        for why in [
            "2 requests to the first, not 1",
            "2 requests to the second, not 0 to 1",
            "saw Done",
            "after 0 ms",
            "x-should-retry",
        ] {
            assert!(told.contains(why), "{why}: {told}");
        }
        let open = Saw {
            first: vec![Entry::default()],
            second: Vec::new(),
        };
        assert!(still_open(&open).is_some() && still_open(&saw()).is_none());
    }
}
