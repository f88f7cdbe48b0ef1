//! `docs/faults.md` and the README say what the wall's catalogue says, and name keys that there are.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say where"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use load_tests::faults::{self, BRIEF, Key, PAGE};

mod docs;
use docs::holds;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn the_page_and_the_readme_say_what_the_catalogue_says() {
    let cases = faults::all();
    holds(PAGE, &faults::page(&cases, None), "faults_page");
    holds(BRIEF, &faults::brief(&cases), "faults_page");
}

/// The keys of the shipped plan, examples and defaults included, with `NAME` for the names of routes, targets and
/// providers.
fn keys(plan: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in plan.lines() {
        // "# " begins a sentence, "#" alone a key that is off.
        let line = line
            .strip_prefix('#')
            .filter(|l| !l.starts_with(' '))
            .unwrap_or(line);
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            let (kind, named) = name
                .split_once('.')
                .map_or((name, false), |(kind, _)| (kind, true));
            section = if named {
                format!("{kind}.NAME")
            } else {
                kind.to_owned()
            };
        } else if let Some((key, _)) = line
            .split_once(" = ")
            .filter(|(key, _)| !key.contains([' ', '"', '#']))
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

#[test]
fn every_key_that_the_page_names_is_in_the_shipped_plan() {
    let plan = std::fs::read_to_string(root().join("routing.toml")).unwrap();
    let there = keys(&plan);
    assert!(
        there.contains("timeouts.idle_ms") && !there.contains("timeouts.idle"),
        "{there:?}"
    );
    for key in Key::ALL {
        assert!(
            there.contains(key.name()),
            "{} is not in routing.toml",
            key.name()
        );
    }
}
