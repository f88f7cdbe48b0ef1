//! What the guards cost: the same load against a gateway without any and one with every one, in turn, by the CPU time that each
//! process spent. On a busy machine the ratio is what holds.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use serde::Serialize;

use crate::client::Client;
use crate::gateway::{self, Gateway};
use crate::load::{self, Arrivals, Mix, Run};
use crate::provider::{Options, Provider, Script};

const OFF: &str = include_str!("../../data/guards-off.toml");
const ON: &str = include_str!("../../data/guards-on.toml");
const KEY: &str = "guards-key-of-a-test";

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct Guards {
    /// Rounds; in each, every kind of load goes to both, in the order A B B A.
    pub rounds: u32,
    /// Of one load.
    pub part: Duration,
    /// Requests a second.
    pub rate: f64,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Small whole answers to new questions.
    Whole,
    /// Streams of 200 events to new questions.
    Stream,
    /// A question that is kept, whole. Where nothing is kept, it is asked again.
    WholeAgain,
    /// A question that is kept, as a stream.
    StreamAgain,
}

impl Load {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Whole, Self::Stream, Self::WholeAgain, Self::StreamAgain];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole, new",
            Self::Stream => "stream, new",
            Self::WholeAgain => "whole, asked before",
            Self::StreamAgain => "stream, asked before",
        }
    }

    fn mix(self, seed: u64) -> Result<Mix, String> {
        let (stream, tokens) = match self {
            Self::Whole | Self::WholeAgain => (false, 24),
            Self::Stream | Self::StreamAgain => (true, 200),
        };
        let question = match self {
            Self::Whole | Self::Stream => format!("Question {{n}} of run {seed} about rivers."),
            Self::WholeAgain | Self::StreamAgain => "The same question about rivers.".to_owned(),
        };
        let text = format!(
            "[[request]]\nname = \"ask\"\nbody = {{ model = \"auto\", stream = {stream}, temperature = 0, messages = \
             [{{ role = \"user\", content = \"{question} [[lab: tokens={tokens} token_ms=0]]\" }}] }}\n"
        );
        Mix::parse(&text).map_err(|e| e.to_string())
    }
}

/// Microseconds of CPU a request, run by run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    /// Without guards.
    pub off: Vec<f64>,
    /// With every guard.
    pub on: Vec<f64>,
}

impl Cost {
    /// Medians without and with.
    pub fn medians(&self) -> (f64, f64) {
        (median(&self.off), median(&self.on))
    }
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |i: usize| sorted.get(i).copied().unwrap_or_default();
    (at(sorted.len().saturating_sub(1) / 2) + at(sorted.len() / 2)) / 2.0
}

/// By load.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// See [`Cost`].
    pub costs: BTreeMap<Load, Cost>,
}

impl Report {
    /// For a person.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{:<22}{:>14}{:>14}{:>10}   CPU of the gateway in us a request, medians\n",
            "", "no guard", "every guard", "ratio"
        );
        for (load, cost) in &self.costs {
            let (off, on) = cost.medians();
            out += &format!(
                "{:<22}{off:>14.0}{on:>14.0}{:>10.2}\n",
                load.name(),
                on / off.max(1e-9)
            );
        }
        out
    }
}

/// Runs it against that program. `progress` gets a line a load.
///
/// # Errors
/// Something that it needs could not be had, or a request was not answered.
pub async fn run(program: &Path, guards: Guards, mut progress: impl FnMut(String)) -> Result<Report, String> {
    let script = Script::parse("[default]\ntokens = 24\n").map_err(|e| e.to_string())?;
    let provider = Provider::start_on_thread(script, Options::default())
        .map_err(|e| format!("a scripted provider could not be started: {e}"))?;
    let start = |plan: &str| {
        gateway::Options::fresh(
            plan.replace("{provider}", &provider.base_url()),
            vec![("GUARDS_KEY".to_owned(), KEY.to_owned())],
        )
    };
    let (off, on) = (start(OFF), start(ON));
    let off = Gateway::start(program, &off).await.map_err(|e| e.to_string())?;
    let on = Gateway::start(program, &on).await.map_err(|e| e.to_string())?;
    let mut report = Report::default();
    let mut seed = 0;
    // The first round warms up: connections, pages, what is kept.
    for round in 0..=guards.rounds {
        for load in Load::ALL {
            for with in [false, true, true, false] {
                seed += 1;
                let cost = cost(if with { &on } else { &off }, load, seed, guards).await?;
                progress(format!(
                    "round {round} of {}: {}, {}: {cost:.0} us a request",
                    guards.rounds,
                    load.name(),
                    if with { "every guard" } else { "no guard" }
                ));
                if round > 0 {
                    let all = report.costs.entry(load).or_default();
                    if with { &mut all.on } else { &mut all.off }.push(cost);
                }
            }
        }
    }
    for gateway in [off, on] {
        gateway
            .stop(Duration::from_secs(30))
            .await
            .map_err(|e| e.to_string())?;
    }
    provider.shutdown().await;
    Ok(report)
}

async fn cost(gateway: &Gateway, load: Load, seed: u64, guards: Guards) -> Result<f64, String> {
    let mut headers = HeaderMap::new();
    let key = HeaderValue::from_str(&format!("Bearer {KEY}")).map_err(|e| e.to_string())?;
    headers.insert(AUTHORIZATION, key);
    let client = Client::new(gateway.url())
        .map_err(|e| e.to_string())?
        .with_headers(headers);
    let run = Run {
        rate: guards.rate,
        length: guards.part,
        count: u64::MAX,
        arrivals: Arrivals::Poisson,
        seed,
        max_in_flight: 500,
        timeout: Duration::from_secs(30),
    };
    let before = cpu(gateway.pid())?;
    let report = load::run(&client, &load.mix(seed)?, &run, |_| {}).await;
    let spent = cpu(gateway.pid())?.saturating_sub(before);
    if report.failed() > 0 || report.ended() == 0 {
        return Err(format!(
            "{} of {} requests failed: {:?}",
            report.failed(),
            report.ended(),
            report.failures
        ));
    }
    Ok(spent.as_secs_f64() * 1e6 / report.ended() as f64)
}

/// CPU time of all threads of a process.
fn cpu(pid: u32) -> Result<Duration, String> {
    let path = format!("/proc/{pid}/task");
    let threads = std::fs::read_dir(&path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let spent = |thread: std::path::PathBuf| -> Option<u64> {
        let text = std::fs::read_to_string(thread.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    let threads = threads.filter_map(Result::ok).filter_map(|t| spent(t.path()));
    Ok(Duration::from_nanos(threads.sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_can_be_sent_and_medians_are_those() {
        for load in Load::ALL {
            load.mix(1).unwrap();
        }
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(cpu(std::process::id()).unwrap() > Duration::ZERO);
    }
}
