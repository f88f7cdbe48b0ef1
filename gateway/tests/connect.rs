//! `weir check --connect`: each thing that is wrong with a provider is told in its own words.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;

use load_tests::provider::{Options, Provider, Script};
use serde_json::Value;

/// A provider of the plan: its name, `base_url`, and the variable of its key.
fn provider(name: &str, base_url: &str, key: &str) -> String {
    format!(
        "[providers.{name}]\nkind = \"openai\"\nbase_url = \"{base_url}\"\napi_key = \"env:{key}\"\n\
         [targets.{name}-one]\nprovider = \"{name}\"\nmodel = \"lab-a\"\nprice = \"unmetered\"\n"
    )
}

#[test]
fn each_provider_is_asked_once_and_what_is_wrong_is_told() {
    let script =
        Script::parse("api_key = \"right\"\n[[models]]\nname = \"lab-a\"\n[[models]]\nname = \"lab-b\"\n")
            .unwrap();
    let lab = Provider::start_on_thread(script, Options::default()).unwrap();
    let (base, root) = (lab.base_url(), lab.base_url().trim_end_matches("/v1").to_owned());
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("plan.toml");
    let text = [
        "version = 1\n".to_owned(),
        provider("fine", &base, "RIGHT"),
        "[targets.unknown]\nprovider = \"fine\"\nmodel = \"lab-z\"\nprice = \"unmetered\"\n".to_owned(),
        provider("keyless", &base, "WRONG"),
        provider("cut", &root, "RIGHT"),
        provider("dead", &format!("http://{free}/v1"), "RIGHT"),
        provider("absent", &base, "NOT_THERE"),
        provider("nowhere", "http://no-such-host.invalid/v1", "RIGHT"),
        "[routes.auto]\ntiers = [[\"fine-one\"]]\n".to_owned(),
    ];
    std::fs::write(&plan, text.concat()).unwrap();
    let weir = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("check")
            .arg(&plan)
            .args(args)
            .envs([("RIGHT", "right"), ("WRONG", "a-wrong-key"), ("NO_PROXY", "*")])
            .env_remove("NOT_THERE")
            .output()
            .unwrap()
    };
    let told = weir(&["--connect", "--json"]);
    assert_eq!(told.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&told.stdout).unwrap();
    let of = |name: &str| {
        let all = found["providers"].as_array().unwrap();
        let one = all.iter().find(|p| p["provider"] == name).unwrap();
        (one["ok"].as_bool().unwrap(), one["said"].to_string())
    };
    for (name, ok, part) in [
        ("fine", true, "lists 2 models"),
        ("fine", true, "`lab-z` (target unknown)"),
        ("keyless", false, "refuses the key with status 401"),
        ("cut", false, "should end in /v1"),
        ("dead", false, &free.to_string()),
        ("absent", false, "NOT_THERE is not set"),
        ("nowhere", false, "no-such-host.invalid"),
    ] {
        let (is, said) = of(name);
        assert_eq!(is, ok, "{name}: {said}");
        assert!(said.contains(part), "{name}: {said}");
    }
    let shown = String::from_utf8(weir(&["--connect"]).stdout).unwrap();
    assert!(shown.contains("WRONG dead"), "{shown}");
    for secret in ["a-wrong-key", "\"right\""] {
        assert!(!shown.contains(secret) && !found.to_string().contains(secret));
    }
    assert_eq!(weir(&[]).status.code(), Some(0), "without it nobody is asked");
    let asked = lab.log().entries();
    assert!(
        asked.iter().all(|e| e.method == "GET"),
        "nothing that costs: {asked:?}"
    );
}
