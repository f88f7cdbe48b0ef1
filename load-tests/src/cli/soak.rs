//! `load-tests soak`.

use std::time::Duration;

use clap::Args as ClapArgs;

use super::{Done, Progress, Stop};
use crate::gateway::{self, Gateway, Home};
use crate::load::{Arrivals, Mix, Run};
use crate::provider::{self, Provider, Script};
use crate::soak::{self, Bounds, Soak};

const PLAN: &str = include_str!("../../data/soak-plan.toml");
const PLAN_LOCAL: &str = include_str!("../../data/soak-plan-local.toml");
const MIX: &str = include_str!("../../data/soak-mix.toml");
const MIX_LOCAL: &str = include_str!("../../data/soak-local.toml");

/// Mixed load for minutes while memory, files, threads and gauges are watched.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  load-tests soak --minutes 30
  load-tests soak --minutes 5 --no-local --json > soak.json
  load-tests soak --minutes 30 --target http://127.0.0.1:8080 --admin http://127.0.0.1:9090 --pid 4711 --mix mix.toml

Without --target it starts a scripted provider and the gateway itself. Exit 1 when a bound is broken.")]
pub struct Args {
    /// How long.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Requests a second.
    #[arg(long, default_value_t = 25.0)]
    rate: f64,
    /// Of arrivals and bodies.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A running gateway; without it one is started.
    #[arg(long, requires = "pid")]
    target: Option<String>,
    /// The running gateway's admin plane.
    #[arg(long, requires = "target")]
    admin: Option<String>,
    /// The running gateway's process.
    #[arg(long, requires = "target")]
    pid: Option<u32>,
    /// What is sent, in place of the built-in mix.
    #[arg(long)]
    mix: Option<std::path::PathBuf>,
    /// Leave the local model out (nothing is downloaded then).
    #[arg(long)]
    no_local: bool,
    /// Growth of RSS that is allowed, in MB an hour (or anything inside twice its standard error).
    #[arg(long, default_value_t = 1.0)]
    rss_mb_per_hour: f64,
    /// Seconds of load before the first figures at rest are taken.
    #[arg(long, default_value_t = 30)]
    warm_up: u64,
    /// Seconds of quiet before figures at rest are taken.
    #[arg(long, default_value_t = 15)]
    settle: u64,
    /// A gateway that was started for it reads its plan again every so many seconds; 0: never.
    #[arg(long, default_value_t = 30)]
    reload_every: u64,
    /// Print the report as one JSON line on stdout.
    #[arg(long)]
    json: bool,
}

/// The plan that a self-started gateway gets.
fn plan(local: bool, provider: &Provider) -> String {
    let plan = if local {
        format!("{PLAN}\n{PLAN_LOCAL}")
    } else {
        PLAN.to_owned()
    };
    plan.replace("{provider}", &provider.base_url())
}

/// Has the plan read again now and then.
async fn reloads(gateway: Option<&Gateway>, every: u64) -> std::convert::Infallible {
    let Some(gateway) = gateway.filter(|_| every > 0) else {
        return std::future::pending().await;
    };
    let mut due = tokio::time::interval(Duration::from_secs(every));
    due.tick().await;
    loop {
        due.tick().await;
        gateway.hang_up();
    }
}

pub async fn run(a: Args) -> Done {
    let mut mix = match &a.mix {
        Some(path) => Mix::load(path),
        None => Mix::parse(MIX),
    }
    .map_err(|e| Stop::Usage(e.to_string()))?;
    let local = !a.no_local && a.target.is_none();
    if local && a.mix.is_none() {
        mix.request.extend(
            Mix::parse(MIX_LOCAL)
                .map_err(|e| Stop::Usage(e.to_string()))?
                .request,
        );
    }
    let mut progress = Progress::new();
    let (target, admin, pid, house) = match (a.target, a.pid) {
        (Some(t), Some(p)) => (t, a.admin, p, None),
        _ => {
            let script = Script::parse(super::provider::LAB).map_err(|e| Stop::Usage(e.to_string()))?;
            let provider = Provider::start_on_thread(script, provider::Options::default())
                .map_err(|e| Stop::Absent(format!("the scripted provider could not be started: {e}")))?;
            let program = gateway::binary().map_err(|e| Stop::Absent(e.to_string()))?;
            let options = gateway::Options {
                plan: plan(local, &provider),
                home: Home::UsersModels,
                env: Vec::new(),
                echo: true,
                ready_within: Duration::from_secs(900),
            };
            let g = Gateway::start(&program, &options)
                .await
                .map_err(|e| Stop::Absent(e.to_string()))?;
            (
                g.url().to_owned(),
                Some(g.admin().to_owned()),
                g.pid(),
                Some((g, provider)),
            )
        }
    };
    let length = Duration::try_from_secs_f64(a.minutes * 60.0).map_err(|e| Stop::Usage(e.to_string()))?;
    let soak = Soak {
        target,
        admin,
        pid,
        records: house.as_ref().map(|(gateway, _)| gateway.home().join("records")),
        run: Run {
            rate: a.rate,
            length,
            count: u64::MAX,
            arrivals: Arrivals::Poisson,
            seed: a.seed,
            max_in_flight: 2_000,
            timeout: Duration::from_secs(120),
        },
        warm_up: Duration::from_secs(a.warm_up),
        settle: Duration::from_secs(a.settle),
        every: Duration::from_secs(1),
        bounds: Bounds {
            rss_mb_per_hour: a.rss_mb_per_hour,
            ..Bounds::default()
        },
    };
    let started = house.as_ref().map(|(gateway, _)| gateway);
    let soaked = tokio::select! {
        soaked = soak::run(&soak, &mix, |line| progress.show(&line)) => soaked,
        never = reloads(started, a.reload_every) => match never {},
    };
    let outcome = soaked.map_err(Stop::Absent)?;
    progress.end();
    if a.json {
        println!("{}", outcome.json(&soak.bounds));
        eprint!("{}", outcome.table());
    } else {
        print!("{}", outcome.table());
    }
    let mut broken = outcome.broken.len();
    if let Some((g, provider)) = house {
        if let Err(e) = g.stop(Duration::from_secs(60)).await {
            eprintln!("BROKEN: {e}");
            broken += 1;
        }
        provider.shutdown().await;
    }
    if broken > 0 {
        Err(Stop::Finding(format!("{broken} bounds broken")))
    } else {
        Ok(())
    }
}
