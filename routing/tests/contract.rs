//! The fixed names of `routing.toml`: the whole of the contract loads, means what it says, and is documented in the
//! file that we ship.

#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::BTreeSet;
use std::time::Duration;

use routing::facts::{CallKind, Needs};
use routing::ids::TargetId;
use routing::plan::{
    self, Check, Compiled, DegradeStep, HoldBack, Named, Note, Objective, Plan, Price, Weight,
};
use routing::units::{NanoUsd, PricePerToken};

const CONTRACT: &str = include_str!("plans/contract.toml");

fn load(text: &str) -> Compiled {
    plan::load(text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn target<'p>(plan: &'p Plan, name: &str) -> (TargetId, &'p plan::TargetConfig) {
    let i = plan
        .targets
        .iter()
        .position(|t| t.name.as_ref() == name)
        .expect("such a target");
    (TargetId(i as u16), &plan.targets[i])
}

#[test]
fn the_contract_loads_and_means_what_it_says() {
    let Compiled { plan, .. } = load(CONTRACT);
    let (smollm2, local) = target(&plan, "smollm2");
    let (small, remote) = target(&plan, "small");
    let (large, _) = target(&plan, "large");

    assert_eq!(local.price, Price::Unmetered);
    assert_eq!(
        (local.limits.concurrency, local.limits.queue),
        (Some(8), Some(64))
    );
    assert_eq!(local.capabilities, Needs::LOGPROBS.with(Needs::EFFECTS));
    assert_eq!(local.serves, [CallKind::Chat, CallKind::Completion]);

    let Price::PerToken {
        input, cached_input, ..
    } = remote.price
    else {
        panic!("{:?}", remote.price)
    };
    assert_eq!(
        (input, cached_input),
        (
            PricePerToken { pico_usd: 150_000 },
            PricePerToken { pico_usd: 75_000 }
        )
    );
    assert!(
        remote
            .capabilities
            .contains(Needs::TOOLS.with(Needs::JSON_MODE).with(Needs::PROVIDER_FIELDS))
    );
    assert!(!remote.capabilities.contains(Needs::PREFILL) && !remote.capabilities.contains(Needs::AUDIO));
    assert_eq!(remote.timeouts.first_token, Duration::from_secs(20));
    assert_eq!(remote.timeouts.idle, plan.timeouts.idle);
    assert_eq!(
        target(&plan, "lab-b").1.capabilities,
        Needs::PREFILL
            .with(Needs::LOGPROBS)
            .with(Needs::PROVIDER_FIELDS)
            .with(Needs::EFFECTS)
    );
    assert!(!target(&plan, "lab-a").1.capabilities.contains(Needs::PREFILL));

    let auto = plan
        .routes
        .iter()
        .find(|r| r.name.as_ref() == "auto")
        .expect("auto");
    assert_eq!(auto.tiers, [[smollm2], [small], [large]]);
    assert_eq!(auto.objective, Objective::QualityFloor(0.95));
    assert_eq!(auto.verify.len(), Check::ALL.len());
    assert_eq!(auto.hold_back, HoldBack::Tokens(24));
    assert_eq!(auto.degrade.len(), 4);
    assert!(auto.cache.semantic && auto.cache.exact_ttl == Duration::from_secs(600));

    assert_eq!(plan.aliases.get("gpt-3.5-turbo"), Some(&Named::Target(small)));
    assert_eq!(plan.rules.len(), 3);
    assert_eq!(plan.rules[1].line, 123);
    assert_eq!(plan.keys[0].limits.usd_per_day, Some(NanoUsd(20_000_000_000)));
    assert_eq!(
        plan.providers.iter().map(|p| p.name.as_ref()).collect::<Vec<_>>(),
        ["claude", "lab", "local", "openai"]
    );
    assert_eq!(plan.providers[0].base_url.as_ref(), "https://api.anthropic.com");
}

#[test]
fn a_key_that_is_left_out_takes_its_default() {
    let Compiled { plan, notes } =
        load("[targets.a]\nprovider = \"local\"\nartifact = \"x\"\n[routes.r]\ntiers = [[\"a\"]]\n");
    let route = &plan.routes[0];
    assert_eq!(
        route.verify,
        [
            Check::Finish,
            Check::Repetition,
            Check::JsonSchema,
            Check::ToolArguments
        ]
    );
    assert_eq!(route.hold_back, HoldBack::Tokens(0));
    assert_eq!(
        route.degrade,
        [DegradeStep::Weaker, DegradeStep::StaleCache, DegradeStep::Message]
    );
    assert_eq!(
        (route.message.status, route.max_added),
        (503, Duration::from_secs(5))
    );
    assert_eq!(plan.server.listen.as_ref(), "127.0.0.1:8080");
    assert_eq!(plan.retry.max_attempts, 4);
    assert_eq!(plan.records.keep_bytes, 2_147_483_648);
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn an_empty_file_is_a_plan() {
    let Compiled { plan, notes } = load("");
    assert!(plan.targets.is_empty() && plan.routes.is_empty() && notes.is_empty());
}

/// Somebody who relies on a part that does nothing yet must not have to look for that.
#[test]
fn what_has_no_effect_yet_is_told_loudly() {
    let notes = load(CONTRACT).notes;
    let prompts = load("[records]\nprompts = true\n").notes;
    let loud = |n: &&Note| n.weight == Weight::Loud && n.key == "records.prompts";
    assert!(prompts.iter().any(|n| loud(&n)), "{prompts:?}");
    // What is found out in the text itself is no such part.
    let rule = load("[[rules]]\nname = \"n\"\nwhen = { pii = true }\nthen = { deny = \"no\" }\n").notes;
    assert!(rule.is_empty(), "{rule:?}");
    assert!(!notes.iter().any(|n| n.key.contains("limits")), "{notes:?}");
    insta::assert_snapshot!(notes.iter().map(|n| format!("{n}\n")).collect::<String>());
}

// The shipped file.

/// Takes the # away from lines that are keys: all of them, or those that say "default".
fn uncomment(text: &str, defaults_only: bool) -> String {
    let is_key = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|l| l.starts_with(|c: char| !c.is_whitespace() && c != '#'))
    };
    let wanted = |line: &str| is_key(line) && (!defaults_only || line.contains("# default"));
    text.lines()
        .map(|l| format!("{}\n", if wanted(l) { &l[1..] } else { l }))
        .collect()
}

#[test]
fn the_shipped_plan_loads_and_all_of_it_has_effect() {
    let Compiled { plan, notes } = load(plan::BUILTIN);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(plan.total_limits.usd_per_day, Some(NanoUsd(5_000_000_000)));
    assert!(plan.routes.iter().any(|r| r.name.as_ref() == "auto"));
    let (_, encoder) = target(&plan, "all-minilm-l6-v2");
    assert_eq!(encoder.serves, [CallKind::Embeddings]);
}

#[test]
fn what_the_shipped_plan_calls_a_default_is_one() {
    let typed_out = uncomment(plan::BUILTIN, true);
    assert_ne!(typed_out, plan::BUILTIN);
    let (plan, same) = (load(plan::BUILTIN).plan, load(&typed_out).plan);
    assert_eq!(plan.canonical(), same.canonical());
    assert_eq!(
        format!("{:?}{:?}", plan.server, plan.records),
        format!("{:?}{:?}", same.server, same.records)
    );
    assert_eq!(format!("{:?}", plan.telemetry), format!("{:?}", same.telemetry));
}

#[test]
fn every_key_of_the_contract_is_documented_in_the_shipped_plan() {
    let all = uncomment(plan::BUILTIN, false);
    load(&all);
    let (mut shipped, mut fixed) = (BTreeSet::new(), BTreeSet::new());
    paths(&toml::from_str(&all).expect("TOML"), "", &mut shipped);
    paths(&toml::from_str(CONTRACT).expect("TOML"), "", &mut fixed);
    // In a comment of the contract, or a form of a key that stands there in another.
    fixed.extend(
        [
            "server.admin_token",
            "server.tls.cert_file",
            "providers.*.proxy",
            "providers.*.ca_file",
        ]
        .map(String::from),
    );
    let missing: Vec<_> = fixed.difference(&shipped).collect();
    assert!(missing.is_empty(), "not documented: {missing:?}");
}

/// Paths of all keys, with `*` in place of names that a plan chooses itself.
fn paths(value: &toml::Value, path: &str, out: &mut BTreeSet<String>) {
    const NAMED: [&str; 8] = [
        "providers",
        "targets",
        "routes",
        "tenants",
        "aliases",
        "headers",
        "rename",
        "default",
    ];
    match value {
        toml::Value::Table(entries) => {
            let named = path.rsplit('.').next().is_some_and(|last| NAMED.contains(&last));
            for (key, value) in entries {
                let key = if named { "*" } else { key };
                let path = if path.is_empty() {
                    key.to_owned()
                } else {
                    format!("{path}.{key}")
                };
                out.insert(path.clone());
                paths(value, &path, out);
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| paths(item, path, out)),
        _ => {}
    }
}

#[test]
fn the_example_plans_load_without_a_word() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("examples") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|e| e == "toml") {
            let text = std::fs::read_to_string(&path).expect("text");
            let notes = plan::load(&text)
                .unwrap_or_else(|p| panic!("{}: {p}", path.display()))
                .notes;
            assert!(notes.is_empty(), "{}: {notes:?}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 3);
}
