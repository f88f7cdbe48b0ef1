//! The program itself: how it ends at a first and at a second signal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![cfg(unix)]

mod program;

use std::io::{BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use program::{Weir, until};

/// Requests that are open at the second signal: enough that letting go of them takes a while.
const OPEN: usize = 200;

#[test]
fn a_second_signal_ends_at_once_and_records_what_was_open() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut weir = Weir::start(home.path(), upstream.local_addr().unwrap(), 60_000);
    let mut held = Vec::new();
    for _ in 0..OPEN {
        let client = weir.ask();
        // The call is upstream, and nobody answers it.
        let (mut called, _) = upstream.accept().unwrap();
        called.read_exact(&mut [0]).unwrap();
        held.push((client, called));
    }

    weir.terminate();
    until(&mut weir.logged, "draining");
    weir.terminate();
    assert!(weir.child.wait().unwrap().success());
    let records = weir.records();
    assert_eq!(records.len(), OPEN);
    assert!(
        records.iter().all(|r| r.contains("\"end\":\"gone\"")),
        "{records:?}"
    );
}

/// One signal: what is open is answered whole, then the process ends with 0, and says nothing of a panic.
#[test]
fn a_first_signal_ends_behind_the_last_answer() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut weir = Weir::start(home.path(), upstream.local_addr().unwrap(), 0);
    let mut client = weir.ask();
    let (mut called, _) = upstream.accept().unwrap();
    called.read_exact(&mut [0]).unwrap();
    weir.terminate();
    until(&mut weir.logged, "draining");
    let answer = r#"{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"late but whole"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":3,"total_tokens":4}}"#;
    write!(
        called,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
        answer.len()
    )
    .unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert!(
        got.starts_with("HTTP/1.1 200") && got.contains("late but whole"),
        "{got}"
    );
    let status = weir.child.wait().unwrap();
    let mut rest = String::new();
    weir.logged.read_to_string(&mut rest).unwrap();
    assert!(status.success() && !rest.contains("panicked"), "{status}: {rest}");
    assert_eq!(weir.records().len(), 1);
}

/// A process that began with the built-in plan finds the file that is written later, and says what it reads.
#[test]
fn a_plan_that_was_written_since_the_start_is_found_at_a_reload() {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .current_dir(home.path())
        .env("WEIR_HOME", home.path())
        .env("WEIR_LOG", "info")
        // Nothing is fetched: there is no pip.
        .env("PATH", "")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut logged = BufReader::new(child.stderr.take().unwrap());
    until(&mut BufReader::new(child.stdout.take().unwrap()), "weir is ready");
    std::fs::write(home.path().join("routing.toml"), "version = 1\n").unwrap();
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-HUP", &pid])
            .status()
            .unwrap()
            .success()
    );
    let told = until(&mut logged, "is in use: ");
    assert!(told.contains("is in use: routing.toml"), "{told}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// With nothing open there is nothing to wait for.
#[test]
fn a_signal_to_an_idle_gateway_ends_it_with_0() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut weir = Weir::start(home.path(), upstream.local_addr().unwrap(), 0);
    weir.terminate();
    assert!(weir.child.wait().unwrap().success());
}
