//! The wire contract over real sockets: heads, errors, bad input, and connections that live or close cleanly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod harness;

use std::io::{Read, Write};

use gateway::providers::failure::{AttemptError, Fault};
use gateway::providers::fake::Script;
use harness::{Gateway, HELLO, HELLO_STREAM};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_whole_answer_has_the_whole_head() {
    let gateway = Gateway::start(Script::answer("hi there")).await;
    let answer = gateway.chat(HELLO).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "hi there");
    assert_eq!(answer.header("x-weir-model"), Some("one"));
    assert_eq!(answer.header("x-weir-tier"), Some("0"));
    assert_eq!(answer.header("x-weir-attempts"), Some("1"));
    assert_eq!(answer.header("x-weir-cache"), Some("bypass"));
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
    let timing = answer.header("server-timing").unwrap();
    for part in [
        "decode;dur=",
        "classify;dur=",
        "queue;dur=",
        "upstream;dur=",
        "overhead;dur=",
    ] {
        assert!(timing.contains(part), "{timing}");
    }
    let id = answer.header("x-request-id").unwrap().to_owned();
    let records = gateway.end().await;
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!(record["id"], id);
    assert_eq!(
        (&record["status"], &record["end"], &record["answered"]),
        (&200.into(), &"whole".into(), &"one".into())
    );
    assert_eq!(record["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(record["usage"]["completion"], 5);
    assert!(!record.to_string().contains("hi there") && !record.to_string().contains("hello"));
}

/// A target inside this process; the harness's script answers in its place.
const INSIDE: &str = r#"
version = 1
[server]
listen = "127.0.0.1:0"
drain_delay_ms = 0
[targets.one]
provider = "local"
artifact = "smollm2-135m-instruct-q4_1"
[routes.auto]
tiers = [["one"]]
"#;

#[tokio::test]
async fn what_a_model_inside_ignored_is_told() {
    let ask = |stream: bool| {
        format!(
            r#"{{"model":"auto","stream":{stream},"messages":[{{"role":"user","content":"hi"}}],"user":"me","something_new":1}}"#
        )
    };
    let inside = Gateway::with(INSIDE, Script::answer("hi there"), &[]).await;
    for stream in [false, true] {
        let answer = inside.chat(&ask(stream)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.header("x-weir-ignored"),
            Some("user, something_new"),
            "{answer:?}"
        );
    }
    // Nothing is ignored where nothing harmless stands, and a provider gets all of it.
    assert_eq!(inside.chat(HELLO).await.header("x-weir-ignored"), None);
    let remote = Gateway::start(Script::answer("hi there")).await;
    let answer = remote.chat(&ask(false)).await;
    assert_eq!((answer.status, answer.header("x-weir-ignored")), (200, None));
}

#[tokio::test]
async fn a_stream_ends_with_done_and_is_recorded_once() {
    let gateway = Gateway::start(Script::answer("hi there")).await;
    let answer = gateway.chat(HELLO_STREAM).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/event-stream")
    );
    assert!(answer.body.ends_with("data: [DONE]\n\n"), "{}", answer.body);
    assert!(
        !answer.body.contains("\"usage\":{"),
        "usage was not asked for: {}",
        answer.body
    );
    let records = gateway.end().await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["end"], "whole");
    assert!(records[0]["ttft_us"].as_u64().is_some());
}

#[tokio::test]
async fn bad_input_gets_its_answer_and_the_connection_lives() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let deep = format!(
        r#"{{"model":"auto","messages":{}"x"{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let hi = r#""messages":[{"role":"user","content":"hi"}]"#;
    let cases: Vec<(String, u16, &str, Option<&str>)> = vec![
        ("not json".into(), 400, "invalid_json", None),
        (
            r#"{"model":"auto","messages":[{"ro"#.into(),
            400,
            "invalid_json",
            None,
        ),
        (
            format!(r#"{{"model":"auto","model":"auto",{hi}}}"#),
            400,
            "duplicate_field",
            Some("model"),
        ),
        (
            format!(r#"{{"mod\u0065l":"auto",{hi},"model":"b"}}"#),
            400,
            "duplicate_field",
            Some("model"),
        ),
        (
            r#"{"model":"auto","messages":[]}"#.into(),
            400,
            "invalid_value",
            Some("messages"),
        ),
        (
            format!(r#"{{"model":"auto",{hi},"n":1000}}"#),
            400,
            "invalid_value",
            Some("n"),
        ),
        (
            format!(r#"{{"model":"auto",{hi},"max_tokens":-1}}"#),
            400,
            "invalid_value",
            Some("max_tokens"),
        ),
        (
            format!(r#"{{"model":"auto",{hi},"temperature":NaN}}"#),
            400,
            "invalid_json",
            None,
        ),
        (
            format!(r#"{{"model":"auto",{hi},"temperature":1e999}}"#),
            400,
            "invalid_value",
            Some("temperature"),
        ),
        (
            format!(r#"{{"model":"autp",{hi}}}"#),
            404,
            "model_not_found",
            Some("model"),
        ),
        (deep, 400, "invalid_json", None),
    ];
    // One connection for all of them.
    let mut wire = gateway.connect().await;
    for (body, status, code, param) in cases {
        wire.send("POST", "/v1/chat/completions", &[JSON], &body).await;
        let answer = wire.answer().await;
        let error = &answer.json()["error"];
        assert_eq!(
            answer.status,
            status,
            "{error} for {}",
            body.chars().take(80).collect::<String>()
        );
        assert_eq!(error["code"], code);
        assert_eq!(error["param"].as_str(), param);
        assert_eq!(error.as_object().unwrap().len(), 4);
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert_eq!(answer.header("x-weir-attempts"), None);
        assert_eq!(answer.header("server-timing"), None);
    }
    wire.send(
        "POST",
        "/v1/chat/completions",
        &[JSON],
        r#"{"mod\u0065l":"auto","messages":[{"role":"user","content":"hi"}]}"#,
    )
    .await;
    assert_eq!(wire.answer().await.status, 200);
}

#[tokio::test]
async fn paths_methods_types_hosts_and_origins() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let chat = "/v1/chat/completions";
    for (method, path, headers, status, code) in [
        ("GET", "/nowhere", vec![], 404, "unknown_url"),
        ("POST", "/v1/responses", vec![JSON], 404, "endpoint_not_supported"),
        ("POST", "/v1/messages", vec![JSON], 404, "endpoint_not_supported"),
        ("GET", chat, vec![], 405, "method_not_supported"),
        (
            "POST",
            chat,
            vec![("content-type", "text/plain")],
            415,
            "unsupported_media_type",
        ),
        (
            "POST",
            chat,
            vec![JSON, ("content-encoding", "gzip")],
            415,
            "unsupported_content_encoding",
        ),
        (
            "POST",
            chat,
            vec![JSON, ("host", "evil.example")],
            403,
            "host_not_allowed",
        ),
        (
            "POST",
            chat,
            vec![JSON, ("origin", "https://evil.example")],
            403,
            "origin_not_allowed",
        ),
        (
            "POST",
            chat,
            vec![JSON, ("x-weir-deadline-ms", "soon")],
            400,
            "invalid_header",
        ),
    ] {
        let answer = gateway.ask(method, path, &headers, HELLO).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (status, Some(code)),
            "{path}"
        );
        if status == 405 {
            assert_eq!(answer.header("allow"), Some("POST"));
        }
    }
    let asked = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
    ];
    let preflight = gateway.ask("OPTIONS", chat, &asked, "").await;
    assert_eq!(preflight.status, 204);
    assert_eq!(
        preflight.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    let listed = gateway.ask("GET", "/v1/models", &[], "").await.json();
    let names: Vec<_> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["auto", "one"]);
    assert_eq!(
        gateway.ask("GET", "/v1/models/one", &[], "").await.json()["object"],
        "model"
    );
    let unknown = gateway.ask("GET", "/v1/models/oen", &[], "").await;
    assert!(
        unknown.status == 404 && unknown.body.contains("one"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_page_that_may_call_can_read_every_error() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let page = ("origin", "https://app.example");
    let (chat, asks) = ("/v1/chat/completions", ("access-control-request-method", "POST"));
    for (method, path, headers, status) in [
        ("POST", "/v1/responses", vec![JSON, page], 404),
        ("POST", "/chat/completions", vec![JSON, page], 404),
        ("GET", chat, vec![page], 405),
        ("POST", chat, vec![JSON, page, ("x-weir-tags", "nothing")], 400),
        (
            "POST",
            chat,
            vec![JSON, page, ("x-weir-deadline-ms", "soon")],
            400,
        ),
        ("POST", chat, vec![page, ("content-type", "text/plain")], 415),
        ("OPTIONS", "/v1/responses", vec![page, asks], 204),
        ("OPTIONS", "/chat/completions", vec![page, asks], 204),
    ] {
        let answer = gateway.ask(method, path, &headers, "{}").await;
        assert_eq!(answer.status, status, "{method} {path}");
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://app.example"), "{method} {path}");
    }
    // Nobody else's page, wherever it stands.
    for (method, path) in [
        ("POST", "/v1/responses"),
        ("OPTIONS", "/v1/responses"),
        ("OPTIONS", chat),
    ] {
        let headers = [JSON, ("origin", "https://evil.example"), asks];
        let answer = gateway.ask(method, path, &headers, "{}").await;
        assert_ne!(answer.status, 204, "{method} {path}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            None,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn a_failed_cascade_shows_its_decision_when_asked() {
    let refuse = Script::refuse(AttemptError::new(Fault::Status(500), "broken"));
    let gateway = Gateway::start(refuse).await;
    let debug = [JSON, ("x-weir-debug", "1")];
    let answer = gateway.ask("POST", "/v1/chat/completions", &debug, HELLO).await;
    assert!(answer.status >= 500, "{answer:?}");
    let decision = answer.header("x-weir-decision").unwrap();
    assert!(decision.contains("\"one\""), "{decision}");
    let plain = gateway.chat(HELLO).await;
    assert_eq!(plain.header("x-weir-decision"), None);
}

#[tokio::test]
async fn keys_open_what_they_name() {
    let plan = harness::PLAN.replace("[providers.p]", "auth = \"keys\"\n[[keys]]\nname = \"a\"\nkey = \"env:A\"\ntenant = \"t\"\nroutes = [\"one\"]\n[providers.p]");
    let gateway = Gateway::with(&plan, Script::answer("ok"), &[("A", "sk-a")]).await;
    let ask = async |headers: &[(&str, &str)], body: &str| {
        gateway.ask("POST", "/v1/chat/completions", headers, body).await
    };
    let missing = ask(&[JSON], HELLO).await;
    assert_eq!(
        (missing.status, missing.json()["error"]["code"].as_str()),
        (401, Some("missing_api_key"))
    );
    assert_eq!(
        ask(&[JSON, ("authorization", "Bearer sk-b")], HELLO).await.status,
        401
    );
    let other = ask(&[JSON, ("authorization", "Bearer sk-a")], HELLO).await;
    assert_eq!(
        (other.status, other.json()["error"]["code"].as_str()),
        (403, Some("model_not_allowed"))
    );
    let fine = ask(&[JSON, ("x-api-key", "sk-a")], &HELLO.replace("auto", "one")).await;
    assert_eq!(fine.status, 200);
    let listed = gateway
        .ask("GET", "/v1/models", &[("x-api-key", "sk-a")], "")
        .await
        .json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    let records = gateway.end().await;
    assert!(records.iter().any(|r| r["facts"]["tenant"] == "t"));
    assert!(!format!("{records:?}").contains("sk-"));
}

/// A plain blocking client writes everything first and reads later.
fn write_then_read(address: std::net::SocketAddr, head: &str, chunked: bool) -> String {
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    socket.write_all(head.as_bytes()).unwrap();
    let piece = vec![b'x'; 9 * 1024 * 1024 / 64];
    for _ in 0..64 {
        if chunked {
            write!(socket, "{:x}\r\n", piece.len()).unwrap();
        }
        socket.write_all(&piece).expect("the gateway reads on");
        if chunked {
            socket.write_all(b"\r\n").unwrap();
        }
    }
    if chunked {
        socket.write_all(b"0\r\n\r\n").unwrap();
    }
    // The connection is still good: another request goes over it.
    socket
        .write_all(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn a_body_too_large_is_told_to_a_blocking_client() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let address = gateway.address;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    for (framing, chunked) in [
        ("content-length: 9437184", false),
        ("transfer-encoding: chunked", true),
    ] {
        let head = format!("{head}{framing}\r\n\r\n");
        let answer = tokio::task::spawn_blocking(move || write_then_read(address, &head, chunked))
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(
            answer.contains("request_too_large") && answer.contains("HTTP/1.1 200 OK"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn cleartext_http2_is_heard() {
    let gateway = Gateway::start(Script::answer("over h2")).await;
    let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let (mut send, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}/v1/chat/completions", gateway.address))
        .header("content-type", "application/json")
        .body(http_body_util::Full::new(bytes::Bytes::from_static(
            HELLO.as_bytes(),
        )))
        .unwrap();
    let response = send.send_request(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.version()),
        (200, http::Version::HTTP_2)
    );
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("over h2"));
}

#[tokio::test]
async fn an_error_after_a_try_names_who_was_asked() {
    let plan = harness::PLAN.replace("price = \"unmetered\"\n", "price = \"unmetered\"\n[targets.two]\nprovider = \"p\"\nmodel = \"upstream-two\"\nprice = \"unmetered\"\n")
        .replace("tiers = [[\"one\"]]", "tiers = [[\"one\"], [\"two\"]]\nstart = \"first\"\nverify = []\ndegrade = []");
    let gateway = Gateway::with(
        &plan,
        Script::refuse(AttemptError::new(Fault::Status(500), "broken")),
        &[],
    )
    .await;
    let answer = gateway.chat(HELLO).await;
    assert!(answer.status >= 500, "{answer:?}");
    assert!(answer.header("x-weir-attempts").is_some(), "{answer:?}");
    assert!(answer.header("server-timing").is_some(), "{answer:?}");
    let records = gateway.end().await;
    let last = records[0]["attempts"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(answer.header("x-weir-model"), last["target"].as_str());
    assert_eq!(answer.header("x-weir-tier").unwrap(), last["tier"].to_string());
    assert_eq!(last["target"], "two");
}

#[tokio::test]
async fn a_preflight_is_no_caller_that_left() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let asked = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
    ];
    assert_eq!(
        gateway
            .ask("OPTIONS", "/v1/chat/completions", &asked, "")
            .await
            .status,
        204
    );
    let records = gateway.end().await;
    assert_eq!(
        (&records[0]["status"], &records[0]["end"]),
        (&204.into(), &"whole".into())
    );
}

#[tokio::test]
async fn one_connection_too_many_is_told() {
    let plan = harness::PLAN.replace("drain_delay_ms = 0", "drain_delay_ms = 0\nmax_connections = 1");
    let gateway = Gateway::with(&plan, Script::answer("ok"), &[]).await;
    let mut first = gateway.connect().await;
    first.send("GET", "/v1/models", &[], "").await;
    assert_eq!(first.answer().await.status, 200);
    let mut second = gateway.connect().await;
    // It writes everything first and reads later.
    let long = " ".repeat(4 << 20);
    second.send("POST", "/v1/chat/completions", &[JSON], &long).await;
    let answer = second.answer().await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (503, Some("overloaded"))
    );
}
