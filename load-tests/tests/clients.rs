//! Official clients, in the versions that a user gets today, against the gateway (and, to prove the scripts themselves,
//! against the bare provider). The scripts lie in `tests/clients`, the recipes of the README in `examples/clients`.
//!
//! Without Python, Node or a way to install packages a part is skipped, and says so; `WEIR_CLIENTS=required` (where they must run)
//! makes that a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say where"
)]

use std::time::Duration;

use load_tests::gateway::{self, Gateway, Home};
use load_tests::provider::{Options, Provider, Script};

mod tools;
use tools::{Part, script};

const KEY: &str = "weir-client-test-key";

/// What the scripted provider says to the client tests.
const SCRIPT: &str = r#"
    [default]
    tokens = 12
    [[models]]
    name = "auto"
    [[models]]
    name = "lab"
    [[models]]
    name = "lab-embed"
    [[models]]
    name = "lab-429"
    [[models]]
    name = "lab-500"
    [[models]]
    name = "lab-cut"
    [[rules]]
    contains = "call the tool"
    tool_calls = [{ name = "find", arguments = { city = "Paris" } }]
    [[answers]]
    question = "capital of France"
    answer = "(scripted) Paris."
"#;

fn settings(url: &str, faults: &str) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = [
        ("WEIR_URL", format!("{url}/v1")),
        ("WEIR_KEY", KEY.into()),
        ("WEIR_LAB_MODEL", "lab".into()),
        ("WEIR_EMBEDDING_MODEL", "lab-embed".into()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    for fault in ["429", "500", "cut"] {
        env.push((
            format!("WEIR_LAB_{}", fault.to_uppercase()),
            format!("lab-{fault}{faults}"),
        ));
    }
    env
}

const TESTS: [Part; 4] = [
    Part::Python("openai_python.py"),
    Part::Python("langchain_python.py"),
    Part::Node("openai_node.mjs"),
    Part::Node("ai_sdk.mjs"),
];

const RECIPES: [Part; 4] = [
    Part::Python("openai_python.py"),
    Part::Python("langchain.py"),
    Part::Node("openai_node.mjs"),
    Part::Node("ai_sdk.mjs"),
];

/// Runs every script and reports all failures together.
fn all(url: &str, own_faults: bool, more: &[(&str, &str)]) {
    let mut failures = Vec::new();
    for (folder, parts) in [("tests/clients", TESTS), ("examples/clients", RECIPES)] {
        for (number, part) in parts.into_iter().enumerate() {
            let mut env = settings(
                url,
                &if own_faults {
                    format!("-{number}")
                } else {
                    String::new()
                },
            );
            env.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
            let name = match part {
                Part::Python(n) | Part::Node(n) => n,
            };
            match script(part, folder, &env) {
                Some(Ok(said)) => {
                    println!("{folder}/{name}\n{said}");
                    if said.trim().is_empty() {
                        failures.push(format!("{folder}/{name} printed nothing"));
                    }
                }
                Some(Err(said)) => failures.push(format!("{folder}/{name}\n{said}")),
                None => {}
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_scripts_hold_against_the_bare_provider() {
    let script = Script {
        api_key: Some(KEY.into()),
        strict: true,
        max_body_bytes: Some(8 << 20),
        ..Script::parse(SCRIPT).unwrap()
    };
    let provider = Provider::start_on_thread(script, Options::default()).unwrap();
    all(&provider.url(), false, &[("WEIR_DIRECT", "1")]);
}

/// Each script gets its own targets for faults: one that is held back must not be in the way of the next script.
fn plan(provider: &Provider) -> String {
    let mut plan = format!(
        r#"
        version = 1
        [server]
        listen = "{{listen}}"
        admin = "{{admin}}"
        auth = "keys"
        [[keys]]
        name = "clients"
        key = "env:WEIR_CLIENT_TEST_KEY"
        tenant = "clients"
        [providers.lab]
        kind = "openai"
        base_url = "{}"
        [targets.lab]
        provider = "lab"
        model = "lab"
        price = "unmetered"
        [targets.lab-embed]
        provider = "lab"
        model = "lab-embed"
        price = "unmetered"
        [routes.auto]
        tiers = [["lab"]]
        start = "first"
        "#,
        provider.base_url()
    );
    for number in 0..4 {
        for fault in ["429", "500", "cut"] {
            let target = format!("lab-{fault}-{number}");
            let model = format!("lab-{fault}");
            plan.push_str(&format!(
                "[targets.{target}]\nprovider = \"lab\"\nmodel = \"{model}\"\nprice = \"unmetered\"\n"
            ));
        }
    }
    plan
}

#[test]
fn official_clients_against_the_gateway() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let provider = Provider::start_on_thread(Script::parse(SCRIPT).unwrap(), Options::default()).unwrap();
    let program = gateway::binary().expect("the gateway's program");
    let options = gateway::Options {
        plan: plan(&provider),
        home: Home::Fresh,
        env: vec![("WEIR_CLIENT_TEST_KEY".into(), KEY.into())],
        echo: false,
        ready_within: Duration::from_secs(60),
    };
    let gateway = runtime
        .block_on(Gateway::start(&program, &options))
        .expect("the gateway starts");
    all(gateway.url(), true, &[]);
}

/// The plan that is shipped, on ports of its own.
fn shipped() -> String {
    let mut plan = include_str!("../../routing.toml").to_owned();
    for (line, ours) in [
        ("#listen = \"127.0.0.1:8080\"", "listen = \"{listen}\""),
        ("#admin = \"127.0.0.1:9090\"", "admin = \"{admin}\""),
    ] {
        assert_eq!(plan.matches(line).count(), 1, "{line}");
        plan = plan.replace(line, ours);
    }
    plan
}

/// The models inside the gateway, as a stranger gets them: no script answers here, and no key is there.
#[test]
fn an_official_client_against_the_models_inside() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let program = gateway::binary().expect("the gateway's program");
    let options = gateway::Options {
        plan: shipped(),
        home: Home::UsersModels,
        env: vec![("OPENAI_API_KEY".into(), String::new())],
        echo: false,
        ready_within: Duration::from_secs(900),
    };
    let gateway = runtime
        .block_on(Gateway::start(&program, &options))
        .expect("the gateway starts");
    if let Err(why) = runtime.block_on(gateway.wait_models(Duration::from_secs(900))) {
        assert!(std::env::var_os("CI").is_none(), "{why}");
        tools::skipped("the models inside", &why.to_string());
        return;
    }
    let mut env = settings(gateway.url(), "");
    env.push(("WEIR_LOCAL_MODEL".into(), "smollm2".into()));
    env.push(("WEIR_EMBEDDING_MODEL".into(), "all-minilm-l6-v2".into()));
    match script(Part::Python("openai_python_local.py"), "tests/clients", &env) {
        Some(Ok(said)) => println!("{said}"),
        Some(Err(said)) => panic!("{said}"),
        None => {}
    }
}
