//! Hostile clients beside a polite one: they may harm themselves, and nobody else.
//!
//! A polite caller asks at a steady pace, first alone, then while all kinds of attack run at once, then alone again. All of
//! its requests must be answered whole, and their p95 must stay within three times its quiet value (or a few milliseconds,
//! where that is so short that the machine's own noise is more). Afterwards nothing of the attackers may be left: requests in
//! flight, bytes, connections.

mod attack;
pub mod h2;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use attack::Attack;
pub use report::{Phase, Report};

use crate::caller::{self, Leave};
use crate::client::Client;
use crate::clock::now;
use crate::gateway::{self, Gateway};
use crate::load::Histogram;
use crate::provider::{Options, Provider, Script};

const PLAN: &str = include_str!("../../data/hostile-plan.toml");
/// The polite caller gives up after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Within this after the attack everything of it must be gone (the longest clock of the plan and hyper's own).
const GONE_WITHIN: Duration = Duration::from_secs(90);

/// A run.
#[derive(Clone, Debug)]
pub struct Hostile {
    /// Of each of the three parts.
    pub part: Duration,
    /// Polite requests a second.
    pub rate: f64,
    /// Only attacks whose names hold this.
    pub only: Option<String>,
}

/// What one attack did.
pub(crate) type Tally = Arc<AtomicU64>;

/// Runs it against that program. `progress` gets a line about once a second.
///
/// # Errors
/// Something that it needs could not be had; findings are in the report.
pub async fn run(
    program: &Path,
    hostile: &Hostile,
    mut progress: impl FnMut(String),
) -> Result<Report, String> {
    let script = Script::parse("[default]\ntokens = 24\nfirst_token_ms = 20\ntoken_ms = 2\n")
        .map_err(|e| e.to_string())?;
    let start = |script| {
        Provider::start_on_thread(script, Options::default())
            .map_err(|e| format!("a scripted provider could not be started: {e}"))
    };
    let (provider, polite) = (start(script.clone())?, start(script)?);
    let options = gateway::Options::fresh(
        PLAN.replace("{provider}", &provider.base_url())
            .replace("{polite}", &polite.base_url()),
        Vec::new(),
    );
    let gateway = Gateway::start(program, &options)
        .await
        .map_err(|e| e.to_string())?;
    let client = Client::new(gateway.url()).map_err(|e| e.to_string())?;
    let admin = Client::new(gateway.admin()).map_err(|e| e.to_string())?;
    let address = gateway.url().trim_start_matches("http://").to_owned();

    let mut report = Report::default();
    // Not counted: connections are made, and pages touched.
    politely(&client, hostile.rate, Duration::from_secs(2), |_| {}).await;
    report.quiet = politely(&client, hostile.rate, hostile.part, |s| {
        progress(format!("quiet: {s}"))
    })
    .await;
    let (stop, stopped) = watch::channel(false);
    let only = hostile.only.as_deref().unwrap_or_default();
    let attacks: Vec<Attack> = Attack::ALL
        .into_iter()
        .filter(|a| a.name().contains(only))
        .collect();
    report.attacks = attacks.iter().map(|a| (a.name(), Tally::default())).collect();
    let besieging = besiege(address, attacks, &report.attacks, stopped).map_err(|e| e.to_string())?;
    report.under = politely(&client, hostile.rate, hostile.part, |s| {
        progress(format!("under attack: {s}"))
    })
    .await;
    let _ = stop.send(true);
    let _ = tokio::task::spawn_blocking(move || besieging.join()).await;
    report.after = politely(&client, hostile.rate, hostile.part, |s| {
        progress(format!("afterwards: {s}"))
    })
    .await;
    report.left = gone(&admin, &mut progress).await;
    report.refused = metric(&admin, "weir_connections_refused_total")
        .await
        .unwrap_or(0.0);
    report.stalled = metric(&admin, "weir_clients_stalled_total").await.unwrap_or(0.0);
    report.judge();
    gateway
        .stop(Duration::from_secs(30))
        .await
        .map_err(|e| e.to_string())?;
    provider.shutdown().await;
    polite.shutdown().await;
    Ok(report)
}

/// All attackers, on a thread of their own: what the polite caller measures is the gateway, not them.
fn besiege(
    address: String,
    attacks: Vec<Attack>,
    tallies: &[(&'static str, Tally)],
    stopped: watch::Receiver<bool>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tallies: Vec<Tally> = tallies.iter().map(|(_, tally)| Arc::clone(tally)).collect();
    std::thread::Builder::new()
        .name("attackers".into())
        .spawn(move || {
            runtime.block_on(async move {
                let mut attackers = JoinSet::new();
                for (attack, tally) in attacks.into_iter().zip(&tallies) {
                    for _ in 0..attack.clients() {
                        attackers.spawn(attack.run(address.clone(), Arc::clone(tally), stopped.clone()));
                    }
                }
                while attackers.join_next().await.is_some() {}
            });
        })
}

/// Asks at that pace for that long; every other one as a stream, each another question.
async fn politely(client: &Client, rate: f64, length: Duration, mut progress: impl FnMut(String)) -> Phase {
    let (began, mut running, mut phase) = (now(), JoinSet::new(), Phase::default());
    let mut histogram = Histogram::default();
    let pace = Duration::from_secs_f64(1.0 / rate.max(0.1));
    let mut next = began;
    let mut n = 0_u64;
    let mut told = began;
    let mut take = |got: Result<caller::Got, tokio::task::JoinError>, phase: &mut Phase| {
        let Ok(got) = got else { return };
        phase.asked += 1;
        let whole =
            got.status == 200 && got.broken.is_none() && got.error.is_none() && !got.finishes.is_empty();
        if whole {
            histogram.add(u64::try_from(got.took.as_micros()).unwrap_or(u64::MAX));
            phase.whole += 1;
        } else if phase.failed.len() < 5 {
            phase
                .failed
                .push(format!("{} {:?} {:?}", got.status, got.error, got.broken));
        }
        phase.p95_us = histogram.quantile(0.95);
    };
    while now() - began < length {
        tokio::time::sleep_until(next).await;
        next += pace;
        n += 1;
        let client = client.clone();
        let body = json!({"model": "polite", "stream": n.is_multiple_of(2), "messages": [{"role": "user", "content": format!("question {n}")}]});
        running.spawn(async move {
            caller::ask(
                &client,
                Bytes::from(body.to_string()),
                &HeaderMap::new(),
                PATIENCE,
                Leave::Never,
            )
            .await
        });
        while let Some(got) = running.try_join_next() {
            take(got, &mut phase);
        }
        if now() - told >= Duration::from_secs(1) {
            told = now();
            progress(format!(
                "{} of {} whole, p95 {} us",
                phase.whole, phase.asked, phase.p95_us
            ));
        }
    }
    while let Some(got) = running.join_next().await {
        take(got, &mut phase);
    }
    phase
}

/// Waits until nothing of the attackers is left: what still is, one sentence each.
async fn gone(admin: &Client, progress: &mut impl FnMut(String)) -> Vec<String> {
    let (began, mut look) = (now(), tokio::time::interval(Duration::from_millis(500)));
    loop {
        look.tick().await;
        let mut left = Vec::new();
        for (name, most) in [
            ("weir_requests_in_flight", 0.0),
            ("weir_body_bytes_in_flight", 0.0),
            // The polite caller keeps some open.
            ("weir_connections", 64.0),
        ] {
            match metric(admin, name).await {
                Some(value) if value <= most => {}
                value => left.push(format!("{name} is {value:?}, {most} expected")),
            }
        }
        if left.is_empty() || now() - began > GONE_WITHIN {
            return left;
        }
        progress(format!("waiting: {}", left.join(", ")));
    }
}

/// A gauge or counter without labels.
async fn metric(admin: &Client, name: &str) -> Option<f64> {
    let text = admin.get("/metrics").await.ok()?.bytes().await.ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// One more thing was done.
pub(crate) fn count(tally: &Tally) {
    tally.fetch_add(1, Ordering::Relaxed);
}
