//! The load generator and the soak against the fake provider.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should say where"
)]

use std::time::Duration;

use load_tests::client::Client;
use load_tests::load::{self, Arrivals, Mix, Report, Run};
use load_tests::provider::{Ended, Options, Provider, Script};
use load_tests::soak::{self, Bounds, Soak};

fn run(rate: f64, count: u64) -> Run {
    Run {
        rate,
        length: Duration::from_secs(60),
        count,
        arrivals: Arrivals::Constant,
        seed: 3,
        max_in_flight: 1_000,
        timeout: Duration::from_secs(20),
    }
}

fn mix(requests: &[(&str, &str)]) -> Mix {
    let kinds = requests.iter().map(|(prompt, more)| {
        format!(
            "[[request]]\nname = '{prompt}'\n{more}\n\
             body = {{ model = 'm', stream = true, messages = [{{ role = 'user', content = '{prompt}' }}] }}\n"
        )
    });
    Mix::parse(&kinds.collect::<String>()).unwrap()
}

async fn fire(script: &str, mix: &Mix, run: &Run) -> (Provider, Report) {
    let provider = Provider::start(Script::parse(script).unwrap()).await.unwrap();
    let client = Client::new(&provider.url()).unwrap();
    let report = load::run(&client, mix, run, |_| {}).await;
    (provider, report)
}

#[tokio::test]
async fn every_request_that_was_due_is_accounted_for() {
    let (provider, r) = fire("", &mix(&[("plain", "")]), &run(400.0, 200)).await;
    assert_eq!((r.due, r.ended(), r.failed()), (200, 200, 0));
    assert_eq!(r.first.n(), 200);
    assert_eq!(r.gaps.n(), 200 * 23);
    let done = provider
        .entries()
        .iter()
        .filter(|e| e.ended == Ended::Done)
        .count();
    assert_eq!(done, 200);
    assert!(
        r.json()["total_ms"]["p99"].as_f64().unwrap() > 0.0 && r.table().contains("due to first content")
    );
}

/// One request in a hundred stalls for 300 ms. Those that are due meanwhile leave on time, and the stall shows.
#[tokio::test]
async fn a_stall_delays_nobody_else_and_is_not_hidden() {
    let script = "[[rules]]\nafter = 50\ntimes = 1\nheaders_ms = 300";
    let (_p, r) = fire(script, &mix(&[("plain", "")]), &run(500.0, 100)).await;
    assert_eq!(r.failed(), 0, "{:?}", r.failures);
    assert!(r.total.summary().max >= 300.0);
    assert!(r.total.summary().p50 < 150.0, "{:?}", r.total.summary());
}

#[tokio::test]
async fn failures_have_their_word() {
    let m = mix(&[
        ("[[lab: ending=cut]]", ""),
        ("[[lab: ending=clean]]", ""),
        ("[[lab: ending=error]]", ""),
        ("[[lab: ending=bad_json]]", ""),
        ("[[lab: ending=no_finish]]", ""),
        ("[[lab: status=503]]", ""),
        ("[[lab: status=429]]", "expect = [429]"),
        ("leaves [[lab: tokens=4000 token_ms=1]]", "leave_after = 2"),
        ("[[lab: ending=cut tokens=3]]", "allow = ['in_body']"),
    ]);
    let (provider, r) = fire("", &m, &run(300.0, 300)).await;
    let words: Vec<&str> = r.failures.keys().map(String::as_str).collect();
    assert_eq!(
        words,
        [
            "cut",
            "event_not_json",
            "in_band_error",
            "in_body",
            "no_finish_reason",
            "status_503"
        ]
    );
    for k in &r.kinds {
        let meant = k.name.contains("429") || k.name.starts_with("leaves") || k.name.contains("tokens=3");
        assert_eq!(k.failed > 0, !meant, "{}", k.name);
    }
    let log = provider.log();
    let left = log.wait_until(|all| all.iter().any(|e| e.ended == Ended::ClientLeft));
    tokio::time::timeout(Duration::from_secs(10), left)
        .await
        .expect("the clients that leave are seen to leave");
}

#[tokio::test]
async fn nothing_listens() {
    let client = Client::new("http://127.0.0.1:1").unwrap();
    let r = load::run(&client, &mix(&[("x", "")]), &run(100.0, 5), |_| {}).await;
    assert_eq!((r.failed(), r.failures["connect"], r.status["none"]), (5, 5, 5));
}

#[tokio::test]
async fn more_than_the_bound_is_not_sent_but_counted() {
    let bounded = Run {
        max_in_flight: 3,
        ..run(1000.0, 20)
    };
    let (_p, r) = fire("[default]\nheaders_ms = 400", &mix(&[("x", "")]), &bounded).await;
    assert_eq!((r.ended(), r.not_sent, r.failed()), (3, 17, 17));
}

/// The soak watches this very process; its bounds hold for a quiet server and break when failures are not meant.
#[tokio::test]
async fn a_short_soak_holds_and_breaks() {
    let provider = Provider::start_on_thread(Script::default(), Options::default()).unwrap();
    let records = tempfile::tempdir().unwrap();
    let quiet = Soak {
        target: provider.url(),
        admin: None,
        pid: std::process::id(),
        records: Some(records.path().to_owned()),
        run: Run {
            length: Duration::from_millis(600),
            count: u64::MAX,
            ..run(100.0, 0)
        },
        warm_up: Duration::from_millis(200),
        settle: Duration::from_millis(50),
        every: Duration::from_millis(50),
        // Other tests of this process open files and allocate meanwhile.
        bounds: Bounds {
            rss_mb_per_hour: f64::INFINITY,
            files: 1_000,
            threads: 1_000,
            failures: 0,
        },
    };
    let fine = soak::run(&quiet, &mix(&[("plain", "")]), |_| {}).await.unwrap();
    assert!(
        fine.broken.is_empty() && fine.samples.len() > 5,
        "{:?}",
        fine.broken
    );
    assert!(fine.load.ended() > 30 && fine.rss.is_some());
    let broken = soak::run(&quiet, &mix(&[("[[lab: status=500]]", "")]), |_| {})
        .await
        .unwrap();
    assert!(
        broken.broken.iter().any(|b| b.contains("status_500")),
        "{:?}",
        broken.broken
    );
    assert_eq!(broken.json(&quiet.bounds)["ok"], false);
    let torn = "{\"id\":\"r1\",\"status\":200}\n{\"id\":";
    std::fs::write(records.path().join("chain-0-00000001.jsonl"), torn).unwrap();
    let broken = soak::run(&quiet, &mix(&[("plain", "")]), |_| {}).await.unwrap();
    assert!(
        broken.broken[0].contains("records: chain-0-00000001.jsonl:2"),
        "{:?}",
        broken.broken
    );
    assert_eq!(broken.records, (1, 1));
}
