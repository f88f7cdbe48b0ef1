//! The providers against a scripted server: over in-memory connections where a clock matters, and over real sockets.

mod live;
mod tls;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::event::{Event, FinishReason, Usage};
use super::failure::{AttemptError, Fault, TryClock};
use super::http::{ExtraHeader, HttpTarget, ProviderKey};
use super::pool::{Endpoint, Pool, PoolLimits, ProxyEnv};
use super::testing::{call, target};
use super::{CallContext, Client, Reply};
use crate::call::{Call, CallKind};
use crate::clock::Clock;

/// What the server does after it has read a request.
#[derive(Clone, Debug)]
enum Do {
    Write(String),
    /// Closes the connection.
    Close,
    /// Says nothing more, and counts when the other side closes.
    Hang,
}

#[derive(Default)]
struct Server {
    /// One list a connection, one script a request on it.
    connections: Mutex<VecDeque<Vec<Vec<Do>>>>,
    requests: Mutex<Vec<String>>,
    dialled: AtomicUsize,
    /// Connections that the gateway closed while the server was waiting.
    left: AtomicUsize,
    /// Closes the connections that wait for another request.
    close_idle: tokio::sync::Notify,
    closed: AtomicUsize,
}

impl Server {
    fn new(connections: impl IntoIterator<Item = Vec<Vec<Do>>>) -> Arc<Self> {
        let server = Arc::new(Self::default());
        server.connections.lock().unwrap().extend(connections);
        server
    }

    async fn serve(self: Arc<Self>, mut io: impl AsyncRead + AsyncWrite + Unpin) {
        self.dialled.fetch_add(1, Ordering::SeqCst);
        let scripts = self.connections.lock().unwrap().pop_front().unwrap_or_default();
        for script in scripts {
            let Some(request) = read_request(&mut io).await else {
                break;
            };
            self.requests.lock().unwrap().push(request);
            for act in script {
                match act {
                    Do::Write(text) => {
                        let _ = io.write_all(text.as_bytes()).await;
                    }
                    Do::Close => return,
                    Do::Hang => {
                        let mut rest = [0u8; 64];
                        while io.read(&mut rest).await.is_ok_and(|n| n > 0) {}
                        self.left.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                }
            }
        }
        // Scripts are used up: an idle connection, until one side closes it.
        let mut rest = [0u8; 64];
        tokio::select! {
            () = self.close_idle.notified() => {
                drop(io);
                self.closed.fetch_add(1, Ordering::SeqCst);
            }
            () = async { while io.read(&mut rest).await.is_ok_and(|n| n > 0) {} } => {
                self.left.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// In-memory endpoint served by this.
    fn memory(self: &Arc<Self>) -> Endpoint {
        let server = self.clone();
        Endpoint::memory(
            "server",
            "/v1",
            Arc::new(move || {
                let (near, far) = tokio::io::duplex(64 * 1024);
                tokio::spawn(server.clone().serve(far));
                Ok(near)
            }),
        )
    }

    /// A listener on a port of the system's choice.
    async fn listen(self: &Arc<Self>) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                tokio::spawn(server.clone().serve(io));
            }
        });
        port
    }

    fn dialled(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }

    async fn until_left(&self, n: usize) {
        while self.left.load(Ordering::SeqCst) < n {
            tokio::task::yield_now().await;
        }
    }
}

async fn read_request(io: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut all = Vec::new();
    loop {
        let mut chunk = [0u8; 4096];
        let n = io.read(&mut chunk).await.ok()?;
        if n == 0 {
            return None;
        }
        all.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&all).into_owned();
        let Some(head) = text.find("\r\n\r\n") else {
            continue;
        };
        let length = text
            .to_ascii_lowercase()
            .lines()
            .find_map(|l| {
                l.strip_prefix("content-length: ")
                    .and_then(|v| v.trim().parse::<usize>().ok())
            })
            .unwrap_or(0);
        if all.len() >= head + 4 + length {
            return Some(text);
        }
    }
}

fn json(status: &str, body: &str) -> Do {
    let length = body.len();
    Do::Write(format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
}

fn sse_head() -> Do {
    Do::Write(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".into(),
    )
}

fn part(text: &str) -> Do {
    Do::Write(format!("{:x}\r\n{text}\r\n", text.len()))
}

fn end() -> Do {
    Do::Write("0\r\n\r\n".into())
}

const ROLE: &str = "data: {\"id\":\"c\",\"created\":1,\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\n\n";
const HI: &str = "data: {\"id\":\"c\",\"created\":1,\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\n\n";
const STOP: &str = "data: {\"id\":\"c\",\"created\":1,\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n";
const USAGE: &str = "data: {\"id\":\"c\",\"created\":1,\"model\":\"m-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const WHOLE: &str = r#"{"id":"c","created":1,"model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;

struct World {
    clock: Clock,
    pool: Arc<Pool>,
}

impl World {
    fn new() -> Self {
        let clock = Clock::system();
        Self {
            pool: Pool::new(clock.clone(), PoolLimits::default()),
            clock,
        }
    }

    fn context(&self) -> CallContext<'_> {
        CallContext {
            clock: &self.clock,
            pool: &self.pool,
            connect: Duration::from_secs(2),
            left: None,
            request_id: "req-1",
            traceparent: None,
            may_resend: true,
        }
    }

    async fn ask(&self, endpoint: Endpoint, call: &Call) -> Result<Reply, AttemptError> {
        client(endpoint).call(call, &self.context()).await
    }
}

fn client(endpoint: Endpoint) -> Client {
    let key = ProviderKey::new(Some("sk-test\n".to_owned()));
    Client::Http(Arc::new(
        HttpTarget::new(&target("m-up"), endpoint, key, &[]).unwrap(),
    ))
}

fn streamed() -> Call {
    call(CallKind::Chat, r#"{"model":"auto","stream":true,"messages":[]}"#)
}

fn whole() -> Call {
    call(CallKind::Chat, r#"{"model":"auto","messages":[]}"#)
}

/// All events, the bytes for the caller, and how it ended.
async fn read(mut reply: Reply) -> (Vec<Event>, String, Option<AttemptError>) {
    let (mut events, mut wire) = (Vec::new(), String::new());
    while let Some(frame) = reply.body.next().await {
        match frame {
            Ok(frame) => {
                events.extend(frame.events);
                wire.push_str(&String::from_utf8_lossy(&frame.wire.unwrap_or_default()));
            }
            Err(e) => {
                assert!(reply.body.next().await.is_none(), "nothing after an error");
                return (events, wire, Some(e));
            }
        }
    }
    (events, wire, None)
}

async fn stream_of(parts: &[&str]) -> (Vec<Event>, String, Option<AttemptError>) {
    let mut script = vec![sse_head()];
    script.extend(parts.iter().map(|p| part(p)));
    script.push(end());
    let server = Server::new([vec![script]]);
    let world = World::new();
    read(world.ask(server.memory(), &streamed()).await.unwrap()).await
}

#[tokio::test]
async fn a_stream_passes_without_what_was_not_asked_for() {
    let (events, wire, error) = stream_of(&[ROLE, HI, STOP, USAGE, DONE]).await;
    assert!(error.is_none());
    let strip = |s: &str| s.replace(",\"usage\":null", "");
    assert_eq!(wire, format!("{}{}{}{DONE}", strip(ROLE), strip(HI), strip(STOP)));
    let usage = Usage {
        prompt: 3,
        completion: 1,
        ..Usage::default()
    };
    assert_eq!(
        events[1..],
        [
            Event::Role { choice: 0 },
            Event::Text {
                choice: 0,
                text: "hi".into()
            },
            Event::Finish {
                choice: 0,
                reason: FinishReason::Stop
            },
            Event::Usage(usage),
            Event::Done,
        ]
    );
}

#[tokio::test]
async fn a_caller_who_asks_for_usage_gets_it_once() {
    let asked = call(
        CallKind::Chat,
        r#"{"model":"auto","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#,
    );
    let inline = STOP.replace(
        "\"usage\":null",
        "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}",
    );
    for parts in [
        vec![ROLE, HI, STOP, USAGE, DONE],
        vec![ROLE, HI, &inline, DONE],
        vec![ROLE, HI, &inline],
        vec![ROLE, HI, USAGE, STOP, DONE],
    ] {
        let mut script = vec![sse_head()];
        script.extend(parts.iter().map(|p| part(p)));
        script.push(end());
        let server = Server::new([vec![script]]);
        let world = World::new();
        let (_, wire, error) = read(world.ask(server.memory(), &asked).await.unwrap()).await;
        assert!(error.is_none());
        assert_eq!(wire.matches("\"prompt_tokens\":3").count(), 1, "{wire}");
        assert_eq!(wire.matches("\"choices\":[]").count(), 1, "{wire}");
        assert_eq!(wire.matches("\"usage\":null").count(), 3, "{wire}");
        assert!(wire.ends_with(DONE));
    }
}

#[tokio::test]
async fn the_usage_of_a_stream_that_does_not_finish_is_not_told_as_that_of_the_answer() {
    let asked = call(
        CallKind::Chat,
        r#"{"model":"auto","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#,
    );
    let mut script = vec![sse_head()];
    script.extend([ROLE, HI, USAGE, DONE].iter().map(|p| part(p)));
    script.push(end());
    let server = Server::new([vec![script]]);
    let world = World::new();
    let (events, wire, error) = read(world.ask(server.memory(), &asked).await.unwrap()).await;
    assert_eq!(error.map(|e| e.fault()), Some(Fault::Cut));
    assert!(!wire.contains("prompt_tokens"), "{wire}");
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Usage(u) if u.prompt == 3)),
        "we know it all the same"
    );
}

#[tokio::test]
async fn what_ends_without_a_finish_reason_is_cut() {
    for parts in [&[ROLE][..], &[ROLE, HI], &[ROLE, HI, DONE], &[DONE], &[]] {
        let (_, wire, error) = stream_of(parts).await;
        assert_eq!(error.unwrap().fault(), Fault::Cut, "{parts:?}");
        assert!(!wire.contains("[DONE]"));
    }
}

#[tokio::test]
async fn of_two_choices_both_must_finish() {
    let two = call(
        CallKind::Chat,
        r#"{"model":"auto","stream":true,"n":2,"messages":[]}"#,
    );
    let second = |part: &str| part.replace("\"index\":0", "\"index\":1");
    let (hi, stop) = (second(HI), second(STOP));
    for (parts, whole) in [
        (vec![ROLE, HI, STOP, DONE], false),
        (vec![ROLE, HI, STOP], false),
        (vec![ROLE, HI, &hi, STOP, DONE], false),
        (vec![ROLE, HI, &hi, STOP, &stop, DONE], true),
    ] {
        let mut script = vec![sse_head()];
        script.extend(parts.iter().map(|p| part(p)));
        script.push(end());
        let server = Server::new([vec![script]]);
        let (_, wire, error) = read(World::new().ask(server.memory(), &two).await.unwrap()).await;
        assert_eq!(wire.contains("[DONE]"), whole, "{wire}");
        assert_eq!(error.map(|e| e.fault()), (!whole).then_some(Fault::Cut));
    }
}

#[tokio::test]
async fn a_finish_without_done_is_whole() {
    for parts in [&[ROLE, HI, STOP][..], &[ROLE, HI, STOP, "data: [DONE]"]] {
        let (events, wire, error) = stream_of(parts).await;
        assert!(error.is_none());
        assert_eq!(events.last(), Some(&Event::Done));
        assert!(wire.ends_with(DONE));
    }
}

#[tokio::test]
async fn a_reset_after_the_finish_is_whole_and_one_before_is_cut() {
    let world = World::new();
    let server = Server::new([
        vec![vec![sse_head(), part(HI), part(STOP), Do::Close]],
        vec![vec![sse_head(), part(HI), Do::Close]],
    ]);
    let endpoint = server.memory();
    let (events, _, error) = read(world.ask(endpoint.clone(), &streamed()).await.unwrap()).await;
    assert!(error.is_none());
    assert_eq!(events.last(), Some(&Event::Done));
    let (_, _, error) = read(world.ask(endpoint, &streamed()).await.unwrap()).await;
    let error = error.unwrap();
    assert_eq!(error.fault(), Fault::Cut);
    assert!(error.was_sent());
}

#[tokio::test]
async fn errors_inside_a_stream() {
    let event = "data: {\"error\":{\"message\":\"busy\",\"type\":\"server_error\",\"code\":503}}\n\n";
    let (events, _, error) = stream_of(&[ROLE, HI, event]).await;
    assert!(events.iter().any(Event::is_content));
    let error = error.unwrap();
    assert_eq!(error.fault(), Fault::InBand(503));
    assert_eq!(error.upstream().unwrap().message, "busy");
    let (_, _, error) = stream_of(&[ROLE, "data: {\"choices\":[{]}\n\n", DONE]).await;
    assert_eq!(error.unwrap().fault(), Fault::BadAnswer);
    let (_, _, error) = stream_of(&["event: error\ndata: {\"message\":\"x\"}\n\n"]).await;
    assert_eq!(error.unwrap().fault(), Fault::InBand(0));
}

#[tokio::test]
async fn the_same_frames_at_every_split() {
    let body = [ROLE, HI, ": ping\n\n", STOP, USAGE, DONE].concat();
    let (expected, wire, _) = stream_of(&[&body]).await;
    for at in 1..body.len() {
        let (a, b) = body.split_at(at);
        let (events, got, error) = stream_of(&[a, b]).await;
        assert!(error.is_none(), "split at {at}");
        assert_eq!(events, expected, "split at {at}");
        assert_eq!(got, wire, "split at {at}");
    }
}

#[tokio::test]
async fn whole_answers_pass_as_they_are() {
    let world = World::new();
    let server = Server::new([vec![vec![json("200 OK", WHOLE)], vec![json("200 OK", WHOLE)]]]);
    let endpoint = server.memory();
    let (events, wire, error) = read(world.ask(endpoint.clone(), &whole()).await.unwrap()).await;
    assert!(error.is_none());
    assert_eq!(wire, WHOLE);
    assert_eq!(events.last(), Some(&Event::Done));
    let request = server.requests.lock().unwrap().first().unwrap().clone();
    assert!(
        request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains("authorization: Bearer sk-test\r\n"));
    assert!(request.contains("accept-encoding: identity\r\n"));
    assert!(request.contains("x-request-id: req-1\r\n"));
    assert!(request.ends_with(r#"{"model":"m-up","messages":[]}"#));

    // The same connection serves the next call, and a stream that was answered whole becomes chunks.
    let reply = world.ask(endpoint, &streamed()).await.unwrap();
    assert!(reply.reused);
    let (_, wire, _) = read(reply).await;
    assert_eq!(server.dialled(), 1);
    assert!(
        wire.contains("\"delta\":{\"role\":\"assistant\",\"content\":\"hi\"}"),
        "{wire}"
    );
    assert!(wire.ends_with(DONE));
}

async fn refused(answer: Do) -> AttemptError {
    let server = Server::new([vec![vec![answer, Do::Close]]]);
    let world = World::new();
    match world.ask(server.memory(), &whole()).await {
        Err(e) => e,
        Ok(reply) => read(reply).await.2.expect("an error"),
    }
}

#[tokio::test]
async fn answers_that_are_none() {
    let e = refused(Do::Write(
        "HTTP/1.1 429 Too Many\r\nretry-after: 7\r\nx-ratelimit-remaining-requests: 0\r\nset-cookie: a\r\ncontent-length: 64\r\n\r\n{\"error\":{\"message\":\"slow down\",\"type\":\"requests\",\"code\":\"rl\"}}".into(),
    ))
    .await;
    assert_eq!(e.fault(), Fault::Status(429));
    assert_eq!(e.retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(e.headers().len(), 2);
    assert_eq!(e.upstream().unwrap().code.as_deref(), Some("rl"));

    let html = "HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
    let e = refused(Do::Write(html.into())).await;
    assert_eq!((e.fault(), e.upstream()), (Fault::Status(502), None));

    let html = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
    assert_eq!(refused(Do::Write(html.into())).await.fault(), Fault::BadAnswer);
    let gzip = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}";
    let e = refused(Do::Write(gzip.into())).await;
    assert_eq!(e.fault(), Fault::BadAnswer);
    assert!(e.detail().contains("compressed"));
    assert_eq!(
        refused(json("200 OK", "{\"choices\":[")).await.fault(),
        Fault::BadAnswer
    );
    assert_eq!(
        refused(json("200 OK", "{\"ok\":true}")).await.fault(),
        Fault::BadAnswer
    );
    assert_eq!(
        refused(json("200 OK", "{\"error\":{\"code\":400}}"))
            .await
            .fault(),
        Fault::InBand(400)
    );
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"choices\"";
    assert_eq!(refused(Do::Write(short.into())).await.fault(), Fault::Cut);
    assert_eq!(
        refused(Do::Write("SSH-2.0-x\r\n\r\n".into())).await.fault(),
        Fault::BadAnswer
    );
    let e = refused(Do::Write(
        "HTTP/1.1 307 T\r\nlocation: http://x/\r\ncontent-length: 0\r\n\r\n".into(),
    ))
    .await;
    assert_eq!(e.fault(), Fault::Status(307));
    let many: String = (0..200).map(|i| format!("x-{i}: y\r\n")).collect();
    let e = refused(Do::Write(format!("HTTP/1.1 200 OK\r\n{many}\r\n"))).await;
    assert_eq!(e.fault(), Fault::BadAnswer);
    let e = refused(Do::Write(format!(
        "HTTP/1.1 200 OK\r\nx: {}\r\n\r\n",
        "y".repeat(100_000)
    )))
    .await;
    assert_eq!(e.fault(), Fault::BadAnswer);
    let e = refused(Do::Close).await;
    assert_eq!(e.fault(), Fault::Reset);
    assert!(e.was_sent());
}

#[tokio::test]
async fn a_reused_connection_that_closed_is_dialled_anew_once() {
    let world = World::new();
    let ok = || vec![json("200 OK", WHOLE)];
    // The second request on the first connection is read and then dropped without a byte.
    let server = Server::new([vec![ok(), vec![Do::Close]], vec![ok()]]);
    let endpoint = server.memory();
    read(world.ask(endpoint.clone(), &whole()).await.unwrap()).await;
    let reply = world.ask(endpoint, &whole()).await.unwrap();
    assert!(reply.redialled && !reply.reused);
    assert_eq!(server.dialled(), 2);

    // With effects upstream it is an error instead.
    let server = Server::new([vec![ok(), vec![Do::Close]], vec![ok()]]);
    let endpoint = server.memory();
    read(world.ask(endpoint.clone(), &whole()).await.unwrap()).await;
    let once = CallContext {
        may_resend: false,
        ..world.context()
    };
    let e = client(endpoint).call(&whole(), &once).await.unwrap_err();
    assert_eq!(
        (e.fault(), e.was_sent(), server.dialled()),
        (Fault::Reset, true, 1)
    );

    // After a byte of an answer it is never sent again.
    let server = Server::new([
        vec![ok(), vec![Do::Write("HTTP/1.1 2".into()), Do::Close]],
        vec![ok()],
    ]);
    let endpoint = server.memory();
    read(world.ask(endpoint.clone(), &whole()).await.unwrap()).await;
    let e = world.ask(endpoint, &whole()).await.unwrap_err();
    assert_eq!((e.fault(), server.dialled()), (Fault::Reset, 1));
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_is_not_used() {
    let world = World::new();
    let ok = || vec![vec![json("200 OK", WHOLE)]];
    let server = Server::new([ok(), ok()]);
    let endpoint = server.memory();
    read(world.ask(endpoint.clone(), &whole()).await.unwrap()).await;
    assert_eq!(world.pool.idle(), 1);
    server.close_idle.notify_one();
    while server.closed.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let reply = world.ask(endpoint, &whole()).await.unwrap();
    assert!(!reply.reused && !reply.redialled);
    assert_eq!(server.dialled(), 2);
}

#[tokio::test]
async fn dropping_ends_the_upstream_call_at_once() {
    let world = World::new();
    let server = Server::new([
        vec![vec![sse_head(), part(HI), Do::Hang]],
        vec![vec![Do::Hang]],
        vec![vec![
            Do::Write("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".into()),
            Do::Hang,
        ]],
    ]);
    let endpoint = server.memory();
    let mut reply = world.ask(endpoint.clone(), &streamed()).await.unwrap();
    assert!(reply.body.next().await.unwrap().unwrap().has_content());
    drop(reply);
    server.until_left(1).await;

    let call = streamed();
    let pending = world.ask(endpoint.clone(), &call);
    tokio::select! {
        _ = pending => panic!("the server never answers"),
        () = async { while server.requests.lock().unwrap().len() < 2 { tokio::task::yield_now().await } } => {}
    }
    server.until_left(2).await;

    drop(world.ask(endpoint, &whole()).await.unwrap());
    server.until_left(3).await;
    assert_eq!(world.pool.idle(), 0);
}

#[tokio::test]
async fn after_done_the_connection_is_used_again() {
    let world = World::new();
    let all = [ROLE, HI, STOP, DONE].concat();
    let late = || vec![sse_head(), part(&all), end()];
    let server = Server::new([vec![late(), late(), late()]]);
    let endpoint = server.memory();
    for round in 0..3 {
        let mut reply = world.ask(endpoint.clone(), &streamed()).await.unwrap();
        assert_eq!(reply.reused, round > 0);
        while !reply.body.next().await.unwrap().unwrap().is_done() {}
        drop(reply);
        while world.pool.idle() == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(server.dialled(), 1);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_swept_and_age() {
    let world = World::new();
    let server = Server::new([vec![vec![json("200 OK", WHOLE)]]]);
    read(world.ask(server.memory(), &whole()).await.unwrap()).await;
    assert_eq!(world.pool.idle(), 1);
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(world.pool.idle(), 0);
    server.until_left(1).await;
}

#[tokio::test]
async fn a_dial_that_fails_sent_nothing() {
    let world = World::new();
    let refusing = Arc::new(|| Err(std::io::ErrorKind::ConnectionRefused.into()));
    let e = world
        .ask(Endpoint::memory("refusing", "", refusing), &whole())
        .await
        .unwrap_err();
    assert_eq!((e.fault(), e.was_sent()), (Fault::Connect, false));
}

#[tokio::test]
async fn over_real_sockets_with_a_proxy() {
    let world = World::new();
    // The proxy sees an absolute address and its own credentials.
    let server = Server::new([vec![vec![json("200 OK", WHOLE)], vec![json("200 OK", WHOLE)]]]);
    let port = server.listen().await;
    let endpoint = Endpoint::new(
        "http://provider.invalid/v1",
        None,
        Some(&format!("http://u:p@127.0.0.1:{port}")),
        &ProxyEnv::default(),
    )
    .unwrap();
    let (_, wire, error) = read(world.ask(endpoint.clone(), &whole()).await.unwrap()).await;
    assert!(error.is_none());
    assert_eq!(wire, WHOLE);
    assert!(world.ask(endpoint, &whole()).await.unwrap().reused);
    let request = server.requests.lock().unwrap().first().unwrap().clone();
    assert!(
        request.starts_with("POST http://provider.invalid/v1/chat/completions HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains("proxy-authorization: Basic dTpw\r\n"),
        "{request}"
    );
    assert!(request.contains("host: provider.invalid\r\n"), "{request}");
}

#[tokio::test]
async fn a_tunnel_that_is_refused_or_silent() {
    let world = World::new();
    let tls = super::pool::Tls::with_roots(rustls::RootCertStore::empty(), "none").unwrap();
    let server = Server::new([
        vec![vec![Do::Write("HTTP/1.1 407 Auth\r\n\r\n".into()), Do::Close]],
        vec![vec![Do::Hang]],
        vec![vec![Do::Write("HTTP/1.1 200 OK\r\n\r\n".into()), Do::Close]],
    ]);
    let port = server.listen().await;
    let proxy = format!("127.0.0.1:{port}");
    let endpoint = Endpoint::new(
        "https://provider.invalid/v1",
        Some(&tls),
        Some(&proxy),
        &ProxyEnv::default(),
    )
    .unwrap();
    let e = world.ask(endpoint.clone(), &whole()).await.unwrap_err();
    assert_eq!(e.fault(), Fault::Connect);
    assert!(e.detail().contains("asks for credentials"), "{e}");
    let request = server.requests.lock().unwrap().first().unwrap().clone();
    assert!(
        request.starts_with("CONNECT provider.invalid:443 HTTP/1.1\r\n"),
        "{request}"
    );

    let short = CallContext {
        connect: Duration::from_millis(50),
        ..world.context()
    };
    let e = client(endpoint.clone()).call(&whole(), &short).await.unwrap_err();
    assert_eq!(e.fault(), Fault::Timeout(TryClock::Connect));
    server.until_left(1).await;

    let e = world.ask(endpoint, &whole()).await.unwrap_err();
    assert_eq!(e.fault(), Fault::Tls);
}

#[tokio::test]
async fn nobody_listens() {
    let world = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let endpoint = Endpoint::new(
        &format!("http://127.0.0.1:{port}/v1"),
        None,
        None,
        &ProxyEnv::default(),
    )
    .unwrap();
    let e = world.ask(endpoint, &whole()).await.unwrap_err();
    assert_eq!((e.fault(), e.was_sent()), (Fault::Connect, false));
    let endpoint = Endpoint::new("http://name.invalid/v1", None, None, &ProxyEnv::default()).unwrap();
    assert_eq!(
        world.ask(endpoint, &whole()).await.unwrap_err().fault(),
        Fault::Resolve
    );
}

#[tokio::test]
async fn embeddings_pass() {
    let body = r#"{"object":"list","data":[{"embedding":[0.1]}],"model":"e","usage":{"prompt_tokens":2,"total_tokens":2}}"#;
    let server = Server::new([vec![vec![json("200 OK", body)]]]);
    let world = World::new();
    let call = call(CallKind::Embeddings, r#"{"model":"auto","input":"x"}"#);
    let (events, wire, error) = read(world.ask(server.memory(), &call).await.unwrap()).await;
    assert!(error.is_none());
    assert_eq!(wire, body);
    assert_eq!(
        events[1],
        Event::Usage(Usage {
            prompt: 2,
            ..Usage::default()
        })
    );
    assert!(server.requests.lock().unwrap()[0].starts_with("POST /v1/embeddings "));
}

fn claude(endpoint: Endpoint) -> Client {
    let config = routing::plan::TargetConfig {
        kind: routing::plan::ProviderKind::Anthropic,
        ..target("claude-x")
    };
    let key = ProviderKey::new(Some("sk-ant".to_owned()));
    let extra = [ExtraHeader {
        name: "x-team".into(),
        value: "a".to_owned(),
        secret: false,
    }];
    Client::Http(Arc::new(HttpTarget::new(&config, endpoint, key, &extra).unwrap()))
}

#[tokio::test]
async fn anthropic_over_http() {
    let world = World::new();
    let stream = include_str!("../anthropic/cases/stream_text.sse");
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let server = Server::new([vec![
        vec![json("200 OK", include_str!("../anthropic/cases/whole_text.json"))],
        vec![sse_head(), part(stream), end()],
        vec![json("529 Overloaded", overloaded)],
    ]]);
    let client = claude(server.memory());
    let (_, wire, error) = read(client.call(&whole(), &world.context()).await.unwrap()).await;
    assert!(error.is_none());
    assert!(wire.contains(r#""content":"Hello \"you\" there""#), "{wire}");
    let (_, wire, error) = read(client.call(&streamed(), &world.context()).await.unwrap()).await;
    assert!(error.is_none());
    assert!(wire.ends_with(DONE) && !wire.contains("\"usage\""), "{wire}");
    let e = client.call(&whole(), &world.context()).await.unwrap_err();
    assert_eq!(e.fault(), Fault::Status(529));
    assert_eq!(e.upstream().unwrap().kind.as_deref(), Some("overloaded_error"));
    assert_eq!(server.dialled(), 1);

    let requests = server.requests.lock().unwrap();
    assert!(
        requests[0].starts_with("POST /v1/messages HTTP/1.1\r\n"),
        "{}",
        requests[0]
    );
    for header in [
        "x-api-key: sk-ant\r\n",
        "anthropic-version: 2023-06-01\r\n",
        "x-team: a\r\n",
    ] {
        assert!(requests[0].contains(header), "{}", requests[0]);
    }
    assert!(!requests[0].contains("authorization"));
    assert!(requests[0].contains(r#""max_tokens":512"#));
    assert!(requests[1].contains(r#""stream":true"#));
}
