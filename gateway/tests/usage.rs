//! `/admin/usage` of the program itself: its sums are those of the records, whatever callers put into their tags, and they
//! are there after a kill.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![cfg(unix)]

mod program;

use std::collections::BTreeMap;
use std::time::Duration;

use load_tests::provider::{Options, Provider, Script};
use program::{Weir, exchange, request, soon};
use serde_json::Value;

const A_WHILE: Duration = Duration::from_secs(20);
const ENV: [(&str, &str); 3] = [("A", "sk-a"), ("B", "sk-b"), ("TOKEN", "admin-token")];
const TOKEN: &str = "authorization: Bearer admin-token\r\n";

fn provider() -> Provider {
    Provider::start_on_thread(Script::default(), Options::default()).unwrap()
}

fn start(home: &std::path::Path, provider: &Provider) -> Weir {
    let plan = format!(
        "version = 1\n[server]\nauth = \"keys\"\nadmin_token = \"env:TOKEN\"\ndrain_delay_ms = 0\n\
         [[keys]]\nname = \"a\"\nkey = \"env:A\"\ntenant = \"team-a\"\n\
         [[keys]]\nname = \"b\"\nkey = \"env:B\"\ntenant = \"team-b\"\nlimits = {{ requests_per_minute = 4 }}\n\
         [providers.p]\nkind = \"openai\"\nbase_url = \"http://{}/v1\"\n\
         [targets.dear]\nprovider = \"p\"\nmodel = \"dear\"\nprice = {{ input = 2.5, output = 10.0, cached_input = 1.25 }}\n\
         [targets.cheap]\nprovider = \"p\"\nmodel = \"cheap\"\nprice = {{ input = 0.15, output = 0.6 }}\n\
         [targets.nameless]\nprovider = \"p\"\nmodel = \"nameless\"\n\
         [routes.auto]\ntiers = [[\"cheap\"], [\"dear\"]]\nstart = \"first\"\nverify = [\"finish\"]\n\
         [[rules]]\nname = \"marked\"\nwhen = {{ tenant = \"team-b\" }}\nthen = {{ tiers = [[\"dear\"]], tag = \"in-house\" }}\n",
        provider.address()
    );
    Weir::with_plan(home, &plan, &ENV)
}

fn ask(weir: &Weir, key: &str, tags: &str, model: &str, text: &str) -> u16 {
    let headers = format!("authorization: Bearer {key}\r\n{tags}");
    let body = serde_json::json!({ "model": model, "messages": [{ "role": "user", "content": text }] });
    weir.chat_with(&headers, &body.to_string()).0
}

fn usage(weir: &Weir, query: &str) -> Value {
    let (status, body) = weir.admin_get(&format!("/admin/usage?{query}"), TOKEN);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Waits until so many requests are counted.
fn counted(weir: &Weir, requests: usize) {
    soon("usage", A_WHILE, || {
        usage(weir, "")["total"]["requests"] == requests
    });
}

/// Input, output and cost of all tries in the records, and their number, by what `of` says of a record.
fn of_records(weir: &Weir, of: impl Fn(&Value) -> String) -> BTreeMap<String, [u64; 4]> {
    let mut sums: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    for line in weir.records() {
        let record: Value = serde_json::from_str(&line).unwrap();
        let sum = sums.entry(of(&record)).or_default();
        for attempt in record["attempts"].as_array().into_iter().flatten() {
            let usage = &attempt["usage"];
            let figures = [
                &usage["prompt"],
                &usage["completion"],
                &attempt["cost_nano_usd"],
                &Value::from(1),
            ];
            for (sum, figure) in sum.iter_mut().zip(figures) {
                *sum += figure.as_u64().unwrap_or(0);
            }
        }
    }
    sums
}

/// The same figures of `/admin/usage`, by what it is asked.
fn of_usage(weir: &Weir, query: &str, name: &str) -> BTreeMap<String, [u64; 4]> {
    let answer = usage(weir, query);
    let rows = answer["rows"].as_array().unwrap().iter().map(|row| {
        let figures =
            ["input_tokens", "output_tokens", "cost_nano_usd", "tries"].map(|m| row[m].as_u64().unwrap());
        (row[name].as_str().unwrap().to_owned(), figures)
    });
    rows.collect()
}

#[test]
fn its_sums_are_those_of_the_records() {
    let (provider, home) = (provider(), tempfile::tempdir().unwrap());
    let running = start(home.path(), &provider);
    let mut sent = 0;
    for i in 0..5 {
        let tags = format!("x-weir-tags: team=red, run={i}\r\n");
        assert_eq!(ask(&running, "sk-a", &tags, "auto", "hello"), 200);
        // One that is cut: both tiers are asked, and both are paid.
        ask(
            &running,
            "sk-a",
            "",
            "auto",
            "hello [[lab: tokens=20 ending=cut end_after=5]]",
        );
        let _ = ask(&running, "sk-b", "", "auto", "a somewhat longer question");
        sent += 3;
    }
    assert_eq!(ask(&running, "sk-wrong", "", "auto", "hello"), 401);
    assert_eq!(ask(&running, "sk-a", "", "nothing", "hello"), 404);
    assert_eq!(ask(&running, "sk-a", "", "nameless", "hello"), 200);
    assert_eq!(
        exchange(
            &running.address,
            &request("connection: close\r\nauthorization: Bearer sk-a\r\n", "{")
        )
        .0,
        400
    );
    sent += 4;
    counted(&running, sent);
    soon("records", A_WHILE, || running.records().len() == sent);

    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let tenant = |record: &Value| match &record["facts"]["tenant"] {
        Value::Null => text(&record["who"]["tenant"]),
        tenant => text(tenant),
    };
    assert_eq!(
        of_usage(&running, "by=tenant", "tenant"),
        of_records(&running, tenant)
    );
    assert_eq!(
        of_usage(&running, "by=route", "route"),
        of_records(&running, |r| text(&r["route"]))
    );
    let by_key = of_usage(&running, "by=key", "key");
    assert_eq!(
        by_key.keys().collect::<Vec<_>>(),
        ["", "a", "b"],
        "a body that is no JSON has a key all the same"
    );

    // By model: each try at the model that it asked.
    let mut by_model: BTreeMap<String, u64> = BTreeMap::new();
    for line in running.records() {
        let record: Value = serde_json::from_str(&line).unwrap();
        for attempt in record["attempts"].as_array().into_iter().flatten() {
            *by_model.entry(text(&attempt["target"])).or_default() +=
                attempt["cost_nano_usd"].as_u64().unwrap_or(0);
        }
    }
    let told = of_usage(&running, "by=model", "model");
    assert!(by_model["dear"] > 0 && by_model["cheap"] > 0, "{by_model:?}");
    for (model, cost) in &by_model {
        assert_eq!(told[model][2], *cost, "{model}");
    }
    let all = usage(&running, "by=model");
    let nameless = all["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["model"] == "nameless")
        .unwrap();
    assert_eq!(
        (&nameless["unpriced_tries"], &nameless["cost_nano_usd"]),
        (&1.into(), &0.into())
    );
    let cost: u64 = by_model.values().sum();
    assert_eq!(all["total"]["cost_nano_usd"], cost);
    assert_eq!(all["total"]["cost_usd"], cost as f64 / 1e9);

    // Four requests a minute for b: the fifth is an error, and counts as its own.
    let b = &usage(&running, "key=b&by=day")["rows"][0];
    assert_eq!((&b["requests"], &b["errors"]), (&5.into(), &1.into()));
    let tags = usage(&running, "by=tag");
    let of = |tag: &str| {
        tags["rows"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["tag"] == tag)
            .unwrap()["requests"]
            .clone()
    };
    assert_eq!(
        (of("team=red"), of("run=3"), of("in-house")),
        (5.into(), 1.into(), 5.into())
    );
    assert_eq!(tags["total"]["requests"], sent, "a request with two tags is one");
    assert_eq!(all["lost_requests"], 0);
}

#[test]
fn whatever_callers_write_into_tags_stays_a_name() {
    let (provider, home) = (provider(), tempfile::tempdir().unwrap());
    let running = start(home.path(), &provider);
    let hostile = [
        "=cmd|'/c calc'!A1=1",
        "a=\"; DROP TABLE usage; --",
        "b=x\"\ty",
        "c=<script>alert(1)</script>",
        "d=größe",
    ];
    // A tag without a name is refused; all others are counted as they are.
    for (i, tag) in hostile.iter().enumerate() {
        let status = ask(
            &running,
            "sk-a",
            &format!("x-weir-tags: {tag}\r\n"),
            "auto",
            "hello",
        );
        assert_eq!(status, if i == 0 { 400 } else { 200 }, "{tag}");
    }
    assert_eq!(
        ask(&running, "sk-a", "x-weir-tags: @SUM(1+1)=2\r\n", "auto", "hello"),
        200
    );
    // Far more than are told apart.
    for from in (0..320).step_by(16) {
        let many: Vec<String> = (from..from + 16).map(|i| format!("n{i}={i}")).collect();
        let status = ask(
            &running,
            "sk-a",
            &format!("x-weir-tags: {}\r\n", many.join(",")),
            "auto",
            "hello",
        );
        assert_eq!(status, 200);
    }
    counted(&running, 26);
    let answer = usage(&running, "by=tag");
    let rows = answer["rows"].as_array().unwrap();
    // 200 that were made up; without a tag: the one that was refused; and what is one too many.
    assert_eq!(rows.len(), 202, "{rows:?}");
    let has = |tag: &str| rows.iter().any(|row| row["tag"] == tag);
    assert!(
        hostile[1..].iter().all(|tag| has(tag)) && has("(other)"),
        "{rows:?}"
    );
    assert_eq!(answer["total"]["requests"], 26);

    let (status, csv) = running.admin_get("/admin/usage?by=tag&format=csv", TOKEN);
    assert_eq!(status, 200);
    let mut lines = csv.split("\r\n");
    assert!(lines.next().unwrap().starts_with("tag,requests,errors,"));
    assert!(csv.contains("\r\n\"'@SUM(1+1)=2\",1,"), "{csv}");
    assert!(csv.contains("\r\n\"a=\"\"; DROP TABLE usage; --\",1,"), "{csv}");
    assert!(csv.contains("\r\n\"b=x\"\"\ty\",1,"), "{csv}");
    assert_eq!(lines.filter(|line| !line.is_empty()).count(), 202);
}

#[test]
fn what_cannot_be_asked_is_told() {
    let (provider, home) = (provider(), tempfile::tempdir().unwrap());
    let running = start(home.path(), &provider);
    for query in [
        "by=user",
        "from=yesterday",
        "format=xml",
        "limit=1",
        "from=2026-11-02&to=2026-11-01",
    ] {
        let (status, body) = running.admin_get(&format!("/admin/usage?{query}"), TOKEN);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 400, "{query}");
        let allowed = body["allowed"].as_str().unwrap();
        assert!(
            allowed.contains("tenant, key, tag, route, model") && allowed.contains("json or csv"),
            "{allowed}"
        );
    }
    assert_eq!(running.admin_get("/admin/usage", "").0, 401);
    assert_eq!(
        running
            .admin_get("/admin/usage", "authorization: Bearer other\r\n")
            .0,
        401
    );
    assert_eq!(
        running
            .admin_get("/admin/usage", &format!("{TOKEN}origin: https://a.example\r\n"))
            .0,
        403
    );
    let post = format!(
        "POST /admin/usage HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{TOKEN}content-length: 0\r\n\r\n"
    );
    assert_eq!(exchange(&running.admin, &post).0, 405);
}

#[test]
fn a_kill_takes_the_last_batch_at_most() {
    let (provider, home) = (provider(), tempfile::tempdir().unwrap());
    let mut running = start(home.path(), &provider);
    for _ in 0..20 {
        assert_eq!(
            ask(&running, "sk-a", "x-weir-tags: run=1\r\n", "auto", "hello"),
            200
        );
    }
    // What was answered is written.
    counted(&running, 20);
    let before = usage(&running, "by=day,tenant,key,tag,route,model");
    for _ in 0..5 {
        assert_eq!(ask(&running, "sk-a", "", "auto", "hello"), 200);
    }
    running.signal("-KILL");
    running.child.wait().unwrap();
    let mut next = start(home.path(), &provider);
    let after = usage(&next, "by=day,tenant,key,tag,route,model");
    let kept = after["total"]["requests"].as_u64().unwrap();
    assert!((20..=25).contains(&kept), "{kept}");
    assert_eq!(
        after["rows"].as_array().unwrap().last(),
        before["rows"].as_array().unwrap().last()
    );
    // An orderly end loses nothing, however short it was.
    assert_eq!(ask(&next, "sk-a", "", "auto", "hello"), 200);
    next.terminate();
    assert!(next.child.wait().unwrap().success());
    let last = start(home.path(), &provider);
    assert_eq!(usage(&last, "")["total"]["requests"], kept + 1);
}

#[test]
fn it_is_kept_without_records_too() {
    let (provider, home) = (provider(), tempfile::tempdir().unwrap());
    let plan = format!(
        "version = 1\n[records]\npath = \"\"\n[providers.p]\nkind = \"openai\"\nbase_url = \"http://{}/v1\"\n\
         [targets.one]\nprovider = \"p\"\nmodel = \"m\"\nprice = \"unmetered\"\n[routes.auto]\ntiers = [[\"one\"]]\n",
        provider.address()
    );
    let running = Weir::with_plan(home.path(), &plan, &[]);
    assert_eq!(running.chat("").0, 200);
    counted(&running, 1);
    assert!(!home.path().join("records").exists());
}
