//! `load-tests ladder`.

use clap::Args as ClapArgs;

use super::{Done, Progress, Stop};
use crate::{gateway, ladder};

/// All providers go away under load while a real model inside the gateway can answer: nobody is turned away.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  load-tests ladder
  load-tests ladder --requests 60 --json

It starts the gateway with its local model (downloaded where it is not there yet) and a scripted provider. Exit 1 when somebody
was turned away, or got a degraded answer that was not marked, or needlessly.")]
pub struct Args {
    /// How many; the providers are away for the middle third.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(3..))]
    requests: u32,
    /// Print the report as one JSON line on stdout.
    #[arg(long)]
    json: bool,
}

pub async fn run(a: Args) -> Done {
    let program = gateway::binary().map_err(|e| Stop::Absent(e.to_string()))?;
    let mut progress = Progress::new();
    let report = ladder::run(&program, a.requests, |line| progress.show(&line))
        .await
        .map_err(Stop::Absent)?;
    progress.end();
    if a.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    match report.broken.len() {
        0 => Ok(()),
        n => Err(Stop::Finding(format!("{n} findings"))),
    }
}
