//! `load-tests chaos`.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::{Done, Progress, Stop};
use crate::chaos::{self, Chaos};
use crate::gateway;

/// Load while faults are switched on and off at random and the plan is loaded again: every answer is judged.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  load-tests chaos --minutes 1
  load-tests chaos --minutes 10 --seed 7 --json > chaos.json

It starts the gateway and four scripted providers itself; nothing is downloaded. The same seed switches the same faults
at the same times and asks the same questions. Exit 1 when an answer was lost, doubled, cut in silence or wrong, when an
error came though the plan had a way left, or when something was not given back.")]
pub struct Args {
    /// How long requests are sent.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Of faults, reloads and requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests a second.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Reloads of the plan over the run.
    #[arg(long, default_value_t = 100)]
    reloads: u32,
    /// Growth of RSS over the second half of a run of five minutes or more that is allowed, in MB an hour (or anything inside twice its standard error).
    #[arg(long, default_value_t = 1.0)]
    rss_mb_per_hour: f64,
    /// Print the report as one JSON line on stdout.
    #[arg(long)]
    json: bool,
}

pub async fn run(a: Args) -> Done {
    let length = Duration::try_from_secs_f64(a.minutes * 60.0).map_err(|e| Stop::Usage(e.to_string()))?;
    let program = gateway::binary().map_err(|e| Stop::Absent(e.to_string()))?;
    let chaos = Chaos {
        seed: a.seed,
        length,
        rate: a.rate,
        reloads: a.reloads,
        rss_mb_per_hour: a.rss_mb_per_hour,
    };
    let mut progress = Progress::new();
    let report = chaos::run(&program, &chaos, |line| progress.show(&line))
        .await
        .map_err(Stop::Absent)?;
    progress.end();
    if a.json {
        println!("{}", report.json());
    } else {
        print!("{}\n{}", report.printed_schedule(), report.text());
    }
    if report.broken.is_empty() {
        return Ok(());
    }
    Err(Stop::Finding(format!(
        "{} rules broken; again with: load-tests chaos --minutes {} --seed {} --rate {} --reloads {}",
        report.broken.len(),
        a.minutes,
        a.seed,
        a.rate,
        a.reloads
    )))
}
