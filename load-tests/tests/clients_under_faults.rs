//! Official clients while a provider is at fault: each raises what its users catch, or gives one whole text; never a silent
//! end; and its own tries do not multiply the gateway's. What was seen is the table at the end of `docs/faults.md`.
//!
//! Without Python, Node or a way to install packages it is skipped, and says so; `WEIR_CLIENTS=required` (where they must run) makes
//! that a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say where"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use load_tests::faults::CLIENTS;
use load_tests::gateway::{self, Gateway, Home};
use load_tests::provider::{Behaviour, Fault, Options, Provider, Rule, Script, generate_text};
use serde::Deserialize;
use serde_json::json;

mod docs;
mod tools;
use tools::{Part, script};

const CLIENTS_TRIED: [(&str, Part); 2] = [
    ("openai-python", Part::Python("openai_python_faults.py")),
    ("openai-node", Part::Node("openai_node_faults.mjs")),
];

/// What the first target does, for ever.
const FAULTS: [Fault; 6] = [
    Fault::Cut,
    Fault::Stall,
    Fault::InBandError,
    Fault::Unavailable,
    Fault::RateLimited,
    Fault::RateLimitedBare,
];

/// What stands behind the first target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Second {
    /// Nobody: the caller names the target.
    None,
    /// One that is well.
    Well,
    /// One that does the same.
    Same,
}

/// One request of a client. Each has targets of its own: none sees what another did to a breaker or a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Scene {
    client: usize,
    fault: usize,
    stream: bool,
    second: Second,
}

impl Scene {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for client in 0..CLIENTS_TRIED.len() {
            for fault in 0..FAULTS.len() {
                for stream in [true, false] {
                    for second in [Second::None, Second::Well, Second::Same] {
                        let scene = Self {
                            client,
                            fault,
                            stream,
                            second,
                        };
                        if second != Second::Same || !scene.in_the_middle() {
                            all.push(scene);
                        }
                    }
                }
            }
        }
        all
    }

    fn fault(self) -> Fault {
        FAULTS[self.fault]
    }

    fn in_the_middle(self) -> bool {
        matches!(self.fault(), Fault::Cut | Fault::Stall | Fault::InBandError)
    }

    /// The first target, whose name the caller reads in messages.
    fn first(self) -> String {
        let form = if self.stream { "stream" } else { "whole" };
        let second = match self.second {
            Second::None => "",
            Second::Well => "-helped",
            Second::Same => "-both",
        };
        let fault = self.fault().name().replace('_', "-");
        format!("{fault}-{form}{second}-{}", self.client)
    }

    /// The second target.
    fn behind(self) -> String {
        match self.second {
            Second::Same => format!("{}-too", self.first()),
            Second::None | Second::Well => "well".to_owned(),
        }
    }

    /// What the client asks for: the target itself, or a route with a second tier.
    fn model(self) -> String {
        match self.second {
            Second::None => self.first(),
            Second::Well | Second::Same => format!("route-{}", self.first()),
        }
    }

    fn text() -> String {
        generate_text(7, 24)
    }
}

/// What a script prints of a case.
#[derive(Clone, Debug, Deserialize)]
struct Said {
    model: String,
    text: Option<String>,
    finish: Option<String>,
    raised: Option<String>,
    status: Option<u16>,
    message: Option<String>,
    /// The client's own count of its tries, by request.
    asked: Vec<Option<String>>,
}

/// What a client said, and the calls that the faulty targets got.
type Seen = (Said, usize);

/// Short clocks, everything else as it is by default.
fn plan(provider: &Provider, scenes: &[Scene]) -> String {
    let mut plan = format!(
        "version = 1\n[server]\nlisten = \"{{listen}}\"\nadmin = \"{{admin}}\"\n\
         [timeouts]\nfirst_token_ms = 700\nidle_ms = 700\nattempt_ms = 1_200\ncontinue_ms = 1_500\n\
         [providers.lab]\nkind = \"openai\"\nbase_url = \"{}\"\n\
         [targets.well]\nprovider = \"lab\"\nmodel = \"well\"\nprice = \"unmetered\"\n",
        provider.base_url()
    );
    for scene in scenes {
        let (first, behind) = (scene.first(), scene.behind());
        let faulty = [Some(&first), (scene.second == Second::Same).then_some(&behind)];
        for name in faulty.into_iter().flatten() {
            let _ = write!(
                plan,
                "[targets.{name}]\nprovider = \"lab\"\nmodel = \"{name}\"\nprice = \"unmetered\"\n"
            );
        }
        if scene.second != Second::None {
            let _ = write!(
                plan,
                "[routes.{}]\ntiers = [[\"{first}\"], [\"{behind}\"]]\nstart = \"first\"\n",
                scene.model()
            );
        }
    }
    plan
}

fn provider(scenes: &[Scene]) -> Provider {
    let healthy = Behaviour {
        text: Some(Scene::text()),
        ..Behaviour::default()
    };
    let provider = Provider::start_on_thread(Script::default(), Options::default()).unwrap();
    provider.arm(Rule::for_model("well", healthy.clone()));
    for scene in scenes {
        let mut behaviour = healthy.clone();
        behaviour.overlay(&Behaviour::of(scene.fault()));
        provider.arm(Rule::for_model(&scene.first(), behaviour.clone()));
        if scene.second == Second::Same {
            provider.arm(Rule::for_model(&scene.behind(), behaviour));
        }
    }
    provider
}

/// Runs a client through its scenes; `None`: it is not there.
fn said(client: usize, scenes: &[Scene], url: &str) -> Option<BTreeMap<String, Said>> {
    let cases: Vec<_> = scenes
        .iter()
        .filter(|s| s.client == client)
        .map(|s| json!({"model": s.model(), "stream": s.stream}))
        .collect();
    let env = [
        ("WEIR_URL", format!("{url}/v1")),
        ("WEIR_KEY", "unused".to_owned()),
        ("WEIR_CASES", json!(cases).to_string()),
    ]
    .map(|(k, v)| (k.to_owned(), v));
    let printed = script(CLIENTS_TRIED[client].1, "tests/clients", &env)?;
    let printed = printed.unwrap_or_else(|e| panic!("{}: {e}", CLIENTS_TRIED[client].0));
    let lines = printed.lines().filter(|l| l.starts_with('{'));
    let all = lines.map(|l| serde_json::from_str::<Said>(l).unwrap_or_else(|e| panic!("{e}: {l}")));
    Some(all.map(|s| (s.model.clone(), s)).collect())
}

#[test]
fn official_clients_raise_or_get_the_whole_and_never_a_silent_end() {
    let scenes = Scene::all();
    let provider = provider(&scenes);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let program = gateway::binary().expect("the gateway's program");
    let options = gateway::Options {
        plan: plan(&provider, &scenes),
        home: Home::Fresh,
        env: Vec::new(),
        echo: false,
        ready_within: Duration::from_secs(60),
    };
    let gateway = runtime
        .block_on(Gateway::start(&program, &options))
        .expect("the gateway starts");
    let clients: Vec<_> = (0..CLIENTS_TRIED.len())
        .map(|client| said(client, &scenes, gateway.url()))
        .collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeMap::new();
    for scene in scenes {
        let Some(said) = &clients[scene.client] else {
            continue;
        };
        let said = said
            .get(&scene.model())
            .unwrap_or_else(|| panic!("nothing was printed of {}", scene.model()));
        let models = [scene.first(), format!("{}-too", scene.first())];
        let calls = provider.log().select(|e| models.contains(&e.model)).len();
        if scene.fault() == Fault::RateLimited {
            wrong.extend(models.iter().filter_map(|model| hurried(&provider, model)));
        }
        wrong.extend(judged(scene, said, calls).map(|w| format!("{}: {w}: {said:?}", scene.model())));
        seen.insert(scene, (said.clone(), calls));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if clients.iter().all(Option::is_some) {
        docs::holds(CLIENTS, &table(&seen), "clients_under_faults");
    }
}

/// A target was asked again before the second that it asked for was over, whoever's try it was.
fn hurried(provider: &Provider, model: &str) -> Option<String> {
    let calls = provider.log().select(|e| e.model == model);
    let gaps = calls.windows(2).map(|two| two[1].began_us - two[0].began_us);
    let least = gaps.min().filter(|us| *us < 990_000)?;
    Some(format!("{model}: asked again after {} ms", least / 1_000))
}

/// What is wrong with what a client has seen, if something is.
fn judged(scene: Scene, said: &Said, calls: usize) -> Option<String> {
    let whole = said.text.as_deref() == Some(&*Scene::text());
    let text = said.text.as_deref().unwrap_or_default();
    if scene.second == Second::Well {
        let well = said.raised.is_none() && whole && said.finish.as_deref() == Some("stop");
        return (!well).then(|| "not one whole answer".to_owned());
    }
    if scene.stream && scene.in_the_middle() {
        return if said.raised.is_none() {
            Some("a silent end".to_owned())
        } else if text.is_empty() || !Scene::text().starts_with(text) {
            Some("what came before the error is not the beginning of the answer".to_owned())
        } else {
            None
        };
    }
    if said.raised.is_none() || !text.is_empty() {
        return Some("no exception".to_owned());
    }
    // Three tries of a client and up to four of ours on each would be twelve: what is sent again is repeated nowhere.
    let most = if scene.second == Second::Same { 8 } else { 4 };
    (calls > most).then(|| format!("{calls} calls"))
}

/// The table of the page: a row a fault and form.
fn table(seen: &BTreeMap<Scene, Seen>) -> String {
    let mut out = String::from(
        "| what the provider does, for ever | asked for | no second tier: what is raised | its requests, calls upstream | a \
         second tier that is well | one that does the same: its requests, calls upstream |\n|---|---|---|---|---|---|\n",
    );
    for (at, fault) in FAULTS.iter().enumerate() {
        for stream in [true, false] {
            let of = |client, second| {
                let scene = Scene {
                    client,
                    fault: at,
                    stream,
                    second,
                };
                seen.get(&scene)
            };
            let both = |second, told: &dyn Fn(&Seen) -> String| {
                let (python, node) = (of(0, second).map(told), of(1, second).map(told));
                match (python, node) {
                    (Some(python), Some(node)) if python != node => format!("{python} (node: {node})"),
                    (python, node) => python.or(node).unwrap_or_else(|| "-".to_owned()),
                }
            };
            let effort = |(said, calls): &Seen| format!("{}, {calls}", said.asked.len());
            let form = if stream { "a stream" } else { "a whole answer" };
            let _ = writeln!(
                out,
                "| {} | {form} | {} | {} | {} | {} |",
                fault.about(),
                both(Second::None, &raised),
                both(Second::None, &effort),
                both(Second::Well, &raised),
                both(Second::Same, &effort),
            );
        }
    }
    out
}

/// `APIError`, its message, and what came before it.
fn raised((said, _): &Seen) -> String {
    let Some(name) = &said.raised else {
        return "the whole text".to_owned();
    };
    let status = said.status.map(|s| format!(" ({s})")).unwrap_or_default();
    let words = said
        .text
        .as_deref()
        .unwrap_or_default()
        .split_whitespace()
        .count();
    let text = if words > 0 {
        format!(
            ", after {words} of {} words",
            Scene::text().split_whitespace().count()
        )
    } else {
        String::new()
    };
    format!("`{name}`{status}{text}: \"{}\"", plainly(said))
}

/// The message, without names and addresses that are this test's own.
fn plainly(said: &Said) -> String {
    let message = said
        .message
        .as_deref()
        .unwrap_or_default()
        .replace(&said.model, "NAME");
    let words = message.split(' ').filter(|word| !word.contains("127.0.0.1"));
    words.collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
