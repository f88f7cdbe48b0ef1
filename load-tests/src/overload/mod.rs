//! More than a provider can do: it answers so many requests at once and no more, and the load is once, then three times that.
//! What counts is goodput: whole answers inside their callers' deadlines, counted by the callers. It must not sink under the
//! threefold load, and the high class must be served first. Played with a provider that refuses what is too much, and with one
//! that lets it wait.

mod report;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use crate::caller::{self, Got, Leave};
use crate::client::Client;
use crate::clock::now;
use crate::gateway::{self, Gateway};
use crate::load::{Arrivals, Schedule};
use crate::provider::{Behaviour, Beyond, Capacity, Options, Provider, Script};

pub use report::{Report, Run};

const PLAN: &str = include_str!("../../data/overload-plan.toml");
/// To the first token, where nobody is in the way.
const FIRST_MS: u64 = 200;
/// From one token to the next.
const TOKEN_MS: u64 = 40;
/// Lengths of answers in tokens: very unequal, so that a long answer could be taken for a slow one.
const LENGTHS: [u32; 5] = [4, 12, 20, 28, 36];
/// So much the load is in the second run.
const TIMES: f64 = 3.0;
/// The beginning of a run, in which the limit of the target is found out; counted by itself.
const LEAD_IN: Duration = Duration::from_secs(10);
/// Requests under way at most; more were a mistake of the test.
const MOST_AT_ONCE: usize = 2_000;

/// Classes with the environment of their keys, and their part of the load in percent.
const CLASSES: [(&str, &str, u64); 3] = [
    ("high", "OVERLOAD_HIGH", 15),
    ("normal", "OVERLOAD_NORMAL", 45),
    ("low", "OVERLOAD_LOW", 40),
];

/// What is played.
#[derive(Clone, Copy, Debug)]
pub struct Overload {
    /// Of arrivals.
    pub seed: u64,
    /// Answers that the provider works on at once.
    pub capacity: u32,
    /// Of each run, behind its beginning.
    pub length: Duration,
    /// Each caller's.
    pub deadline: Duration,
}

impl Overload {
    /// Requests a second that the provider can answer.
    pub fn rate(&self) -> f64 {
        let mean = LENGTHS.iter().sum::<u32>() as f64 / LENGTHS.len() as f64;
        let took_ms = FIRST_MS as f64 + (mean - 1.0) * TOKEN_MS as f64;
        f64::from(self.capacity) * 1e3 / took_ms
    }
}

/// One request and what its caller got.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it was due, from the begin of the run.
    pub due: Duration,
    /// Index into `CLASSES`.
    pub class: usize,
    /// A stream was asked for.
    pub stream: bool,
    /// What came.
    pub got: Got,
}

/// Plays both providers under both loads. `progress` gets a line about once a second.
///
/// # Errors
/// Something that it needs could not be had; findings are in the report.
pub async fn run(
    program: &Path,
    overload: &Overload,
    mut progress: impl FnMut(String),
) -> Result<Report, String> {
    let mut runs = Vec::new();
    for beyond in [Beyond::Refuse, Beyond::Queue] {
        for times in [1.0, TIMES] {
            runs.push(one(program, overload, beyond, times, &mut progress).await?);
        }
    }
    Ok(Report::of(*overload, runs))
}

async fn one(
    program: &Path,
    overload: &Overload,
    beyond: Beyond,
    times: f64,
    progress: &mut impl FnMut(String),
) -> Result<Run, String> {
    let provider = Provider::start_on_thread(script(overload, beyond), Options::default())
        .map_err(|e| format!("the scripted provider could not be started: {e}"))?;
    let env = CLASSES.map(|(class, name, _)| (name.to_owned(), format!("sk-{class}")));
    let options = gateway::Options::fresh(PLAN.replace("{provider}", &provider.base_url()), env.into());
    let gateway = Gateway::start(program, &options)
        .await
        .map_err(|e| e.to_string())?;
    let client = Client::new(gateway.url()).map_err(|e| e.to_string())?;
    let (asked, not_sent) = load(&client, overload, times, |ended, good| {
        progress(format!(
            "{} at {times} x: {ended} ended, {good} of them good",
            report::word(beyond)
        ));
    })
    .await;
    let limit = limit(&gateway).await;
    gateway
        .stop(Duration::from_secs(30))
        .await
        .map_err(|e| e.to_string())?;
    let refused = provider.entries().iter().filter(|e| e.status == 429).count();
    provider.shutdown().await;
    Ok(Run {
        beyond,
        times,
        asked,
        not_sent,
        refused,
        limit,
    })
}

fn script(overload: &Overload, beyond: Beyond) -> Script {
    Script {
        seed: overload.seed,
        capacity: Some(Capacity {
            at_once: overload.capacity,
            beyond,
        }),
        default: Behaviour {
            first_token_ms: Some(FIRST_MS),
            token_ms: Some(TOKEN_MS),
            ..Behaviour::default()
        },
        ..Script::default()
    }
}

/// Open loop: nobody waits for an answer before the next one asks.
async fn load(
    client: &Client,
    overload: &Overload,
    times: f64,
    mut progress: impl FnMut(usize, usize),
) -> (Vec<Asked>, u64) {
    let slots = Arc::new(Semaphore::new(MOST_AT_ONCE));
    let (results, mut incoming) = mpsc::unbounded_channel();
    let began = now();
    let length = LEAD_IN + overload.length;
    let arrivals = Schedule::new(
        Arrivals::Poisson,
        overload.rate() * times,
        length,
        u64::MAX,
        overload.seed,
    );
    let (mut all, mut good, mut not_sent, mut shown) = (Vec::new(), 0, 0, began);
    let mut take = |all: &mut Vec<Asked>, asked: Asked| {
        good += usize::from(report::is_good(&asked, overload.deadline));
        all.push(asked);
        if now() - shown >= Duration::from_secs(1) {
            shown = now();
            progress(all.len(), good);
        }
    };
    for (n, due) in (0_u64..).zip(arrivals) {
        tokio::time::sleep_until(began + due).await;
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            not_sent += 1;
            continue;
        };
        let (client, results, deadline) = (client.clone(), results.clone(), overload.deadline);
        let (class, stream, body) = request(overload.seed, n);
        tokio::spawn(async move {
            let got = caller::ask(
                &client,
                body,
                &headers(class, deadline),
                deadline * 4,
                Leave::Never,
            )
            .await;
            let _ = results.send(Asked {
                due,
                class,
                stream,
                got,
            });
            drop(slot);
        });
        while let Ok(asked) = incoming.try_recv() {
            take(&mut all, asked);
        }
    }
    drop(results);
    while let Some(asked) = incoming.recv().await {
        take(&mut all, asked);
    }
    (all, not_sent)
}

/// Class, stream or not, and body of the n-th request.
fn request(seed: u64, n: u64) -> (usize, bool, bytes::Bytes) {
    let draw = crate::provider::fnv1a(format!("{seed} {n}").as_bytes());
    let mut part = draw % 100;
    let class = CLASSES.iter().position(|(_, _, share)| {
        let here = part < *share;
        part = part.saturating_sub(*share);
        here
    });
    let stream = (draw >> 16).is_multiple_of(2);
    let tokens = usize::try_from((draw >> 32) % LENGTHS.len() as u64).unwrap_or(0);
    let tokens = LENGTHS.get(tokens).copied().unwrap_or(1);
    let body = json!({
        "model": "auto", "stream": stream, "max_tokens": 64,
        "messages": [{"role": "user", "content": format!("Say something. {n} [[lab: tokens={tokens}]]")}],
    });
    (class.unwrap_or(0), stream, body.to_string().into())
}

fn headers(class: usize, deadline: Duration) -> HeaderMap {
    let name = CLASSES.get(class).map_or("?", |(class, ..)| class);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer sk-{name}")) {
        headers.insert(AUTHORIZATION, value);
    }
    let ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    headers.insert("x-weir-deadline-ms", HeaderValue::from(ms));
    headers
}

/// What the gateway found out about the target, by its own word.
async fn limit(gateway: &Gateway) -> Option<u64> {
    let admin = Client::new(gateway.admin()).ok()?;
    let shown = admin.get("/admin/targets").await.ok()?.json().await.ok()?;
    shown.pointer("/targets/0/limit")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_has_its_parts() {
        let mut of = [0_u32; CLASSES.len()];
        let (mut streams, mut tokens) = (0, 0_u32);
        for n in 0..10_000 {
            let (class, stream, body) = request(1, n);
            of[class] += 1;
            streams += u32::from(stream);
            let text = String::from_utf8(body.to_vec()).unwrap();
            let (_, rest) = text.split_once("tokens=").unwrap();
            tokens += rest.split_once(']').unwrap().0.parse::<u32>().unwrap();
        }
        for ((_, _, share), n) in CLASSES.iter().zip(of) {
            assert!(n.abs_diff(*share as u32 * 100) < 200, "{of:?}");
        }
        assert!((4_800..5_200).contains(&streams), "{streams}");
        assert!((195_000..205_000).contains(&tokens), "{tokens}");
    }

    #[test]
    fn the_rate_is_what_the_provider_can_do() {
        let overload = Overload {
            seed: 1,
            capacity: 24,
            length: Duration::from_secs(1),
            deadline: Duration::from_secs(1),
        };
        assert_eq!(overload.rate(), 25.0);
        assert_eq!(headers(2, overload.deadline)["authorization"], "Bearer sk-low");
    }

    #[test]
    fn the_plan_names_no_capacity() {
        assert!(!PLAN.contains("concurrency"));
        for (class, name, _) in CLASSES {
            assert!(PLAN.contains(&format!("name = \"{class}\"\nkey = \"env:{name}\"")));
        }
    }
}
