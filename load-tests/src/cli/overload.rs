//! `load-tests overload`.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::{Done, Progress, Stop};
use crate::gateway;
use crate::overload::{self, Overload};

/// Three times the load that a provider can take: goodput stays, and the high class is served first.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  load-tests overload
  load-tests overload --seconds 60 --capacity 32 --json > overload.json

It starts the gateway and its scripted providers itself: one that refuses what is too much, one that lets it wait, each under
once and three times the load that it can take; nothing is downloaded. Exit 1 when goodput under the threefold load is less than
90% of that under the single one, or when the high class was not served first.")]
pub struct Args {
    /// Length of each of the four runs, behind its first ten seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Answers that the provider works on at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    capacity: u32,
    /// The callers' patience.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    deadline_ms: u64,
    /// Of arrivals and requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the report as one JSON line on stdout.
    #[arg(long)]
    json: bool,
}

pub async fn run(a: Args) -> Done {
    let program = gateway::binary().map_err(|e| Stop::Absent(e.to_string()))?;
    let overload = Overload {
        seed: a.seed,
        capacity: a.capacity,
        length: Duration::from_secs(a.seconds),
        deadline: Duration::from_millis(a.deadline_ms),
    };
    let mut progress = Progress::new();
    let report = overload::run(&program, &overload, |line| progress.show(&line))
        .await
        .map_err(Stop::Absent)?;
    progress.end();
    let shown = super::shown(a.json, || report.json(), || report.text());
    super::conclude(
        &shown,
        report.broken.len(),
        &format!("findings (seed {})", a.seed),
    )
}
