//! Each fault of the catalogue does on the wire what its name says, in both dialects, for streams and whole answers. The
//! client here is a socket: nothing may be mended on the way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say where"
)]

use std::io::{ErrorKind, Read as _};

use load_tests::client::Client;
use load_tests::provider::{Ended, Fault, Provider, Script, State};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

mod line;
use line::Form::{self, Stream, Whole};
use line::{End, Line, PATIENCE, TEXT, said};

async fn provider() -> Provider {
    Provider::start(Script::parse(&format!("[default]\ntext = {TEXT:?}")).unwrap())
        .await
        .unwrap()
}

#[allow(clippy::disallowed_methods, reason = "only compared with a date in a header")]
fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// A status with words of the dialect.
async fn a_status(line: &mut Line, fault: Fault, anthropic: bool) {
    let (status, openai_code, anthropic_type) = match fault {
        Fault::RateLimited | Fault::RateLimitedMs | Fault::RateLimitedDate | Fault::RateLimitedBare => {
            (429, "rate_limit_exceeded", "rate_limit_error")
        }
        Fault::ServerError => (500, "server_error", "api_error"),
        Fault::Unavailable => (
            if anthropic { 529 } else { 503 },
            "overloaded",
            "overloaded_error",
        ),
        Fault::Conflict => (409, "invalid_request_error", "invalid_request_error"),
        Fault::Unauthorized => (401, "invalid_api_key", "authentication_error"),
        Fault::Quota => (
            if anthropic { 400 } else { 429 },
            "insufficient_quota",
            "credit balance is too low",
        ),
        Fault::ModelNotFound => (404, "model_not_found", "not_found_error"),
        Fault::ContextLength => (400, "context_length_exceeded", "prompt is too long"),
        Fault::ContentFilter => (400, "content_filter", "content filtering"),
        Fault::UnsupportedParameter => (400, "unsupported_parameter", "not permitted"),
        _ => (400, "invalid_type", "invalid_request_error"),
    };
    line.whole().await;
    assert_eq!(line.status(), status, "{}", fault.name());
    let word = if anthropic { anthropic_type } else { openai_code };
    assert!(line.text().contains(word), "{}: {}", fault.name(), line.text());
    let mut waits = (line.header("retry-after"), line.header("retry-after-ms"));
    if fault == Fault::RateLimitedDate {
        let date = waits.0.take().expect("a date");
        let ahead = httpdate::parse_http_date(&date)
            .unwrap()
            .duration_since(wall())
            .unwrap();
        assert!(
            ahead.as_secs_f64() > 0.5 && ahead.as_secs_f64() <= 2.0,
            "{date}: {ahead:?}"
        );
    }
    let expected = match fault {
        Fault::RateLimited => (Some("1".into()), None),
        Fault::RateLimitedMs => (None, Some("300".into())),
        _ => (None, None),
    };
    assert_eq!(waits, expected, "{}", fault.name());
}

/// A good answer, written unusually.
async fn a_habit(line: &mut Line, fault: Fault, form: Form, anthropic: bool) {
    let name = fault.name();
    match fault {
        Fault::Http10 => {
            assert_eq!(line.until("").await, End::Closed);
            assert!(line.text().starts_with("HTTP/1.0 200"), "{}", line.text());
            assert_eq!(
                (line.header("content-length"), line.header("transfer-encoding")),
                (None, None)
            );
        }
        Fault::Gzip => {
            line.whole().await;
            assert_eq!(line.header("content-encoding").as_deref(), Some("gzip"));
            let body = if form == Stream {
                line.unchunked()
            } else {
                line.body()
            };
            let mut plain = Vec::new();
            // Two bytes of the length at the end may be under way still.
            let _ = flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain);
            assert!(said(&plain, form, anthropic).contains(TEXT), "{name}");
            return;
        }
        Fault::ByteChunks => {
            line.whole().await;
            assert!(line.body().starts_with(b"1\r\n"), "{name}");
        }
        Fault::SplitWrites => {
            line.whole().await;
        }
        Fault::EarlyHints => {
            line.until("\r\n0\r\n\r\n").await;
            let heads: Vec<String> = line
                .text()
                .lines()
                .filter(|l| l.starts_with("HTTP/"))
                .map(str::to_owned)
                .collect();
            assert_eq!(
                heads,
                [
                    "HTTP/1.1 103 Early Hints",
                    "HTTP/1.1 100 Continue",
                    "HTTP/1.1 200 OK"
                ]
            );
            assert!(line.text().contains("six"), "{name}");
            return;
        }
        Fault::SecondAnswer => {
            line.until("nobody asked").await;
            assert_eq!(line.text().matches("HTTP/1.1 200 OK").count(), 2);
        }
        Fault::CloseNextRequest => {
            line.whole().await;
            line.send(anthropic, form, "healthy").await;
            let before = line.got.len();
            assert_ne!(line.until("").await, End::Open);
            assert_eq!(line.got.len(), before, "not a byte of a second answer");
        }
        Fault::LengthTooLong => {
            assert_eq!(line.until("").await, End::Closed);
            let length: usize = line.header("content-length").unwrap().parse().unwrap();
            assert_eq!(length, line.body().len() + 1_000);
        }
        Fault::HugeHeader | Fault::ManyHeaders => {
            line.whole().await;
            let text = line.text();
            let head = text.split("\r\n\r\n").next().unwrap();
            let size = if fault == Fault::HugeHeader {
                head.len() > 1_000_000
            } else {
                head.lines().count() > 1_000
            };
            assert!(size, "{name}");
        }
        Fault::ContentFilterFinish | Fault::NoUsage => {
            line.whole().await;
            let reason = if anthropic {
                "\"refusal\""
            } else {
                "\"content_filter\""
            };
            let filtered = line.text().contains(reason);
            assert_eq!(
                filtered,
                fault == Fault::ContentFilterFinish,
                "{name}: {}",
                line.text()
            );
            let counted = line.text().contains("\"completion_tokens\":6");
            assert!(!(fault == Fault::NoUsage && counted), "{name}: {}", line.text());
        }
        _ => {
            line.whole().await;
            let text = line.text();
            let mark = match fault {
                Fault::Crlf => "\r\ndata: ",
                Fault::BareCr => "}\r\r",
                Fault::Comments => ": keep-alive\n\nid: 7\nretry: 3000\n\n",
                Fault::MultiLine => ",\ndata: \"",
                Fault::PingsBetween => ping(anthropic),
                other => panic!("{} is not looked at", other.name()),
            };
            assert!(text.contains(mark), "{name}: {text}");
            if fault == Fault::MultiLine {
                return;
            }
        }
    }
    assert!(
        line.said(form, anthropic).contains(TEXT),
        "{name}: {}",
        line.said(form, anthropic)
    );
}

/// Four of the six words come, then this.
async fn broken_in_the_middle(line: &mut Line, fault: Fault, form: Form, anthropic: bool) {
    let name = fault.name();
    let end = match fault {
        Fault::Cut | Fault::ResetInChunkHeader | Fault::BadChunkSize | Fault::HalfClose => {
            line.until("").await
        }
        Fault::CleanEnd | Fault::InBandError if form == Whole => line.whole().await,
        Fault::CleanEnd
        | Fault::DoneWithoutFinish
        | Fault::FinishWithoutDone
        | Fault::BadJson
        | Fault::InBandError => line.whole().await,
        _ => panic!("{name} is not looked at"),
    };
    let expected = match fault {
        Fault::Cut | Fault::BadChunkSize | Fault::HalfClose => End::Closed,
        Fault::ResetInChunkHeader => End::Reset,
        _ => End::Open,
    };
    assert_eq!(end, expected, "{name}");
    let text = line.text();
    let finished = text.contains("\"stop\"") || text.contains("end_turn");
    let done = text.contains("[DONE]") || text.contains("message_stop\"}");
    if form == Whole {
        match fault {
            Fault::InBandError => assert!(line.status() == 200 && text.contains("\"error\":{")),
            Fault::DoneWithoutFinish | Fault::FinishWithoutDone => assert!(text.contains(TEXT)),
            Fault::BadJson => {
                assert!(serde_json::from_slice::<Value>(&line.body()).is_err() && text.contains(TEXT));
            }
            _ => {
                let body = match line.header("transfer-encoding") {
                    Some(_) => line.unchunked(),
                    None => line.body(),
                };
                assert!(body.starts_with(b"{"), "{name}: {text}");
                assert!(serde_json::from_slice::<Value>(&body).is_err(), "{name}: {text}");
            }
        }
        return;
    }
    let part = match fault {
        Fault::DoneWithoutFinish | Fault::FinishWithoutDone | Fault::BadJson => TEXT,
        _ => "one two three four",
    };
    assert_eq!(line.said(form, anthropic), part, "{name}: {text}");
    let ends = match fault {
        Fault::DoneWithoutFinish => (false, true),
        Fault::FinishWithoutDone => (true, false),
        Fault::BadJson => (true, true),
        _ => (false, false),
    };
    assert_eq!((finished, done), ends, "{name}: {text}");
    match fault {
        Fault::InBandError => assert!(text.contains("\"error\":{")),
        Fault::ResetInChunkHeader => assert!(text.ends_with("\r\n1f")),
        Fault::BadChunkSize => assert!(text.contains("\r\nchunk of bytes\r\n")),
        _ => {}
    }
}

/// A sign of life in the dialect.
fn ping(anthropic: bool) -> &'static str {
    if anthropic {
        "event: ping\ndata: {\"type\": \"ping\"}\n\n"
    } else {
        ": keep-alive\n\n"
    }
}

/// Something comes, or nothing, and then silence until we go.
async fn silent(provider: &Provider, mut line: Line, fault: Fault, form: Form, anthropic: bool) {
    let model = format!("fault-{}", fault.name());
    let log = provider.log();
    let came = |tokens| {
        let (log, model) = (log.clone(), model.clone());
        async move {
            let seen = log.wait_until(|all| {
                all.iter().any(|e| {
                    e.model == model
                        && e.stream == (form == Stream)
                        && e.ended == Ended::Open
                        && e.tokens_sent == tokens
                })
            });
            tokio::time::timeout(PATIENCE, seen).await.expect("the log tells");
        }
    };
    match (fault, form) {
        (Fault::Hang | Fault::SlowHead, _) | (Fault::SlowFirstToken, Whole) => came(0).await,
        (Fault::SlowFirstToken | Fault::RoleOnly, Stream) => {
            let begun = if anthropic { "ping\"}" } else { "assistant" };
            line.until(begun).await;
            assert_eq!(line.said(form, anthropic), "");
        }
        (Fault::PingsOnly | Fault::PingsMidStream, Stream) => {
            let words = if fault == Fault::PingsOnly {
                ""
            } else {
                "one two three four"
            };
            line.until(ping(anthropic)).await;
            assert_eq!(line.said(form, anthropic).trim_end(), words);
            line.got.clear();
            line.until(ping(anthropic)).await;
        }
        (Fault::RoleOnly | Fault::PingsOnly, Whole) => {
            line.until("\r\n\r\n").await;
            assert_eq!((line.status(), line.body().len()), (200, 0));
        }
        (Fault::Stall | Fault::PingsMidStream, _) => {
            came(4).await;
            let part = if form == Stream { "four" } else { "{\"" };
            line.until(part).await;
        }
        (Fault::LengthTooShort, _) => {
            line.until("\r\n\r\n").await;
            let length: usize = line.header("content-length").unwrap().parse().unwrap();
            while line.body().len() <= length {
                let n = line.socket.read_buf(&mut line.got).await.unwrap();
                assert!(n > 0);
            }
            return;
        }
        (Fault::Drip, _) => {
            let mut more = [0; 64];
            assert_eq!(
                line.socket.read(&mut more).await.unwrap(),
                1,
                "one byte, then a second of nothing"
            );
        }
        (other, _) => panic!("{} is not looked at", other.name()),
    }
    drop(line);
    let left = log.wait_until(|all| {
        all.iter()
            .any(|e| e.model == model && e.stream == (form == Stream) && e.ended == Ended::ClientLeft)
    });
    tokio::time::timeout(PATIENCE, left)
        .await
        .unwrap_or_else(|_| panic!("{}: our leaving is seen", fault.name()));
}

/// No head, or none that can be read.
async fn headless(line: &mut Line, fault: Fault) {
    let end = line.until("").await;
    let (expected, begins): (_, &[u8]) = match fault {
        Fault::ResetBeforeHead => (End::Reset, b""),
        Fault::CloseBeforeHead => (End::Closed, b""),
        Fault::ResetInHead => (End::Reset, b"HTTP/1.1 200 OK\r\n"),
        Fault::Goaway => (End::Closed, &[0, 0, 0, 4]),
        _ => (End::Closed, b"SSH-2.0-lab\r\n"),
    };
    assert_eq!(end, expected, "{}", fault.name());
    assert!(line.got.starts_with(begins), "{}", fault.name());
    match fault {
        Fault::ResetBeforeHead | Fault::CloseBeforeHead => assert!(line.got.is_empty()),
        Fault::ResetInHead => assert_eq!(line.got.len(), 40),
        Fault::Goaway => assert_eq!(line.got.get(12), Some(&7), "the second frame is a goaway"),
        _ => {}
    }
}

async fn look(provider: &Provider, fault: Fault, form: Form, anthropic: bool) {
    let mut line = Line::ask(provider, anthropic, form, &format!("fault-{}", fault.name())).await;
    match fault {
        Fault::RateLimited
        | Fault::RateLimitedMs
        | Fault::RateLimitedDate
        | Fault::RateLimitedBare
        | Fault::ServerError
        | Fault::Unavailable
        | Fault::Conflict
        | Fault::Unauthorized
        | Fault::Quota
        | Fault::ModelNotFound
        | Fault::ContextLength
        | Fault::ContentFilter
        | Fault::UnsupportedParameter
        | Fault::InvalidRequest => a_status(&mut line, fault, anthropic).await,
        Fault::HtmlError | Fault::HtmlAnswer | Fault::Forbidden => {
            line.whole().await;
            let status = match fault {
                Fault::HtmlError => 502,
                Fault::HtmlAnswer => 200,
                _ => 403,
            };
            assert_eq!(
                (line.status(), line.header("content-type")),
                (status, Some("text/html; charset=utf-8".into()))
            );
        }
        Fault::Redirect => {
            line.until("\r\n\r\n").await;
            assert_eq!((line.status(), line.header("location").is_some()), (302, true));
        }
        Fault::EmptyStream => {
            line.until("\r\n\r\n").await;
            assert_eq!(
                (line.status(), line.header("content-length")),
                (200, Some("0".into()))
            );
        }
        Fault::ErrorFirst | Fault::RateLimitInBand => {
            line.whole().await;
            let text = line.text();
            assert_eq!(
                (line.status(), line.said(form, anthropic).contains("one")),
                (200, false),
                "{text}"
            );
            assert!(text.contains("\"error\":{"), "{text}");
            assert_eq!(
                text.contains("rate_limit"),
                fault == Fault::RateLimitInBand,
                "{text}"
            );
        }
        Fault::Cut
        | Fault::CleanEnd
        | Fault::DoneWithoutFinish
        | Fault::FinishWithoutDone
        | Fault::BadJson
        | Fault::InBandError
        | Fault::ResetInChunkHeader
        | Fault::BadChunkSize
        | Fault::HalfClose => broken_in_the_middle(&mut line, fault, form, anthropic).await,
        Fault::Hang
        | Fault::SlowHead
        | Fault::SlowFirstToken
        | Fault::RoleOnly
        | Fault::PingsOnly
        | Fault::Stall
        | Fault::PingsMidStream
        | Fault::Drip
        | Fault::LengthTooShort => silent(provider, line, fault, form, anthropic).await,
        Fault::ResetBeforeHead
        | Fault::CloseBeforeHead
        | Fault::ResetInHead
        | Fault::Goaway
        | Fault::Garbage => headless(&mut line, fault).await,
        // These change how events are written, and a whole answer has none.
        Fault::Crlf | Fault::BareCr | Fault::Comments | Fault::MultiLine | Fault::PingsBetween
            if form == Whole => {}
        Fault::PingsBetween
        | Fault::Crlf
        | Fault::BareCr
        | Fault::Comments
        | Fault::MultiLine
        | Fault::ContentFilterFinish
        | Fault::NoUsage
        | Fault::HugeHeader
        | Fault::ManyHeaders
        | Fault::LengthTooLong
        | Fault::Http10
        | Fault::Gzip
        | Fault::ByteChunks
        | Fault::SplitWrites
        | Fault::CloseNextRequest
        | Fault::SecondAnswer
        | Fault::EarlyHints => a_habit(&mut line, fault, form, anthropic).await,
    }
}

#[tokio::test]
async fn every_fault_does_what_it_says() {
    let provider = provider().await;
    for fault in Fault::ALL {
        for form in [Whole, Stream] {
            for anthropic in [false, true] {
                look(&provider, *fault, form, anthropic).await;
            }
        }
    }
}

#[tokio::test]
async fn after_a_response_by_hand_the_connection_serves_on() {
    let provider = provider().await;
    let mut line = Line::ask(&provider, false, Stream, "fault-byte_chunks").await;
    line.whole().await;
    line.send(false, Whole, "healthy").await;
    line.until("\"object\":\"chat.completion\",").await;
    let connections: Vec<u64> = provider.entries().iter().map(|e| e.connection).collect();
    assert_eq!(connections.len(), 2);
    assert_eq!(connections[0], connections[1]);
}

#[tokio::test]
async fn an_http2_client_is_told_to_go_away() {
    let provider = provider().await;
    let socket = TcpStream::connect(provider.address()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(socket);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut send, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let driven = tokio::spawn(connection);
    let body = json!({"model": "fault-goaway", "messages": [{"role": "user", "content": "x"}]}).to_string();
    let body = http_body_util::Full::new(bytes::Bytes::from(body));
    let request = http::Request::post(format!("{}/v1/chat/completions", provider.url()))
        .body(body)
        .unwrap();
    let refused = tokio::time::timeout(PATIENCE, send.send_request(request))
        .await
        .expect("it ends");
    assert!(refused.is_err(), "no answer comes");
    tokio::time::timeout(PATIENCE, driven)
        .await
        .expect("the connection ends")
        .unwrap()
        .ok();
    assert!(!send.is_ready(), "and takes no other request");
}

#[tokio::test]
async fn connections_are_reset_or_left_unread() {
    let provider = provider().await;
    provider.set_state(State::Reset);
    // The state reaches the listener when it is next looked at; from then on every connection is reset.
    let reset = async {
        loop {
            let mut socket = TcpStream::connect(provider.address()).await.unwrap();
            let mut byte = [0];
            let _ = socket
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await;
            if socket
                .read(&mut byte)
                .await
                .is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reset)
        .await
        .expect("connections are reset");
    provider.set_state(State::Deaf);
    let mut line = Line::ask(&provider, false, Whole, "healthy").await;
    provider.set_state(State::Up);
    let healthy = Line::ask(&provider, false, Whole, "healthy").await.whole().await;
    assert_eq!(healthy, End::Open);
    // The one that nobody read is let go when the provider hears again, or was served if it came before it was deaf.
    let end = line.whole().await;
    assert!(end != End::Open || line.status() == 200, "{end:?}");
}

#[tokio::test]
async fn a_fault_is_armed_by_an_admin_call_for_a_model_and_so_many_requests() {
    let provider = provider().await;
    let desk = Client::new(&provider.url()).unwrap();
    let known = desk.get("/faults").await.unwrap().json().await.unwrap();
    assert_eq!(known["known"].as_array().unwrap().len(), Fault::ALL.len());
    let rule = json!({"model": "m", "fault": "server_error", "times": 2, "after": 1});
    assert_eq!(desk.post("/faults", &rule).await.unwrap().status(), 200);
    assert_eq!(
        desk.post("/faults", &json!({"fault": "sever_error"}))
            .await
            .unwrap()
            .status(),
        400
    );
    let ask = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    let mut got = Vec::new();
    for _ in 0..4 {
        got.push(desk.post("/v1/chat/completions", &ask).await.unwrap().status());
    }
    assert_eq!(got, [200, 500, 500, 200]);
    let none = http::HeaderMap::new();
    let cleared = desk
        .send(http::Method::DELETE, "/faults?model=m", &none, "".into())
        .await
        .unwrap();
    assert_eq!(cleared.json().await.unwrap()["armed"], 0);
}

#[tokio::test]
async fn a_second_provider_takes_a_beginning_in_its_own_way() {
    let provider = Provider::start(Script::parse(&format!(
        "[default]\ntext = {TEXT:?}\n[[models]]\nname = \"repeat\"\ngo_on = \"repeat\"\n[[models]]\nname = \"refuse\"\ngo_on = \"refuse\"\n\
         [[models]]\nname = \"continue\"\ngo_on = \"continue\"\n[[models]]\nname = \"own\"\ngo_on = \"announce\"\ngo_on_text = \" and so on.\""
    )).unwrap()).await.unwrap();
    let client = Client::new(&provider.url()).unwrap();
    let ask = |model: &'static str, end: &'static str| {
        let client = client.clone();
        async move {
            let mut messages = vec![
                json!({"role": "user", "content": "q"}),
                json!({"role": "assistant", "content": "one two three"}),
            ];
            if !end.is_empty() {
                messages.push(json!({"role": "user", "content": end}));
            }
            let body = json!({"model": model, "max_tokens": 99, "messages": messages});
            let answer = client.post("/v1/messages", &body).await.unwrap();
            let (status, body) = (answer.status(), answer.json().await.unwrap());
            (
                status,
                body["content"][0]["text"].as_str().unwrap_or_default().to_owned(),
            )
        }
    };
    assert_eq!(ask("continue", "").await, (200, " four five six".into()));
    assert_eq!(ask("continue", "Go on.").await, (200, " four five six".into()));
    assert_eq!(
        ask("repeat", "").await,
        (200, "one two three four five six".into())
    );
    assert_eq!(
        ask("own", "Go on.").await,
        (200, "Sure, continuing: and so on.".into())
    );
    assert_eq!(ask("refuse", "").await.0, 400);
    assert_eq!(
        ask("anybody", "").await,
        (200, TEXT.into()),
        "most take no notice"
    );
    let prefills = provider.entries().iter().filter(|e| e.prefill).count();
    assert_eq!(prefills, 4);
}
