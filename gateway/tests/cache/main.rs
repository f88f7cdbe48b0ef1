//! Kept answers and shared calls, through the gateway as a service, on a clock of the tests' own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../house/mod.rs"]
mod house;
mod semantic;

use std::time::Duration;

use gateway::providers::failure::{AttemptError, Fault, UpstreamError};
use gateway::providers::fake::{Act, Gate, Script};
use serde_json::{Value, json};

use house::{Answer, asked, body, eventually, house};

fn slowly(gate: &Gate) -> Script {
    Script::new()
        .begin("m")
        .text("A weir ")
        .act(Act::Gate(gate.clone()))
        .text("is a low wall.")
        .stop()
        .usage(3, 5)
        .done()
}

const TEXT: &str = "A weir is a low wall.";

fn tries(record: &Value) -> usize {
    record["attempts"].as_array().map_or(0, Vec::len)
}

fn refused(fault: Fault) -> Script {
    Script::refuse(AttemptError::new(fault, "as the script says"))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_equal_requests_are_one_call() {
    let gate = Gate::default();
    let house = house("", [slowly(&gate)]);
    let forms = [
        asked(true),
        asked(false),
        body(
            true,
            json!({"stream_options": {"include_usage": true}, "user": "u"}),
        ),
        body(false, json!({"metadata": {"a": "b"}})),
    ];
    let mut running = tokio::task::JoinSet::new();
    for i in 0..1_000 {
        running.spawn(house.send(&[], &forms[i % forms.len()]));
    }
    house.readers(1_000).await;
    gate.open();
    let answers = running.join_all().await;
    let mut how = std::collections::BTreeMap::new();
    for answer in &answers {
        assert_eq!(answer.text(), TEXT);
        assert_eq!(answer.header("x-weir-model"), "one");
        *how.entry(answer.header("x-weir-cache").to_owned()).or_insert(0) += 1;
    }
    assert_eq!(
        how,
        [("coalesced".to_owned(), 999), ("miss".to_owned(), 1)].into()
    );
    let told = |a: &&Answer| String::from_utf8_lossy(&a.body).contains("\"total_tokens\":8");
    assert_eq!(
        answers.iter().filter(told).count(),
        750,
        "whole ones, and who asked for it"
    );
    assert_eq!(house.fake.seen().len(), 1);
    let records = house.end().await;
    assert_eq!(records.len(), 1_000);
    let paid: u64 = records.iter().map(|r| r["cost_nano_usd"].as_u64().unwrap()).sum();
    assert_eq!(paid, 8_000_000, "one bill");
    assert_eq!(records.iter().filter(|r| tries(r) > 0).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_who_leaves_does_not_end_it_and_pays() {
    for stream in [true, false] {
        let gate = Gate::default();
        let house = house("", [slowly(&gate)]);
        let leader = tokio::spawn(house.send(&[], &asked(stream)));
        house.readers(1).await;
        let waiter = tokio::spawn(house.send(&[], &asked(!stream)));
        house.readers(2).await;
        leader.abort();
        house.readers(1).await;
        gate.open();
        assert_eq!(waiter.await.unwrap().text(), TEXT);
        assert_eq!((house.fake.seen().len(), house.fake.cancelled()), (1, 0));
        let records = house.end().await;
        let (paid, free): (Vec<&Value>, Vec<&Value>) = records.iter().partition(|r| r["cost_nano_usd"] != 0);
        assert_eq!((paid.len(), free.len()), (1, 1), "{records:?}");
        assert_eq!(paid[0]["end"], "gone");
        assert_eq!(tries(paid[0]), 1);
        assert_eq!(paid[0]["cost_nano_usd"], 8_000_000);
        assert_eq!(
            (&free[0]["cache"], &free[0]["end"]),
            (&json!("coalesced"), &json!("whole"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_reader_gone_ends_the_call() {
    let gate = Gate::default();
    let house = house("", [slowly(&gate), Script::answer("again")]);
    let both = [asked(true), asked(false)].map(|b| tokio::spawn(house.send(&[], &b)));
    house.readers(2).await;
    for one in both {
        one.abort();
    }
    eventually("cancelled", || house.fake.cancelled() == 1).await;
    house.landed().await;
    assert_eq!(house.ask(&asked(false)).await.text(), "again");
    let records = house.end().await;
    assert_eq!(records.len(), 3);
    let tries: usize = records.iter().map(tries).sum();
    assert_eq!(
        tries, 2,
        "the call that was ended is written down, once: {records:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_sends_its_waiters_to_one_further_call_not_in_a_herd() {
    for (again, calls, served) in [("ok", 2, 49), ("", 2, 0)] {
        let gate = Gate::default();
        let fails = || {
            Script::new()
                .act(Act::Gate(gate.clone()))
                .accept()
                .fail(AttemptError::new(Fault::Cut, "cut"))
        };
        let scripts = match again {
            "" => vec![fails(), fails(), Script::answer("too late")],
            text => vec![fails(), Script::answer(text)],
        };
        let house = house(
            "[breaker]\nconsecutive_failures = 1_000\nmin_requests = 1_000",
            scripts,
        );
        let mut running = tokio::task::JoinSet::new();
        for i in 0..50 {
            running.spawn(house.send(&[], &asked(i % 2 == 0)));
        }
        house.readers(50).await;
        gate.open();
        let answers = running.join_all().await;
        let ok = answers.iter().filter(|a| a.status == 200).count();
        assert_eq!((house.fake.seen().len(), ok), (calls, served));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_the_request_is_wrong_for_everyone() {
    let gate = Gate::default();
    let says = UpstreamError {
        message: "no such field".to_owned(),
        ..UpstreamError::default()
    };
    let script = Script::new()
        .act(Act::Gate(gate.clone()))
        .act(Act::Fail(
            AttemptError::new(Fault::Status(400), "no").with_upstream(says),
        ))
        .accept();
    let house = house("", [script, Script::answer("never")]);
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..20 {
        running.spawn(house.send(&[], &asked(false)));
    }
    house.readers(20).await;
    gate.open();
    let answers = running.join_all().await;
    for answer in &answers {
        assert_eq!(answer.status, 400, "{:?}", answer.body);
    }
    assert_eq!(house.fake.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_keeps_its_own_deadline() {
    let gate = Gate::default();
    let house = house("", [slowly(&gate), Script::answer("second")]);
    // The leader has less patience than who waits.
    let leader = tokio::spawn(house.send(&[("x-weir-deadline-ms", "100")], &asked(false)));
    house.readers(1).await;
    let waiter = tokio::spawn(house.send(&[("x-weir-deadline-ms", "60000")], &asked(false)));
    let hasty = tokio::spawn(house.send(&[("x-weir-deadline-ms", "50")], &asked(false)));
    house.readers(3).await;
    assert_eq!(hasty.await.unwrap().json()["error"]["code"], "deadline_exceeded");
    assert_eq!(leader.await.unwrap().status, 504);
    assert_eq!(waiter.await.unwrap().text(), "second");
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_and_told_in_any_form() {
    let more = "cache = { exact_ttl_s = 60 }\n";
    for first in [true, false] {
        let house = house(
            &format!("[routes.kept]\ntiers = [[\"one\"]]\n{more}"),
            [slowly(&opened())],
        );
        let named = |stream| body(stream, json!({"model": "kept"}));
        assert_eq!(house.ask(&named(first)).await.header("x-weir-cache"), "miss");
        house.landed().await;
        for stream in [true, false] {
            let hit = house.ask(&named(stream)).await;
            assert_eq!((hit.header("x-weir-cache"), hit.text().as_str()), ("hit", TEXT));
            assert_eq!(
                (hit.header("x-weir-model"), hit.header("x-weir-attempts")),
                ("one", "0")
            );
            assert_eq!(
                (hit.header("x-weir-verified"), hit.header("x-weir-verdict")),
                ("full", "pass")
            );
            if !stream {
                assert_eq!(hit.json()["model"], "m");
                assert_eq!(hit.header("x-weir-cost-usd").parse::<f64>().unwrap(), 0.0);
            }
        }
        assert_eq!(house.fake.seen().len(), 1);
        // Another question, an unkept one, a caller who wants none of it.
        house
            .ask(&body(false, json!({"model": "kept", "max_tokens": 90})))
            .await;
        let drawn = body(false, json!({"model": "kept", "temperature": 1}));
        for _ in 0..2 {
            assert_eq!(house.ask(&drawn).await.header("x-weir-cache"), "bypass");
            house.landed().await;
        }
        let own = house.send(&[("x-weir-no-cache", "1")], &named(false)).await;
        assert_eq!(own.header("x-weir-cache"), "bypass");
        assert_eq!(house.fake.seen().len(), 5);
        house.app.cache().stores().exact.clear();
        house.ask(&named(false)).await;
        assert_eq!(house.fake.seen().len(), 6);
        let records = house.end().await;
        let hits: Vec<_> = records.iter().filter(|r| r["cache"] == "hit").collect();
        assert_eq!(hits.len(), 2);
        assert!(
            hits.iter()
                .all(|r| r["cost_nano_usd"] == 0 && r["answered"] == "one")
        );
    }
}

fn opened() -> Gate {
    let gate = Gate::default();
    gate.open();
    gate
}

#[tokio::test(start_paused = true)]
async fn after_its_time_it_is_asked_for_again_and_the_old_one_serves_when_nobody_else_can() {
    let plan =
        "[routes.kept]\ntiers = [[\"one\"]]\ncache = { exact_ttl_s = 60 }\n[cache]\nstale_ttl_s = 600\n";
    let house = house(
        plan,
        [
            Script::answer("old"),
            Script::answer("new"),
            refused(Fault::Status(500)),
        ],
    );
    let asked = |stream| body(stream, json!({"model": "kept"}));
    assert_eq!(house.ask(&asked(false)).await.text(), "old");
    house.landed().await;
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(house.ask(&asked(true)).await.text(), "old");
    tokio::time::advance(Duration::from_secs(2)).await;
    let fresh = house.ask(&asked(true)).await;
    assert_eq!(
        (fresh.header("x-weir-cache"), fresh.text().as_str()),
        ("miss", "new")
    );
    house.landed().await;
    tokio::time::advance(Duration::from_secs(100)).await;
    for stream in [false, true] {
        let stale = house.ask(&asked(stream)).await;
        assert_eq!(stale.text(), "new");
        assert!(
            stale
                .header("x-weir-degraded")
                .starts_with("stale_cache; reason=")
        );
        assert_eq!(stale.header("x-weir-model"), "one");
    }
    house.landed().await;
    tokio::time::advance(Duration::from_secs(600)).await;
    assert_eq!(
        house.ask(&asked(false)).await.status,
        503,
        "too old even for that"
    );
}

#[tokio::test(start_paused = true)]
async fn what_did_not_pass_or_was_no_answer_is_not_kept() {
    let again = "the same words over and over ".repeat(60);
    let bad = |stream: bool| (stream, Script::answer(&again));
    for (stream, script) in [bad(true), bad(false)] {
        let house = house(
            "[routes.kept]\ntiers = [[\"one\"]]\ncache = { exact_ttl_s = 60 }\n",
            [script],
        );
        let asked = body(stream, json!({"model": "kept"}));
        for _ in 0..2 {
            assert_eq!(house.ask(&asked).await.header("x-weir-cache"), "miss");
            house.landed().await;
        }
        assert_eq!(house.app.cache().stores().exact.held().0, 0);
    }
    let message = "[routes.kept]\ntiers = [[\"one\"]]\ncache = { exact_ttl_s = 60 }\nmessage = { status = 200, text = \"Later.\" }\n";
    let house = house(message, [refused(Fault::Status(500))]);
    for _ in 0..2 {
        let said = house.ask(&body(false, json!({"model": "kept"}))).await;
        assert_eq!(
            (said.text().as_str(), said.header("x-weir-cache")),
            ("Later.", "miss")
        );
        house.landed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn tenants_share_nothing() {
    let keys = "[server]\nauth = \"keys\"\n[[keys]]\nname = \"a\"\nkey = \"env:KEY_A\"\ntenant = \"a\"\n\
                [[keys]]\nname = \"b\"\nkey = \"env:KEY_B\"\ntenant = \"b\"\n\
                [routes.kept]\ntiers = [[\"one\"]]\ncache = { exact_ttl_s = 60 }\n";
    let gate = Gate::default();
    let house = house(keys, [slowly(&gate)]);
    let asked = body(false, json!({"model": "kept"}));
    let both = ["Bearer key-a", "Bearer key-b"]
        .map(|key| tokio::spawn(house.send(&[("authorization", key)], &asked)));
    house.readers(2).await;
    assert_eq!(house.app.cache().flights().len(), 2);
    gate.open();
    for one in both {
        assert_eq!(one.await.unwrap().header("x-weir-cache"), "miss");
    }
    house.landed().await;
    let named = [("idempotency-key", "n-1")];
    for key in ["Bearer key-a", "Bearer key-b"] {
        let mut headers = vec![("authorization", key)];
        assert_eq!(house.send(&headers, &asked).await.header("x-weir-cache"), "hit");
        headers.extend(named);
        // The same name at another tenant is another request, whatever its body.
        let text = if key.ends_with('a') { "x" } else { "y" };
        let other = body(false, json!({"user": text, "temperature": 1}));
        assert_eq!(house.send(&headers, &other).await.status, 200);
    }
    assert_eq!(house.fake.seen().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_named_request_is_made_once() {
    let gate = Gate::default();
    let house = house("", [slowly(&gate), Script::answer("another")]);
    let name = [("idempotency-key", "order-17")];
    // Drawn at random, so that nothing but its name makes it the same.
    let asked = body(true, json!({"temperature": 1}));
    let both = [0, 1].map(|_| tokio::spawn(house.send(&name, &asked)));
    house.readers(2).await;
    let other = house.send(&name, &body(true, json!({"temperature": 0.5}))).await;
    assert_eq!(
        (other.status, &other.json()["error"]["code"]),
        (409, &json!("idempotency_key_reused"))
    );
    gate.open();
    let mut bodies = Vec::new();
    for one in both {
        bodies.push(one.await.unwrap().body);
    }
    house.landed().await;
    let again = house.send(&name, &asked).await;
    assert_eq!(again.header("x-weir-cache"), "hit");
    bodies.push(again.body);
    assert!(bodies.iter().all(|b| *b == bodies[0]), "the very bytes");
    assert_eq!(house.fake.seen().len(), 1);
    let other = house.send(&name, &body(false, json!({"temperature": 1}))).await;
    assert_eq!(other.status, 409);
    tokio::time::advance(Duration::from_secs(24 * 3_600)).await;
    assert_eq!(house.send(&name, &asked).await.text(), "another");
}

#[tokio::test(start_paused = true)]
async fn a_named_request_that_failed_is_made_again() {
    let house = house("", [refused(Fault::Status(500)), Script::answer("ok")]);
    let name = [("idempotency-key", "n")];
    assert!(house.send(&name, &asked(false)).await.status >= 500);
    assert_eq!(house.send(&name, &asked(false)).await.text(), "ok");
    let long = "k".repeat(300);
    let refused = house.send(&[("idempotency-key", &long)], &asked(false)).await;
    assert_eq!(refused.json()["error"]["param"], "idempotency-key");
}

#[tokio::test(start_paused = true)]
async fn a_bug_in_a_shared_call_is_an_error_for_each_and_holds_nothing() {
    let gate = Gate::default();
    let script = Script::new()
        .act(Act::Gate(gate.clone()))
        .accept()
        .act(Act::Panic);
    let house = house("", [script, Script::answer("fine")]);
    let both = [asked(true), asked(false)].map(|b| tokio::spawn(house.send(&[], &b)));
    house.readers(2).await;
    gate.open();
    let mut statuses = Vec::new();
    for one in both {
        statuses.push(one.await.unwrap().status);
    }
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [200, 500],
        "the other one was sent to a call of its own"
    );
    house.landed().await;
    assert!(house.app.telemetry().render().contains("weir_panics_total 1"));
    assert_eq!(house.end().await.len(), 2);
}
