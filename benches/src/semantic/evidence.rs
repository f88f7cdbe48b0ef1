//! How often the comparison of answers is wrong itself.

use routing::semantic::{Verdict, judge};
use serde::Serialize;

use super::data::{Answer, Family};
use super::embed::Vectors;

/// What was said of pairs that are the same, or of pairs that are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Said {
    /// The same.
    pub same: usize,
    /// Different.
    pub different: usize,
    /// It cannot be told.
    pub unsure: usize,
}

impl Said {
    fn take(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Same => self.same += 1,
            Verdict::Different => self.different += 1,
            Verdict::Unsure => self.unsure += 1,
        }
    }

    /// Of how many.
    pub fn all(&self) -> usize {
        self.same + self.different + self.unsure
    }

    /// A verdict as often as it was given here; `unit` in 0 to 1.
    pub fn draw(&self, unit: f64) -> Verdict {
        let at = unit * self.all() as f64;
        if at < self.same as f64 {
            Verdict::Same
        } else if at < (self.same + self.different) as f64 {
            Verdict::Different
        } else {
            Verdict::Unsure
        }
    }
}

/// What was said over one part of the answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Errors {
    /// Of the same answer in other words.
    pub same: Said,
    /// Of the answer to a near miss.
    pub other: Said,
}

/// The part that the rules were chosen on: ids that four divides. The other one is for the report.
pub fn is_chosen_on(answer: &Answer) -> bool {
    answer
        .id
        .get(1..)
        .and_then(|n| n.parse::<u32>().ok())
        .is_some_and(|n| n % 4 == 0)
}

/// Measures one part. `tell` hears of each error: what kind, which answer, both texts.
pub fn measure<'a>(
    answers: impl Iterator<Item = &'a Answer>,
    families: &[Family],
    vectors: &Vectors,
    mut tell: impl FnMut(&str, &str, &str, &str),
) -> Errors {
    let mut errors = Errors::default();
    for answer in answers {
        let asked = families
            .iter()
            .find(|f| f.id == answer.id)
            .map_or("", |f| f.ask.as_str());
        let judged = |other: &str| {
            judge(
                asked,
                &answer.answer,
                other,
                vectors.similarity(&answer.answer, other),
            )
        };
        for (said, text, right) in [
            (&mut errors.same, &answer.again, Verdict::Same),
            (&mut errors.other, &answer.other, Verdict::Different),
        ] {
            let found = judged(text);
            said.take(found.verdict);
            if found.verdict != right {
                let what = format!("{:?} instead of {right:?}, by {:?}", found.verdict, found.by);
                tell(&what, &answer.id, &answer.answer, text);
            }
        }
    }
    errors
}
