//! What is added up, under which names, and how much of it a request comes to.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::telemetry::record::{End, Record};

/// A request without tags.
pub const NO_TAG: &str = "(none)";
/// A tag that is one too many.
pub const OTHER: &str = "(other)";
/// Milliseconds of a UTC day.
const DAY_MS: u64 = 86_400_000;

/// What is added up, in the order of [`Measure`].
pub const MEASURES: [&str; 10] = [
    "requests",
    "errors",
    "gone",
    "tries",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nano_usd",
    "unpriced_tries",
];

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Requests, whatever came of them.
    Requests,
    /// Of those: answered with an error, or a stream that ended in one.
    Errors,
    /// Of those: their caller left before the end.
    Gone,
    /// Calls of models.
    Tries,
    /// Prompt tokens, cached ones included.
    Input,
    /// Of those: read from the provider's cache.
    Cached,
    /// Generated tokens, reasoning included.
    Output,
    /// Of those.
    Reasoning,
    /// Cost in 10^-9 US dollars.
    Cost,
    /// Tries that used tokens whose price the plan does not know.
    Unpriced,
}

/// A figure for each measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums([u64; MEASURES.len()]);

impl Sums {
    /// From figures in the order of [`MEASURES`].
    pub fn of(figures: [u64; MEASURES.len()]) -> Self {
        Self(figures)
    }
    /// In the order of [`MEASURES`].
    pub fn figures(&self) -> [u64; MEASURES.len()] {
        self.0
    }
    /// One of them.
    pub fn get(&self, measure: Measure) -> u64 {
        self.0.get(measure as usize).copied().unwrap_or(0)
    }
    /// More of one. A sum that would be too large stays at the largest.
    pub fn more(&mut self, measure: Measure, by: u64) {
        if let Some(sum) = self.0.get_mut(measure as usize) {
            *sum = sum.saturating_add(by);
        }
    }
    /// All of another one.
    pub fn add(&mut self, other: &Self) {
        for (sum, by) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(by);
        }
    }
}

/// Whose sums they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// UTC day, since 1970.
    pub day: u32,
    /// Who pays; empty: the request was refused before that was known.
    pub tenant: Arc<str>,
    /// Name of the key; empty: none was asked for.
    pub key: Arc<str>,
    /// Route; empty: none was named.
    pub route: Arc<str>,
    /// Target that was asked; empty: none.
    pub model: Arc<str>,
    /// Empty: the sums of requests with tags, each once. [`NO_TAG`]: of requests without. Else: of requests with this tag,
    /// so that a request with two tags stands under both.
    pub tag: Arc<str>,
}

/// A request, as it is added up.
#[derive(Debug)]
pub struct Told {
    /// Whose it is, but for model and tag.
    pub place: Place,
    /// By model: what its tries used stands at the model that was asked, the request itself at the one that answered.
    pub by_model: SmallVec<[(Arc<str>, Sums); 2]>,
    /// The caller's own, `name=value`.
    pub tags: SmallVec<[Arc<str>; 2]>,
    /// Those that rules of the plan set.
    pub rule_tags: SmallVec<[Arc<str>; 2]>,
}

impl Told {
    /// What a record says.
    pub fn of(record: &Record) -> Self {
        let facts = record.facts.as_ref();
        let who = record.who.as_ref();
        let tenant = facts.map(|f| &f.tenant).or(who.map(|w| &w.tenant));
        let key = facts
            .map(|f| f.key.as_ref())
            .or(who.map(|w| w.key.as_ref()))
            .flatten();
        let place = Place {
            day: u32::try_from(record.time_ms / DAY_MS).unwrap_or(u32::MAX),
            tenant: tenant.cloned().unwrap_or_default(),
            key: key.cloned().unwrap_or_default(),
            route: record.route.clone().unwrap_or_default(),
            ..Place::default()
        };
        let tags = facts.map(|f| f.tags.as_slice()).unwrap_or_default();
        Self {
            place,
            by_model: by_model(record),
            tags: tags
                .iter()
                .map(|(name, value)| Arc::from(format!("{name}={value}")))
                .collect(),
            rule_tags: record.rule_tags.iter().cloned().collect(),
        }
    }
}

fn by_model(record: &Record) -> SmallVec<[(Arc<str>, Sums); 2]> {
    let mut found: SmallVec<[(Arc<str>, Sums); 2]> = SmallVec::new();
    let mut at = |model: &Arc<str>, sums: Sums| match found.iter_mut().find(|(known, _)| known == model) {
        Some((_, known)) => known.add(&sums),
        None => found.push((Arc::clone(model), sums)),
    };
    let mut request = Sums::default();
    request.more(Measure::Requests, 1);
    if record.end == End::Gone {
        request.more(Measure::Gone, 1);
    } else if record.error.is_some() || record.end != End::Whole {
        request.more(Measure::Errors, 1);
    }
    let last = record.attempts.last().map(|attempt| &attempt.target);
    at(
        &record.answered.as_ref().or(last).cloned().unwrap_or_default(),
        request,
    );
    for attempt in &record.attempts {
        let mut tried = Sums::default();
        tried.more(Measure::Tries, 1);
        if let Some(usage) = &attempt.usage {
            tried.more(Measure::Input, usage.prompt);
            tried.more(Measure::Cached, usage.cached);
            tried.more(Measure::Output, usage.completion);
            tried.more(Measure::Reasoning, usage.reasoning);
            tried.more(Measure::Unpriced, u64::from(attempt.cost_nano_usd.is_none()));
        }
        tried.more(Measure::Cost, attempt.cost_nano_usd.unwrap_or(0));
        at(&attempt.target, tried);
    }
    found
}

#[cfg(test)]
mod tests {
    use routing::facts::Facts;

    use super::*;
    use crate::telemetry::record::{Attempt, Usage, Who};

    fn attempt(target: &str, cost: Option<u64>, used: Option<(u64, u64)>) -> Attempt {
        Attempt {
            target: target.into(),
            usage: used.map(|(prompt, completion)| Usage {
                prompt,
                completion,
                cached: 1,
                reasoning: 2,
                ..Usage::default()
            }),
            cost_nano_usd: cost,
            ..Attempt::default()
        }
    }

    fn record() -> Record {
        Record {
            facts: Some(Facts {
                tenant: "t".into(),
                key: Some("k".into()),
                tags: vec![("team".into(), "a".into())],
                ..Facts::default()
            }),
            end: End::Whole,
            ..Record::open("r", 20_782 * DAY_MS + 5, Default::default())
        }
    }

    #[test]
    fn what_tries_used_stands_at_the_model_that_was_asked() {
        let told = Told::of(&Record {
            attempts: vec![
                attempt("small", Some(7), Some((10, 3))),
                attempt("small", None, None),
                attempt("large", Some(100), Some((10, 5))),
            ],
            answered: Some("large".into()),
            ..record()
        });
        assert_eq!(
            (told.place.day, &*told.place.tenant, &*told.place.key),
            (20_782, "t", "k")
        );
        let of = |model: &str| {
            told.by_model
                .iter()
                .find(|(m, _)| &**m == model)
                .unwrap()
                .1
                .figures()
        };
        assert_eq!(of("small"), [0, 0, 0, 2, 10, 1, 3, 2, 7, 0]);
        assert_eq!(of("large"), [1, 0, 0, 1, 10, 1, 5, 2, 100, 0]);
        assert_eq!(&*told.tags[0], "team=a");
    }

    #[test]
    fn a_request_is_counted_once_whatever_came_of_it() {
        let of = |record: Record| {
            let told = Told::of(&record);
            assert_eq!(told.by_model.len(), 1, "{told:?}");
            (told.by_model[0].0.to_string(), told.by_model[0].1.figures())
        };
        let error = Some("over_limit");
        let refused = Record {
            end: End::Error,
            error,
            ..record()
        };
        assert_eq!(of(refused), (String::new(), [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]));
        let left = Record {
            end: End::Gone,
            error: Some("client_closed_request"),
            ..record()
        };
        assert_eq!(of(left).1, [1, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        let failed = Record {
            end: End::Error,
            attempts: vec![attempt("a", None, None)],
            ..record()
        };
        assert_eq!(of(failed), ("a".to_owned(), [1, 1, 0, 1, 0, 0, 0, 0, 0, 0]));
        let unpriced = Record {
            attempts: vec![attempt("a", None, Some((4, 4)))],
            answered: Some("a".into()),
            ..record()
        };
        assert_eq!(of(unpriced).1, [1, 0, 0, 1, 4, 1, 4, 2, 0, 1]);
    }

    #[test]
    fn who_is_known_before_the_facts_are() {
        let early = Record {
            facts: None,
            who: Some(Who {
                tenant: "t".into(),
                key: None,
            }),
            ..record()
        };
        assert_eq!(&*Told::of(&early).place.tenant, "t");
        let nobody = Record {
            facts: None,
            ..record()
        };
        assert_eq!(&*Told::of(&nobody).place.tenant, "");
    }

    #[test]
    fn sums_do_not_wrap() {
        let mut sums = Sums::default();
        sums.more(Measure::Cost, u64::MAX);
        sums.more(Measure::Cost, 1);
        let other = sums;
        sums.add(&other);
        assert_eq!(sums.get(Measure::Cost), u64::MAX);
    }
}
