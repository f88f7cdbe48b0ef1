//! HTTP/2 callers that leave a stream without window, over an in-memory connection on a clock that the test owns.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioExecutor;

use super::*;
use crate::app::Setup;
use crate::clock::Clock;
use crate::providers::Client;
use crate::providers::fake::{FakeTarget, Script};
use crate::runtime::Made;
use crate::runtime::secrets::Secrets;
use crate::server::lifecycle::Lifecycle;
use crate::telemetry::Telemetry;
use crate::telemetry::writer::Sink;
use crate::testing;

const PLAN: &str = "[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n[targets.one]\n\
provider = \"p\"\nmodel = \"m\"\nprice = \"unmetered\"\n[routes.auto]\ntiers = [[\"one\"]]\n\
[timeouts]\nclient_write_ms = 5_000\n";
const STREAM: &str = r#"{"model":"auto","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
const WHOLE: &str = r#"{"model":"auto","messages":[{"role":"user","content":"hello"}]}"#;
/// What each stream of the client may be sent ahead.
const WINDOW: u32 = 2_000;
const STALL: Duration = Duration::from_millis(5_000);

/// A gateway behind one connection, and the client's end of it.
struct World {
    app: App,
    fake: FakeTarget,
    client: SendRequest<Full<Bytes>>,
    /// Kept, so that nothing drains.
    _lifecycle: Lifecycle,
    connection: tokio::task::JoinHandle<()>,
}

impl World {
    async fn new(script: Script) -> Self {
        Self::with(PLAN, script).await
    }

    async fn with(plan: &str, script: Script) -> Self {
        let fake = FakeTarget::new([script]);
        let target = fake.clone();
        let clock = Clock::system();
        let app = App::new(Setup {
            limits: Arc::new(crate::limits::Local::default()),
            plan: testing::plan(plan),
            notes: Vec::new(),
            clock: clock.clone(),
            telemetry: Telemetry::new(),
            sink: Sink::none(),
            make: Box::new(move |_: &routing::plan::Plan, _: &Secrets| {
                vec![Made::on(Client::Fake(target.clone()))]
            }),
            secrets: Secrets::new(Arc::new(|_| None)),
            cores: 1,
            session_key: 1,
        });
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let lifecycle = Lifecycle::default();
        let watch = Arc::new(Watch::new(app.runtime().plan.timeouts.client_write));
        let streams = Streams::new(&app, Arc::clone(&watch));
        tokio::spawn(serve_h2(
            app.clone(),
            TokioIo::new(ours),
            watch,
            streams,
            lifecycle.phases(),
        ));
        let (client, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .handshake(TokioIo::new(theirs))
            .await
            .unwrap();
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self {
            app,
            fake,
            client,
            _lifecycle: lifecycle,
            connection,
        }
    }

    async fn ask(&mut self, body: &'static str) -> Response<Incoming> {
        let response = self.client.send_request(request(body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response
    }

    fn stalled(&self) -> bool {
        let text = self.app.telemetry().render();
        text.contains("weir_clients_stalled_total 1")
    }

    async fn is_let_go(&self, within: Duration) {
        let clock = self.app.clock();
        let look = async {
            while self.app.in_flight().load(Ordering::Relaxed) > 0 {
                clock.sleep(Duration::from_millis(50)).await;
            }
        };
        let until = clock.now() + within;
        assert!(clock.within(until, look).await.is_some(), "still held");
        assert_eq!(self.app.bodies().used(), 0);
        assert!(self.stalled());
    }
}

fn request(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("http://localhost/v1/chat/completions")
        .header("content-type", "application/json")
        .body(Full::from(body))
        .unwrap()
}

/// An answer of `pieces` events, each of them smaller than the window.
fn long(pieces: usize) -> Script {
    let script = Script::new().begin("m");
    let told = (0..pieces).fold(script, |script, i| script.text(&format!("{i:0>200} ")));
    told.stop().usage(3, 5).done()
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_gets_no_window_is_let_go_and_its_neighbours_go_on() {
    let mut world = World::new(long(100)).await;
    let began = world.app.clock().now();
    let unread = world.ask(STREAM).await;
    // A neighbour that reads, all the while.
    let neighbour = world.ask(STREAM).await.into_body().collect().await.unwrap();
    assert!(neighbour.to_bytes().ends_with(b"data: [DONE]\n\n"));
    assert!(!world.stalled());
    world.is_let_go(2 * STALL).await;
    assert!(world.app.clock().now().since(began) >= STALL);
    assert_eq!(world.fake.cancelled(), 1, "the call upstream has ended");
    assert!(unread.into_body().collect().await.is_err(), "it was reset");
    let after = world.ask(STREAM).await.into_body().collect().await.unwrap();
    assert!(after.to_bytes().ends_with(b"data: [DONE]\n\n"));
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_that_nobody_takes_is_let_go() {
    let mut world = World::new(Script::answer(&"long ".repeat(20_000))).await;
    let unread = world.ask(WHOLE).await;
    world.is_let_go(2 * STALL).await;
    assert!(unread.into_body().collect().await.is_err(), "it was reset");
}

/// 250 bytes a second: a piece comes through in time, and the whole would take seven minutes; its length has three and a half.
#[tokio::test(start_paused = true)]
async fn a_whole_answer_that_is_taken_in_drips_is_let_go() {
    let plan = PLAN.replace("client_write_ms = 5_000", "client_write_ms = 30_000");
    let mut world = World::with(&plan, Script::answer(&"long ".repeat(20_000))).await;
    let clock = world.app.clock().clone();
    let began = clock.now();
    let mut body = world.ask(WHOLE).await.into_body();
    let broken = loop {
        match body.frame().await {
            Some(Ok(data)) => {
                let paid = data.data_ref().map_or(0, Bytes::len) as u64;
                clock.sleep(Duration::from_millis(4 * paid)).await;
            }
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    let took = clock.now().since(began);
    assert!(broken, "it was reset");
    assert!((215..245).contains(&took.as_secs()), "{took:?}");
    world.is_let_go(STALL).await;
}

#[tokio::test(start_paused = true)]
async fn beyond_what_can_be_told_streams_are_reset() {
    let mut world = World::new(Script::answer("ok")).await;
    let full = 2 * world.app.runtime().plan.most_requests();
    world.app.in_flight().fetch_add(full, Ordering::Relaxed);
    // However many: they are not held against the connection.
    for _ in 0..500 {
        assert!(world.client.send_request(request(WHOLE)).await.is_err());
    }
    world.app.in_flight().fetch_sub(full, Ordering::Relaxed);
    world.ask(WHOLE).await.into_body().collect().await.unwrap();
}

/// An answer whose last piece waits for its caller is an open request, though its record is written.
#[tokio::test(start_paused = true)]
async fn a_stream_counts_until_its_caller_takes_the_answer() {
    let mut world = World::new(Script::answer(&"long ".repeat(1_100))).await;
    let unread = world.ask(WHOLE).await;
    let (app, clock) = (world.app.clone(), world.app.clock().clone());
    clock.sleep(Duration::from_millis(10)).await;
    assert_eq!(
        (app.in_flight().load(Ordering::Relaxed), app.open_requests()),
        (0, 1)
    );
    unread.into_body().collect().await.unwrap();
    clock.sleep(Duration::from_millis(10)).await;
    assert_eq!(app.open_requests(), 0);
}

/// On HTTP/1 the same clock ends a head that does not come and a connection that asks nothing more: only one is counted.
#[tokio::test(start_paused = true)]
async fn slow_heads_are_counted_and_idle_connections_are_not() {
    let world = World::new(Script::answer("ok")).await;
    let lifecycle = Lifecycle::default();
    let whole = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let half = format!("{whole}GET /v1/mo");
    for (said, counted) in [("", 0), (whole, 0), ("GET /v1/mo", 1), (half.as_str(), 2)] {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let served = serve_h1(world.app.clone(), TokioIo::new(ours), lifecycle.phases());
        theirs.write_all(said.as_bytes()).await.unwrap();
        let until = world.app.clock().now() + 2 * HEAD_TIMEOUT;
        assert!(world.app.clock().within(until, served).await.is_some());
        let line = format!("weir_connections_let_go_total{{why=\"slow_head\"}} {counted}");
        let text = world.app.telemetry().render();
        assert_eq!(text.contains(&line), counted > 0, "{said:?} {counted}");
        assert_eq!(text.contains("why=\"slow_head\""), counted > 0, "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_everything() {
    let mut world = World::new(long(100)).await;
    let clock = world.app.clock().clone();
    let began = clock.now();
    let mut body = world.ask(STREAM).await.into_body();
    let mut all = Vec::new();
    let mut rest_at = 0;
    while let Some(frame) = body.frame().await {
        all.extend_from_slice(&frame.unwrap().into_data().unwrap());
        if all.len() >= rest_at {
            rest_at = all.len() + WINDOW as usize / 2;
            clock.sleep(STALL / 2).await;
        }
    }
    assert!(all.ends_with(b"data: [DONE]\n\n"));
    assert!(clock.now().since(began) > 10 * STALL);
    assert!(!world.stalled());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_more_ends() {
    let mut world = World::new(Script::answer("ok")).await;
    let clock = world.app.clock().clone();
    for _ in 0..3 {
        clock.sleep(HEAD_TIMEOUT * 2 / 3).await;
        world.ask(WHOLE).await.into_body().collect().await.unwrap();
    }
    assert!(!world.connection.is_finished());
    let until = clock.now() + HEAD_TIMEOUT + STALL;
    assert!(clock.within(until, world.connection).await.is_some());
}
