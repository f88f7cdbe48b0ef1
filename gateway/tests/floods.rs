//! HTTP/2 clients that make work and ask for nothing are let go; their neighbours do not notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod harness;

use std::time::Duration;

use gateway::providers::fake::Script;
use harness::{Gateway, HELLO, eventually};
use load_tests::hostile::h2;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends frames, reading all that is answered, until it is closed; how many that took.
async fn flood(gateway: &Gateway, frame: impl Fn(u32) -> Vec<u8>) -> u32 {
    let io = TcpStream::connect(gateway.address).await.unwrap();
    let (mut reads, mut writes) = io.into_split();
    let reading = tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 16];
        while matches!(reads.read(&mut bytes).await, Ok(1..)) {}
    });
    writes.write_all(&h2::begin()).await.unwrap();
    let sending = async {
        let mut sent = 0;
        while sent < 1_000_000 && !reading.is_finished() {
            let burst: Vec<u8> = (0..100).flat_map(|n| frame(sent + n)).collect();
            if writes.write_all(&burst).await.is_err() {
                break;
            }
            sent += 100;
        }
        sent
    };
    tokio::time::timeout(Duration::from_secs(60), sending)
        .await
        .expect("it is let go")
}

/// Connections that were let go for this.
fn let_go(gateway: &Gateway, why: &str) -> u64 {
    let page = gateway.app.telemetry().render();
    let name = format!("weir_connections_let_go_total{{why=\"{why}\"}} ");
    let count = page.lines().find_map(|line| line.strip_prefix(&name));
    count.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn streams_that_are_opened_and_reset() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let sent = flood(&gateway, |n| h2::opened_and_reset(1 + 2 * n)).await;
    assert!(sent < 100_000, "{sent}");
    // By HTTP/2 itself, where they come faster than they are looked at; else by their number.
    let count = || let_go(&gateway, "protocol") + let_go(&gateway, "resets");
    eventually("it is counted, once", || count() == 1).await;
    assert_eq!(gateway.chat(HELLO).await.status, 200);
}

#[tokio::test]
async fn talk_without_a_question() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    for (count, frame) in [(1, h2::ping as fn() -> Vec<u8>), (2, h2::settings)] {
        let sent = flood(&gateway, |_| frame()).await;
        assert!(sent < 500_000, "{sent}");
        eventually("it is counted", || let_go(&gateway, "talk") == count).await;
    }
    assert_eq!(gateway.chat(HELLO).await.status, 200);
}

/// An answer that gets no window stays open, and pays for nothing.
#[tokio::test]
async fn talk_beside_an_open_request() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    for (count, frame) in [(1, h2::ping as fn() -> Vec<u8>), (2, h2::no_settings)] {
        let sent = flood(&gateway, |n| match n {
            0 => h2::without_window(1),
            _ => frame(),
        })
        .await;
        assert!(sent < 900_000, "{sent}");
        eventually("it is counted", || let_go(&gateway, "talk") == count).await;
    }
    assert_eq!(gateway.chat(HELLO).await.status, 200);
}

/// More bytes than may be talk, in bodies that are read and in one that is thrown away behind an early answer.
#[tokio::test]
async fn bodies_are_no_talk() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let (mut client, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(TcpStream::connect(gateway.address).await.unwrap()),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let long = HELLO.replace("hello", &"hello ".repeat(500_000));
    for path in ["/v1/chat/completions", "/v1/nothing", "/v1/chat/completions"] {
        for _ in 0..2 {
            let request = hyper::Request::post(format!("http://localhost{path}"))
                .header("content-type", "application/json")
                .body(http_body_util::Full::new(bytes::Bytes::from(long.clone())))
                .unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(
                answer.status() == 404,
                path == "/v1/nothing",
                "{}",
                answer.status()
            );
        }
    }
    assert_eq!(let_go(&gateway, "talk"), 0);
}

#[tokio::test]
async fn a_head_without_end() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let sent = flood(&gateway, |n| match n {
        0 => h2::endless_head(1),
        _ => h2::more_head(1),
    })
    .await;
    assert!(sent < 10_000, "{sent}");
    eventually("it is counted", || let_go(&gateway, "protocol") == 1).await;
    assert_eq!(gateway.chat(HELLO).await.status, 200);
}
