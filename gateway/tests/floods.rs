//! HTTP/2 clients that make work and ask for nothing are let go; their neighbours do not notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod harness;

use std::time::Duration;

use gateway::providers::fake::Script;
use harness::{Gateway, HELLO};
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

fn counted(gateway: &Gateway, line: &str) -> bool {
    gateway.app.telemetry().render().contains(line)
}

#[tokio::test]
async fn streams_that_are_opened_and_reset() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let sent = flood(&gateway, |n| h2::opened_and_reset(1 + 2 * n)).await;
    assert!(sent < 100_000, "{sent}");
    assert_eq!(gateway.chat(HELLO).await.status, 200);
}

#[tokio::test]
async fn talk_without_a_question() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    for (count, frame) in [(1, h2::ping as fn() -> Vec<u8>), (2, h2::settings)] {
        let sent = flood(&gateway, |_| frame()).await;
        assert!(sent < 100_000, "{sent}");
        assert!(counted(
            &gateway,
            &format!("weir_connections_let_go_total{{why=\"talk\"}} {count}")
        ));
    }
    assert_eq!(gateway.chat(HELLO).await.status, 200);
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
    assert_eq!(gateway.chat(HELLO).await.status, 200);
}
