//! Models inside this process, by artifact: fetched, verified, loaded by one thread in the background, and handed to the
//! targets that name them. While a model is on its way its targets are "starting"; when it cannot come they are off,
//! with the reason.

mod figures;
mod loader;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use models::encoder::EncoderHandle;
use models::llm::LlmHandle;
use models::store::{Phase, Store};
use routing::plan::TargetConfig;
use routing::signals::{Ability, TargetSignal, Usable};
use serde::Serialize;

pub use self::loader::{Needed, Shape};
pub use self::reader::HeadsReader;
use crate::classify::Classifier;
use crate::providers::Client;
use crate::providers::local::{Engine, LocalTarget};
use crate::runtime::maker;
use crate::runtime::{LocalSignal, Made};
use crate::telemetry::Telemetry;

/// What is said of an engine that has ended by itself.
const GIVEN_UP: &str = "the model's thread failed again and again and is given up (the log has the cause); a reload tries it anew";

/// Names of targets, by artifact.
type Targets = BTreeMap<Arc<str>, Vec<Arc<str>>>;

/// All of them.
pub struct Locals {
    store: Option<Store>,
    slots: Mutex<BTreeMap<Arc<str>, Slot>>,
    /// Names of the targets that each artifact answers for, by the last plan. Locked before `slots` where both are.
    targets: Mutex<Targets>,
    /// Held while one artifact is seen to: a reload that comes meanwhile waits and finds it there.
    loading: Mutex<()>,
    /// Plans seen so far: who loads for an older one than the last stops.
    turns: AtomicU64,
    telemetry: Telemetry,
}

/// One artifact on its way, or there.
#[derive(Clone)]
pub enum Slot {
    /// Not begun.
    Waiting,
    /// Fetched or verified.
    Fetching {
        /// What is being done.
        phase: Phase,
        /// Bytes through.
        done: u64,
        /// Bytes in all.
        total: Option<u64>,
    },
    /// Read into memory.
    Loading,
    /// There; not a model by itself (a runtime library, an encoder that only classifies).
    Present,
    /// A language model that answers, and how it is run.
    Llm(LlmHandle, Shape),
    /// An encoder that serves embeddings and classifies.
    Encoder(EncoderHandle),
    /// It cannot come.
    Failed(Arc<str>),
}

/// A slot as `/readyz` shows it.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// Artifact.
    pub artifact: Arc<str>,
    /// `waiting`, `downloading`, ..., `ready`, `failed`.
    pub state: &'static str,
    /// Bytes through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Bytes in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Arc<str>>,
}

impl Locals {
    /// With a store, or without (then every local target is off, with that reason).
    pub fn new(store: Option<Store>, telemetry: Telemetry) -> Arc<Self> {
        Arc::new(Self {
            store,
            slots: Mutex::default(),
            targets: Mutex::default(),
            loading: Mutex::default(),
            turns: AtomicU64::new(0),
            telemetry,
        })
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn targets(&self) -> MutexGuard<'_, Targets> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, artifact: &str, slot: Slot) {
        self.slots().insert(artifact.into(), slot);
    }

    /// The slot of an artifact.
    pub fn slot(&self, artifact: &str) -> Option<Slot> {
        self.slots().get(artifact).cloned()
    }

    /// One line of the manifest about an artifact, for people.
    pub fn about(&self, artifact: &str) -> Option<String> {
        self.store
            .as_ref()?
            .manifest()
            .get(artifact)
            .map(|a| a.about.clone())
    }

    /// All slots, for `/readyz`.
    pub fn shown(&self) -> Vec<Shown> {
        let show = |(artifact, slot): (&Arc<str>, &Slot)| {
            let (state, done, total, why) = match slot {
                Slot::Waiting => ("waiting", None, None, None),
                Slot::Fetching { phase, done, total } => (phase.word(), Some(*done), *total, None),
                Slot::Loading => ("loading", None, None, None),
                Slot::Llm(llm, _) if llm.has_stopped() => ("failed", None, None, Some(GIVEN_UP.into())),
                Slot::Present | Slot::Llm(..) | Slot::Encoder(_) => ("ready", None, None, None),
                Slot::Failed(why) => ("failed", None, None, Some(why.clone())),
            };
            Shown {
                artifact: artifact.clone(),
                state,
                done,
                total,
                why,
            }
        };
        self.slots().iter().map(show).collect()
    }

    /// The encoder, when it is there.
    pub fn encoder(&self) -> Option<EncoderHandle> {
        self.slots().values().find_map(|slot| match slot {
            Slot::Encoder(handle) => Some(handle.clone()),
            _ => None,
        })
    }

    /// The classifier that the encoder and its heads make, when they are there.
    pub fn classifier(&self) -> Classifier {
        let reader = self.encoder().map(HeadsReader::new);
        match reader {
            None => Classifier::default(),
            Some(Ok(reader)) => Classifier::new(Some(Arc::new(reader))),
            Some(Err(why)) => {
                tracing::error!("the committed heads cannot be read: {why}");
                Classifier::default()
            }
        }
    }

    /// Ends every model at once.
    pub fn stop(&self) {
        for slot in self.slots().values() {
            if let Slot::Llm(handle, _) = slot {
                handle.stop(models::llm::Stop::Now);
            }
        }
    }
}

impl maker::Locals for Locals {
    fn open(&self, target: &TargetConfig) -> Made {
        let Some(artifact) = &target.artifact else {
            return Made::off("it names no artifact");
        };
        if self.store.is_none() {
            return Made::off("the artifact store cannot be opened");
        }
        match self.slot(artifact) {
            None | Some(Slot::Waiting) => Made::starting(format!("{artifact} is not loaded yet")),
            Some(Slot::Fetching { phase, .. }) => Made::starting(format!("{artifact}: {}", phase.word())),
            Some(Slot::Loading) => Made::starting(format!("{artifact}: loading")),
            Some(Slot::Present) => Made::off(format!("{artifact} is no model that answers")),
            Some(Slot::Failed(why)) => Made::off(why),
            Some(Slot::Encoder(handle)) => {
                let engine = Engine::Encoder(Arc::new(handle));
                Made::on(Client::Local(LocalTarget::new(
                    target.name.clone(),
                    target.model.clone(),
                    engine,
                )))
            }
            Some(Slot::Llm(handle, _)) if handle.has_stopped() => Made::off(GIVEN_UP),
            Some(Slot::Llm(handle, _)) => {
                let engine = Engine::Llm(Arc::new(handle.clone()));
                let client = LocalTarget::new(target.name.clone(), target.model.clone(), engine);
                Made {
                    local: Some(Arc::new(Queue(handle))),
                    ..Made::on(Client::Local(client))
                }
            }
        }
    }

    fn ability(&self, target: &TargetConfig) -> Option<Ability> {
        ability(target)
    }
}

/// A model's queue, as a decision sees it.
struct Queue(LlmHandle);

impl LocalSignal for Queue {
    fn add(&self, signal: &mut TargetSignal, prompt_tokens: u32) {
        if self.0.has_stopped() {
            signal.usable = Usable::Off { why: GIVEN_UP.into() };
            return;
        }
        let stats = self.0.stats();
        let wait = self.0.predicted_wait(prompt_tokens);
        signal.predicted_wait_us = Some(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
        let each = stats.decode_tokens_per_second / stats.running.max(1) as f32;
        signal.us_per_token = (each > 0.0).then(|| (1e6 / each) as u32);
        if signal.usable.yes() && stats.queued >= stats.queue_limit && stats.running >= stats.running_limit {
            signal.usable = Usable::Full { until: None };
        }
    }
}

/// Measured ability of a target: of its artifact, from committed outcomes. Nothing is known of remote ones yet.
pub fn ability(target: &TargetConfig) -> Option<Ability> {
    let known = models::abilities::builtin(target.artifact.as_deref()?)?;
    Some(Ability {
        mean: known.mean,
        stderr: known.stderr,
        outcomes: known.outcomes,
    })
}

#[cfg(test)]
mod scale {
    use ::models::{abilities, heads::Heads};
    use routing::predict;

    /// The router looks at lengths with constants, since it knows no models; they must be those of the committed heads.
    #[test]
    fn the_routers_cheap_looks_are_on_the_scale_of_the_committed_heads() {
        let look = Heads::builtin().unwrap().look;
        let router = [
            predict::LOOK_AT_200,
            predict::LOOK_PER_LN,
            predict::LOOK_SPREAD,
            predict::CHEAP_SD,
        ];
        assert_eq!(
            router,
            [look.at_200, look.per_ln, look.spread, abilities::TRUE_SD],
            "copy `look` of models/heads/heads.json to routing/src/predict.rs"
        );
        assert!((predict::head_sd() - look.head_sd()).abs() < 1e-6);
    }
}
