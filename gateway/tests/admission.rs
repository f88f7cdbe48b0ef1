//! Admission over real sockets: who waits is served in its turn, who would wait in vain is told so at once, and nobody is kept
//! from a target that has room.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod harness;
mod house;

use std::sync::Arc;
use std::time::Duration;

use gateway::providers::failure::{AttemptError, Fault};
use gateway::providers::fake::{Act, Script};
use harness::{Answer, Gateway, HELLO, HELLO_STREAM, PLAN, Wire, eventually};
use routing::plan::Class;

const CHAT: &str = "/v1/chat/completions";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

async fn started(more: &str) -> Arc<Gateway> {
    Arc::new(Gateway::with(&format!("{PLAN}\n{more}"), Script::answer("ok"), &[]).await)
}

/// A stream that says something and then nothing more, until it is dropped.
async fn open(gateway: &Gateway) -> Wire {
    gateway
        .fake
        .turn(Script::new().begin("m").text("so far").act(Act::Hang));
    let mut wire = gateway.connect().await;
    wire.send("POST", CHAT, JSON, HELLO_STREAM).await;
    wire.until("so far").await;
    gateway.fake.turn(Script::answer("ok"));
    wire
}

fn asks(gateway: &Arc<Gateway>, body: String) -> tokio::task::JoinHandle<Answer> {
    let gateway = Arc::clone(gateway);
    tokio::spawn(async move { gateway.chat(&body).await })
}

async fn waiting(gateway: &Gateway, count: usize) {
    let gate = gateway.app.gate();
    let all = || {
        [Class::High, Class::Normal, Class::Low]
            .iter()
            .map(|c| gate.queued(*c))
            .sum::<usize>()
    };
    eventually("they wait", || all() == count).await;
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn who_finds_no_room_waits_and_who_finds_no_place_is_turned_away() {
    let gateway = started("[admission]\nmax_in_flight = 1\nqueue = 1\nmax_wait_ms = 60_000").await;
    let stream = open(&gateway).await;
    let waits = asks(&gateway, HELLO.to_owned());
    waiting(&gateway, 1).await;
    let refused = gateway.chat(HELLO).await;
    assert_eq!((refused.status, code(&refused).as_str()), (503, "overloaded"));
    assert_eq!(refused.header("x-should-retry"), Some("true"));
    assert!(
        refused.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("[admission] queue")
    );
    drop(stream);
    let answer = waits.await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    // The time in the row is the queue's, not our own.
    let timing = answer.header("server-timing").unwrap();
    assert!(!timing.contains("queue;dur=0.000"), "{timing}");
    let text = gateway.app.telemetry().render();
    assert!(
        text.contains(r#"weir_admission_shed_total{reason="queue_full",class="normal"} 1"#),
        "{text}"
    );
    eventually("nothing is held", || gateway.app.gate().in_flight() == 0).await;
}

#[tokio::test]
async fn a_wait_that_is_too_long_ends_with_the_time_to_come_back() {
    let gateway = started("[admission]\nmax_in_flight = 1\nmax_wait_ms = 50").await;
    // One that was in flight for a while: by now it is known how long that usually is.
    let stream = open(&gateway).await;
    let waited = gateway.chat(HELLO).await;
    assert_eq!((waited.status, code(&waited).as_str()), (503, "overloaded"));
    drop(stream);
    eventually("room again", || gateway.app.gate().in_flight() == 0).await;
    let _stream = open(&gateway).await;
    let vain = gateway.chat(HELLO).await;
    assert_eq!(vain.status, 503);
    let after: u64 = vain.header("retry-after-ms").unwrap().parse().unwrap();
    assert!(after >= 50, "{after}");
    assert!(vain.header("retry-after").is_some() && vain.header("x-weir-attempts").is_none());
}

/// One target that takes one at a time.
const ONE: &str = "limits = { concurrency = 1 }\n[routes.auto]";

#[tokio::test]
async fn a_target_that_is_full_is_waited_for() {
    let text = format!(
        "{}\n[admission]\nmax_wait_ms = 60_000",
        PLAN.replace("[routes.auto]", ONE)
    );
    let gateway = Arc::new(Gateway::with(&text, Script::answer("ok"), &[]).await);
    let stream = open(&gateway).await;
    let waits: Vec<_> = (0..5).map(|_| asks(&gateway, HELLO.to_owned())).collect();
    waiting(&gateway, 5).await;
    assert_eq!(
        gateway.app.gate().in_flight(),
        1,
        "who waits is no work in flight"
    );
    drop(stream);
    for answer in waits {
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status, answer.header("x-weir-attempts")),
            (200, Some("1")),
            "{answer:?}"
        );
    }
    assert_eq!(gateway.fake.seen().len(), 6);
    let state = gateway.app.runtime().targets[0].state.clone();
    eventually("nothing is held", || {
        state.in_flight() == 0 && gateway.app.gate().in_flight() == 0
    })
    .await;
}

#[tokio::test]
async fn somebody_else_is_not_waited_behind() {
    let more = "[targets.two]\nprovider = \"p\"\nmodel = \"upstream-two\"\nprice = \"unmetered\"\n\
                [routes.other]\ntiers = [[\"two\"]]\n[routes.both]\ntiers = [[\"one\"], [\"two\"]]\nstart = \"first\"\n\
                [admission]\nmax_wait_ms = 60_000";
    let gateway = Arc::new(
        Gateway::with(
            &format!("{}\n{more}", PLAN.replace("[routes.auto]", ONE)),
            Script::answer("ok"),
            &[],
        )
        .await,
    );
    let stream = open(&gateway).await;
    let waits = asks(&gateway, HELLO.to_owned());
    waiting(&gateway, 1).await;
    let other = gateway.chat(&HELLO.replace("auto", "other")).await;
    assert_eq!((other.status, other.header("x-weir-model")), (200, Some("two")));
    // None free means elsewhere, where there is an elsewhere.
    let both = gateway.chat(&HELLO.replace("auto", "both")).await;
    assert_eq!((both.status, both.header("x-weir-model")), (200, Some("two")));
    drop(stream);
    assert_eq!(waits.await.unwrap().status, 200);
}

const KEYED: &str = r#"
[[keys]]
name = "first"
key = "env:HIGH"
tenant = "t"
class = "high"
[[keys]]
name = "last"
key = "env:LOW"
tenant = "t"
class = "low"
[admission]
max_wait_ms = 60_000
"#;

#[tokio::test]
async fn the_class_of_a_key_decides_who_is_next() {
    let text = PLAN
        .replace("[routes.auto]", ONE)
        .replace("[server]", "[server]\nauth = \"keys\"");
    let env: &[(&str, &str)] = &[("HIGH", "sk-high"), ("LOW", "sk-low")];
    let gateway = Arc::new(Gateway::with(&format!("{text}{KEYED}"), Script::answer("ok"), env).await);
    let ask = |key: &'static str, text: &str| {
        let (gateway, body) = (Arc::clone(&gateway), HELLO.replace("hello", text));
        tokio::spawn(async move {
            let headers = [("content-type", "application/json"), ("authorization", key)];
            gateway.ask("POST", CHAT, &headers, &body).await.status
        })
    };
    gateway.fake.turn(Script::new().act(Act::Hang).accept());
    let mut holds = gateway.connect().await;
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer sk-low"),
    ];
    holds.send("POST", CHAT, &headers, HELLO).await;
    eventually("it runs", || gateway.fake.seen().len() == 1).await;
    gateway.fake.turn(Script::answer("ok"));
    let mut all = Vec::new();
    for (n, (key, text)) in [
        ("Bearer sk-low", "low one"),
        ("Bearer sk-low", "low two"),
        ("Bearer sk-high", "high one"),
        ("Bearer sk-high", "high two"),
    ]
    .into_iter()
    .enumerate()
    {
        all.push(ask(key, text));
        waiting(&gateway, n + 1).await;
    }
    drop(holds);
    for status in all {
        assert_eq!(status.await.unwrap(), 200);
    }
    let seen: Vec<String> = gateway
        .fake
        .seen()
        .iter()
        .skip(1)
        .map(|s| String::from_utf8_lossy(&s.raw).into_owned())
        .collect();
    let order: Vec<bool> = seen.iter().map(|body| body.contains("high")).collect();
    assert_eq!(order, [true, true, false, false], "{seen:?}");
}

#[tokio::test]
async fn a_caller_that_leaves_while_it_waits_frees_its_place_at_once() {
    let gateway = started("[admission]\nmax_in_flight = 1\nqueue = 1\nmax_wait_ms = 60_000").await;
    let stream = open(&gateway).await;
    let mut leaves = gateway.connect().await;
    leaves.send("POST", CHAT, JSON, HELLO).await;
    waiting(&gateway, 1).await;
    drop(leaves);
    waiting(&gateway, 0).await;
    let stays = asks(&gateway, HELLO.to_owned());
    waiting(&gateway, 1).await;
    drop(stream);
    assert_eq!(stays.await.unwrap().status, 200);
    assert_eq!(gateway.fake.seen().len(), 2, "who left was never sent");
}

#[tokio::test]
async fn the_ladder_is_better_than_an_error() {
    let more = "[targets.weak]\nprovider = \"p\"\nmodel = \"upstream-weak\"\nprice = \"unmetered\"\n\
                [admission]\nmax_wait_ms = 20";
    let text = PLAN.replace("[routes.auto]", ONE).replace(
        "tiers = [[\"one\"]]",
        "tiers = [[\"weak\"], [\"one\"]]\nstart = \"last\"\ndegrade_floor = 0.0",
    );
    let gateway = Gateway::with(&format!("{text}\n{more}"), Script::answer("ok"), &[]).await;
    let _stream = open(&gateway).await;
    let answer = gateway.chat(HELLO).await;
    assert_eq!(
        (answer.status, answer.header("x-weir-degraded")),
        (200, Some("weaker; reason=full")),
        "{answer:?}"
    );
    // A name that is a promise has no ladder.
    let pinned = gateway.chat(&HELLO.replace("auto", "one")).await;
    assert_eq!((pinned.status, code(&pinned).as_str()), (503, "overloaded"));
}

#[tokio::test]
async fn refusals_lower_the_limit_and_everybody_sees_it() {
    let gateway = started("[breaker]\nconsecutive_failures = 1_000\nmin_requests = 1_000").await;
    let state = gateway.app.runtime().targets[0].state.clone();
    assert_eq!(state.limit(), Some(10_000), "what may be in flight at all");
    let busy = AttemptError::new(Fault::Status(503), "p answered 503: at capacity");
    // One that is refused alone is not one too many.
    gateway.fake.turn(Script::refuse(busy.clone()));
    assert!(gateway.chat(HELLO).await.status >= 500);
    assert_eq!(state.limit(), Some(10_000));
    let _beside = open(&gateway).await;
    gateway.fake.turn(Script::refuse(busy));
    assert!(gateway.chat(HELLO).await.status >= 500);
    let limit = state.limit().unwrap();
    assert!(limit <= 64, "{limit}");
    // An error of another kind says nothing of how much it takes.
    state.wish(gateway::target_state::Wish::On);
    assert_eq!(state.limit(), Some(10_000), "mended");
    gateway.fake.turn(Script::refuse(AttemptError::new(
        Fault::Status(500),
        "p answered 500",
    )));
    assert!(gateway.chat(HELLO).await.status >= 500);
    assert_eq!(state.limit(), Some(10_000));
}

/// On a clock of its own: on a machine that is busy with other things everything comes late.
#[tokio::test(start_paused = true)]
async fn first_words_that_come_late_under_load_lower_the_limit_and_length_does_not() {
    let plan = "[targets.eight]\nprovider = \"p\"\nmodel = \"m\"\nprice = \"unmetered\"\nlimits = { concurrency = 8 }\n\
                [routes.eights]\ntiers = [[\"eight\"]]\n[admission]\nmax_wait_ms = 60_000\n";
    let house = house::house(plan, [Script::answer("ok")]);
    let runtime = house.app.runtime();
    let eight = runtime.plan.targets.iter().position(|t| &*t.name == "eight");
    let state = runtime.targets[eight.unwrap()].state.clone();
    let body = house::body(true, serde_json::json!({"model": "eights", "temperature": 1}));
    let rounds = async |count: usize, first: u64, rest: u64| {
        house.fake.turn(
            Script::new()
                .begin("m")
                .wait(Duration::from_millis(first))
                .text("a")
                .wait(Duration::from_millis(rest))
                .text("b")
                .stop()
                .usage(1, 2)
                .done(),
        );
        for _ in 0..count {
            let all: Vec<_> = (0..8).map(|_| tokio::spawn(house.send(&[], &body))).collect();
            for answer in all {
                assert_eq!(answer.await.unwrap().text(), "ab");
            }
        }
    };
    rounds(4, 1, 1).await;
    rounds(4, 1, 250).await;
    assert_eq!(state.limit(), Some(8), "long answers are long answers");
    rounds(3, 900, 1).await;
    assert!(state.limit().unwrap() < 8, "{:?}", state.limit());
}
