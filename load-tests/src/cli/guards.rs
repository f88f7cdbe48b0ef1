//! `load-tests guards`.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::{Done, Progress, Stop};
use crate::gateway;
use crate::guards::{self, Guards};

/// What the guards cost: CPU a request of a gateway without any and of one with every one, side by side.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  load-tests guards
  load-tests guards --rounds 1 --seconds 3 --json > guards.json

Starts a scripted provider and both gateways itself. Linux only. Instructions, by which it can be judged on a busy machine:
cargo run --release -p benches --bin cost.")]
pub struct Args {
    /// Rounds; each sends four kinds of load to both, A B B A.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of one load.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Requests a second.
    #[arg(long, default_value_t = 150.0)]
    rate: f64,
    /// Print the report as one JSON line on stdout.
    #[arg(long)]
    json: bool,
}

pub async fn run(a: Args) -> Done {
    let program = gateway::binary().map_err(|e| Stop::Absent(e.to_string()))?;
    let guards = Guards {
        rounds: a.rounds.max(1),
        part: Duration::from_secs(a.seconds.max(1)),
        rate: a.rate,
    };
    let mut progress = Progress::new();
    let report = guards::run(&program, guards, |line| progress.show(&line))
        .await
        .map_err(Stop::Absent)?;
    progress.end();
    if a.json {
        println!("{}", serde_json::to_string(&report.costs).unwrap_or_default());
    } else {
        print!("{}", report.text());
    }
    Ok(())
}
