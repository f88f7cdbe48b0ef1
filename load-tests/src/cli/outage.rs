//! `load-tests outage`.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::{Done, Progress, Stop};
use crate::gateway;
use crate::outage::{self, Outage};

/// A provider is ended under load and started again: who answered meanwhile, and what callers noticed.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  load-tests outage
  load-tests outage --seconds 10 --rate 80 --json > outage.json

It starts the gateway and its scripted providers itself; nothing is downloaded. Exit 1 when a caller failed, when the dead
provider was hammered, or when it was not used again.")]
pub struct Args {
    /// How long the provider is away.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Requests a second.
    #[arg(long, default_value_t = 40.0)]
    rate: f64,
    /// Of arrivals and requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the report as one JSON line on stdout.
    #[arg(long)]
    json: bool,
}

pub async fn run(a: Args) -> Done {
    let away = Duration::try_from_secs_f64(a.seconds).map_err(|e| Stop::Usage(e.to_string()))?;
    let program = gateway::binary().map_err(|e| Stop::Absent(e.to_string()))?;
    let outage = Outage {
        seed: a.seed,
        rate: a.rate,
        away,
    };
    let mut progress = Progress::new();
    let report = outage::run(&program, &outage, |line| progress.show(&line))
        .await
        .map_err(Stop::Absent)?;
    progress.end();
    let shown = super::shown(a.json, || report.json(), || report.text());
    super::conclude(
        &shown,
        report.broken.len(),
        &format!("rules broken (seed {})", a.seed),
    )
}
