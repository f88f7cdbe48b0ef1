//! `load-tests caps`.

use clap::Args as ClapArgs;

use super::{Done, Progress, Stop};
use crate::{caps, gateway};

/// All caps of a plan reached at once: what the process takes then is less than `weir check` says.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  load-tests caps
  load-tests caps --json > caps.json

Starts a scripted provider and the gateway itself; takes about half a minute. Exit 1 when it took more memory than
`weir check` says of the same plan, or when a cap was not reached.")]
pub struct Args {
    /// Print the report as one JSON line on stdout.
    #[arg(long)]
    json: bool,
}

pub async fn run(a: Args) -> Done {
    let program = gateway::binary().map_err(|e| Stop::Absent(e.to_string()))?;
    let mut progress = Progress::new();
    let report = caps::run(&program, |line| progress.show(&line))
        .await
        .map_err(Stop::Absent)?;
    progress.end();
    let shown = super::shown(a.json, || report.json(), || report.text());
    super::conclude(&shown, report.broken.len(), "bounds broken")
}
