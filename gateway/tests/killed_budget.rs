//! Killed twice in the middle of a thousand requests that a day's money covers: what was spent and what is left make up the
//! budget, but for one lease a kill, and never the other way round.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![cfg(unix)]

mod program;

use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use load_tests::provider::{Options, Provider, Script};
use program::Weir;

/// A day's money covers so many requests.
const COVERED: usize = 1_000;
/// A lease is a hundredth of it.
const LEASE: usize = COVERED / 100;
const CLIENTS: usize = 16;
/// Ten tokens at a thousandth of a dollar each: a cent.
const BODY: &str =
    r#"{"model":"auto","max_tokens":10,"messages":[{"role":"user","content":"hello [[lab: tokens=10]]"}]}"#;

fn plan(provider: &Provider) -> String {
    format!(
        "version = 1\n[server]\ndrain_delay_ms = 0\n[limits]\ntotal = {{ usd_per_day = {}.0 }}\n\
         [providers.p]\nkind = \"openai\"\nbase_url = \"http://{}/v1\"\n\
         [targets.one]\nprovider = \"p\"\nmodel = \"m\"\nprice = {{ input = 0.0, output = 1000.0 }}\n\
         [routes.auto]\ntiers = [[\"one\"]]\n[retry]\nmax_attempts = 1\n",
        COVERED / 100,
        provider.address()
    )
}

/// Clients ask until the process is gone or `enough` answers have come; how many were told that the money is used up.
fn hammer(weir: &Weir, enough: usize, then: impl FnOnce()) -> usize {
    let (served, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (reached, reaches) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (served, refused, reached) = (&served, &refused, reached.clone());
            scope.spawn(move || {
                // The kill may come between any two bytes: then there is none.
                while let Some(answer) = asked(&weir.address) {
                    if answer.starts_with("HTTP/1.1 429") {
                        assert!(answer.contains("total_usd_per_day"), "{answer}");
                        refused.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                    if served.fetch_add(1, Ordering::SeqCst) + 1 == enough {
                        let _ = reached.send(());
                    }
                }
            });
        }
        drop(reached);
        // Closed, when all clients have ended before that.
        let _ = reaches.recv();
        then();
    });
    refused.into_inner()
}

fn asked(address: &str) -> Option<String> {
    use std::io::Write;
    let mut client = std::net::TcpStream::connect(address).ok()?;
    let request = program::request("connection: close\r\n", BODY);
    client.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).ok()?;
    answer.contains("\r\n\r\n").then_some(answer)
}

fn run(home: &Path, provider: &Provider, enough: usize) {
    let mut weir = Weir::with_plan(home, &plan(provider), &[]);
    hammer(&weir, enough, || weir.signal("-KILL"));
    assert!(!weir.child.wait().unwrap().success());
}

#[test]
fn what_is_spent_and_what_is_left_make_up_the_budget_within_a_lease_a_kill() {
    let provider = Provider::start_on_thread(Script::default(), Options::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    run(home.path(), &provider, COVERED / 3);
    run(home.path(), &provider, COVERED / 3);
    let last = Weir::with_plan(home.path(), &plan(&provider), &[]);
    let refused = hammer(&last, usize::MAX, || {});
    assert_eq!(refused, CLIENTS, "all are told in the end");
    let billed = provider.log().entries().len();
    assert!(billed <= COVERED, "{billed} of {COVERED}: never beyond");
    // What was held for requests that had not reached the provider when it was killed is lost with the lease.
    let lost = COVERED - billed;
    assert!(
        lost <= 2 * (LEASE + CLIENTS),
        "{lost} of {COVERED} lost in two kills"
    );
}
