//! Stored keys and the program itself: made, used and revoked while it serves, and what happens when their store cannot be
//! read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![cfg(unix)]

mod program;

use std::io::Read;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use load_tests::provider::{Options, Provider, Script};
use program::{Weir, records, soon, weir};

/// What a revoked key may still be used.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);
/// For whatever another thread or process does.
const A_WHILE: Duration = Duration::from_secs(20);

fn provider() -> Provider {
    Provider::start_on_thread(Script::default(), Options::default()).unwrap()
}

fn plan(provider: &Provider, more: &str) -> String {
    format!(
        "version = 1\n[server]\nauth = \"keys\"\ndrain_delay_ms = 0\n[providers.p]\nkind = \"openai\"\n\
         base_url = \"http://{}/v1\"\n[targets.one]\nprovider = \"p\"\nmodel = \"m\"\n\
         price = {{ input = 1000.0, output = 1000.0 }}\nmax_output = 5\n[targets.free]\nprovider = \"p\"\nmodel = \"n\"\n\
         [routes.auto]\ntiers = [[\"one\"]]\n{more}",
        provider.address()
    )
}

fn bearer(key: &str) -> String {
    format!("authorization: Bearer {key}\r\n")
}

fn said(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    out + &String::from_utf8_lossy(&output.stderr)
}

/// Makes a key with these options.
fn create(home: &Path, options: &[&str]) -> String {
    let made = weir(home, &[&["keys", "create"], options].concat());
    assert!(made.status.success(), "{}", said(&made));
    let key = String::from_utf8(made.stdout).unwrap();
    assert!(key.starts_with("weir_sk_") && key.lines().count() == 1, "{key}");
    key.trim().to_owned()
}

fn revoke(home: &Path, name: &str) {
    let revoked = weir(home, &["keys", "revoke", name]);
    assert!(revoked.status.success(), "{}", said(&revoked));
}

fn code(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

/// How it stands with stored keys.
fn stored(weir: &Weir) -> serde_json::Value {
    let (_, body) = weir.admin_get("/readyz", "");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    body["stored_keys"].clone()
}

#[test]
fn a_key_counts_at_once_and_no_more_within_a_second_of_being_revoked() {
    let (provider, home) = (provider(), tempfile::tempdir().unwrap());
    let running = Weir::with_plan(home.path(), &plan(&provider, ""), &[]);
    let (status, body) = running.chat(&bearer("weir_sk_nobody"));
    assert_eq!((status, code(&body).as_str()), (401, "invalid_api_key"));
    for round in 0..3 {
        let key = create(home.path(), &["--name", "a", "--tenant", "team-a"]);
        let took = soon("the new key", A_WHILE, || running.chat(&bearer(&key)).0 == 200);
        println!("round {round}: usable after {} ms", took.as_millis());
        assert_eq!(running.chat(&format!("x-api-key: {key}\r\n")).0, 200);
        revoke(home.path(), "a");
        let took = soon("the revoked key", A_WHILE, || {
            running.chat(&bearer(&key)).0 == 401
        });
        println!("round {round}: refused after {} ms", took.as_millis());
        assert!(took <= REVOKED_WITHIN, "{took:?}");
    }
    // Whose they were is in the records, and no key of a caller goes further than here.
    let mine = |record: &String| record.contains(r#""tenant":"team-a","key":"a""#);
    soon("records", A_WHILE, || {
        running.records().iter().filter(|r| mine(r)).count() >= 6
    });
    let entries = provider.entries();
    assert!(entries.len() >= 6);
    for name in entries.iter().flat_map(|entry| &entry.header_names) {
        assert!(!["authorization", "x-api-key"].contains(&name.as_str()), "{name}");
    }
}

#[test]
fn its_limits_routes_and_time_are_kept() {
    let (provider, home) = (provider(), tempfile::tempdir().unwrap());
    let running = Weir::with_plan(
        home.path(),
        &plan(&provider, "[routes.other]\ntiers = [[\"free\"]]\n"),
        &[],
    );
    let twice = create(home.path(), &["--name", "twice", "--requests-per-minute", "2"]);
    let poor = create(home.path(), &["--name", "poor", "--usd-per-day", "0.05"]);
    let routed = create(home.path(), &["--name", "routed", "--routes", "other"]);
    let short = create(home.path(), &["--name", "short", "--expires", "1s"]);
    soon("all of them", A_WHILE, || stored(&running)["known"] == 4);

    assert_eq!(
        (running.chat(&bearer(&twice)).0, running.chat(&bearer(&twice)).0),
        (200, 200)
    );
    let (status, body) = running.chat(&bearer(&twice));
    assert_eq!((status, code(&body).as_str()), (429, "key_requests_per_minute"));
    // Made anew under its name, it goes on with what was used.
    revoke(home.path(), "twice");
    let again = create(home.path(), &["--name", "twice", "--requests-per-minute", "2"]);
    soon("the key made anew", A_WHILE, || {
        running.chat(&bearer(&again)).0 != 401
    });
    let (status, body) = running.chat(&bearer(&again));
    assert_eq!((status, code(&body).as_str()), (429, "key_requests_per_minute"));

    let mut answers = 0;
    let refused = loop {
        let (status, body) = running.chat(&bearer(&poor));
        if status != 200 {
            break (status, code(&body));
        }
        answers += 1;
        assert!(answers < 100, "a budget has an end");
    };
    assert!(answers > 0, "{refused:?}");
    assert_eq!(refused, (429, "key_usd_per_day".to_owned()));
    // A budget that the plan does not know of: a price that is not known is refused for it too, and for nobody else.
    let free = r#"{"model":"free","messages":[{"role":"user","content":"hello"}]}"#;
    let rich = create(home.path(), &["--name", "rich", "--usd-per-day", "5"]);
    soon("the rich key", A_WHILE, || running.chat(&bearer(&rich)).0 == 200);
    let (status, body) = running.chat_with(&bearer(&rich), free);
    assert_eq!((status, code(&body).as_str()), (503, "price_unknown"));

    let (status, body) = running.chat(&bearer(&routed));
    assert_eq!((status, code(&body).as_str()), (403, "model_not_allowed"));
    assert_eq!(
        running.chat_with(&bearer(&routed), free).0,
        403,
        "the target itself was not given"
    );
    assert_eq!(
        running
            .chat_with(&bearer(&routed), &free.replace("free", "other"))
            .0,
        200
    );

    soon("the end of its time", A_WHILE, || {
        running.chat(&bearer(&short)).0 == 401
    });
    let (_, body) = running.chat(&bearer(&short));
    assert!(body.contains("expired at "), "{body}");
}

#[test]
fn keys_that_are_known_go_on_whatever_becomes_of_their_store() {
    let (provider, home) = (provider(), tempfile::tempdir().unwrap());
    let key = create(home.path(), &["--name", "a"]);
    let mut running = Weir::with_plan(home.path(), &plan(&provider, ""), &[]);
    assert_eq!(running.chat(&bearer(&key)).0, 200, "from the first request on");
    let database = home.path().join("keys.sqlite");
    let faulty = |running: &Weir, kind: &str| {
        soon(kind, A_WHILE, || stored(running)["fault"].is_string());
        assert_eq!(running.chat(&bearer(&key)).0, 200, "{kind}");
        assert_eq!(running.chat(&bearer("weir_sk_nobody")).0, 401, "{kind}");
        let (status, metrics) = running.admin_get("/metrics", "");
        assert_eq!((status, metrics.contains("weir_key_store_ok 0")), (200, true));
        assert!(
            metrics.contains(&format!("weir_key_store_faults_total{{fault=\"{kind}\"}} 1")),
            "{kind}: {metrics}"
        );
        assert!(
            running.admin_get("/readyz", "").1.contains("\"ready\": true"),
            "it serves"
        );
    };
    let well = |running: &Weir| {
        soon("well again", A_WHILE, || stored(running)["fault"].is_null());
        assert!(
            running
                .admin_get("/metrics", "")
                .1
                .contains("weir_key_store_ok 1")
        );
    };

    let holder = rusqlite::Connection::open(&database).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    faulty(&running, "locked");
    holder.execute_batch("COMMIT").unwrap();
    drop(holder);
    well(&running);

    let away = home.path().join("away.sqlite");
    std::fs::rename(&database, &away).unwrap();
    faulty(&running, "gone");
    std::fs::rename(&away, &database).unwrap();
    well(&running);

    let copy = std::fs::read(&database).unwrap();
    std::fs::write(&away, "no database ".repeat(1_000)).unwrap();
    std::fs::rename(&away, &database).unwrap();
    faulty(&running, "broken");
    std::fs::write(&away, copy).unwrap();
    std::fs::rename(&away, &database).unwrap();
    well(&running);
    // What changed since is seen.
    revoke(home.path(), "a");
    soon("the revoked key", A_WHILE, || {
        running.chat(&bearer(&key)).0 == 401
    });

    running.terminate();
    assert!(running.child.wait().unwrap().success());
    let mut log = String::new();
    running.logged.read_to_string(&mut log).unwrap();
    assert_eq!(
        log.matches("stored keys cannot be read").count(),
        3,
        "each once: {log}"
    );
    assert_eq!(log.matches("stored keys can be read again").count(), 3, "{log}");
}

#[test]
fn a_killed_gateway_knows_them_at_its_next_start_and_a_store_that_was_never_read_is_nobodys_mistake() {
    let (provider, home) = (provider(), tempfile::tempdir().unwrap());
    let mut running = Weir::with_plan(home.path(), &plan(&provider, ""), &[]);
    let key = create(home.path(), &["--name", "a", "--requests-per-minute", "1000"]);
    soon("the new key", A_WHILE, || running.chat(&bearer(&key)).0 == 200);
    running.signal("-KILL");
    running.child.wait().unwrap();
    let next = Weir::with_plan(home.path(), &plan(&provider, ""), &[]);
    assert_eq!(next.chat(&bearer(&key)).0, 200);
    drop(next);

    let holder = rusqlite::Connection::open(home.path().join("keys.sqlite")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let third = Weir::with_plan(home.path(), &plan(&provider, ""), &[]);
    let (status, body) = third.chat(&bearer(&key));
    assert_eq!((status, code(&body).as_str()), (503, "keys_not_readable"));
    holder.execute_batch("COMMIT").unwrap();
    soon("the key", A_WHILE, || third.chat(&bearer(&key)).0 == 200);
    assert_eq!(third.chat(&bearer("weir_sk_nobody")).0, 401);
}

#[test]
fn a_key_of_the_plan_goes_before_a_stored_one_and_it_is_said() {
    let (provider, home) = (provider(), tempfile::tempdir().unwrap());
    let key = create(home.path(), &["--name", "team-a"]);
    let more = "[[keys]]\nname = \"team-a\"\nkey = \"env:A\"\n";
    let mut running = Weir::with_plan(home.path(), &plan(&provider, more), &[("A", "sk-static")]);
    assert_eq!(running.chat(&bearer("sk-static")).0, 200);
    assert_eq!(running.chat(&bearer(&key)).0, 401);
    assert_eq!(stored(&running)["shadowed"][0], "team-a");
    program::until(&mut running.logged, "stored key team-a does not count");
    // Nor is one made under such a name.
    let config = home.path().join("plan.toml");
    revoke(home.path(), "team-a");
    let refused = weir(
        home.path(),
        &[
            "keys",
            "create",
            "--name",
            "team-a",
            "--config",
            config.to_str().unwrap(),
        ],
    );
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    // A plan without it lets a stored one count again.
    create(home.path(), &["--name", "other"]);
    soon("the other key", A_WHILE, || stored(&running)["known"] == 1);
}

#[test]
fn a_key_is_printed_once_and_stands_nowhere_else() {
    let (provider, home) = (provider(), tempfile::tempdir().unwrap());
    let text = plan(&provider, "").replace("[providers.p]", "[telemetry]\nlog = \"trace\"\n[providers.p]");
    let mut running = Weir::with_plan(home.path(), &text, &[]);
    let made = weir(home.path(), &["keys", "create", "--name", "a", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let key = shown["key"].as_str().unwrap().to_owned();
    soon("the new key", A_WHILE, || running.chat(&bearer(&key)).0 == 200);
    // One that was never ours is a secret all the same.
    assert_eq!(running.chat(&bearer("weir_sk_of-somebody-else")).0, 401);
    soon("records", A_WHILE, || running.records().len() >= 2);
    let mut everything = vec![
        ("list", said(&weir(home.path(), &["keys", "list"]))),
        (
            "list --json",
            said(&weir(home.path(), &["keys", "list", "--json"])),
        ),
        ("readyz", running.admin_get("/readyz", "").1),
        ("metrics", running.admin_get("/metrics", "").1),
        ("usage", running.admin_get("/admin/usage?by=key", "").1),
        ("revoke", said(&weir(home.path(), &["keys", "revoke", "a"]))),
        ("records", records(home.path()).concat()),
        ("create", String::from_utf8(made.stderr).unwrap()),
    ];
    for entry in std::fs::read_dir(home.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            everything.push((
                "file",
                String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned(),
            ));
        }
    }
    running.terminate();
    running.child.wait().unwrap();
    let mut log = String::new();
    running.logged.read_to_string(&mut log).unwrap();
    everything.push(("log", log));
    let last_four = &key[key.len() - 4..];
    assert!(everything[1].1.contains(last_four), "it can be told by its end");
    for (place, text) in &everything {
        for secret in [&key[8..], "of-somebody-else"] {
            assert!(!text.contains(secret), "{place}: {text}");
        }
    }
}

#[test]
fn a_key_that_nobody_could_read_is_told() {
    let home = tempfile::tempdir().unwrap();
    let unread = |args: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut weir = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(args)
            .current_dir(home.path())
            .env("WEIR_HOME", home.path());
        let output = weir
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        output.wait_with_output().unwrap()
    };
    let made = unread(&["keys", "create", "--name", "a"]);
    assert_eq!(made.status.code(), Some(1), "{}", said(&made));
    assert!(said(&made).contains("weir keys revoke a"), "{}", said(&made));
    let listed = unread(&["keys", "list"]);
    assert_eq!((listed.status.code(), said(&listed)), (Some(0), String::new()));
}

#[test]
fn commands_say_what_is_wrong_by_their_exit_code_too() {
    let home = tempfile::tempdir().unwrap();
    let exit = |args: &[&str]| {
        let output = weir(home.path(), args);
        (output.status.code().unwrap(), said(&output))
    };
    let (code, text) = exit(&["keys", "list"]);
    assert!(code == 0 && text.contains("no stored keys"), "{text}");
    assert_eq!(exit(&["keys", "list", "--json"]), (0, "[]\n".to_owned()));
    assert_eq!(exit(&["keys", "revoke", "a"]).0, 3);
    for wrong in [
        &["--name", "a b"][..],
        &["--name", "a", "--class", "royal"],
        &["--name", "a", "--expires", "30"],
        &["--name", "a", "--usd-per-day", "-1"],
        &["--name", "a", "--requests-per-minute", "0"],
        &["--name", "a", "--routes", ","],
        &["--tenant", "a"],
    ] {
        let (code, text) = exit(&[&["keys", "create"], wrong].concat());
        assert_eq!(code, 2, "{wrong:?}: {text}");
    }
    assert_eq!(
        exit(&["keys", "create", "--name", "a", "--config", "absent.toml"]).0,
        3
    );
    create(
        home.path(),
        &[
            "--name",
            "a",
            "--class",
            "low",
            "--routes",
            "auto,fast",
            "--expires",
            "30d",
            "--usd-per-day",
            "0.5",
        ],
    );
    let (code, text) = exit(&["keys", "create", "--name", "a"]);
    assert!(code == 1 && text.contains("already"), "{text}");
    let (_, text) = exit(&["keys", "list"]);
    assert!(
        text.contains("auto,fast") && text.contains("usd_per_day 0.5") && text.contains("live"),
        "{text}"
    );
    assert_eq!(
        (exit(&["keys", "revoke", "a"]).0, exit(&["keys", "revoke", "a"]).0),
        (0, 0)
    );
    std::fs::write(home.path().join("keys.sqlite"), "no database ".repeat(1_000)).unwrap();
    let (code, text) = exit(&["keys", "list"]);
    assert!(code == 1 && text.contains("keys.sqlite cannot be used"), "{text}");
}
