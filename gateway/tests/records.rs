//! Exactly one record a request, whatever happens to it; and whatever it held is given back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod harness;

use std::sync::atomic::Ordering;

use gateway::providers::failure::{AttemptError, Fault};
use gateway::providers::fake::{Act, Script};
use harness::{Gateway, HELLO, HELLO_STREAM, Wire, eventually, request};
use tokio::io::AsyncWriteExt;

const JSON: (&str, &str) = ("content-type", "application/json");
const CHAT: &str = "/v1/chat/completions";

/// What a caller does.
enum Caller {
    /// Sends a request and reads the answer: its status, and what its body must hold.
    Reads(String, u16, &'static str),
    /// Sends these bytes, waits until the provider is called, and leaves.
    LeavesBeforeTheHead(String),
    /// Sends these bytes, which are not a whole request, and leaves.
    LeavesBeforeTheEnd(String),
    /// Reads until this was said, and leaves.
    LeavesBehind(String, &'static str),
    /// Reads everything, and leaves.
    LeavesBehindTheEnd(String, &'static str),
    /// Is there when the process ends: this was said.
    Stays(String, &'static str),
}

use Caller::*;

/// Name, what the target does, what the caller does, and each record: status, `end`, `error`.
type Case = (
    &'static str,
    Script,
    Caller,
    &'static [(u16, &'static str, Option<&'static str>)],
);

fn chat(more: &[(&str, &str)], body: &str) -> String {
    request("POST", CHAT, &[&[JSON], more].concat(), body)
}

fn begun() -> Script {
    Script::new().begin("m").text("one ")
}

fn cases() -> Vec<Case> {
    let fails = || AttemptError::new(Fault::Connect, "connection refused");
    let cut = || AttemptError::new(Fault::Cut, "the stream ended without a finish reason").sent();
    let hangs = || Script::new().act(Act::Hang).accept();
    let fine = || Script::answer("one two");
    let whole = || chat(&[], HELLO);
    let stream = || chat(&[], HELLO_STREAM);
    let brief = |body| chat(&[("x-weir-deadline-ms", "150")], body);
    let plain = |method, path| request(method, path, &[JSON], "");
    const WHOLE: &[(u16, &str, Option<&str>)] = &[(200, "whole", None)];
    const GONE: &[(u16, &str, Option<&str>)] = &[(499, "gone", Some("client_closed_request"))];
    const LEFT: &[(u16, &str, Option<&str>)] = &[(200, "gone", Some("client_closed_request"))];
    const BUG: &[(u16, &str, Option<&str>)] = &[(500, "error", Some("internal_error"))];
    vec![
        ("a whole answer", fine(), Reads(whole(), 200, "one two"), WHOLE),
        ("a stream", fine(), Reads(stream(), 200, "[DONE]"), WHOLE),
        (
            "two on one connection",
            fine(),
            Reads(whole().repeat(2), 200, "one two"),
            &[(200, "whole", None), (200, "whole", None)],
        ),
        // ---- bugs
        (
            "a panic in the future",
            Script::new().act(Act::Panic).accept(),
            Reads(whole(), 500, "internal_error"),
            BUG,
        ),
        (
            "a panic before the commit of a stream",
            Script::new().begin("m").act(Act::Panic),
            Reads(stream(), 500, "internal_error"),
            BUG,
        ),
        (
            "a panic in a whole answer",
            begun().act(Act::Panic),
            Reads(whole(), 500, "internal_error"),
            BUG,
        ),
        (
            "a panic while the body is polled",
            begun().act(Act::Panic),
            Reads(stream(), 200, "internal_error"),
            &[(200, "cut", Some("internal_error"))],
        ),
        // ---- callers that leave
        (
            "gone inside its head",
            fine(),
            LeavesBeforeTheEnd(format!("POST {CHAT} HTTP/1.1\r\nhost: loc")),
            &[],
        ),
        (
            "gone inside its body",
            fine(),
            LeavesBeforeTheEnd(whole().replace("hello\"}]}", "he")),
            GONE,
        ),
        (
            "gone before the head",
            hangs(),
            LeavesBeforeTheHead(whole()),
            GONE,
        ),
        (
            "gone before the head of a stream",
            Script::new().begin("m").act(Act::Hang),
            LeavesBeforeTheHead(stream()),
            GONE,
        ),
        (
            "gone in the middle",
            begun().act(Act::Hang),
            LeavesBehind(stream(), "one "),
            LEFT,
        ),
        (
            "gone behind the last byte of a stream",
            fine(),
            LeavesBehindTheEnd(stream(), "[DONE]"),
            WHOLE,
        ),
        (
            "gone behind the last byte of a whole answer",
            fine(),
            LeavesBehindTheEnd(whole(), "one two"),
            WHOLE,
        ),
        // ---- clocks
        (
            "the deadline before an answer",
            hangs(),
            Reads(brief(HELLO), 504, "deadline_exceeded"),
            &[(504, "error", Some("deadline_exceeded"))],
        ),
        (
            "the deadline before the first content",
            Script::new().begin("m").act(Act::Hang),
            Reads(brief(HELLO_STREAM), 504, "deadline_exceeded"),
            &[(504, "error", Some("deadline_exceeded"))],
        ),
        (
            "the deadline in mid-stream",
            begun().act(Act::Hang),
            Reads(brief(HELLO_STREAM), 200, "stream_cut"),
            &[(200, "cut", Some("stream_cut"))],
        ),
        // ---- faults of the provider
        (
            "nobody could be asked",
            Script::refuse(fails()),
            Reads(whole(), 503, "no_target_available"),
            &[(503, "error", Some("no_target_available"))],
        ),
        (
            "a stream that breaks and is not gone on with",
            begun().fail(cut()),
            Reads(
                chat(&[], &HELLO_STREAM.replace("true", "true,\"n\":2")),
                200,
                "stream_cut",
            ),
            &[(200, "cut", Some("stream_cut"))],
        ),
        // ---- refused before anything was read or decoded
        (
            "an unknown path",
            fine(),
            Reads(plain("POST", "/v1/nothing"), 404, "unknown_url"),
            &[(404, "error", Some("unknown_url"))],
        ),
        (
            "a wrong method",
            fine(),
            Reads(plain("PUT", CHAT), 405, "method_not_supported"),
            &[(405, "error", Some("method_not_supported"))],
        ),
        (
            "a wrong type",
            fine(),
            Reads(
                request("POST", CHAT, &[("content-type", "text/plain")], HELLO),
                415,
                "unsupported_media_type",
            ),
            &[(415, "error", Some("unsupported_media_type"))],
        ),
        (
            "a page that may not ask",
            fine(),
            Reads(
                chat(&[("origin", "https://evil.example")], HELLO),
                403,
                "origin_not_allowed",
            ),
            &[(403, "error", Some("origin_not_allowed"))],
        ),
        (
            "a header that cannot be read",
            fine(),
            Reads(
                chat(&[("x-weir-deadline-ms", "soon")], HELLO),
                400,
                "invalid_header",
            ),
            &[(400, "error", Some("invalid_header"))],
        ),
        (
            "no JSON",
            fine(),
            Reads(chat(&[], "{"), 400, "invalid_json"),
            &[(400, "error", Some("invalid_json"))],
        ),
        (
            "an unknown model",
            fine(),
            Reads(chat(&[], &HELLO.replace("auto", "autp")), 404, "model_not_found"),
            &[(404, "error", Some("model_not_found"))],
        ),
        // ---- what no model answers
        (
            "the list of models",
            fine(),
            Reads(plain("GET", "/v1/models"), 200, "\"auto\""),
            WHOLE,
        ),
        (
            "a page that asks whether it may",
            fine(),
            Reads(plain("OPTIONS", CHAT), 204, ""),
            &[(204, "whole", None)],
        ),
        // ---- the end of the process
        ("dropped at the end", hangs(), Stays(whole(), ""), GONE),
        (
            "dropped at the end in mid-stream",
            begun().act(Act::Hang),
            Stays(stream(), "one "),
            LEFT,
        ),
    ]
}

fn in_flight(gateway: &Gateway) -> usize {
    gateway.app.in_flight().load(Ordering::Relaxed) as usize
}

/// Until the target was called.
async fn called(gateway: &Gateway) {
    eventually("the call begins", || !gateway.fake.seen().is_empty()).await;
}

/// Plays the caller; what is returned is still open.
async fn play(name: &str, gateway: &Gateway, caller: Caller, requests: usize) -> Option<Wire> {
    let mut wire = gateway.connect().await;
    match caller {
        Reads(bytes, status, holds) => {
            wire.raw(bytes.as_bytes()).await;
            for _ in 0..requests {
                let answer = wire.answer().await;
                assert_eq!(answer.status, status, "{name}: {answer:?}");
                assert!(answer.body.contains(holds), "{name}: {answer:?}");
                let whole = answer.body.contains("[DONE]");
                assert_eq!(whole, holds == "[DONE]", "{name}: {answer:?}");
            }
        }
        LeavesBeforeTheHead(bytes) => {
            wire.raw(bytes.as_bytes()).await;
            called(gateway).await;
        }
        LeavesBeforeTheEnd(bytes) => {
            wire.raw(bytes.as_bytes()).await;
            // A head that nobody has read is no request yet.
            eventually("its head is read", || in_flight(gateway) == requests).await;
            wire.stream.shutdown().await.unwrap();
            wire.closed().await;
        }
        LeavesBehind(bytes, said) => {
            wire.raw(bytes.as_bytes()).await;
            wire.until(said).await;
        }
        LeavesBehindTheEnd(bytes, said) => {
            wire.raw(bytes.as_bytes()).await;
            assert!(wire.answer().await.body.contains(said), "{name}");
        }
        Stays(bytes, said) => {
            wire.raw(bytes.as_bytes()).await;
            called(gateway).await;
            wire.until(said).await;
            return Some(wire);
        }
    }
    None
}

#[tokio::test]
async fn each_request_has_one_record_whatever_happens() {
    for (name, script, caller, expected) in cases() {
        let gateway = Gateway::start(script).await;
        let open = play(name, &gateway, caller, expected.len()).await;
        let app = gateway.app.clone();
        if open.is_none() {
            eventually(name, || app.in_flight().load(Ordering::Relaxed) == 0).await;
        }
        let telemetry = app.telemetry().clone();
        let records = gateway.end().await;
        let told: Vec<_> = records
            .iter()
            .map(|r| (r["status"].as_u64(), r["end"].as_str(), r["error"].as_str()))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(status, end, error)| (Some(u64::from(*status)), Some(*end), *error))
            .collect();
        assert_eq!(told, expected, "{name}: {records:#?}");
        assert_eq!(app.in_flight().load(Ordering::Relaxed), 0, "{name}");
        assert_eq!(app.bodies().used(), 0, "{name}");
        let held: usize = app
            .runtime()
            .targets
            .iter()
            .map(|t| t.state.in_flight() as usize)
            .sum();
        assert_eq!(held, 0, "{name}: a try was not given back");
        let bug = u8::from(name.contains("panic"));
        let counted = telemetry.render().contains("weir_panics_total 1");
        assert_eq!(u8::from(counted), bug, "{name}");
    }
}

/// A bug ends one request and not its connection.
#[tokio::test]
async fn the_connection_lives_on_behind_a_bug() {
    let gateway = Gateway::start(Script::new().act(Act::Panic).accept()).await;
    let mut wire = gateway.connect().await;
    for _ in 0..3 {
        wire.send("POST", CHAT, &[JSON], HELLO).await;
        assert_eq!(wire.answer().await.status, 500);
    }
    assert_eq!(gateway.end().await.len(), 3);
}

/// What a caller does not read is not given up before its clock; then there is one record too.
#[tokio::test]
async fn a_caller_that_reads_nothing_has_one_record() {
    let plan = format!("{}\n[timeouts]\nclient_write_ms = 200\n", harness::PLAN);
    let text = "x".repeat(32 << 20);
    let gateway = Gateway::with(&plan, Script::answer(&text), &[]).await;
    let mut wire = gateway.connect().await;
    wire.send("POST", CHAT, &[JSON], HELLO).await;
    let app = gateway.app.clone();
    eventually("the call begins", || !gateway.fake.seen().is_empty()).await;
    eventually("it is given up", || app.in_flight().load(Ordering::Relaxed) == 0).await;
    let records = gateway.end().await;
    assert_eq!(records.len(), 1);
    assert_eq!(
        (&records[0]["status"], &records[0]["end"]),
        (&200.into(), &"gone".into())
    );
}
