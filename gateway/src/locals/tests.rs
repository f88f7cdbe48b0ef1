//! Models come, change their shape and go with the plan. On the real model, which is pulled for it.

use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};

use models::llm::{
    FinishReason, GenEvent, GenerateRequest, LlmHandle, LocalModel, Prompt, Refused, Sampling,
};
use models::store::{Progress, Store, Update};

use super::*;
use crate::telemetry::names::Name;

const LLM: &str = "smollm2-135m-instruct-q4_1";

struct Quiet;

impl Progress for Quiet {
    fn update(&self, _: Update<'_>) {}
    fn note(&self, _: &str, _: &str) {}
}

/// `None`, said aloud: this machine cannot fetch the model. With `CI` in the environment that is a failure instead, so that
/// nothing is skipped in silence where it counts.
fn locals() -> Option<Arc<Locals>> {
    let store = Store::from_env().unwrap();
    match store.pull(LLM, &Quiet) {
        Ok(_) => Some(Locals::new(Some(store), Telemetry::new())),
        Err(error) if error.absent() && std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED, {LLM} cannot be fetched here: {error}");
            None
        }
        Err(error) => panic!("{LLM}: {error}"),
    }
}

/// What a plan needs that has one local target with these settings, or none.
fn needed(target: Option<&str>) -> Needed {
    let target = target.map_or_else(String::new, |rest| {
        format!("[targets.tiny]\nprovider = \"local\"\nartifact = \"{LLM}\"\n{rest}\n")
    });
    let text = format!(
        "version = 1\n[server]\nauto_pull = false\n{target}\n[providers.lab]\nkind = \"openai\"\nbase_url = \
         \"http://127.0.0.1:9\"\n[targets.lab]\nprovider = \"lab\"\nmodel = \"m\"\nprice = \"unmetered\"\n"
    );
    Needed::of(&routing::plan::load(&text).unwrap().plan)
}

/// Takes a plan in and waits until it is seen to; returns how often something changed.
fn take(locals: &Arc<Locals>, needed: Needed) -> usize {
    let (changed, changes) = channel();
    let (done, is_done) = channel();
    locals
        .start(
            needed,
            Arc::new(Quiet),
            move || changed.send(()).unwrap_or_default(),
            move || done.send(()).unwrap_or_default(),
        )
        .unwrap();
    is_done.recv().unwrap();
    changes.try_iter().count()
}

fn llm(locals: &Locals) -> LlmHandle {
    match locals.slot(LLM) {
        Some(Slot::Llm(llm, _)) => llm,
        _ => panic!("{:?}", locals.shown()),
    }
}

fn request(tokens: u32) -> GenerateRequest {
    GenerateRequest {
        max_tokens: Some(tokens),
        sampling: Sampling::greedy(),
        ..GenerateRequest::new(Prompt::Text("One, two, three, four,".into()))
    }
}

/// The page of metrics, brought up to date.
fn page(locals: &Locals) -> String {
    locals.report();
    locals.telemetry.render()
}

/// Needs no model: nothing is loaded here.
#[test]
fn a_model_goes_by_the_names_of_all_its_targets_and_a_name_that_goes_holds_nothing() {
    let plan = |names: [&str; 2]| {
        let targets =
            names.map(|name| format!("[targets.{name}]\nprovider = \"local\"\nartifact = \"{LLM}\"\n"));
        let text = format!("version = 1\n{}", targets.concat());
        Needed::of(&routing::plan::load(&text).unwrap().plan)
    };
    let locals = Locals::new(None, Telemetry::new());
    locals.take_names(&plan(["one", "two"]));
    let names = locals.targets().get(LLM).unwrap().join(" ");
    assert_eq!(names, "one two");
    for name in ["one", "two"] {
        locals.telemetry.gauge(Name::LocalRunning, &[name]).set(3.0);
    }
    locals.take_names(&plan(["one", "three"]));
    let told = page(&locals);
    for line in [
        "weir_local_batch_size{target=\"one\"} 3",
        "weir_local_batch_size{target=\"two\"} 0",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
}

#[test]
fn a_new_shape_stands_before_the_old_one_goes_and_what_nobody_names_is_unloaded() {
    let Some(locals) = locals() else { return };
    let old_shape = "context = 128\nlimits = { concurrency = 2, queue = 3 }";
    assert_eq!(take(&locals, needed(Some(old_shape))), 1);
    assert_eq!(take(&locals, needed(Some(old_shape))), 0, "nothing is done twice");
    let old = llm(&locals);
    assert_eq!(
        (old.context(), old.stats().running_limit, old.stats().queue_limit),
        (128, 2, 3)
    );
    let mut running = old.submit(request(60)).unwrap();
    let told = page(&locals);
    assert!(
        told.contains("weir_local_queue_depth{target=\"tiny\"}")
            && !told.contains(&format!("target=\"{LLM}\"")),
        "{told}"
    );
    let (held, model): (_, Weak<LocalModel>) = (old.clone(), Arc::downgrade(old.model()));
    drop(old);

    let new_shape = "context = 256\nlimits = { concurrency = 1, queue = 0 }";
    assert_eq!(take(&locals, needed(Some(new_shape))), 1);
    let new = llm(&locals);
    assert_eq!(
        (new.context(), new.stats().running_limit, new.stats().queue_limit),
        (256, 1, 0)
    );
    assert!(
        Arc::ptr_eq(&model.upgrade().unwrap(), new.model()),
        "the weights are not loaded twice"
    );
    // Whoever still has the old one from the plan before is served by it.
    let late = held.submit(request(2)).map(drop);
    assert!(
        matches!(late, Ok(()) | Err(Refused::QueueFull { .. })),
        "{late:?}"
    );
    drop(held);
    let mut end = None;
    while let Some(event) = running.next_blocking() {
        match event {
            GenEvent::Token { .. } => {}
            GenEvent::Finished {
                reason,
                completion_tokens,
                ..
            } => end = Some((reason, completion_tokens)),
            GenEvent::Failed(error) => panic!("{error}"),
        }
    }
    assert_eq!(
        end,
        Some((FinishReason::Length, 60)),
        "what ran on the old one ended whole"
    );
    drop(running);

    drop(new);
    assert_eq!(take(&locals, needed(None)), 1);
    assert!(locals.slot(LLM).is_none() && locals.shown().is_empty());
    while model.strong_count() > 0 {
        std::thread::yield_now();
    }
}
