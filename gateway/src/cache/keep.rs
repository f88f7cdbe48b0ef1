//! Whether an answer is kept, and under what.
//!
//! Under its question only what is whole, undegraded, said by one target, and passed every check that the route asks for: a
//! stream that was shown after a look at its beginning is judged as a whole before it is kept. Under its caller's name for it
//! (`idempotency-key`) whatever the caller got, in its very bytes: who repeats a request is to see the same again.

use std::sync::Arc;
use std::time::Duration;

use routing::cascade::{Grade, Seen};
use routing::plan::{Check, Plan};
use routing::verify::Question;

use super::flight::Flight;
use super::key::Key;
use super::store::{Entry, NAMED_FOR};
use super::{Cache, flights::Flights};
use crate::cascade::{Head, judged_whole};
use crate::classify::Classifier;
use crate::clock::Clock;
use crate::providers::event::{Event, FinishReason, Frame};
use crate::providers::render::Kept;
use crate::telemetry::record;

/// What is needed to keep an answer by its question.
pub struct ByQuestion {
    /// The question.
    pub key: Key,
    /// How long it may be used, stale included.
    pub lives: Duration,
    /// What the route checks.
    pub checks: Vec<Check>,
    /// What the checks must know; absent where nothing is checked.
    pub question: Option<Arc<Question>>,
}

/// Where a flight is listed, and what becomes of its answer. Dropping it takes the flight off the list.
pub struct Keep {
    /// The list, and the stores.
    pub cache: Arc<Cache>,
    /// The name of the flight in the list; absent where nobody could join it.
    pub listed: Option<Key>,
    /// To keep it by its question.
    pub exact: Option<ByQuestion>,
    /// To keep it by its caller's name for it: the name, and the hash of the body.
    pub named: Option<(Key, [u8; 32])>,
    /// The flight.
    pub flight: Arc<Flight>,
    /// The plan of its leader.
    pub plan: Arc<Plan>,
    /// The one clock.
    pub clock: Clock,
    /// Reads answers where that is how they are compared.
    pub classifier: Arc<Classifier>,
}

impl Keep {
    /// Keeps the answer of a flight that is whole, and learns from it. Who asks meanwhile finds the flight until the store has
    /// the answer. `joined`: several targets wrote it.
    pub async fn whole(mut self, head: Head, joined: bool) {
        let Some(frames) = self
            .flight
            .said(|frames| Some(Vec::from_iter(frames.iter().cloned())))
        else {
            return;
        };
        let Some(target) = head.target.and_then(|id| self.plan.targets.get(id.index())) else {
            // The route's message is no answer of a model.
            return;
        };
        let stale = head
            .degraded
            .as_ref()
            .is_some_and(|d| d.starts_with("stale_cache"));
        let entry = |kept: Kept, verified: &str, verdict: &str, lives: Duration, body: [u8; 32]| {
            Arc::new(Entry {
                kept,
                target: target.name.clone(),
                tier: head.tier,
                verified: verified.into(),
                verdict: verdict.into(),
                usage: usage(&frames),
                born: self.clock.now(),
                lives,
                body,
            })
        };
        if let Some((key, body)) = self.named.take().filter(|_| !stale) {
            let wires = frames.iter().filter_map(|f| f.wire.as_deref());
            let kept = Kept::wire(&wires.collect::<Vec<_>>().concat());
            let entry = entry(kept, &head.verified, &head.verdict, NAMED_FOR, body);
            self.cache.stores().named.put(key, entry);
        }
        let Some(by) = self.exact.take().filter(|_| head.degraded.is_none() && !joined) else {
            return;
        };
        let Some((verified, verdict)) = verified(&by, &head, &frames).await else {
            return;
        };
        if filtered(&frames) {
            return;
        }
        let kept = match self.flight.form.kind {
            crate::call::CallKind::Embeddings => frames
                .iter()
                .rev()
                .find_map(|f| f.wire.as_deref())
                .map(Kept::wire),
            _ => Kept::gather(frames.iter().flat_map(|f| &f.events)),
        };
        if let Some(kept) = kept {
            let entry = entry(kept, &verified, &verdict, by.lives, [0; 32]);
            self.cache.stores().exact.put(by.key, Arc::clone(&entry));
            let sought = self.flight.take_sought();
            if sought.is_empty() {
                return;
            }
            let (cache, classifier, clock) = (
                Arc::clone(&self.cache),
                Arc::clone(&self.classifier),
                self.clock.clone(),
            );
            // Learning may take its time: neither list, log nor frames are held for it.
            drop(frames);
            drop(self);
            cache.semantic().learn(sought, &entry, &classifier, &clock).await;
        }
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        let flights: &Flights = self.cache.flights();
        if let Some(key) = &self.listed {
            flights.remove(key, &self.flight);
        }
    }
}

/// What is said of it, when it passed all that the route checks; `None` when it did not.
async fn verified(by: &ByQuestion, head: &Head, frames: &[Frame]) -> Option<(String, String)> {
    let question = match &by.question {
        Some(question) if !by.checks.is_empty() => question,
        _ => return Some((head.verified.clone(), head.verdict.clone())),
    };
    if head.verified != "full" {
        let judged = judged_whole(&by.checks, question, frames).await;
        let passed = judged.grade == Grade::Pass && judged.seen == Seen::Full;
        return passed.then(|| ("full".to_owned(), "pass".to_owned()));
    }
    (head.verdict == "pass").then(|| (head.verified.clone(), head.verdict.clone()))
}

/// A provider's filter had its say: the next time it may say otherwise.
fn filtered(frames: &[Frame]) -> bool {
    let mut events = frames.iter().flat_map(|f| &f.events);
    events.any(|e| {
        matches!(
            e,
            Event::Finish {
                reason: FinishReason::ContentFilter,
                ..
            }
        )
    })
}

fn usage(frames: &[Frame]) -> Option<record::Usage> {
    let events = frames.iter().flat_map(|f| &f.events);
    let told = events.filter_map(|event| match event {
        Event::Usage(usage) => Some(*usage),
        _ => None,
    });
    told.last().map(|usage| super::recorded(&usage))
}
