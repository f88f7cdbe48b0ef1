//! Limits over real sockets: nobody gets past one, whoever is under one gets in, and who is refused is told which it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod harness;

use std::sync::Arc;

use gateway::providers::failure::{AttemptError, Fault};
use gateway::providers::fake::{Act, Gate, Script};
use harness::{Answer, Gateway, HELLO, HELLO_STREAM, PLAN, eventually};

/// Three tokens of prompt and five of answer, at a thousandth of a dollar each.
const PRICED: &str = "price = { input = 1000.0, output = 1000.0 }\nmax_output = 5";
const COST: f64 = 0.008;

fn plan(more: &str) -> String {
    format!("{}\n{more}", PLAN.replace("price = \"unmetered\"", PRICED))
}

async fn started(more: &str) -> Gateway {
    Gateway::with(&plan(more), Script::answer("ok"), &[]).await
}

/// So many clients, each sending so many requests one after the other, streams and whole answers in turn.
async fn hammer(gateway: &Arc<Gateway>, clients: usize, each: usize) -> Vec<Answer> {
    let mut running = tokio::task::JoinSet::new();
    for client in 0..clients {
        let gateway = Arc::clone(gateway);
        running.spawn(async move {
            let mut answers = Vec::new();
            for i in 0..each {
                let body = if (client + i) % 2 == 0 {
                    HELLO
                } else {
                    HELLO_STREAM
                };
                answers.push(gateway.chat(body).await);
            }
            answers
        });
    }
    running.join_all().await.into_iter().flatten().collect()
}

fn served(answers: &[Answer]) -> usize {
    for a in answers {
        assert!(a.status == 200 || a.status == 429, "{a:?}");
        if a.status == 200 && a.body.starts_with("data") {
            assert!(a.body.ends_with("data: [DONE]\n\n"));
        }
    }
    answers.iter().filter(|a| a.status == 200).count()
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn requests_of_a_minute_are_counted_exactly() {
    let gateway = Arc::new(started("[limits]\ntotal = { requests_per_minute = 30 }").await);
    let answers = hammer(&gateway, 64, 2).await;
    let ok = served(&answers);
    // The minute's burst, and what a few seconds bring.
    assert!((30..=34).contains(&ok), "{ok}");
    assert_eq!(gateway.fake.seen().len(), ok, "as the provider counts");
    let refused = answers.iter().find(|a| a.status == 429).unwrap();
    assert_eq!(code(refused), "total_requests_per_minute");
    assert_eq!(refused.header("x-should-retry"), Some("true"));
    assert_eq!(refused.header("x-ratelimit-limit-requests"), Some("30"));
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
    let wait: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
    assert!(wait <= 2_000, "{wait} ms until the next of thirty a minute");
    assert!(refused.header("x-weir-attempts").is_none());
    let told = answers.iter().find(|a| a.status == 200).unwrap();
    assert!(told.header("x-ratelimit-reset-requests").is_some(), "{told:?}");
}

#[tokio::test]
async fn a_days_money_is_spent_to_the_end_and_not_beyond() {
    let gateway = Arc::new(started("[limits]\ntotal = { usd_per_day = 2.0 }").await);
    let answers = hammer(&gateway, 64, 8).await;
    let ok = served(&answers);
    let spent = ok as f64 * COST;
    assert!(spent <= 2.0 + 1e-9, "{spent} of 2 dollars");
    assert!(spent >= 2.0 * 0.98, "{spent} of 2 dollars");
    assert_eq!(gateway.fake.seen().len(), ok, "as the provider counts");
    let refused = answers.iter().find(|a| a.status == 429).unwrap();
    assert_eq!(code(refused), "total_usd_per_day");
    assert_eq!(refused.json()["error"]["type"], "insufficient_quota");
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("[limits] total") && message.contains("usd_per_day = 2"),
        "{message}"
    );
    assert_eq!(
        refused.header("x-should-retry"),
        Some("false"),
        "not before tomorrow"
    );
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test]
async fn tokens_of_a_minute_overshoot_by_one_request_a_client_at_most() {
    let clients = 64;
    let gateway = Arc::new(started("[limits]\ntotal = { tokens_per_minute = 4_000 }").await);
    let answers = hammer(&gateway, clients, 16).await;
    let used = served(&answers) * 8;
    let most = 4_000 + clients * 8;
    // Some seconds of a minute that refills are in it as well.
    assert!((3_920..=most + 4_000 / 6).contains(&used), "{used} tokens");
    let refused = answers.iter().find(|a| a.status == 429).unwrap();
    assert_eq!(code(refused), "total_tokens_per_minute");
    assert_eq!(refused.header("x-ratelimit-limit-tokens"), Some("4000"));
}

#[tokio::test]
async fn as_many_at_once_as_may_be_and_a_dropped_stream_makes_room() {
    let gateway = started("[limits]\ntotal = { concurrency = 2 }").await;
    gateway
        .fake
        .turn(Script::new().begin("m").text("so far").act(Act::Hang));
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut wire = gateway.connect().await;
        wire.send(
            "POST",
            "/v1/chat/completions",
            &[("content-type", "application/json")],
            HELLO_STREAM,
        )
        .await;
        wire.until("so far").await;
        open.push(wire);
    }
    let refused = gateway.chat(HELLO).await;
    assert_eq!(
        (refused.status, code(&refused).as_str()),
        (429, "total_concurrency")
    );
    assert!(
        refused.header("retry-after").is_none(),
        "nobody knows when one of them ends"
    );
    drop(open.pop());
    eventually("room again", || gateway.fake.cancelled() == 1).await;
    gateway.fake.turn(Script::answer("ok"));
    let mut status = 0;
    for _ in 0..200 {
        status = gateway.chat(HELLO).await.status;
        if status == 200 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_failed_try_costs_nothing_and_a_dropped_stream_what_was_said() {
    let gateway = started("[limits]\ntotal = { usd_per_day = 0.05 }").await;
    gateway.fake.turn(Script::refuse(AttemptError::new(
        Fault::Connect,
        "connection refused",
    )));
    for _ in 0..30 {
        // 503 once its breaker is open.
        assert!(gateway.chat(HELLO).await.status >= 502);
    }
    gateway.fake.turn(Script::answer("ok"));
    let state = gateway.app.runtime().targets[0].state.clone();
    state.wish(gateway::target_state::Wish::On);
    assert_eq!(gateway.chat(HELLO).await.status, 200, "nothing was spent so far");
    gateway
        .fake
        .turn(Script::new().begin("m").text("one two three four").act(Act::Hang));
    for _ in 0..60 {
        let mut wire = gateway.connect().await;
        wire.send(
            "POST",
            "/v1/chat/completions",
            &[("content-type", "application/json")],
            HELLO_STREAM,
        )
        .await;
        if wire.until("\r\n\r\n").await.starts_with("HTTP/1.1 429") {
            return;
        }
        wire.until("four").await;
        let before = gateway.fake.cancelled();
        drop(wire);
        eventually("let go", || gateway.fake.cancelled() > before).await;
    }
    panic!("streams that are dropped half-way cost nothing");
}

#[tokio::test]
async fn who_cannot_pay_for_the_dear_model_gets_the_one_that_is_free() {
    let two = r#"
[targets.free]
provider = "p"
model = "upstream-free"
price = "unmetered"
[limits]
total = { usd_per_day = 0.001 }
"#;
    let text = plan(two).replace(
        "tiers = [[\"one\"]]",
        "tiers = [[\"free\"], [\"one\"]]\nstart = \"last\"\ndegrade_floor = 0.0",
    );
    let gateway = Gateway::with(&text, Script::answer("ok"), &[]).await;
    let answer = gateway.chat(HELLO).await;
    assert_eq!(
        (answer.status, answer.header("x-weir-model")),
        (200, Some("free")),
        "{answer:?}"
    );
    assert_eq!(answer.header("x-weir-degraded"), Some("weaker; reason=budget"));
    // A name that is a promise is not answered by another model.
    let pinned = HELLO.replace("auto", "one");
    let answer = gateway.chat(&pinned).await;
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (429, "total_usd_per_day")
    );
}

const KEYED: &str = r#"
[[keys]]
name = "a"
key = "env:A"
tenant = "t"
limits = { requests_per_minute = 2 }
[[keys]]
name = "b"
key = "env:B"
tenant = "t"
[tenants.t]
limits = { requests_per_minute = 3 }
"#;

#[tokio::test]
async fn a_key_and_its_tenant_each_have_their_own() {
    let text = plan(KEYED).replace("[server]", "[server]\nauth = \"keys\"");
    let gateway = Gateway::with(&text, Script::answer("ok"), &[("A", "sk-a"), ("B", "sk-b")]).await;
    let ask = |key: &'static str| {
        let gateway = &gateway;
        async move {
            let headers = [("content-type", "application/json"), ("authorization", key)];
            gateway.ask("POST", "/v1/chat/completions", &headers, HELLO).await
        }
    };
    assert_eq!(ask("Bearer sk-a").await.status, 200);
    assert_eq!(ask("Bearer sk-a").await.status, 200);
    let over = ask("Bearer sk-a").await;
    assert_eq!(
        (over.status, code(&over).as_str()),
        (429, "key_requests_per_minute")
    );
    assert_eq!(
        ask("Bearer sk-b").await.status,
        200,
        "what was refused counts for nobody"
    );
    let over = ask("Bearer sk-b").await;
    assert_eq!(
        (over.status, code(&over).as_str()),
        (429, "tenant_requests_per_minute")
    );
    // A reload fills nothing up.
    let compiled = routing::plan::load(&text).unwrap();
    gateway.app.swap(compiled.plan, compiled.notes);
    assert_eq!(ask("Bearer sk-a").await.status, 429);
}

#[tokio::test]
async fn what_a_provider_grants_is_kept_and_others_are_asked_instead() {
    let text = plan("[targets.two]\nprovider = \"p\"\nmodel = \"upstream-two\"\nprice = \"unmetered\"\n")
        .replace(
            "tiers = [[\"one\"]]",
            "tiers = [[\"one\"], [\"two\"]]\nstart = \"first\"",
        )
        .replace(
            "max_output = 5",
            "max_output = 5\nlimits = { requests_per_minute = 3 }",
        );
    let gateway = Gateway::with(&text, Script::answer("ok"), &[]).await;
    let mut who = Vec::new();
    for _ in 0..5 {
        let answer = gateway.chat(HELLO).await;
        assert_eq!(answer.status, 200);
        who.push(answer.header("x-weir-model").unwrap().to_owned());
    }
    assert_eq!(who, ["one", "one", "one", "two", "two"]);
}

/// Money for one call at a time, and for no second one: six tokens of prompt are expected, three are counted.
const ONE_CALL: &str = "[limits]\ntotal = { usd_per_day = 0.0115 }";
const SURE: &str = r#"{"model":"auto","temperature":0,"messages":[{"role":"user","content":"hello"}]}"#;

#[tokio::test]
async fn a_kept_answer_costs_nothing() {
    let text = plan(ONE_CALL).replace(
        "tiers = [[\"one\"]]",
        "tiers = [[\"one\"]]\ncache = { exact_ttl_s = 600 }",
    );
    let gateway = Gateway::with(&text, Script::answer("ok"), &[]).await;
    let first = gateway.chat(SURE).await;
    assert_eq!((first.status, first.header("x-weir-cache")), (200, Some("miss")));
    let app = gateway.app.clone();
    eventually("it is kept", || app.cache().flights().is_empty()).await;
    for _ in 0..5 {
        let again = gateway.chat(SURE).await;
        assert_eq!((again.status, again.header("x-weir-cache")), (200, Some("hit")));
    }
    // Nothing is left for a call.
    let other = gateway.chat(&SURE.replace("hello", "hullo")).await;
    assert_eq!((other.status, code(&other).as_str()), (429, "total_usd_per_day"));
    assert_eq!(gateway.fake.seen().len(), 1);
}

#[tokio::test]
async fn who_reads_along_pays_nothing() {
    let gate = Gate::default();
    let slow = Script::new().begin("m").text("o").act(Act::Gate(gate.clone()));
    let slow = slow.text("k").stop().usage(3, 5).done();
    let gateway = Arc::new(Gateway::with(&plan(ONE_CALL), slow, &[]).await);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let gateway = Arc::clone(&gateway);
        asking.spawn(async move { gateway.chat(SURE).await });
    }
    let app = gateway.app.clone();
    eventually("all read one call", || app.cache().flights().readers() == 8).await;
    gate.open();
    let answers = asking.join_all().await;
    assert_eq!(served(&answers), 8);
    assert_eq!(gateway.fake.seen().len(), 1);
}

#[tokio::test]
async fn who_hangs_up_on_whole_answers_gets_to_the_end_of_the_day() {
    // Eleven are held for each, and charged when nobody tells what became of it.
    let gateway = started("[limits]\ntotal = { usd_per_day = 0.05 }").await;
    gateway.fake.turn(Script::new().act(Act::Hang).accept());
    for asked in 1..=4 {
        let mut wire = gateway.connect().await;
        wire.send(
            "POST",
            "/v1/chat/completions",
            &[("content-type", "application/json")],
            HELLO,
        )
        .await;
        eventually("it is asked", || gateway.fake.seen().len() == asked).await;
        drop(wire);
        eventually("let go", || gateway.fake.cancelled() == asked).await;
    }
    let app = gateway.app.clone();
    eventually("all are settled", || {
        app.in_flight().load(std::sync::atomic::Ordering::Relaxed) == 0
    })
    .await;
    gateway.fake.turn(Script::answer("ok"));
    let refused = gateway.chat(HELLO).await;
    assert_eq!(
        (refused.status, code(&refused).as_str()),
        (429, "total_usd_per_day"),
        "four times eleven of fifty are gone"
    );
    let records = gateway.end().await;
    let charged: u64 = records.iter().filter_map(|r| r["cost_nano_usd"].as_u64()).sum();
    assert_eq!(charged, 44_000_000, "and their records say so");
}

#[tokio::test]
async fn every_prompt_of_a_completion_is_held_for() {
    let gateway = started("[limits]\ntotal = { usd_per_day = 0.05 }").await;
    let body = |prompt: &str| format!(r#"{{"model":"auto","max_tokens":5,"prompt":{prompt}}}"#);
    let ask = |body: String| {
        let gateway = &gateway;
        async move {
            let headers = [("content-type", "application/json")];
            gateway.ask("POST", "/v1/completions", &headers, &body).await
        }
    };
    assert_eq!(ask(body(r#"["a"]"#)).await.status, 200);
    // Ten answers of five tokens: more than a whole day has, so no time is told.
    let refused = ask(body(r#"["a","b","c","d","e","f","g","h","i","j"]"#)).await;
    assert_eq!(
        (refused.status, code(&refused).as_str()),
        (429, "total_usd_per_day")
    );
    assert!(refused.header("retry-after").is_none(), "{refused:?}");
    assert_eq!(gateway.fake.seen().len(), 1);
}
