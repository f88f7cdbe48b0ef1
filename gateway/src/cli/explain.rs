//! `weir explain`: which model a request would go to first, and why. The decision is the serving code's own; nothing is
//! generated, and nobody is called. Local models count as ready when their artifact is on this machine.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use models::encoder::{ARTIFACT, EncoderHandle, RUNTIME};
use models::store::Store;
use routing::decide::{Query, Silent, Step};
use routing::explain::Explained;
use routing::facts::CallKind;
use routing::plan::{Plan, TargetConfig};
use routing::resolve::Asked;
use routing::signals::{Ability, Signals, TargetSignal, Usable};
use routing::units::Time;

use super::plan_file::Origin;
use super::{Exit, Explain};
use crate::classify::{Classifier, Looking, Reader};
use crate::clock::Clock;
use crate::locals::HeadsReader;
use crate::refusal;
use crate::runtime::maker::{Locals, Maker};
use crate::runtime::secrets::Secrets;
use crate::runtime::{Made, Make, Standing};
use crate::steps::decode;

/// Runs it.
pub fn run(args: &Explain) -> Exit {
    let origin = Origin::find(args.config.as_deref());
    let plan = match origin.load() {
        Ok(compiled) => compiled.plan,
        Err(no) => {
            eprintln!("{}", no.say(&origin));
            return no.exit();
        }
    };
    let bodies = match bodies(args) {
        Ok(bodies) => bodies,
        Err(why) => {
            eprintln!("{why}");
            return Exit::Absent;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("no event loop could be made: {e}");
            return Exit::Finding;
        }
    };
    let classifier = classifier(&plan);
    let signals = signals(&plan);
    let mut exit = Exit::Fine;
    for body in bodies {
        match runtime.block_on(explain(&plan, body, &signals, &classifier)) {
            Ok(explained) if args.lines => {
                out!("{}", serde_json::to_string(&explained).unwrap_or_default());
            }
            Ok(explained) if args.json => {
                out!("{}", serde_json::to_string_pretty(&explained).unwrap_or_default());
            }
            Ok(explained) => {
                let plan = format!("{} ({})", origin.say(), plan.fingerprint);
                out!("{}", text(&plan, &explained).trim_end());
            }
            // A line for each request, also for one that would be refused.
            Err(why) if args.lines => {
                out!("{}", serde_json::json!({"refused": why}));
                exit = Exit::Finding;
            }
            Err(why) => {
                eprintln!("{why}");
                exit = Exit::Finding;
            }
        }
    }
    exit
}

fn bodies(args: &Explain) -> Result<Vec<Bytes>, String> {
    if let Some(prompt) = &args.prompt {
        let body = serde_json::json!({"model": "auto", "messages": [{"role": "user", "content": prompt}]});
        return Ok(vec![Bytes::from(body.to_string())]);
    }
    let path = args.request.as_deref().unwrap_or(Path::new("-"));
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(path).map(|read| bytes = read)
    };
    read.map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    let bytes = Bytes::from(bytes);
    if !args.lines {
        return Ok(vec![bytes]);
    }
    let lines = bytes
        .split(|b| *b == b'\n')
        .filter(|line| !line.trim_ascii().is_empty());
    Ok(lines.map(|line| bytes.slice_ref(line)).collect())
}

async fn explain(
    plan: &Plan,
    body: Bytes,
    signals: &Signals,
    classifier: &Classifier,
) -> Result<Explained, String> {
    let clock = Clock::system();
    let (call, mut facts) = decode::decode(CallKind::Chat, body, 0).map_err(|e| e.to_string())?;
    facts.tenant = "default".into();
    let asked = Asked {
        model: &call.model,
        min_tier: None,
        may: None,
    };
    let policy = routing::resolve::resolve(plan, asked, &facts).map_err(|e| e.to_string())?;
    let signals = &Signals {
        encoder_us: classifier.predicted_us(&facts),
        ..signals.clone()
    };
    for _ in 0..8 {
        let deadline = signals.now + plan.server.default_deadline;
        let query = Query {
            plan,
            policy: &policy,
            facts: &facts,
            signals,
            deadline,
            seed: 0,
        };
        match routing::decide::decide(&query, &mut Silent) {
            Step::Decided(decision) => return Ok(routing::explain::explain(&query, &decision)),
            Step::Refused(no_way) => return Err(refusal::of_decide(&no_way).to_string()),
            Step::Need { fact, .. } => {
                // One prompt and nobody waiting: the encoder may take its time.
                let until = clock.now() + plan.server.default_deadline;
                classifier
                    .find(fact, Looking { call: &call }, &mut facts, &clock, until)
                    .await;
            }
        }
    }
    Err("the decision asks for the same fact again and again; please report this".to_owned())
}

/// The encoder, where the plan can use it and it is on this machine. Without it, dear facts count as not found out.
fn classifier(plan: &Plan) -> Classifier {
    let here = |store: &Store| {
        [ARTIFACT, RUNTIME]
            .iter()
            .all(|name| store.status(name).is_ok_and(|s| s.present))
    };
    let store = Store::from_env()
        .ok()
        .filter(|store| plan.wants_classifier() && here(store));
    let encoder = store.and_then(|store| EncoderHandle::load(&store, models::clock::Clock::system()).ok());
    let reader = encoder.and_then(|encoder| HeadsReader::new(encoder).ok());
    Classifier::new(reader.map(|reader| Arc::new(reader) as Arc<dyn Reader>))
}

/// Targets as they would be at start: on, or off with the reason.
fn signals(plan: &Plan) -> Signals {
    struct Here(Option<Store>);
    impl Locals for Here {
        fn open(&self, target: &TargetConfig) -> Made {
            let artifact = target.artifact.as_deref().unwrap_or_default();
            match self.0.as_ref().map(|store| store.status(artifact)) {
                Some(Ok(status)) if status.present => Made {
                    standing: Standing::On,
                    ..Made::off("")
                },
                Some(Ok(_)) => Made::off(format!(
                    "{artifact} is not on this machine; `weir models pull {artifact}`"
                )),
                Some(Err(e)) => Made::off(e.to_string()),
                None => Made::off("the artifact store cannot be opened"),
            }
        }
        fn ability(&self, target: &TargetConfig) -> Option<Ability> {
            crate::locals::ability(target)
        }
    }
    let maker = Maker::new(Arc::new(Here(Store::from_env().ok())));
    let signal = |made: Made| TargetSignal {
        usable: match made.standing {
            Standing::On => Usable::Yes,
            Standing::Starting(why) => Usable::Starting { why },
            Standing::Off(why) => Usable::Off { why },
        },
        ability: made.ability,
        ..TargetSignal::default()
    };
    let targets = maker
        .make(plan, &Secrets::of_process())
        .into_iter()
        .map(signal)
        .collect();
    Signals {
        now: Time::from_millis(1),
        targets,
        encoder_us: None,
    }
}

/// For people: the plan, and the decision in words.
fn text(plan: &str, explained: &Explained) -> String {
    format!("plan: {plan}\n{explained}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing of the machine's form (`--json`) stands in what people read.
    #[tokio::test(start_paused = true)]
    async fn the_text_form_is_words() {
        let plan = "version = 1\n[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
            [targets.weak]\nprovider = \"p\"\nmodel = \"w\"\ncontext = 2_000\nprice = { input = 0.1, output = 0.1 }\n\
            [targets.strong]\nprovider = \"p\"\nmodel = \"s\"\nprice = { input = 1.0, output = 1.0 }\n\
            [routes.auto]\ntiers = [[\"weak\"], [\"strong\"]]\n";
        let plan = routing::plan::load(plan).unwrap().plan;
        let signals = Signals {
            now: Time::from_millis(1),
            targets: vec![TargetSignal::default(); plan.targets.len()],
            encoder_us: None,
        };
        let body =
            Bytes::from_static(br#"{"model":"auto","messages":[{"role":"user","content":"Say hello."}]}"#);
        let explained = explain(&plan, body, &signals, &Classifier::new(None))
            .await
            .unwrap();
        let text = text("the built-in plan", &explained);
        for words in [
            "plan: the built-in plan\n",
            "starts: strong (tier 1)",
            "difficulty: ",
            "what would flip it:",
            "without strong: then weak starts",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains(['{', '[', '"']), "{text}");
    }
}
