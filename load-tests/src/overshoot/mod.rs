//! Many clients hammer one key, one limit after the other: they must get what the limit grants, and no more than its stated
//! bound. Counted at the provider, which is where the bill is written.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::caller::{self, Leave};
use crate::client::Client;
use crate::clock::now;
use crate::gateway::{self, Gateway};
use crate::provider::{Entry, Log, Options, Provider, Script};

const PLAN: &str = include_str!("../../data/overshoot-plan.toml");
/// At once.
const CLIENTS: u64 = 64;
/// Tokens of an answer.
const ANSWER: u64 = 10;
/// After a refusal a client asks again so soon, whatever it was told.
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(10);
/// Of what a limit grants, at least so much is to be had.
const AT_LEAST: f64 = 0.98;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Requests,
    Tokens,
    Cents,
}

impl Limit {
    const ALL: [Self; 3] = [Self::Requests, Self::Tokens, Self::Cents];

    /// The name of its key, the key, the burst, and what a minute refills.
    fn facts(self) -> (&'static str, &'static str, f64, f64) {
        match self {
            Self::Requests => ("requests", "key-requests", 600.0, 600.0),
            Self::Tokens => ("tokens", "key-tokens", 30_000.0, 30_000.0),
            Self::Cents => ("dollars", "key-dollars", 600.0, 0.0),
        }
    }

    /// What a call that the provider saw counts.
    fn of(self, entry: &Entry) -> f64 {
        match self {
            Self::Requests | Self::Cents => 1.0,
            Self::Tokens => f64::from(entry.prompt_tokens) + ANSWER as f64,
        }
    }

    /// What it may go beyond, in calls: tokens are corrected when an answer is there, so by what runs then.
    fn bound(self) -> f64 {
        match self {
            // The last one before the end of the run may be of the next refill.
            Self::Requests => 1.0,
            Self::Tokens => CLIENTS as f64,
            Self::Cents => 0.0,
        }
    }
}

/// One limit's run.
#[derive(Clone, Debug)]
pub struct Row {
    /// The key's name.
    pub limit: &'static str,
    /// From the first call to the last, in seconds.
    pub seconds: f64,
    /// The burst, and what that time refilled.
    pub granted: f64,
    /// What the provider counted.
    pub used: f64,
    /// The stated bound.
    pub most: f64,
    /// Requests that were refused.
    pub refused: u64,
    /// Anything but 200 and 429.
    pub other: u64,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// A limit each.
    pub rows: Vec<Row>,
    /// What is broken, one sentence each.
    pub broken: Vec<String>,
}

/// Hammers each limit for so long.
///
/// # Errors
/// Something that it needs could not be had; findings are in the report.
pub async fn run(program: &Path, each: Duration, mut progress: impl FnMut(String)) -> Result<Report, String> {
    let script = format!("[default]\ntokens = {ANSWER}\nfirst_token_ms = 5\ntoken_ms = 1\n");
    let script = Script::parse(&script).map_err(|e| e.to_string())?;
    let provider = Provider::start_on_thread(script, Options::default())
        .map_err(|e| format!("the scripted provider could not be started: {e}"))?;
    let keys = ["REQUESTS", "TOKENS", "DOLLARS"];
    let options = gateway::Options::fresh(
        PLAN.replace("{provider}", &provider.base_url()),
        keys.map(|k| (format!("KEY_{k}"), format!("key-{}", k.to_lowercase())))
            .into(),
    );
    let gateway = Gateway::start(program, &options)
        .await
        .map_err(|e| e.to_string())?;
    let mut report = Report::default();
    for limit in Limit::ALL {
        let row = hammer(gateway.url(), &provider.log(), limit, each, &mut progress).await?;
        report.rows.push(row);
    }
    report.judge();
    gateway
        .stop(Duration::from_secs(30))
        .await
        .map_err(|e| e.to_string())?;
    provider.shutdown().await;
    Ok(report)
}

async fn hammer(
    url: &str,
    log: &Log,
    limit: Limit,
    length: Duration,
    progress: &mut impl FnMut(String),
) -> Result<Row, String> {
    let (name, key, burst, a_minute) = limit.facts();
    log.clear();
    let mut headers = HeaderMap::new();
    let bearer = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|e| e.to_string())?;
    headers.insert(http::header::AUTHORIZATION, bearer);
    let client = Client::new(url).map_err(|e| e.to_string())?;
    let (refused, other) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let until = now() + length;
    let mut running = JoinSet::new();
    for n in 0..CLIENTS {
        let (client, headers) = (client.clone(), headers.clone());
        let (refused, other) = (Arc::clone(&refused), Arc::clone(&other));
        running.spawn(async move {
            let mut round = n;
            while now() < until {
                round += CLIENTS;
                let body = json!({"model": "auto", "max_tokens": ANSWER, "stream": round.is_multiple_of(2),
                    "messages": [{"role": "user", "content": format!("question {round}")}]});
                let body = Bytes::from(body.to_string());
                let got = caller::ask(&client, body, &headers, PATIENCE, Leave::Never).await;
                match got.status {
                    200 if got.error.is_none() && got.broken.is_none() => {}
                    429 => {
                        refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(PAUSE).await;
                    }
                    _ => {
                        other.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
    }
    let mut look = tokio::time::interval(Duration::from_secs(1));
    while now() < until {
        look.tick().await;
        progress(format!(
            "{name}: {} calls, {} refused",
            log.entries().len(),
            refused.load(Ordering::Relaxed)
        ));
    }
    while running.join_next().await.is_some() {}
    let entries = log.entries();
    let times = entries.iter().map(|e| e.began_us);
    let span = times.clone().max().unwrap_or(0) - times.min().unwrap_or(0);
    let seconds = span as f64 / 1e6;
    let used: f64 = entries.iter().map(|e| limit.of(e)).sum();
    let one = entries.first().map_or(0.0, |e| limit.of(e));
    let granted = burst + a_minute * seconds / 60.0;
    Ok(Row {
        limit: name,
        seconds,
        granted,
        used,
        most: granted + limit.bound() * one,
        refused: refused.load(Ordering::Relaxed),
        other: other.load(Ordering::Relaxed),
    })
}

impl Report {
    fn judge(&mut self) {
        for row in &self.rows {
            let Row {
                limit,
                used,
                granted,
                most,
                ..
            } = row;
            if *used > *most {
                self.broken
                    .push(format!("{limit}: {used:.0} used, at most {most:.0} may be"));
            }
            if *used < granted * AT_LEAST {
                self.broken
                    .push(format!("{limit}: {used:.0} used of {granted:.0}: less than 98%"));
            }
            if row.other > 0 {
                self.broken
                    .push(format!("{limit}: {} answers were neither 200 nor 429", row.other));
            }
            if row.refused == 0 {
                self.broken
                    .push(format!("{limit}: nobody was refused, so nothing was shown"));
            }
        }
    }

    /// For a script.
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|r| {
                json!({"limit": r.limit, "seconds": r.seconds, "granted": r.granted, "used": r.used, "most": r.most,
                    "share": r.used / r.granted.max(1.0), "refused": r.refused, "other": r.other})
            })
            .collect();
        json!({"clients": CLIENTS, "limits": rows, "broken": self.broken})
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut out = format!("{CLIENTS} clients on one key; used as the provider counts\n\n");
        out.push_str("limit      seconds   granted      used   share   may be at most   refused\n");
        for r in &self.rows {
            let share = r.used / r.granted.max(1.0) * 100.0;
            let _ = writeln!(
                out,
                "{:<10} {:>7.1} {:>9.0} {:>9.0} {share:>6.1}% {:>16.0} {:>9}",
                r.limit, r.seconds, r.granted, r.used, r.most, r.refused
            );
        }
        for broken in &self.broken {
            let _ = writeln!(out, "BROKEN: {broken}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_too_little_and_nothing_shown_are_told() {
        let row = |used: f64, refused: u64| Row {
            limit: "tokens",
            seconds: 1.0,
            granted: 100.0,
            used,
            most: 110.0,
            refused,
            other: 0,
        };
        let judged = |rows: Vec<Row>| {
            let mut report = Report {
                rows,
                ..Report::default()
            };
            report.judge();
            report.broken.len()
        };
        assert_eq!(judged(vec![row(98.0, 1), row(110.0, 9)]), 0);
        assert_eq!(judged(vec![row(111.0, 1), row(97.9, 1), row(100.0, 0)]), 3);
    }
}
