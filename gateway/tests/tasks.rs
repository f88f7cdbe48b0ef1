//! How many tasks the serving runtimes have, as `/metrics` tells it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod harness;

use gateway::providers::fake::Script;
use harness::{Gateway, eventually};

#[tokio::test]
async fn a_connection_is_a_task_of_its_core_and_is_given_back() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let told = || -> f64 {
        let page = gateway.app.telemetry().render();
        let line = page.lines().find_map(|line| line.strip_prefix("weir_tasks "));
        line.map_or(0.0, |value| value.parse().unwrap())
    };
    // The harness's two cores have one task each: that which measures it.
    eventually("both cores tell their own task", || told() == 2.0).await;
    let held = [
        gateway.connect().await,
        gateway.connect().await,
        gateway.connect().await,
    ];
    eventually("each connection is a task", || told() == 5.0).await;
    drop(held);
    eventually("their tasks have ended", || told() == 2.0).await;
}
