//! `load-tests overshoot`.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::{Done, Progress, Stop};
use crate::{gateway, overshoot};

/// Sixty-four clients hammer one key, limit by limit: who gets past it, counted at the provider.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  load-tests overshoot
  load-tests overshoot --seconds 30 --json > overshoot.json

It starts the gateway and a scripted provider itself; nothing is downloaded. Exit 1 when less than 98% of what a limit grants
was to be had, or more than its stated bound.")]
pub struct Args {
    /// Of each limit.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Print the report as one JSON line on stdout.
    #[arg(long)]
    json: bool,
}

pub async fn run(a: Args) -> Done {
    let program = gateway::binary().map_err(|e| Stop::Absent(e.to_string()))?;
    let each = Duration::from_secs(a.seconds.max(2));
    let mut progress = Progress::new();
    let report = overshoot::run(&program, each, |line| progress.show(&line))
        .await
        .map_err(Stop::Absent)?;
    progress.end();
    let shown = super::shown(a.json, || report.json(), || report.text());
    super::conclude(&shown, report.broken.len(), "bounds broken")
}
