//! The gateway as a service with one scripted target behind it: no sockets, so a test that pauses tokio's clock owns all time.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;
use gateway::app::{App, Setup};
use gateway::clock::Clock;
use gateway::providers::Client;
use gateway::providers::fake::{FakeTarget, Script};
use gateway::runtime::Made;
use gateway::runtime::secrets::Secrets;
use gateway::telemetry::Telemetry;
use gateway::telemetry::writer::{Limits, Writer};
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

pub const PLAN: &str = r#"
version = 1
[providers.p]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
[targets.one]
provider = "p"
model = "upstream-one"
price = { input = 1000.0, output = 1000.0 }
[routes.auto]
tiers = [["one"]]
[retry]
max_attempts = 1
"#;

/// A gateway with one scripted target.
pub struct House {
    pub app: App,
    pub fake: FakeTarget,
    records: tempfile::TempDir,
    writer: Writer,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
    /// Its text, whatever its form; it must be whole.
    pub fn text(&self) -> String {
        assert_eq!(self.status, 200, "{:?}", self.body);
        if !self.header("content-type").starts_with("text/event-stream") {
            return self.json()["choices"][0]["message"]["content"]
                .as_str()
                .unwrap()
                .to_owned();
        }
        let text = std::str::from_utf8(&self.body).unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let data = text.split("\n\n").filter_map(|l| l.strip_prefix("data: "));
        data.filter(|d| *d != "[DONE]")
            .map(|d| serde_json::from_str::<Value>(d).unwrap())
            .filter_map(|c| c["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .collect()
    }
}

#[allow(clippy::disallowed_methods, reason = "only compared with the age of files")]
fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

pub fn house(more: &str, scripts: impl IntoIterator<Item = Script>) -> House {
    let plan = format!("{PLAN}{more}");
    let compiled = routing::plan::load(&plan).unwrap_or_else(|problems| panic!("{problems}"));
    let fake = FakeTarget::new(scripts);
    let target = fake.clone();
    let make = move |plan: &routing::plan::Plan, _: &Secrets| -> Vec<Made> {
        let on = || Made::on(Client::Fake(target.clone()));
        plan.targets.iter().map(|_| on()).collect()
    };
    let (telemetry, records) = (Telemetry::new(), tempfile::tempdir().unwrap());
    let limits = Limits {
        max_file_bytes: 1 << 24,
        keep_bytes: 1 << 30,
        keep_days: 30,
    };
    let (writer, _) = Writer::start(records.path(), limits, wall, &telemetry).unwrap();
    let keys: &[(&str, &str)] = &[("KEY_A", "key-a"), ("KEY_B", "key-b")];
    let app = App::new(Setup {
        limits: Arc::new(gateway::limits::Local::default()),
        plan: compiled.plan,
        notes: compiled.notes,
        clock: Clock::system(),
        telemetry,
        sink: writer.sink(),
        make: Box::new(make),
        secrets: Secrets::new(Arc::new(|name| {
            let found = keys.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        })),
        cores: 1,
        session_key: 7,
    });
    House {
        app,
        fake,
        records,
        writer,
    }
}

pub fn body(stream: bool, more: Value) -> Value {
    let mut body = json!({"model": "auto", "temperature": 0, "messages": [{"role": "user", "content": "What is a weir?"}]});
    if stream {
        body["stream"] = json!(true);
    }
    let (Value::Object(body_), Value::Object(more)) = (&mut body, more) else {
        panic!("objects")
    };
    body_.extend(more);
    body
}

pub fn asked(stream: bool) -> Value {
    body(stream, json!({}))
}

impl House {
    pub fn send(
        &self,
        headers: &[(&'static str, &str)],
        body: &Value,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let mut request = Request::post("/v1/chat/completions")
            .header("host", "127.0.0.1:8080")
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
        let app = self.app.clone();
        async move {
            let (head, body) = app.handle(request).await.into_parts();
            Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.collect().await.unwrap().to_bytes(),
            }
        }
    }

    pub async fn ask(&self, body: &Value) -> Answer {
        self.send(&[], body).await
    }

    /// Until so many requests read a shared call.
    pub async fn readers(&self, count: usize) {
        eventually("readers", || self.app.cache().flights().readers() == count).await;
    }

    /// Until nothing runs that could be joined: what was to be kept is kept.
    pub async fn landed(&self) {
        eventually("landed", || self.app.cache().flights().is_empty()).await;
    }

    /// Its records, once all are written.
    pub async fn end(self) -> Vec<Value> {
        let (app, writer) = (self.app, self.writer);
        eventually("all bodies ended", || {
            app.in_flight().load(std::sync::atomic::Ordering::Relaxed) == 0
        })
        .await;
        tokio::task::spawn_blocking(move || writer.close()).await.unwrap();
        let mut lines: Vec<Value> = Vec::new();
        for entry in std::fs::read_dir(self.records.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "jsonl") {
                let text = std::fs::read_to_string(path).unwrap();
                lines.extend(text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()));
            }
        }
        lines.retain(|l| l.get("id").is_some());
        lines
    }
}

pub async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if is() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never: {what}");
}
