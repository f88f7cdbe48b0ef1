//! A gateway on an ephemeral port with a scripted target behind it, and a client that speaks plain bytes.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::app::{App, Setup};
use gateway::clock::Clock;
use gateway::locals::Locals;
use gateway::providers::Client;
use gateway::providers::fake::{FakeTarget, Script};
use gateway::runtime::maker::Maker;
use gateway::runtime::secrets::Secrets;
use gateway::runtime::{Made, Make};
use gateway::server::Server;
use gateway::server::lifecycle::Phase;
use gateway::telemetry::Telemetry;
use gateway::telemetry::writer::{Limits, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const PLAN: &str = r#"
version = 1
[server]
listen = "127.0.0.1:0"
drain_delay_ms = 0
cors_origins = ["https://app.example"]
[providers.p]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
[targets.one]
provider = "p"
model = "upstream-one"
price = "unmetered"
[routes.auto]
tiers = [["one"]]
"#;

/// The running gateway.
pub struct Gateway {
    pub app: App,
    pub address: SocketAddr,
    pub fake: FakeTarget,
    pub records: tempfile::TempDir,
    writer: Option<Writer>,
    server: Option<Server>,
}

#[allow(clippy::disallowed_methods, reason = "only compared with the age of files")]
fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

impl Gateway {
    pub async fn start(script: Script) -> Self {
        Self::with(PLAN, script, &[]).await
    }

    /// With a plan and an environment.
    pub async fn with(plan: &str, script: Script, env: &'static [(&'static str, &'static str)]) -> Self {
        let fake = FakeTarget::new([script]);
        let target = fake.clone();
        let make = move |plan: &routing::plan::Plan, _: &Secrets| -> Vec<Made> {
            plan.targets
                .iter()
                .map(|_| Made::on(Client::Fake(target.clone())))
                .collect()
        };
        Self::made(plan, Box::new(make), fake, env).await
    }

    /// With the process's own ways to targets, over real sockets.
    pub async fn real(plan: &str, env: &'static [(&'static str, &'static str)]) -> Self {
        let locals = Locals::new(None, Telemetry::new());
        Self::made(plan, Box::new(Maker::new(locals)), FakeTarget::default(), env).await
    }

    async fn made(
        plan: &str,
        make: Box<dyn Make>,
        fake: FakeTarget,
        env: &'static [(&'static str, &'static str)],
    ) -> Self {
        let compiled = routing::plan::load(plan).unwrap_or_else(|problems| panic!("{problems}"));
        let telemetry = Telemetry::new();
        let records = tempfile::tempdir().unwrap();
        let limits = Limits {
            max_file_bytes: 1 << 24,
            keep_bytes: 1 << 30,
            keep_days: 30,
        };
        let (writer, _) = Writer::start(records.path(), limits, wall, &telemetry).unwrap();
        let secrets = Secrets::new(Arc::new(move |name| {
            env.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        }));
        let app = App::new(Setup {
            limits: Arc::new(gateway::limits::Local::default()),
            plan: compiled.plan,
            notes: compiled.notes,
            clock: Clock::system(),
            telemetry,
            sink: writer.sink(),
            make,
            secrets,
            cores: 2,
            session_key: 7,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(&app, listener, app.lifecycle()).unwrap();
        app.lifecycle().advance(Phase::Serving);
        let address = server.address();
        Self {
            app,
            address,
            fake,
            records,
            writer: Some(writer),
            server: Some(server),
        }
    }

    pub async fn connect(&self) -> Wire {
        Wire {
            stream: TcpStream::connect(self.address).await.unwrap(),
            read: Vec::new(),
        }
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut wire = self.connect().await;
        wire.send(method, path, headers, body).await;
        wire.answer().await
    }

    pub async fn chat(&self, body: &str) -> Answer {
        self.ask(
            "POST",
            "/v1/chat/completions",
            &[("content-type", "application/json")],
            body,
        )
        .await
    }

    /// Ends it and gives the records, one a request.
    pub async fn end(mut self) -> Vec<serde_json::Value> {
        self.app.lifecycle().advance(Phase::Ended);
        let (server, writer) = (self.server.take(), self.writer.take());
        tokio::task::spawn_blocking(move || {
            server.unwrap().join();
            writer.unwrap().close();
        })
        .await
        .unwrap();
        let mut lines = Vec::new();
        for entry in std::fs::read_dir(self.records.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "jsonl") {
                let text = std::fs::read_to_string(path).unwrap();
                lines.extend(
                    text.lines()
                        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()),
                );
            }
        }
        lines.retain(|l| l.get("id").is_some());
        lines
    }
}

/// A connection, byte by byte.
pub struct Wire {
    pub stream: TcpStream,
    read: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(n, _)| *n == "host") {
        text += "host: localhost\r\n";
    }
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !headers.iter().any(|(n, _)| *n == "transfer-encoding") {
        text += &format!("content-length: {}\r\n", body.len());
    }
    text + "\r\n" + body
}

impl Wire {
    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) {
        self.raw(request(method, path, headers, body).as_bytes()).await;
    }
    pub async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }
    async fn more(&mut self) -> bool {
        let mut piece = vec![0_u8; 16 * 1024];
        let read = self.stream.read(&mut piece);
        let n = tokio::time::timeout(Duration::from_secs(20), read)
            .await
            .expect("no answer in 20 s")
            .unwrap_or(0);
        self.read.extend_from_slice(&piece[..n]);
        n > 0
    }
    /// Until `text` was read.
    pub async fn until(&mut self, text: &str) -> String {
        loop {
            let seen = String::from_utf8_lossy(&self.read).into_owned();
            if seen.contains(text) {
                return seen;
            }
            assert!(self.more().await, "closed before `{text}`: {seen}");
        }
    }
    /// The next response.
    pub async fn answer(&mut self) -> Answer {
        self.until("\r\n\r\n").await;
        let end = self.read.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|l| l.split_once(": ").unwrap())
            .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
            .collect();
        let mut answer = Answer {
            status,
            headers,
            body: String::new(),
        };
        let body = match answer
            .header("content-length")
            .map(|n| n.parse::<usize>().unwrap())
        {
            Some(n) => {
                while self.read.len() < n {
                    assert!(self.more().await, "cut body");
                }
                self.read.drain(..n).collect()
            }
            None if answer.header("transfer-encoding") == Some("chunked") => self.chunks().await,
            None => Vec::new(),
        };
        answer.body = String::from_utf8(body).unwrap();
        answer
    }
    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            while !self.read.windows(2).any(|w| w == b"\r\n") {
                assert!(self.more().await, "cut chunk");
            }
            let line = self.read.windows(2).position(|w| w == b"\r\n").unwrap();
            let size = usize::from_str_radix(std::str::from_utf8(&self.read[..line]).unwrap(), 16).unwrap();
            while self.read.len() < line + 2 + size + 2 {
                assert!(self.more().await, "cut chunk");
            }
            body.extend_from_slice(&self.read[line + 2..line + 2 + size]);
            self.read.drain(..line + 2 + size + 2);
            if size == 0 {
                return body;
            }
        }
    }
    /// The other side closes.
    pub async fn closed(&mut self) -> bool {
        while self.more().await {}
        true
    }
}

/// Waits for something that another thread does.
pub async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(2));
    for _ in 0..5_000 {
        look.tick().await;
        if is() {
            return;
        }
    }
    panic!("never: {what}");
}

pub const HELLO: &str = r#"{"model":"auto","messages":[{"role":"user","content":"hello"}]}"#;
pub const HELLO_STREAM: &str =
    r#"{"model":"auto","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
