//! The wall against something that it must find wanting: a bare forwarder passes what is a habit and fails what is a
//! fault. (Cases in which a forwarder waits for ever are left out here; the command plays them.)

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should say where"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use load_tests::faults::{self, Case, Dialect, Form, Forwarder, World};

/// What a forwarder fails at, and a word of why.
const FAULTS: [(&str, &str); 16] = [
    ("rate_limited", "status 429"),
    ("server_error", "status 500"),
    ("unavailable", "status 503"),
    ("html_answer", "not JSON"),
    ("unauthorized", "status 401"),
    ("context_length", "status 400"),
    ("unsupported_parameter", "status 400"),
    ("cut", "broke inside"),
    ("clean_end", "truncated and sold as whole"),
    ("done_without_finish", "finish reasons []"),
    ("finish_without_done", "no [DONE]"),
    ("bad_json", "not JSON"),
    ("in_band_error", "status 200"),
    ("reset_before_head", "status 502"),
    ("reset_in_chunk_header", "broke inside"),
    ("named_500_once", "status 500"),
];

/// What it does well, because there is nothing to do.
const HABITS: [&str; 9] = [
    "content_filter",
    "invalid_request",
    "http10",
    "byte_chunks",
    "crlf",
    "bare_cr",
    "comments",
    "multi_line",
    "early_hints",
];

#[tokio::test]
async fn a_bare_forwarder_passes_habits_and_fails_faults() {
    let mut cases: Vec<Case> = faults::all();
    cases.retain(|c| {
        let meant = HABITS.contains(&c.name.as_str()) || FAULTS.iter().any(|(name, _)| *name == c.name);
        meant && c.dialect == Dialect::Openai && c.form == Form::Stream
    });
    assert_eq!(cases.len(), FAULTS.len() + HABITS.len());
    let world = Arc::new(World::start(&cases).unwrap());
    let forwarder = Forwarder::start(&cases, &world).await.unwrap();
    let doors = faults::one_door(&forwarder.url());
    let table = faults::run("bare forwarder", &doors, &cases, &world, 64, |_| {})
        .await
        .unwrap();
    let found: BTreeMap<&str, String> = table
        .outcomes
        .iter()
        .map(|o| (o.case.as_str(), o.wrong.join("; ")))
        .collect();
    for name in HABITS {
        assert_eq!(found[name], "", "{name}");
    }
    for (name, why) in FAULTS {
        assert!(found[name].contains(why), "{name}: {}", found[name]);
    }
    assert_eq!(table.faults_failed(), FAULTS.len());
}
