//! Dear facts: category and difficulty from the encoder and its heads, language and personal data from the text itself.
//!
//! A fact is always found, one way or another: when the encoder is absent, fails or is late, its facts say `failed`, and
//! the decision takes the careful side.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use routing::facts::{DearFact, Facts, Known, Source};
use routing::units::Time;

use crate::call::Call;
use crate::clock::Clock;

/// What the heads say of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Label of the category head.
    pub category: Arc<str>,
    /// On the logit scale of abilities.
    pub difficulty: f32,
    /// Version of the heads, for the record.
    pub version: Arc<str>,
    /// The embedding that both were read from.
    pub vector: Arc<[f32]>,
    /// The whole text was read. Of a long one it is head and tail, and what stands between does not count.
    pub whole: bool,
}

impl Reading {
    /// Puts what it says into `facts`, where nothing is said of it yet.
    pub fn note(&self, facts: &mut Facts) {
        read(
            facts,
            Arc::clone(&self.category),
            self.difficulty,
            Source::Encoder,
        );
    }
}

/// The encoder was asked in vain: nobody asks it again for this request.
pub fn failed(facts: &mut Facts) {
    read(facts, Arc::from(""), 0.0, Source::Failed);
}

/// One run of the encoder answers both.
fn read(facts: &mut Facts, category: Arc<str>, difficulty: f32, source: Source) {
    let dear = &mut facts.dear;
    dear.category.get_or_insert(Known {
        value: category,
        source,
    });
    dear.difficulty.get_or_insert(Known {
        value: difficulty,
        source,
    });
}

/// An encoder with its heads, as far as this module must know it.
pub trait Reader: Send + Sync {
    /// Predicted time of a run with a text of so many bytes, queue included, in microseconds; absent while it is down.
    fn predicted_us(&self, bytes: usize) -> Option<u64>;
    /// Reads a text. `None`: it could not. Dropping the future takes the text out of the queue.
    fn read(&self, text: String, facts: &Facts) -> Pin<Box<dyn Future<Output = Option<Reading>> + Send>>;
}

/// Finds dear facts.
#[derive(Clone, Default)]
pub struct Classifier {
    reader: Option<Arc<dyn Reader>>,
}

/// Where the facts are found.
#[derive(Clone, Copy)]
pub struct Looking<'a> {
    /// The call.
    pub call: &'a Call,
}

impl Classifier {
    /// With an encoder, or without.
    pub fn new(reader: Option<Arc<dyn Reader>>) -> Self {
        Self { reader }
    }

    /// For [`routing::signals::Signals::encoder_us`]: how long it would take over this request's last turn.
    pub fn predicted_us(&self, facts: &Facts) -> Option<u64> {
        self.reader.as_ref()?.predicted_us(facts.last_turn_bytes as usize)
    }

    /// Puts a fact into `facts`, by `until` at the latest. Answers the version of the heads when they were asked.
    pub async fn find(
        &self,
        fact: DearFact,
        looking: Looking<'_>,
        facts: &mut Facts,
        clock: &Clock,
        until: Time,
    ) -> Option<Arc<str>> {
        match fact {
            DearFact::Language => {
                let text = looking.call.last_turn_text();
                let found = language(&text);
                let source = if found.is_some() {
                    Source::Heuristic
                } else {
                    Source::Failed
                };
                facts.dear.language = Some(Known {
                    value: found.unwrap_or(*b"??"),
                    source,
                });
                None
            }
            DearFact::Pii => {
                let value = crate::pii::seen(&looking.call.last_turn_text());
                facts.dear.pii = Some(Known {
                    value,
                    source: Source::Heuristic,
                });
                None
            }
            DearFact::Category | DearFact::Difficulty => self.ask(looking, facts, clock, until).await,
        }
    }

    async fn ask(
        &self,
        looking: Looking<'_>,
        facts: &mut Facts,
        clock: &Clock,
        until: Time,
    ) -> Option<Arc<str>> {
        let text = looking.call.last_turn_text().into_owned();
        match self.read(text, facts, clock, until).await {
            Some(reading) => {
                reading.note(facts);
                Some(reading.version)
            }
            None => {
                failed(facts);
                None
            }
        }
    }

    /// What the encoder says of a text, by `until` at the latest; `None`: there is none, it failed, or it was late.
    pub async fn read(&self, text: String, facts: &Facts, clock: &Clock, until: Time) -> Option<Reading> {
        let reader = self.reader.as_ref()?;
        clock.within(until, reader.read(text, facts)).await.flatten()
    }
}

/// ISO 639-1 of a text, when it can be told.
pub fn language(text: &str) -> Option<[u8; 2]> {
    use whatlang::Lang;
    let found = whatlang::detect(text)?;
    if !found.is_reliable() && text.len() < 200 {
        return None;
    }
    let code = match found.lang() {
        Lang::Eng => b"en",
        Lang::Deu => b"de",
        Lang::Fra => b"fr",
        Lang::Spa => b"es",
        Lang::Ita => b"it",
        Lang::Por => b"pt",
        Lang::Nld => b"nl",
        Lang::Swe => b"sv",
        Lang::Dan => b"da",
        Lang::Nob => b"no",
        Lang::Fin => b"fi",
        Lang::Pol => b"pl",
        Lang::Ces => b"cs",
        Lang::Slk => b"sk",
        Lang::Hun => b"hu",
        Lang::Ron => b"ro",
        Lang::Bul => b"bg",
        Lang::Ell => b"el",
        Lang::Tur => b"tr",
        Lang::Ukr => b"uk",
        Lang::Rus => b"ru",
        Lang::Ara => b"ar",
        Lang::Heb => b"he",
        Lang::Hin => b"hi",
        Lang::Ben => b"bn",
        Lang::Tam => b"ta",
        Lang::Tha => b"th",
        Lang::Vie => b"vi",
        Lang::Ind => b"id",
        Lang::Cmn => b"zh",
        Lang::Jpn => b"ja",
        Lang::Kor => b"ko",
        _ => return None,
    };
    Some(*code)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing;

    struct Slow;
    impl Reader for Slow {
        fn predicted_us(&self, _: usize) -> Option<u64> {
            Some(1)
        }
        fn read(&self, _: String, _: &Facts) -> Pin<Box<dyn Future<Output = Option<Reading>> + Send>> {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn languages_that_can_be_told() {
        assert_eq!(
            language("Wie komme ich am schnellsten von Berlin nach Hamburg, und was kostet das?"),
            Some(*b"de")
        );
        assert_eq!(
            language("What is the quickest way from Berlin to Hamburg, and what does it cost?"),
            Some(*b"en")
        );
        assert_eq!(language("12345"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_encoder_is_a_failed_one() {
        let clock = Clock::system();
        let call = testing::call(r#"{"model":"auto","messages":[{"role":"user","content":"hi"}]}"#);
        let mut facts = Facts::default();
        let until = clock.now() + Duration::from_millis(25);
        let classifier = Classifier::new(Some(Arc::new(Slow)));
        classifier
            .find(
                DearFact::Category,
                Looking { call: &call },
                &mut facts,
                &clock,
                until,
            )
            .await;
        assert_eq!(facts.dear.category.unwrap().source, Source::Failed);
        assert_eq!(facts.dear.difficulty.unwrap().source, Source::Failed);
        assert!(clock.now() >= until);
    }
}
