//! At the caps that can be looked at (connections, requests in flight, bodies in flight, the cache), all at once, with answers
//! held back beside them, of which nothing tells how many bytes they are. What the process takes then must be less than
//! `weir check` says of the same plan.
//!
//! First the cache is filled. Then the connections come: some send a body as large as the budget allows and wait for an answer
//! that is held back to its end, some are given an answer that they do not read, some wait to be admitted, and the rest have
//! sent nearly all of a head as long as one may be. Those whose answer is held back ask for what may be shared (temperature 0),
//! each something else, so that what they ask is held for the cache as well. The caps are the plan's own (`data/caps-plan.toml`), so a run that does not
//! reach them says so and fails, and so does one in which somebody was refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::caller::{self, Leave};
use crate::client::Client;
use crate::clock::now;
use crate::gateway::{self, Gateway};
use crate::provider::{Options, Provider, Script};
use crate::soak;

const PLAN: &str = include_str!("../../data/caps-plan.toml");
/// Connections in all, and their parts: what the plan allows.
const CONNECTIONS: usize = 400;
const HELD: usize = 70;
const UNREAD: usize = 30;
const QUEUED: usize = 100;
/// Bytes of a body, so that a hundred of them are nearly all that may be in flight.
const BODY: usize = 485_000;
/// Bytes of a head that has not ended.
const HEAD: usize = 60_000;
/// Answers for the cache, and the words of each: more than fit.
const ANSWERS: usize = 800;
const WORDS: usize = 10_000;
/// How long the caps may take to be reached, and how long they are held.
const REACHED_WITHIN: Duration = Duration::from_secs(60);
const HOLD: Duration = Duration::from_secs(5);
/// Of each cap, at least so much must have been reached for the run to say something.
const REACHED: f64 = 0.9;

/// One cap.
#[derive(Clone, Debug)]
pub struct Cap {
    /// Its gauge.
    pub name: &'static str,
    /// What the plan allows.
    pub most: f64,
    /// The most that was seen.
    pub seen: f64,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What `weir check` says, part by part.
    pub worst: Vec<(String, u64)>,
    /// Resident memory before anything was asked, and the highest there was.
    pub rss: (u64, u64),
    /// How far each cap was reached.
    pub caps: Vec<Cap>,
    /// What is broken, one sentence each.
    pub broken: Vec<String>,
}

impl Report {
    fn judge(&mut self) {
        let (grown, most) = (self.grown(), self.most());
        if grown > most {
            self.broken.push(format!(
                "{:.1} MB more than at rest, and `weir check` allows {:.1} MB",
                mb(grown),
                mb(most)
            ));
        }
        for cap in &self.caps {
            if cap.seen < cap.most * REACHED {
                self.broken.push(format!(
                    "{} came to {} of {}: the cap was not reached",
                    cap.name, cap.seen, cap.most
                ));
            }
        }
    }

    /// Bytes more than at rest.
    pub fn grown(&self) -> u64 {
        self.rss.1.saturating_sub(self.rss.0)
    }

    /// Bytes that the plan takes at worst.
    pub fn most(&self) -> u64 {
        self.worst.iter().map(|(_, bytes)| bytes).sum()
    }

    /// For a script.
    pub fn json(&self) -> Value {
        let caps = self
            .caps
            .iter()
            .map(|c| json!({"name": c.name, "most": c.most, "seen": c.seen}));
        json!({
            "ok": self.broken.is_empty(), "broken": self.broken, "worst_case_bytes": self.worst, "worst_bytes": self.most(),
            "rss_bytes": {"rest": self.rss.0, "peak": self.rss.1, "grown": self.grown()},
            "caps": caps.collect::<Vec<_>>(),
        })
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for cap in &self.caps {
            let _ = writeln!(out, "{:<28}{:>14} of {:>14}", cap.name, cap.seen, cap.most);
        }
        for (part, bytes) in &self.worst {
            let _ = writeln!(out, "{part:<28}{:>11.1} MB at worst", mb(*bytes));
        }
        let _ = writeln!(
            out,
            "resident: {:.1} MB at rest, {:.1} MB at most: {:.1} MB more (`weir check`: {:.1} MB)",
            mb(self.rss.0),
            mb(self.rss.1),
            mb(self.grown()),
            mb(self.most())
        );
        for sentence in &self.broken {
            let _ = writeln!(out, "BROKEN: {sentence}");
        }
        out
    }
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Runs it against that program. `progress` gets a line now and then.
///
/// # Errors
/// Something that it needs could not be had; findings are in the report.
pub async fn run(program: &Path, mut progress: impl FnMut(String)) -> Result<Report, String> {
    let script = Script::parse("[default]\ntokens = 8\n").map_err(|e| e.to_string())?;
    let provider = Provider::start_on_thread(script, Options::default())
        .map_err(|e| format!("a scripted provider could not be started: {e}"))?;
    let plan = PLAN.replace("{provider}", &provider.base_url());
    let mut report = Report {
        worst: worst_case(program, &plan)?,
        ..Report::default()
    };
    let options = gateway::Options::fresh(plan, Vec::new());
    let gateway = Gateway::start(program, &options)
        .await
        .map_err(|e| e.to_string())?;
    let client = Client::new(gateway.url()).map_err(|e| e.to_string())?;
    let admin = Client::new(gateway.admin()).map_err(|e| e.to_string())?;
    report.rss.0 = soak::sample(gateway.pid())?.rss_bytes;

    fill(&client, &mut progress).await?;
    drop(client);
    let address = gateway.url().trim_start_matches("http://").to_owned();
    let crowd = crowd(&address)
        .await
        .map_err(|e| format!("a connection could not be made: {e}"))?;
    let mut caps = [
        ("weir_connections", CONNECTIONS as f64),
        ("weir_admission_in_flight", (HELD + UNREAD) as f64),
        ("weir_body_bytes_in_flight", 50_000_000.0),
        ("weir_cache_bytes", 33_554_432.0 * 7.0 / 8.0),
    ]
    .map(|(name, most)| Cap {
        name,
        most,
        seen: 0.0,
    });
    let (began, mut all_since) = (now(), None);
    let mut look = tokio::time::interval(Duration::from_millis(250));
    while now() - began < REACHED_WITHIN && all_since.is_none_or(|since| now() - since < HOLD) {
        look.tick().await;
        let page = admin.get("/metrics").await.map_err(|e| e.to_string())?;
        let page = page.bytes().await.map_err(|e| e.to_string())?;
        let gauges = soak::gauges(&String::from_utf8_lossy(&page));
        for cap in &mut caps {
            cap.seen = cap.seen.max(gauges.get(cap.name).copied().unwrap_or_default());
        }
        report.rss.1 = report.rss.1.max(soak::sample(gateway.pid())?.rss_bytes);
        if caps.iter().all(|c| c.seen >= c.most * REACHED) {
            all_since.get_or_insert_with(now);
        }
        progress(format!(
            "{} connections, {:.1} MB of bodies, resident {:.1} MB",
            caps[0].seen,
            caps[2].seen / 1e6,
            mb(report.rss.1)
        ));
    }
    report.rss.1 = report.rss.1.max(high_water(gateway.pid())?);
    report.caps = caps.to_vec();
    report.broken.extend(refused(&crowd));
    drop(crowd);
    report.judge();
    gateway
        .stop(Duration::from_secs(60))
        .await
        .map_err(|e| e.to_string())?;
    provider.shutdown().await;
    Ok(report)
}

/// What `weir check` says of the plan, as far as it is about callers like these.
fn worst_case(program: &Path, plan: &str) -> Result<Vec<(String, u64)>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let file = folder.path().join("routing.toml");
    let plan = plan
        .replace("{listen}", "127.0.0.1:0")
        .replace("{admin}", "127.0.0.1:0");
    std::fs::write(&file, plan).map_err(|e| e.to_string())?;
    let said = std::process::Command::new(program)
        .arg("check")
        .arg(&file)
        .arg("--json")
        .output()
        .map_err(|e| format!("{} check: {e}", program.display()))?;
    let said: Value = serde_json::from_slice(&said.stdout).map_err(|e| format!("weir check --json: {e}"))?;
    let worst = said.get("worst_case_bytes").cloned().unwrap_or_default();
    let mut worst: Vec<(String, u64)> =
        serde_json::from_value(worst).map_err(|e| format!("weir check --json: {e}"))?;
    // These callers speak HTTP/1: what could only lie there is no room for them.
    worst.retain(|(part, _)| !part.contains("HTTP/2"));
    Ok(worst)
}

/// The highest resident memory there ever was.
fn high_water(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}

/// Answers for the cache, more than fit.
async fn fill(client: &Client, progress: &mut impl FnMut(String)) -> Result<(), String> {
    let mut running = JoinSet::new();
    for n in 0..ANSWERS {
        let client = client.clone();
        let ask = format!("question {n} [[lab: tokens={WORDS} token_ms=0]]");
        let body = json!({"model": "kept", "temperature": 0, "messages": [{"role": "user", "content": ask}]});
        running.spawn(async move {
            let body = Bytes::from(body.to_string());
            caller::ask(
                &client,
                body,
                &HeaderMap::new(),
                Duration::from_secs(60),
                Leave::Never,
            )
            .await
        });
        if running.len() >= 16 {
            kept(running.join_next().await)?;
        }
        if n % 100 == 0 {
            progress(format!("filling the cache: {n} of {ANSWERS}"));
        }
    }
    while !running.is_empty() {
        kept(running.join_next().await)?;
    }
    Ok(())
}

/// An answer for the cache must be one.
fn kept(got: Option<Result<caller::Got, tokio::task::JoinError>>) -> Result<(), String> {
    match got {
        Some(Ok(got)) if got.status != 200 => {
            Err(format!("an answer for the cache: {} {:?}", got.status, got.error))
        }
        Some(Err(e)) => Err(format!("a caller that fills the cache ended: {e}")),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// Who of them was refused, or is gone, one sentence for each way; an answer that has begun well, or not yet, is as it should be.
fn refused(crowd: &[TcpStream]) -> Vec<String> {
    let mut ways: BTreeMap<String, usize> = BTreeMap::new();
    for io in crowd {
        let mut begins = [0_u8; 12];
        let way = match io.try_read(&mut begins) {
            Ok(0) => "closed".to_owned(),
            Ok(_) if begins.ends_with(b" 200") => continue,
            Ok(_) => format!("answered `{}`", String::from_utf8_lossy(&begins)),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(e) => format!("broken: {e}"),
        };
        *ways.entry(way).or_default() += 1;
    }
    ways.into_iter()
        .map(|(way, count)| format!("{count} connections of the crowd were {way}"))
        .collect()
}

/// Everybody at once; their connections end when this is dropped.
async fn crowd(address: &str) -> std::io::Result<Vec<TcpStream>> {
    let filler = "All water goes down to the sea. ".repeat(BODY / 32);
    // Each asks something else, or those of temperature 0 would read one answer together.
    let body = |n: usize, model: &str, temperature: f64, filler: &str, directive: &str| {
        let ask = format!("question {n}: {filler} [[lab: {directive}]]");
        let messages = json!([{"role": "user", "content": ask}]);
        json!({"model": model, "stream": true, "temperature": temperature, "messages": messages}).to_string()
    };
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-long: {}\r\n",
        "a".repeat(HEAD)
    );
    let whole = |body: &str| {
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut all = Vec::with_capacity(CONNECTIONS);
    for n in 0..CONNECTIONS {
        let bytes = if n < HELD {
            whole(&body(n, "held", 0.0, &filler, "tokens=4000 token_ms=10"))
        } else if n < HELD + UNREAD {
            whole(&body(n, "open", 1.0, &filler, "tokens=400000 token_ms=0"))
        } else if n < HELD + UNREAD + QUEUED {
            whole(&body(n, "open", 1.0, "", "tokens=8"))
        } else {
            head.clone()
        };
        let mut io = TcpStream::connect(address).await?;
        io.write_all(bytes.as_bytes()).await?;
        all.push(io);
    }
    Ok(all)
}
