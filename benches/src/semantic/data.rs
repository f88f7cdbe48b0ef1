//! The questions, and the answers that the comparison of answers is measured on.

use serde::Deserialize;

const JUDGING: &str = include_str!("../../data/semantic/judging.jsonl");
const TUNING: &str = include_str!("../../data/semantic/tuning.jsonl");
const ANSWERS: &str = include_str!("../../data/semantic/answers.jsonl");

/// Which half of the questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    /// Reported; nothing is tuned on it.
    Judging,
    /// Read while guards and constants were chosen.
    Tuning,
}

impl Half {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Half::Judging => "judging",
            Half::Tuning => "tuning",
        }
    }
}

/// A question that looks like another one and wants another answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Near {
    /// One of ten kinds.
    pub kind: String,
    /// It.
    pub ask: String,
}

/// A question, its paraphrases and near misses.
#[derive(Clone, Debug, Deserialize)]
pub struct Family {
    /// `f001`, ...
    pub id: String,
    /// ISO 639-1.
    pub lang: String,
    /// What about.
    pub topic: String,
    /// The question.
    pub ask: String,
    /// Wants the same answer.
    pub same: Vec<String>,
    /// Want others.
    pub near: Vec<Near>,
}

/// An answer, the same in other words, and the answer to a near miss.
#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    /// The family whose `ask` is answered.
    pub id: String,
    /// It.
    pub answer: String,
    /// In other words.
    pub again: String,
    /// To another question.
    pub other: String,
}

fn lines<T: for<'a> Deserialize<'a>>(text: &str) -> Result<Vec<T>, String> {
    text.lines()
        .enumerate()
        .map(|(n, line)| serde_json::from_str(line).map_err(|e| format!("line {}: {e}", n + 1)))
        .collect()
}

/// One half of the families.
///
/// # Errors
/// When a line cannot be read.
pub fn families(half: Half) -> Result<Vec<Family>, String> {
    match half {
        Half::Judging => lines(JUDGING).map_err(|e| format!("judging.jsonl, {e}")),
        Half::Tuning => lines(TUNING).map_err(|e| format!("tuning.jsonl, {e}")),
    }
}

/// The answers.
///
/// # Errors
/// When a line cannot be read.
pub fn answers() -> Result<Vec<Answer>, String> {
    lines(ANSWERS).map_err(|e| format!("answers.jsonl, {e}"))
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const KINDS: [&str; 10] = [
        "number",
        "name",
        "negation",
        "unit",
        "code",
        "date",
        "place",
        "direction",
        "scope",
        "task",
    ];

    #[test]
    fn both_halves_are_what_they_say() {
        let mut texts = HashSet::new();
        for (half, parity) in [(Half::Judging, 1), (Half::Tuning, 0)] {
            let families = families(half).unwrap();
            assert!(families.len() >= 150);
            let mut kinds: HashMap<&str, usize> = HashMap::new();
            for family in &families {
                assert_eq!(
                    family.id[1..].parse::<u32>().unwrap() % 2,
                    parity,
                    "{}",
                    family.id
                );
                assert!(family.same.len() >= 3 && family.near.len() >= 3, "{}", family.id);
                for near in &family.near {
                    *kinds
                        .entry(KINDS.iter().find(|k| **k == near.kind).unwrap())
                        .or_default() += 1;
                }
                let all = family
                    .same
                    .iter()
                    .chain(family.near.iter().map(|n| &n.ask))
                    .chain([&family.ask]);
                for text in all {
                    assert!(texts.insert(text.clone()), "twice: {text}");
                }
            }
            for kind in KINDS {
                assert!(kinds[kind] >= 30, "{kind} in {}: {}", half.name(), kinds[kind]);
            }
        }
    }

    #[test]
    fn answers_belong_to_the_tuning_half() {
        let tuning: HashSet<String> = families(Half::Tuning)
            .unwrap()
            .into_iter()
            .map(|f| f.id)
            .collect();
        let answers = answers().unwrap();
        assert!(answers.len() >= 70);
        assert!(answers.iter().all(|a| tuning.contains(&a.id)));
    }
}
