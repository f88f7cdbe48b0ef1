//! A caller leaves an answer of a model inside the gateway, over HTTP: the model's own figures say that it stops.
//!
//! Where the model cannot be fetched this is skipped, and says so; with `CI` in the environment that is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say where"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use load_tests::caller::{self, Leave};
use load_tests::client::Client;
use load_tests::gateway::{self, Gateway, Home};
use load_tests::soak::{counters, gauges};
use serde_json::json;

const PLAN: &str = r#"
version = 1
[server]
listen = "{listen}"
admin = "{admin}"
[targets.house]
provider = "local"
artifact = "smollm2-135m-instruct-q4_1"
context = 2048
[routes.auto]
tiers = [["house"]]
verify = ["finish"]
"#;

const PATIENCE: Duration = Duration::from_secs(300);

/// The same story each time, longer than anybody waits for here.
fn body() -> Bytes {
    let body = json!({
        "model": "house", "stream": true, "stream_options": {"include_usage": true}, "temperature": 0, "max_tokens": 200,
        "messages": [{"role": "user", "content": "Write a long story about a river and the town beside it."}],
    });
    Bytes::from(body.to_string())
}

async fn figures(admin: &Client) -> (BTreeMap<String, f64>, BTreeMap<String, f64>) {
    let page = admin.get("/metrics").await.unwrap().bytes().await.unwrap();
    let page = String::from_utf8_lossy(&page);
    (gauges(&page), counters(&page))
}

/// Tokens that the model has made in all, once it is at rest.
async fn made(admin: &Client) -> f64 {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..3_000 {
        look.tick().await;
        let (gauges, counters) = figures(admin).await;
        if gauges["weir_local_batch_size"] == 0.0 && gauges["weir_requests_in_flight"] == 0.0 {
            return counters["weir_local_tokens_total"];
        }
    }
    panic!("the model is still at it after a minute");
}

async fn run() {
    let program = gateway::binary().expect("the gateway's program");
    let options = gateway::Options {
        plan: PLAN.to_owned(),
        home: Home::UsersModels,
        env: Vec::new(),
        echo: false,
        ready_within: Duration::from_secs(900),
    };
    let gateway = Gateway::start(&program, &options)
        .await
        .expect("the gateway starts");
    if let Err(why) = gateway.wait_models(PATIENCE).await {
        assert!(std::env::var_os("CI").is_none(), "{why}");
        let _ = writeln!(std::io::stderr(), "SKIPPED, the model cannot be had here: {why}");
        return;
    }
    let client = Client::new(gateway.url()).unwrap();
    let admin = Client::new(gateway.admin()).unwrap();
    let headers = HeaderMap::new();

    let whole = caller::ask(&client, body(), &headers, PATIENCE, Leave::Never).await;
    let asked_for = whole.usage.2 as f64;
    assert!(whole.status == 200 && asked_for >= 100.0, "{whole:?}");
    let before = made(&admin).await;
    let left = caller::ask(&client, body(), &headers, PATIENCE, Leave::AfterPieces(3)).await;
    assert!(left.status == 200 && left.left, "{left:?}");
    let more = made(&admin).await - before;
    assert!(
        more < asked_for / 2.0,
        "the caller left after three pieces, and the model made {more} of {asked_for} tokens"
    );
}

#[test]
fn a_caller_that_leaves_an_answer_of_a_model_inside_stops_the_model() {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(run());
}
