//! `load-tests abuse`.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::{Done, Progress, Stop};
use crate::abuse::{self, Options};
use crate::gateway;
use crate::hostile::{self, Hostile};

/// Hostile clients of seventeen kinds beside a polite one, which must not notice them; or, with --target, hostile and clumsy input
/// to a running gateway, each answer checked, and what becomes of the connection.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  load-tests abuse
  load-tests abuse --seconds 30 --json > abuse.json
  load-tests abuse --target http://127.0.0.1:8080 --model auto

Without --target it starts the gateway and a scripted provider itself (nothing is downloaded), and exits 1 when a polite
request was not answered whole, when its p95 rose above three times its quiet value, or when something of the attackers
is left behind. With --target it exits 1 when an answer is not right.")]
pub struct Args {
    /// A running gateway, without /v1.
    #[arg(long)]
    target: Option<String>,
    /// Of each of the three parts: alone, under attack, alone again.
    #[arg(long, default_value_t = 15, conflicts_with = "target")]
    seconds: u64,
    /// Polite requests a second.
    #[arg(long, default_value_t = 40.0, conflicts_with = "target")]
    rate: f64,
    /// Only attacks whose names hold this (see the table of a whole run)
    #[arg(long, conflicts_with = "target")]
    only: Option<String>,
    /// A model that answers plain questions.
    #[arg(long, default_value = "auto")]
    model: String,
    /// An API key, sent as a bearer token.
    #[arg(long, env = "WEIR_KEY", hide_env_values = true)]
    key: Option<String>,
    /// The gateway's max_body_bytes.
    #[arg(long, default_value_t = 8 << 20)]
    max_body_bytes: usize,
    /// Also the case of a body that stops in the middle, and how many seconds the gateway may take to answer it.
    #[arg(long)]
    slow: Option<u64>,
    /// Print all outcomes as one JSON line on stdout.
    #[arg(long)]
    json: bool,
}

pub async fn run(a: Args) -> Done {
    match a.target.clone() {
        Some(target) => cases(a, &target),
        None => beside(a).await,
    }
}

async fn beside(a: Args) -> Done {
    let program = gateway::binary().map_err(|e| Stop::Absent(e.to_string()))?;
    let hostile = Hostile {
        part: Duration::from_secs(a.seconds.max(2)),
        rate: a.rate,
        only: a.only,
    };
    let mut progress = Progress::new();
    let report = hostile::run(&program, &hostile, |line| progress.show(&line))
        .await
        .map_err(Stop::Absent)?;
    progress.end();
    let shown = super::shown(a.json, || report.json(), || report.text());
    super::conclude(&shown, report.broken.len(), "rules broken")
}

fn cases(a: Args, target: &str) -> Done {
    let mut options = Options::new(target, &a.model);
    options.key = a.key;
    options.max_body_bytes = a.max_body_bytes;
    options.slow = a.slow.map(Duration::from_secs);
    let outcomes = abuse::run(&options);
    if a.json {
        println!("{}", serde_json::to_string(&outcomes).unwrap_or_default());
    } else {
        for o in &outcomes {
            println!("{} {:<44} {}", if o.ok { "ok  " } else { "FAIL" }, o.case, o.got);
        }
    }
    let wrong = outcomes.iter().filter(|o| !o.ok).count();
    if wrong > 0 {
        return Err(Stop::Finding(format!(
            "{wrong} of {} answers are not right:\n{}",
            outcomes.len(),
            abuse::failures(&outcomes)
        )));
    }
    Ok(())
}
