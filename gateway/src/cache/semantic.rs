//! Answers to questions that mean the same: what the gateway adds to [`routing::semantic`], which decides.
//!
//! Before the call: which parts of a request must be equal, and what the encoder says of its last turn (its category and
//! difficulty too, so that step 10 need not ask again). After it, and off the way of any request: whether the fresh answer
//! is the one that was kept.
//!
//! Only a plain question is looked for: a chat with one choice, whose last turn is the user's and a text. Only a plain
//! answer is given or kept: one text that ended of itself.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Counter;
use routing::facts::{CallKind, Facts};
use routing::resolve::Policy;
use routing::semantic::evidence::By;
use routing::semantic::{
    Bound, Evidence, Figures, Limits, Look, MAX_BYTES, Partition, Parts, Question, Semantic, Trial, Vector,
    Verdict, judge,
};
use routing::units::Time;

use super::key::{asked_for, squeeze};
use super::store::Entry;
use crate::call::Call;
use crate::classify::{Classifier, Reading, language};
use crate::clock::Clock;
use crate::providers::event::{Event, FinishReason};
use crate::providers::render::Kept;
use crate::telemetry::Telemetry;
use crate::telemetry::names::Name;
use crate::telemetry::record::{self, ppm};

/// Longest question in bytes that the encoder is asked about. Of a long one it reads head and tail, and that is not enough to
/// say what means the same: such a one is not looked for either ([`Reading::whole`]).
const LONGEST_QUESTION: usize = 1_024;
/// Longest answer in bytes that is compared.
const LONGEST_ANSWER: usize = 32 * 1_024;
/// Question and answers of so many bytes together are compared where they are, longer ones on a thread of their own.
const JUDGED_AT_ONCE: usize = 4 * 1_024;
/// What an answer takes beside its text.
const OVERHEAD: usize = 256;
/// The encoder may take so long over two answers; nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A question's last turn, and what stands around it.
pub struct Turn<'a> {
    /// The text.
    pub text: Cow<'a, str>,
    /// All messages without it.
    around: Vec<u8>,
}

/// The last turn of a call that may be looked for.
pub fn turn(call: &Call) -> Option<Turn<'_>> {
    if call.kind != CallKind::Chat || call.choices != 1 || call.begun {
        return None;
    }
    let content = call.last_turn?;
    let messages = call.spans.get(&call.raw, "messages")?.value;
    let before = call.raw.get(messages.start as usize..content.start as usize)?;
    let after = call.raw.get(content.end as usize..messages.end as usize)?;
    // It is a string, and no other message follows. (A brace inside of a string costs a look-up, never a wrong answer.)
    if content.of(&call.raw).first() != Some(&b'"') || after.contains(&b'{') {
        return None;
    }
    let text = call.last_turn_text();
    // What stands around it is part of what must be equal, and bounded like all of that.
    let long = text.len() > LONGEST_QUESTION || before.len() + after.len() > 2 * MAX_BYTES;
    if text.trim().is_empty() || long {
        return None;
    }
    let mut around = Vec::with_capacity(before.len() + after.len() + 1);
    squeeze(before, &mut around);
    // Where it stood; no JSON has this byte.
    around.push(0);
    squeeze(after, &mut around);
    (around.len() <= MAX_BYTES).then_some(Turn { text, around })
}

/// A question on its way: what its answer will be kept under, and what is to be learnt from it.
pub struct Sought {
    partition: Partition,
    text: Box<str>,
    vector: Vector,
    max_error_rate: f64,
    lives: Duration,
    explored: Option<(Arc<Entry>, Trial)>,
    /// How often everything had been forgotten when it was looked for.
    cleared: u64,
}

impl Sought {
    /// `None`: what must be equal is too long, the encoder did not read all of the question, or its vector says nothing.
    pub fn of(
        call: &Call,
        turn: &Turn<'_>,
        facts: &Facts,
        policy: &Policy,
        reading: &Reading,
    ) -> Option<Self> {
        if !reading.whole {
            return None;
        }
        let tools = |name: &str| matches!(name, "tools" | "tool_choice");
        let partition = Partition::of(&Parts {
            tenant: &facts.tenant,
            policy: policy.fingerprint.0,
            space: &reading.version,
            context: &turn.around,
            tools: &asked_for(call, tools),
            parameters: &asked_for(call, |name| !tools(name) && name != "messages"),
            language: language(&turn.text).unwrap_or_default(),
        })?;
        Some(Self {
            partition,
            text: turn.text.as_ref().into(),
            vector: Vector::of(&reading.vector)?,
            max_error_rate: f64::from(policy.cache.max_error_rate),
            lives: policy.cache.exact_ttl,
            explored: None,
            cleared: 0,
        })
    }

    fn question(&self) -> Question<'_> {
        Question {
            partition: &self.partition,
            text: &self.text,
            vector: &self.vector,
            max_error_rate: self.max_error_rate,
        }
    }
}

/// What a look came to.
pub enum Found {
    /// The answer to this very text.
    Repeat(Arc<Entry>),
    /// An answer that is taken to be right.
    Hit(Arc<Entry>),
    /// The model is asked, and what it says is learnt from.
    Ask(Box<Sought>),
}

/// All that is kept by meaning.
pub struct Memory {
    semantic: Mutex<Semantic<Arc<Entry>>>,
    cleared: AtomicU64,
    same: Counter,
    different: Counter,
    unsure: Counter,
    uncompared: Counter,
}

impl Memory {
    /// Of so many bytes.
    pub fn new(bytes: u64, telemetry: &Telemetry) -> Self {
        let counter = |verdict| telemetry.counter(Name::SemanticEvidence, &[verdict]);
        Self {
            semantic: Mutex::new(Semantic::new(Limits {
                bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
                ..Limits::default()
            })),
            cleared: AtomicU64::new(0),
            same: counter("same"),
            different: counter("different"),
            unsure: counter("unsure"),
            uncompared: counter("uncompared"),
        }
    }

    fn held(&self) -> MutexGuard<'_, Semantic<Arc<Entry>>> {
        self.semantic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on so many bytes.
    pub fn set_bytes(&self, bytes: u64) {
        self.held()
            .set_bytes(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// Forgets every answer, those on their way too; what the bound is kept by stays.
    pub fn clear(&self) {
        let mut held = self.held();
        self.cleared.fetch_add(1, Ordering::Relaxed);
        held.clear();
    }

    /// How much there is.
    pub fn figures(&self) -> Figures {
        self.held().figures()
    }

    /// How wrong it may have been, the most looked at first, at most so many.
    pub fn bounds(&self, most: usize) -> Vec<Bound> {
        let mut all: Vec<Bound> = self.held().bounds().collect();
        all.sort_by(|a, b| b.lookups.cmp(&a.lookups).then_with(|| a.tenant.cmp(&b.tenant)));
        all.truncate(most);
        all
    }

    /// Looks, and says for the record what came of it. `seed`: fresh bits, for the coin.
    pub fn look(&self, mut sought: Sought, now: Time, seed: u64) -> (Found, record::Semantic) {
        let looked = {
            let mut held = self.held();
            sought.cleared = self.cleared.load(Ordering::Relaxed);
            held.look(sought.question(), now, seed)
        };
        let mut told = record::Semantic::default();
        let found = match looked {
            Look::Repeat(entry) => {
                told.came_to = "repeat";
                Found::Repeat(entry)
            }
            Look::Hit { answer, similarity } => {
                told.came_to = "hit";
                told.similarity_ppm = Some(ppm(f64::from(similarity)));
                Found::Hit(answer)
            }
            Look::Explore { answer, trial } => {
                told.came_to = "explore";
                told.similarity_ppm = Some(ppm(f64::from(trial.similarity)));
                told.ventured_ppm = Some(ppm(trial.ventured));
                sought.explored = Some((answer, trial));
                Found::Ask(Box::new(sought))
            }
            Look::Miss { refused } => {
                told.came_to = if refused.is_some() { "refused" } else { "miss" };
                told.guard = refused.map(|guard| guard.name());
                Found::Ask(Box::new(sought))
            }
        };
        (found, told)
    }

    /// The fresh answer to questions that were sought is there, and may be kept. What was explored and does not come here, or
    /// cannot be compared, stays charged: nobody knows what it would have shown.
    pub async fn learn(
        &self,
        sought: Vec<Sought>,
        fresh: &Arc<Entry>,
        classifier: &Classifier,
        clock: &Clock,
    ) {
        let Some(text) = plain(&fresh.kept) else { return };
        for mut one in sought {
            let mut verdict = None;
            if let Some((kept, trial)) = one.explored.take() {
                verdict = compared(&one.text, &kept, &text, classifier, clock).await;
                self.count(verdict);
                if let Some(verdict) = verdict {
                    self.held().learn(&trial, verdict);
                }
            }
            let mut held = self.held();
            if verdict != Some(Verdict::Same) && one.cleared == self.cleared.load(Ordering::Relaxed) {
                let weight = OVERHEAD + fresh.kept.held_bytes();
                held.insert(one.question(), Arc::clone(fresh), weight, fresh.born + one.lives);
            }
        }
    }

    fn count(&self, verdict: Option<Verdict>) {
        match verdict {
            Some(Verdict::Same) => self.same.increment(1),
            Some(Verdict::Different) => self.different.increment(1),
            Some(Verdict::Unsure) => self.unsure.increment(1),
            None => self.uncompared.increment(1),
        }
    }
}

/// Is it the kept answer? By the texts, and where those do not tell, by their embeddings. `None`: they could not be compared,
/// because the encoder was not there, or reads only head and tail of so long an answer. That is not `Unsure`, which is one of the
/// verdicts that the comparison's own error was measured with.
async fn compared(
    question: &str,
    kept: &Arc<Entry>,
    fresh: &str,
    classifier: &Classifier,
    clock: &Clock,
) -> Option<Verdict> {
    let kept = plain(&kept.kept)?;
    let (verdict, by) = judged(question, &kept, fresh, None).await?;
    if (verdict, by) != (Verdict::Unsure, By::Meaning) {
        return Some(verdict);
    }
    let until = clock.now() + PATIENCE;
    let facts = Facts::default();
    let read = |text: &str| classifier.read(text.to_owned(), &facts, clock, until);
    let (a, b) = (read(&kept).await?, read(fresh).await?);
    if !(a.whole && b.whole) {
        return None;
    }
    let similarity = Vector::of(&a.vector)?.similarity(&Vector::of(&b.vector)?);
    let (verdict, _) = judged(question, &kept, fresh, Some(similarity)).await?;
    Some(verdict)
}

/// Long answers take milliseconds, which no socket is to wait for.
async fn judged(question: &str, kept: &str, fresh: &str, similarity: Option<f32>) -> Option<(Verdict, By)> {
    let told = |evidence: Evidence| (evidence.verdict, evidence.by);
    if question.len() + kept.len() + fresh.len() <= JUDGED_AT_ONCE {
        return Some(told(judge(question, kept, fresh, similarity)));
    }
    let (question, kept, fresh) = (question.to_owned(), kept.to_owned(), fresh.to_owned());
    let judged = tokio::task::spawn_blocking(move || judge(&question, &kept, &fresh, similarity));
    judged.await.ok().map(told)
}

/// The text of an answer that is nothing but a text, and ended of itself.
fn plain(kept: &Kept) -> Option<String> {
    let mut text = String::new();
    let mut stopped = false;
    for event in kept.events() {
        match event {
            Event::Text {
                choice: 0,
                text: piece,
            } => text.push_str(&piece.as_str()),
            Event::Finish { choice: 0, reason } => stopped = *reason == FinishReason::Stop,
            Event::Text { .. } | Event::Finish { .. } | Event::Refusal { .. } | Event::Tool(_) => {
                return None;
            }
            _ => {}
        }
    }
    (stopped && !text.trim().is_empty() && text.len() <= LONGEST_ANSWER).then_some(text)
}
