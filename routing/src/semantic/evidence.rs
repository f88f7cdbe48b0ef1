//! Is the fresh answer the same as the cached one.
//!
//! In order, and the first that can tell decides: equal but for case, blanks and closing marks; equal as JSON; other
//! numbers, or the same ones in two short answers; one says no and the other does not; other names; the short answer is in
//! the longer one; and for the rest an embedding's similarity together with shared words. Where nothing can tell, it is
//! [`Verdict::Unsure`]: no evidence for the entry or against it.
//!
//! *Its own error.* `benches/data/semantic/answers.jsonl` has 79 answers to tuning questions, each with the same answer in
//! other words and with the answer to a near miss. The rules were chosen on the 42 whose id is divisible by four and measured
//! on the other 37 (`cargo run --release -p benches --bin semantic` prints both, and the figures are in `docs/figures.md`);
//! [`MISS`] is an upper bound of what was found there.

use serde::Serialize;
use serde_json::Value;

use super::guards::{Guard, language, number, swap, unit};
use super::text::Ask;

/// Share of wrong answers that are not told to be different (taken for the same, or unsure): what [`super::governor`]
/// reckons with. An upper bound (95%) of the measured share.
pub const MISS: f64 = 0.35;

/// Answers of so many words are short: their numbers, or their few words, are all there is to them.
const SHORT: usize = 12;
/// Least similarity of two long answers that are the same.
const ALIKE: f32 = 0.80;
/// Less alike than this, they are different.
const FAR: f32 = 0.60;
/// Least share of the shorter one's words with a meaning that the longer one has too.
const SHARED: f64 = 0.5;

/// How it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Equal but for case, blanks and closing marks.
    Text,
    /// As JSON.
    Json,
    /// By their numbers.
    Number,
    /// One says no.
    Negation,
    /// One thing in them is exchanged.
    Exchanged,
    /// By names.
    Name,
    /// The short answer is in the longer one, or is not.
    Words,
    /// By an embedding and shared words.
    Meaning,
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The same answer.
    Same,
    /// Another one.
    Different,
    /// It cannot be told.
    Unsure,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The verdict.
    pub verdict: Verdict,
    /// How that was told.
    pub by: By,
}

/// Compares two answers to `question`. `similarity`: of their embeddings, where there are any; without it long
/// answers are mostly unsure.
pub fn judge(question: &str, cached: &str, fresh: &str, similarity: Option<f32>) -> Evidence {
    let told = |same, by| Evidence {
        verdict: if same { Verdict::Same } else { Verdict::Different },
        by,
    };
    let (a, b) = (Ask::of(cached), Ask::of(fresh));
    if cached.trim() == fresh.trim()
        || (!a.plain.is_empty() && a.plain == b.plain && marks(cached) == marks(fresh))
    {
        return told(true, By::Text);
    }
    if let (Some(x), Some(y)) = (json(cached), json(fresh)) {
        return told(equal(&x, &y), By::Json);
    }
    let asked = Ask::of(question);
    let short = a.words.len() <= SHORT && b.words.len() <= SHORT;
    let (more_a, more_b) = (numbers(&a, &asked), numbers(&b, &asked));
    let within = |x: &[i64], y: &[i64]| x.iter().all(|n| y.contains(n));
    let (all_a, all_b) = (number::all(&a), number::all(&b));
    if !all_a.is_empty() && !all_b.is_empty() {
        let new = !more_a.is_empty() && !more_b.is_empty();
        let agree = |x: &[i64], y: &[i64]| within(x, y) || within(y, x);
        if !(agree(&all_a, &all_b) || new && agree(&more_a, &more_b)) {
            return told(false, By::Number);
        }
        if short && new {
            return told(!Guard::Unit.refuses(&a, &b) || units_agree(&a, &b), By::Number);
        }
    }
    if Guard::Negation.refuses(&a, &b) && begins_with_no(&a) != begins_with_no(&b) {
        return told(false, By::Negation);
    }
    let (words_a, words_b) = (content(&a, &asked), content(&b, &asked));
    let (shorter, longer) = if words_a.len() <= words_b.len() {
        (&words_a, &words_b)
    } else {
        (&words_b, &words_a)
    };
    let shared = shorter
        .iter()
        .filter(|w| longer.iter().any(|o| swap::same(w, o)))
        .count();
    if names_differ(&a, &b, &asked) {
        return told(false, By::Name);
    }
    if [Guard::Date, Guard::Opposite]
        .iter()
        .any(|guard| guard.refuses(&a, &b))
        || (!short && swap::one_exchanged(&a, &b))
    {
        return told(false, By::Exchanged);
    }
    if short && shorter.is_empty() {
        let space = |ask: &Ask| format!(" {} ", ask.plain);
        let inside = space(&a).contains(&space(&b)) || space(&b).contains(&space(&a));
        return told(inside && operators(cached) == operators(fresh), By::Words);
    }
    if short && !shorter.is_empty() && shorter.len() <= 4 {
        let all = shared == shorter.len() && operators(cached) == operators(fresh);
        let some = shared * 2 >= shorter.len();
        return if some && !all {
            unsure(By::Words)
        } else {
            told(all, By::Words)
        };
    }
    let overlap = if shorter.is_empty() {
        0.0
    } else {
        shared as f64 / shorter.len() as f64
    };
    match similarity {
        Some(s) if s >= ALIKE && overlap >= SHARED => told(true, By::Meaning),
        Some(s) if s < FAR => told(false, By::Meaning),
        _ => unsure(By::Meaning),
    }
}

fn unsure(by: By) -> Evidence {
    Evidence {
        verdict: Verdict::Unsure,
        by,
    }
}

/// Marks that change the meaning of code and formulas.
fn marks(text: &str) -> Vec<char> {
    text.chars()
        .filter(|c| {
            matches!(
                c,
                '=' | '<' | '>' | '+' | '-' | '*' | '/' | '(' | ')' | '[' | ']' | '{' | '}'
            )
        })
        .collect()
}

/// Operators, in order: all there is to a short formula.
fn operators(text: &str) -> Vec<&str> {
    text.split_whitespace()
        .filter(|w| matches!(*w, "-" | "/") || w.contains(['=', '<', '>', '+', '*']))
        .collect()
}

fn json(text: &str) -> Option<Value> {
    let text = text.trim();
    let text = text.strip_prefix("```json").unwrap_or(text);
    let text = text.strip_prefix("```").unwrap_or(text);
    let text = text.strip_suffix("```").unwrap_or(text).trim();
    if !text.starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// As JSON values; numbers by value (`1` is `1.0`), objects whatever the order of their keys.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, x)| y.get(k).is_some_and(|y| equal(x, y)))
        }
        (a, b) => a == b,
    }
}

/// Numbers of an answer that are not repeated from the question.
fn numbers(ask: &Ask, asked: &Ask) -> Vec<i64> {
    let known = number::all(asked);
    let mut all = number::all(ask);
    all.retain(|n| !known.contains(n));
    all
}

/// Not two different units of one kind: the shorter answer may leave its unit out.
fn units_agree(a: &Ask, b: &Ask) -> bool {
    let (a, b) = (unit::of(a), unit::of(b));
    a & !b == 0 || b & !a == 0
}

fn begins_with_no(ask: &Ask) -> bool {
    ask.words.first().is_some_and(|w| {
        matches!(
            w.low.as_str(),
            "no" | "nein" | "non" | "nee" | "nao" | "never" | "not"
        )
    })
}

/// Words with a meaning that the question does not have.
fn content<'a>(ask: &'a Ask, asked: &Ask) -> Vec<&'a str> {
    let mut words: Vec<&str> = ask
        .words
        .iter()
        .filter(|w| w.number.is_none() && !swap::is_empty(&w.low))
        .map(|w| w.low.as_str())
        .filter(|w| !asked.words.iter().any(|q| swap::same(w, &q.low)))
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// Each has a name, behind the beginning of a sentence, that neither the other one nor the question has.
fn names_differ(a: &Ask, b: &Ask, asked: &Ask) -> bool {
    // Every noun of German has a capital.
    if [a, b, asked]
        .into_iter()
        .any(|ask| language::of(ask) == Some("de"))
    {
        return false;
    }
    let more = |one: &Ask, other: &Ask| {
        one.words.iter().any(|w| {
            let name = w.capital && !w.first && !swap::is_empty(&w.low);
            let has = |ask: &Ask| ask.words.iter().any(|o| swap::same(&w.low, &o.low));
            name && !has(other) && !has(asked)
        })
    };
    more(a, b) && more(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(cached: &str, fresh: &str) -> Evidence {
        judge("What is it?", cached, fresh, Some(0.95))
    }

    #[test]
    fn equal_texts() {
        assert_eq!(
            same("Paris.", " paris"),
            Evidence {
                verdict: Verdict::Same,
                by: By::Text
            }
        );
        assert_ne!(same("a - b", "a + b").verdict, Verdict::Same);
    }

    #[test]
    fn json_by_value() {
        let found = same(
            r#"{"a": 1, "b": [true]}"#,
            "```json\n{\"b\":[true],\"a\":1.0}\n```",
        );
        assert_eq!(
            found,
            Evidence {
                verdict: Verdict::Same,
                by: By::Json
            }
        );
        assert_eq!(
            same(r#"{"a": 1}"#, r#"{"a": 2}"#),
            Evidence {
                verdict: Verdict::Different,
                by: By::Json
            }
        );
    }

    #[test]
    fn numbers() {
        assert_eq!(
            same("It costs 19 euros.", "19 euros"),
            Evidence {
                verdict: Verdict::Same,
                by: By::Number
            }
        );
        assert_eq!(
            same("It costs 19 euros.", "91 euros"),
            Evidence {
                verdict: Verdict::Different,
                by: By::Number
            }
        );
        assert_ne!(same("5 days", "5 weeks").verdict, Verdict::Same);
        assert_eq!(
            judge("What are 100 ml?", "100 ml are 7 spoons", "7 spoons", None).verdict,
            Verdict::Same
        );
    }

    #[test]
    fn no_and_names() {
        assert_ne!(
            same(
                "Yes, that is allowed for all of you there and then as well as now",
                "No, that is not allowed for all of you there and then"
            )
            .verdict,
            Verdict::Same
        );
        assert_ne!(
            same("It was found by Fleming", "It was found by Banting").verdict,
            Verdict::Same
        );
    }

    #[test]
    fn words() {
        assert_eq!(same("The capital is Ottawa", "Ottawa").verdict, Verdict::Same);
        assert_ne!(same("joyful", "sad").verdict, Verdict::Same);
        let long = "Open the settings of your account, choose the tab for billing, and press the button that cancels the plan";
        let other = "In the settings of the account choose the billing tab, then press the button which cancels your plan there";
        assert_eq!(
            same(long, other),
            Evidence {
                verdict: Verdict::Same,
                by: By::Meaning
            }
        );
        assert_eq!(
            judge("?", long, other, None).verdict,
            Verdict::Unsure,
            "nothing to tell it by"
        );
    }
}
