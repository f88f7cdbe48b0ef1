//! The fake provider over real sockets: what it says, what it logs, how it breaks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should say where"
)]

use std::time::Duration;

use load_tests::client::{Client, Failure};
use load_tests::provider::{Ended, Entry, Options, Provider, Script, State};
use load_tests::sse::Events;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn script(text: &str) -> Script {
    Script::parse(text).unwrap()
}

async fn start(text: &str) -> (Provider, Client) {
    let provider = Provider::start(script(text)).await.unwrap();
    let client = Client::new(&provider.url()).unwrap();
    (provider, client)
}

fn chat(prompt: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": prompt}]})
}

fn streamed(prompt: &str) -> Value {
    json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": prompt}]})
}

/// All events until the end; `Err` with those that came before a break.
async fn events(client: &Client, body: &Value) -> Result<Vec<String>, (Vec<String>, Failure)> {
    let mut answer = client
        .post("/v1/chat/completions", body)
        .await
        .map_err(|e| (Vec::new(), e.failure))?;
    let mut reader = Events::default();
    let mut all = Vec::new();
    loop {
        match answer.next().await {
            Ok(Some(b)) => all.extend(reader.push(&b)),
            Ok(None) => return Ok(all),
            Err(e) => return Err((all, e.failure)),
        }
    }
}

fn text_of(events: &[String]) -> String {
    events
        .iter()
        .filter_map(|e| serde_json::from_str::<Value>(e).ok())
        .filter_map(|e| {
            e.pointer("/choices/0/delta/content")
                .and_then(Value::as_str)
                .map(str::to_owned)
        })
        .collect()
}

async fn ended(provider: &Provider, how: Ended) -> Entry {
    let log = provider.log();
    let found = log.wait_until(|all| all.iter().any(|e| e.ended == how));
    let all = tokio::time::timeout(Duration::from_secs(10), found)
        .await
        .expect("the log says how it ended");
    all.into_iter().find(|e| e.ended == how).unwrap()
}

#[tokio::test]
async fn whole_and_stream_say_the_same_and_the_log_counts_it() {
    let (provider, client) = start("").await;
    let whole = client
        .post("/v1/chat/completions", &chat("hello"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let said = whole["choices"][0]["message"]["content"].as_str().unwrap();
    let e = events(&client, &streamed("hello")).await.unwrap();
    assert_eq!(text_of(&e), said);
    assert_eq!(e.last().map(String::as_str), Some("[DONE]"));
    let log = provider
        .log()
        .wait_until(|all| all.iter().all(|e| e.ended == Ended::Done))
        .await;
    assert_eq!(log.iter().map(|e| e.tokens_sent).collect::<Vec<_>>(), [24, 24]);
    assert_eq!(
        log[0].connection, log[1].connection,
        "the connection was used again"
    );
    assert_eq!(log[0].headers["content-type"], "application/json");
}

#[tokio::test]
async fn anthropic_whole_and_errors() {
    let (_provider, client) = start("api_key = \"k\"").await;
    let body =
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "[[lab: text=Hi]]"}]});
    let refused = client.post("/v1/messages", &body).await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(
        refused.json().await.unwrap()["error"]["type"],
        "authentication_error"
    );
    let mut headers = http::HeaderMap::new();
    headers.insert("x-api-key", "k".parse().unwrap());
    let answer = client
        .with_headers(headers)
        .post("/v1/messages", &body)
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&answer["content"][0]["text"], &answer["stop_reason"]),
        (&json!("Hi"), &json!("end_turn"))
    );
}

#[tokio::test]
async fn scripted_status_and_retry_after() {
    let (_provider, client) = start("[[rules]]\ntimes = 1\nstatus = 429\nretry_after = 7").await;
    let first = client.post("/v1/chat/completions", &chat("x")).await.unwrap();
    assert_eq!((first.status(), first.header("retry-after")), (429, "7"));
    let body = first.json().await.unwrap();
    assert_eq!(body["error"]["code"], "rate_limit_exceeded");
    assert!(body["error"].as_object().unwrap().contains_key("param"));
    assert_eq!(
        client
            .post("/v1/chat/completions", &chat("x"))
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn a_cut_breaks_the_body_and_a_clean_end_does_not() {
    let (provider, client) = start("").await;
    let cut = events(&client, &streamed("[[lab: text=\"a b c d\" ending=cut]]"))
        .await
        .unwrap_err();
    assert_eq!((text_of(&cut.0).as_str(), cut.1), ("a b", Failure::InBody));
    assert_eq!(ended(&provider, Ended::Cut).await.tokens_sent, 2);
    let clean = events(&client, &streamed("[[lab: text=\"a b c d\" ending=clean]]"))
        .await
        .unwrap();
    assert_eq!(text_of(&clean), "a b");
}

#[tokio::test]
async fn a_client_that_leaves_is_seen() {
    let (provider, client) = start("").await;
    let mut answer = client
        .post(
            "/v1/chat/completions",
            &streamed("[[lab: text=\"a b c d\" ending=stall end_after=3]]"),
        )
        .await
        .unwrap();
    let mut reader = Events::default();
    let mut seen = Vec::new();
    while text_of(&seen) != "a b c" {
        seen.extend(reader.push(&answer.next().await.unwrap().unwrap()));
    }
    drop(answer);
    let entry = ended(&provider, Ended::ClientLeft).await;
    assert_eq!((entry.tokens_sent, entry.tokens_planned), (3, 4));
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_is_seen() {
    let (provider, client) = start("").await;
    provider.set_state(State::Silent);
    let asked = tokio::spawn(async move { client.post("/v1/chat/completions", &chat("x")).await.is_ok() });
    provider
        .log()
        .wait_until(|all| all.iter().any(|e| e.body_bytes > 0))
        .await;
    asked.abort();
    assert_eq!(ended(&provider, Ended::ClientLeft).await.status, 0);
}

#[tokio::test]
async fn refused_then_revived() {
    let (provider, client) = start("").await;
    let mut open = client
        .post(
            "/v1/chat/completions",
            &streamed("[[lab: ending=stall end_after=1]]"),
        )
        .await
        .unwrap();
    provider.set_state(State::Refuse);
    let broken = loop {
        match open.next().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(broken.unwrap_err().failure, Failure::InBody);
    assert_eq!(
        client
            .post("/v1/chat/completions", &chat("x"))
            .await
            .err()
            .unwrap()
            .failure,
        Failure::Connect
    );
    provider.set_state(State::Up);
    while client.post("/v1/chat/completions", &chat("x")).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(provider.entries().iter().any(|e| e.ended == Ended::Done));
}

#[tokio::test]
async fn the_second_address_steers_whatever_the_state() {
    let admin = Some("127.0.0.1:0".parse().unwrap());
    let provider = Provider::start_with(
        Script::default(),
        Options {
            admin,
            ..Options::default()
        },
    )
    .await
    .unwrap();
    let desk = Client::new(&provider.admin_url().unwrap()).unwrap();
    assert_eq!(
        desk.post("/state", &json!({"state": "refuse"}))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(
        desk.get("/state").await.unwrap().json().await.unwrap()["state"],
        "refuse"
    );
    assert_eq!(
        desk.post("/state", &json!({"state": "up"}))
            .await
            .unwrap()
            .status(),
        200
    );
    let put = desk
        .send(
            http::Method::PUT,
            "/script",
            &http::HeaderMap::new(),
            r#"{"default":{"text":"new"}}"#.into(),
        )
        .await
        .unwrap();
    assert_eq!(put.status(), 200);
    let client = Client::new(&provider.url()).unwrap();
    let answer = loop {
        if let Ok(a) = client.post("/v1/chat/completions", &chat("x")).await {
            break a.json().await.unwrap();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(answer["choices"][0]["message"]["content"], "new");
    let log = desk.get("/log").await.unwrap().json().await.unwrap();
    assert_eq!(log["requests"][0]["model"], "m");
    desk.send(http::Method::DELETE, "/log", &http::HeaderMap::new(), "".into())
        .await
        .unwrap();
    assert!(provider.entries().is_empty());
}

/// The response's bytes as they come, and how the connection ended.
async fn raw(provider: &Provider, prompt: &str) -> (Vec<u8>, Option<std::io::ErrorKind>) {
    let mut socket = TcpStream::connect(provider.address()).await.unwrap();
    let body = chat(prompt).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .unwrap();
    let mut all = Vec::new();
    let end = socket.read_to_end(&mut all).await;
    (all, end.err().map(|e| e.kind()))
}

#[tokio::test]
async fn below_http_a_response_is_reset_closed_or_split() {
    let text = r#"
        [[rules]]
        contains = "reset"
        wire = { cut = { after_bytes = 0, how = "reset" } }
        [[rules]]
        contains = "close"
        wire = { cut = { after_bytes = 40, how = "close" } }
        [[rules]]
        contains = "half"
        wire = { cut = { after_bytes = 40, how = "half_close" } }
        [[rules]]
        contains = "split"
        text = "whole"
        wire = { split = 1 }
    "#;
    let (provider, _) = start(text).await;
    assert_eq!(
        raw(&provider, "reset").await,
        (Vec::new(), Some(std::io::ErrorKind::ConnectionReset))
    );
    for how in ["close", "half"] {
        let (bytes, end) = raw(&provider, how).await;
        assert_eq!((bytes.len(), end), (40, None), "{how}");
    }
    let (bytes, end) = raw(&provider, "split").await;
    assert!(end.is_none() && String::from_utf8(bytes).unwrap().contains("\"whole\""));
    assert!(
        provider
            .entries()
            .iter()
            .filter(|e| e.ended == Ended::Cut)
            .count()
            >= 2
    );
}

#[tokio::test]
async fn embeddings_as_floats_and_base64_agree() {
    use base64::Engine as _;
    let (_provider, client) = start("[default]\ndimensions = 8").await;
    let ask = |format: &str| json!({"model": "e", "input": ["one", "two"], "encoding_format": format});
    let floats = client
        .post("/v1/embeddings", &ask("float"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let coded = client
        .post("/v1/embeddings", &ask("base64"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let floats: Vec<f64> = serde_json::from_value(floats["data"][1]["embedding"].clone()).unwrap();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(coded["data"][1]["embedding"].as_str().unwrap())
        .unwrap();
    let decoded: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
        .collect();
    assert_eq!(floats.len(), 8);
    assert!(
        floats
            .iter()
            .zip(decoded)
            .all(|(a, b)| (a - f64::from(b)).abs() < 1e-6)
    );
}

#[tokio::test]
async fn it_speaks_http2_with_prior_knowledge() {
    let (provider, _) = start("[default]\ntext = \"two\"").await;
    let socket = TcpStream::connect(provider.address()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(socket);
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io)
            .await
            .unwrap();
    tokio::spawn(connection);
    let body = http_body_util::Full::new(bytes::Bytes::from(chat("x").to_string()));
    let request = http::Request::post(format!("{}/v1/chat/completions", provider.url()))
        .body(body)
        .unwrap();
    let answer = send.send_request(request).await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    let bytes = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert!(String::from_utf8_lossy(&bytes).contains("two"));
}

#[test]
fn a_provider_on_its_own_thread_stops_when_dropped() {
    let provider = Provider::start_on_thread(Script::default(), Options::default()).unwrap();
    let address = provider.address();
    assert!(std::net::TcpStream::connect(address).is_ok());
    drop(provider);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn a_provider_of_one_place_refuses_the_second_or_lets_it_wait() {
    let slow =
        "[default]\ntokens = 3\ntoken_ms = 5\nending = \"stall\"\nend_after = 1\n[capacity]\nat_once = 1\n";
    let (provider, client) = start(slow).await;
    let mut first = client.post("/v1/chat/completions", &streamed("x")).await.unwrap();
    assert!(first.next().await.unwrap().is_some());
    let second = client.post("/v1/chat/completions", &streamed("x")).await.unwrap();
    assert_eq!(second.status(), 429);
    assert!(second.headers().get("retry-after").is_none());
    // One that leaves makes room.
    drop(first);
    provider
        .log()
        .wait_until(|all| all.iter().any(|e| e.ended == Ended::ClientLeft))
        .await;
    let third = client.post("/v1/chat/completions", &streamed("x")).await.unwrap();
    assert_eq!(third.status(), 200);

    let (_provider, client) = start(&slow.replace("at_once = 1", "at_once = 1\nbeyond = \"queue\"")).await;
    let mut first = client.post("/v1/chat/completions", &streamed("x")).await.unwrap();
    assert!(first.next().await.unwrap().is_some());
    let body = streamed("x");
    let waits = client.post("/v1/chat/completions", &body);
    let mut waits = std::pin::pin!(waits);
    let early = tokio::time::timeout(Duration::from_millis(100), waits.as_mut()).await;
    assert!(early.is_err(), "it has no place yet");
    drop(first);
    assert_eq!(waits.await.unwrap().status(), 200);
}
