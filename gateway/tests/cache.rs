//! Kept answers and shared calls, through the gateway as a service, on a clock of the tests' own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::app::{App, Setup};
use gateway::clock::Clock;
use gateway::providers::Client;
use gateway::providers::failure::{AttemptError, Fault, UpstreamError};
use gateway::providers::fake::{Act, FakeTarget, Gate, Script};
use gateway::runtime::Made;
use gateway::runtime::secrets::Secrets;
use gateway::telemetry::Telemetry;
use gateway::telemetry::writer::{Limits, Writer};
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

const PLAN: &str = r#"
version = 1
[providers.p]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
[targets.one]
provider = "p"
model = "upstream-one"
price = { input = 1000.0, output = 1000.0 }
[routes.auto]
tiers = [["one"]]
[retry]
max_attempts = 1
"#;

struct House {
    app: App,
    fake: FakeTarget,
    records: tempfile::TempDir,
    writer: Writer,
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
    /// Its text, whatever its form; it must be whole.
    fn text(&self) -> String {
        assert_eq!(self.status, 200, "{:?}", self.body);
        if !self.header("content-type").starts_with("text/event-stream") {
            return self.json()["choices"][0]["message"]["content"]
                .as_str()
                .unwrap()
                .to_owned();
        }
        let text = std::str::from_utf8(&self.body).unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let data = text.split("\n\n").filter_map(|l| l.strip_prefix("data: "));
        data.filter(|d| *d != "[DONE]")
            .map(|d| serde_json::from_str::<Value>(d).unwrap())
            .filter_map(|c| c["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .collect()
    }
}

#[allow(clippy::disallowed_methods, reason = "only compared with the age of files")]
fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

fn house(more: &str, scripts: impl IntoIterator<Item = Script>) -> House {
    let plan = format!("{PLAN}{more}");
    let compiled = routing::plan::load(&plan).unwrap_or_else(|problems| panic!("{problems}"));
    let fake = FakeTarget::new(scripts);
    let target = fake.clone();
    let make = move |plan: &routing::plan::Plan, _: &Secrets| -> Vec<Made> {
        let on = || Made::on(Client::Fake(target.clone()));
        plan.targets.iter().map(|_| on()).collect()
    };
    let (telemetry, records) = (Telemetry::new(), tempfile::tempdir().unwrap());
    let limits = Limits {
        max_file_bytes: 1 << 24,
        keep_bytes: 1 << 30,
        keep_days: 30,
    };
    let (writer, _) = Writer::start(records.path(), limits, wall, &telemetry).unwrap();
    let keys: &[(&str, &str)] = &[("KEY_A", "key-a"), ("KEY_B", "key-b")];
    let app = App::new(Setup {
        limits: Arc::new(gateway::limits::Local::default()),
        plan: compiled.plan,
        notes: compiled.notes,
        clock: Clock::system(),
        telemetry,
        sink: writer.sink(),
        make: Box::new(make),
        secrets: Secrets::new(Arc::new(|name| {
            let found = keys.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        })),
        cores: 1,
        session_key: 7,
    });
    House {
        app,
        fake,
        records,
        writer,
    }
}

fn body(stream: bool, more: Value) -> Value {
    let mut body = json!({"model": "auto", "temperature": 0, "messages": [{"role": "user", "content": "What is a weir?"}]});
    if stream {
        body["stream"] = json!(true);
    }
    let (Value::Object(body_), Value::Object(more)) = (&mut body, more) else {
        panic!("objects")
    };
    body_.extend(more);
    body
}

fn asked(stream: bool) -> Value {
    body(stream, json!({}))
}

impl House {
    fn send(
        &self,
        headers: &[(&'static str, &str)],
        body: &Value,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let mut request = Request::post("/v1/chat/completions")
            .header("host", "127.0.0.1:8080")
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
        let app = self.app.clone();
        async move {
            let (head, body) = app.handle(request).await.into_parts();
            Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.collect().await.unwrap().to_bytes(),
            }
        }
    }

    async fn ask(&self, body: &Value) -> Answer {
        self.send(&[], body).await
    }

    /// Until so many requests read a shared call.
    async fn readers(&self, count: usize) {
        eventually("readers", || self.app.cache().flights().readers() == count).await;
    }

    /// Until nothing runs that could be joined: what was to be kept is kept.
    async fn landed(&self) {
        eventually("landed", || self.app.cache().flights().is_empty()).await;
    }

    /// Its records, once all are written.
    async fn end(self) -> Vec<Value> {
        let (app, writer) = (self.app, self.writer);
        eventually("all bodies ended", || {
            app.in_flight().load(std::sync::atomic::Ordering::Relaxed) == 0
        })
        .await;
        tokio::task::spawn_blocking(move || writer.close()).await.unwrap();
        let mut lines: Vec<Value> = Vec::new();
        for entry in std::fs::read_dir(self.records.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "jsonl") {
                let text = std::fs::read_to_string(path).unwrap();
                lines.extend(text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()));
            }
        }
        lines.retain(|l| l.get("id").is_some());
        lines
    }
}

async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if is() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never: {what}");
}

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
