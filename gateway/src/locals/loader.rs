//! The thread that fetches and loads what a plan needs, one artifact after the other, smallest promise first: the store
//! proves every byte at pull and again at load.
//!
//! A new plan may ask for other models, or for the same ones in another shape. A model in a new shape stands before the
//! old one goes, on the same weights; the old one, and a model that nobody names any more, finishes what it has accepted
//! and then gives its memory back. Nothing is cut off for it.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use models::encoder::{ARTIFACT, EncoderHandle, RUNTIME};
use models::llm::{LlmConfig, LlmHandle, LocalModel};
use models::store::{Kind, Located, Progress, Store, Update};
use routing::plan::Plan;

use super::{Locals, Slot, Targets};

/// What a plan needs of this machine.
#[derive(Clone, Debug, Default)]
pub struct Needed {
    models: Vec<Model>,
    pull: bool,
}

/// How a language model is run, as a plan says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Tokens of prompt and answer together.
    pub context: Option<u32>,
    /// Answers computed together.
    pub slots: Option<u32>,
    /// Requests that may wait.
    pub queue: Option<u32>,
}

#[derive(Clone, Debug)]
struct Model {
    artifact: Arc<str>,
    /// Names of the targets that it answers for.
    targets: Vec<Arc<str>>,
    shape: Shape,
    /// A target names it: the gateway is ready when it is there. Others come behind, and may fail.
    awaited: bool,
}

impl Needed {
    /// From a plan: each artifact once, with the settings of the first target that names it.
    pub fn of(plan: &Plan) -> Self {
        let mut models: Vec<Model> = Vec::new();
        for target in &plan.targets {
            let Some(artifact) = &target.artifact else {
                continue;
            };
            if let Some(known) = models.iter_mut().find(|m| m.artifact == *artifact) {
                known.targets.push(target.name.clone());
                continue;
            }
            models.push(Model {
                artifact: artifact.clone(),
                targets: vec![target.name.clone()],
                shape: Shape {
                    context: target.context,
                    slots: target.limits.concurrency,
                    queue: target.limits.queue,
                },
                awaited: true,
            });
        }
        let plain = |artifact: &str, awaited| Model {
            artifact: artifact.into(),
            targets: Vec::new(),
            shape: Shape::default(),
            awaited,
        };
        if plan.wants_classifier() && !models.iter().any(|m| &*m.artifact == ARTIFACT) {
            models.push(plain(ARTIFACT, false));
        }
        // The encoder runs in a library that is an artifact too; it goes before.
        if let Some(at) = models.iter().position(|m| &*m.artifact == ARTIFACT) {
            let awaited = models.get(at).is_some_and(|m| m.awaited);
            models.insert(at, plain(RUNTIME, awaited));
        }
        Self {
            models,
            pull: plan.server.auto_pull,
        }
    }

    /// Names of the targets that each artifact answers for.
    pub(super) fn targets(&self) -> Targets {
        self.models
            .iter()
            .map(|m| (m.artifact.clone(), m.targets.clone()))
            .collect()
    }

    /// No target waits for anything: a plan without local models is ready at once, offline too.
    pub fn nothing_awaited(&self) -> bool {
        !self.models.iter().any(|m| m.awaited)
    }
}

impl Locals {
    /// Fetches and loads what is needed and not there yet, and lets go of what is not needed, in a thread of its own.
    /// `changed` is called whenever a model became ready, cannot come or has gone, `show` hears of every step of a pull,
    /// `done` is called once, when all that targets wait for has been seen to. A later call overrules an earlier one that
    /// is still at it, whose `done` is then never called.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(
        self: &Arc<Self>,
        needed: Needed,
        show: Arc<dyn Progress + Send + Sync>,
        changed: impl Fn() + Send + 'static,
        done: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let this = Arc::clone(self);
        let turn = this.turns.fetch_add(1, Ordering::AcqRel) + 1;
        this.take_names(&needed);
        for model in &needed.models {
            this.slots()
                .entry(model.artifact.clone())
                .or_insert(Slot::Waiting);
        }
        std::thread::Builder::new()
            .name("weir-loader".into())
            .spawn(move || {
                let see_to = |model: &Model| {
                    let _one_at_a_time = this.loading.lock().unwrap_or_else(PoisonError::into_inner);
                    if this.is_turn(turn) && this.see_to(model, needed.pull, &*show) {
                        changed();
                    }
                };
                this.let_go(&needed, turn, &changed);
                let (awaited, others): (Vec<_>, Vec<_>) = needed.models.iter().partition(|m| m.awaited);
                awaited.into_iter().for_each(see_to);
                if this.is_turn(turn) {
                    done();
                }
                others.into_iter().for_each(see_to);
            })?;
        Ok(())
    }

    fn is_turn(&self, turn: u64) -> bool {
        self.turns.load(Ordering::Acquire) == turn
    }

    /// Drops the models that are not needed. Each ends when the last request that has it has ended.
    fn let_go(&self, needed: &Needed, turn: u64, changed: &impl Fn()) {
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_turn(turn) {
            return;
        }
        let is_needed = |artifact: &Arc<str>| needed.models.iter().any(|m| m.artifact == *artifact);
        let gone: Vec<_> = self
            .slots()
            .extract_if(.., |artifact, _| !is_needed(artifact))
            .collect();
        if gone.is_empty() {
            return;
        }
        for (artifact, _) in &gone {
            tracing::info!("{artifact} is not named any more: it ends with its last request");
        }
        changed();
    }

    /// Makes a model be there, in its shape. False: nothing has changed.
    fn see_to(&self, model: &Model, pull: bool, show: &(dyn Progress + Send + Sync)) -> bool {
        let name = &*model.artifact;
        match self.slot(name) {
            Some(Slot::Encoder(_) | Slot::Present) => return false,
            Some(Slot::Llm(llm, shape)) if !llm.has_stopped() => {
                if shape == model.shape {
                    return false;
                }
                match run(model, Arc::clone(llm.model())) {
                    Ok(slot) => self.set(name, slot),
                    Err(why) => {
                        tracing::error!("{name} stays as it was, it cannot be run in its new shape: {why}");
                        return false;
                    }
                }
            }
            _ => {
                if let Err(why) = self.load(model, pull, show) {
                    tracing::warn!("{name}: {why}");
                    self.set(name, Slot::Failed(why.into()));
                }
            }
        }
        true
    }

    fn load(&self, model: &Model, pull: bool, show: &(dyn Progress + Send + Sync)) -> Result<(), String> {
        let store = self.store.as_ref().ok_or("the artifact store cannot be opened")?;
        let name = &*model.artifact;
        let Some(artifact) = store.manifest().get(name) else {
            return Err(format!(
                "no artifact is called {name}; `weir models list` shows what there is"
            ));
        };
        let kind = artifact.kind;
        let located = self.locate(store, name, pull, show)?;
        self.set(name, Slot::Loading);
        match kind {
            Kind::Runtime => {
                self.set(name, Slot::Present);
                return Ok(());
            }
            Kind::Encoder => {
                let handle =
                    EncoderHandle::load(store, models::clock::Clock::system()).map_err(|e| e.to_string())?;
                self.set(name, Slot::Encoder(handle));
                return Ok(());
            }
            Kind::Llm => {}
        }
        let path = located.file("model.gguf").map_err(|e| e.to_string())?;
        let loaded = LocalModel::load(path).map_err(|e| e.to_string())?;
        self.set(name, run(model, Arc::new(loaded))?);
        Ok(())
    }

    fn locate(
        &self,
        store: &Store,
        name: &str,
        pull: bool,
        show: &(dyn Progress + Send + Sync),
    ) -> Result<Located, String> {
        let both = Both { locals: self, show };
        if pull {
            return store.pull(name, &both).map_err(|e| e.to_string());
        }
        store
            .verify(name, &both)
            .map_err(|e| format!("{e} (server.auto_pull is false: `weir models pull {name}`)"))
    }
}

/// Starts an engine for loaded weights.
fn run(model: &Model, weights: Arc<LocalModel>) -> Result<Slot, String> {
    let defaults = LlmConfig::default();
    let slots = model.shape.slots.and_then(|n| u16::try_from(n).ok());
    let config = LlmConfig {
        name: model.artifact.to_string(),
        context: model.shape.context,
        slots: slots.unwrap_or(defaults.slots),
        queue: model.shape.queue.unwrap_or(defaults.queue),
        ..defaults
    };
    LlmHandle::spawn(weights, config, models::clock::Clock::system())
        .map(|llm| Slot::Llm(llm, model.shape))
        .map_err(|e| format!("it cannot be run: {e}"))
}

/// Progress for `/readyz` and for whoever looks on.
struct Both<'a> {
    locals: &'a Locals,
    show: &'a (dyn Progress + Send + Sync),
}

impl Progress for Both<'_> {
    fn update(&self, update: Update<'_>) {
        let slot = Slot::Fetching {
            phase: update.phase,
            done: update.done,
            total: update.total,
        };
        self.locals.set(update.artifact, slot);
        self.show.update(update);
    }
    fn note(&self, artifact: &str, text: &str) {
        self.show.note(artifact, text);
    }
}
