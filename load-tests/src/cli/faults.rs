//! `load-tests faults`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::json;

use super::{Done, Progress, Stop};
use crate::client::Client;
use crate::clock::now;
use crate::faults::{self, Case, Dialect, Doors, Forwarder, House, Outcome, Table, World};
use crate::gateway::{self, Gateway};

/// So many cases must fail behind a bare forwarder, or the wall is none.
const NAIVE_FAILS: usize = 12;
/// A running gateway is given this long to load the plan.
const LOADED: Duration = Duration::from_secs(600);

/// Every fault of a provider, in streams and whole answers, in both dialects, judged from both sides.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  load-tests faults
  load-tests faults --only cut --only hang
  load-tests faults --markdown     # the tables of docs/faults.md, and which of their rows do not hold
  load-tests faults --target http://127.0.0.1:8080 --write-plan routing.toml   # and let the gateway load it: SIGHUP, or start it

Without --target it starts the gateway itself, and a few more for cases that turn a key of the whole plan; with --target
those cases are left out. The providers are scripted and always its own, on new ports each time: a
running gateway needs the plan that is printed to stderr (or written by --write-plan), and is waited for until it has it. Exit 1
when a case fails, or when a bare forwarder does not fail.")]
pub struct Args {
    /// A running gateway, without /v1; without it one is started.
    #[arg(long)]
    target: Option<String>,
    /// Write the plan that the gateway needs to this file instead of printing it.
    #[arg(long)]
    write_plan: Option<PathBuf>,
    /// Only cases whose name contains this; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// Cases at a time.
    #[arg(long, default_value_t = 24)]
    width: usize,
    /// Leave out the bare forwarder.
    #[arg(long)]
    no_forwarder: bool,
    /// Gateways between caller and providers; the one in front knows every name as a target of the one behind it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    hops: u8,
    /// Every answer may be read by several callers (`cache.sampled`): the same wall in front of shared calls.
    #[arg(long, conflicts_with_all = ["target", "hops"])]
    shared: bool,
    /// Print both tables as one JSON line on stdout.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print what each fault comes to, for people: the tables of docs/faults.md. Rows that failed in this run say so.
    #[arg(long)]
    markdown: bool,
}

/// The gateways that are tried, and what must live as long as they.
#[derive(Default)]
struct Tried {
    doors: Doors,
    gateways: Vec<Gateway>,
}

pub async fn run(a: Args) -> Done {
    let mut cases = faults::all();
    cases.retain(|c| a.only.is_empty() || a.only.iter().any(|o| c.name.contains(o.as_str())));
    if a.target.is_some() {
        let all = cases.len();
        cases.retain(|c| c.house == House::Usual);
        if cases.len() < all {
            eprintln!(
                "{} cases need a plan of their own and are left out",
                all - cases.len()
            );
        }
    }
    if a.hops == 2 {
        cases.iter_mut().for_each(Case::put_behind_another);
    }
    if cases.is_empty() {
        return Err(Stop::Usage("no case has such a name".to_owned()));
    }
    let world =
        World::start(&cases).map_err(|e| Stop::Absent(format!("a provider could not be started: {e}")))?;
    let world = Arc::new(world);
    let tried = tried(&a, &cases, &world).await?;
    let mut progress = Progress::new();
    let (total, mut ended) = (cases.len(), 0);
    let mut show = |o: &Outcome| {
        ended += 1;
        progress.show(&format!("{ended} of {total}: {}", o.case));
    };
    let ours = faults::run("gateway", &tried.doors, &cases, &world, a.width, &mut show)
        .await
        .map_err(Stop::Absent)?;
    progress.end();
    for gateway in tried.gateways {
        if let Err(e) = gateway.stop(Duration::from_secs(30)).await {
            return Err(Stop::Finding(e.to_string()));
        }
    }
    drop(world);
    let naive = match a.no_forwarder {
        true => None,
        false => Some(naive(&cases, a.width).await?),
    };
    report(&a, &cases, &ours, naive.as_ref())
}

async fn tried(a: &Args, cases: &[Case], world: &World) -> Result<Tried, Stop> {
    if let Some(url) = &a.target {
        let plan = faults::plan(House::Usual, cases, world);
        let text = plan
            .replace(
                "{listen}",
                url.trim_start_matches("http://").trim_end_matches('/'),
            )
            .replace("{admin}", "127.0.0.1:9090");
        match &a.write_plan {
            Some(path) => std::fs::write(path, text)
                .map_err(|e| Stop::Absent(format!("cannot write {}: {e}", path.display())))?,
            // What is printed to stdout is what came of it, and nothing else.
            None => eprintln!("{text}"),
        }
        eprintln!("Waiting until the gateway at {url} has loaded this plan ...");
        loaded(url, world).await?;
        return Ok(Tried {
            doors: faults::one_door(url),
            gateways: Vec::new(),
        });
    }
    let program = gateway::binary().map_err(|e| Stop::Absent(e.to_string()))?;
    let mut tried = Tried::default();
    for house in House::ALL {
        if cases.iter().all(|c| c.house != house) {
            continue;
        }
        let plan = faults::plan(house, cases, world);
        let plan = if a.shared { shared(&plan) } else { plan };
        let behind = start(&program, plan).await?;
        let mut url = behind.url().to_owned();
        // What stands in front is stopped first.
        tried.gateways.insert(0, behind);
        if a.hops == 2 {
            let front = start(&program, faults::front_plan(house, cases, &url)).await?;
            front.url().clone_into(&mut url);
            tried.gateways.insert(0, front);
        }
        tried.doors.insert(house, url);
    }
    Ok(tried)
}

/// Routes whose answers may be shared although they are drawn at random.
fn shared(plan: &str) -> String {
    let start = "start = \"first\"\n";
    plan.replace(
        start,
        &format!("{start}cache = {{ exact_ttl_s = 0, sampled = true }}\n"),
    )
}

/// Waits until a gateway knows the names of this very run.
async fn loaded(url: &str, world: &World) -> Result<(), Stop> {
    let client = Client::new(url).map_err(|e| Stop::Usage(e.to_string()))?;
    let path = format!("/v1/models/{}", faults::mark(world).unwrap_or_default());
    let began = now();
    while now() - began < LOADED {
        if let Ok(answer) = client.get(&path).await
            && answer.status() == 200
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Err(Stop::Absent(format!(
        "the gateway at {url} has not loaded the plan in {} s",
        LOADED.as_secs()
    )))
}

async fn start(program: &std::path::Path, plan: String) -> Result<Gateway, Stop> {
    Gateway::start(program, &gateway::Options::fresh(plan, Vec::new()))
        .await
        .map_err(|e| Stop::Absent(e.to_string()))
}

/// The same cases behind the bare forwarder, which knows no other dialect than its caller's.
async fn naive(cases: &[Case], width: usize) -> Result<Table, Stop> {
    let cases: Vec<Case> = cases
        .iter()
        .filter(|c| c.dialect == Dialect::Openai)
        .cloned()
        .collect();
    let world =
        World::start(&cases).map_err(|e| Stop::Absent(format!("a provider could not be started: {e}")))?;
    let world = Arc::new(world);
    let forwarder = Forwarder::start(&cases, &world)
        .await
        .map_err(|e| Stop::Absent(format!("the forwarder could not be started: {e}")))?;
    // It waits where it waits: all at once.
    faults::run(
        "bare forwarder",
        &faults::one_door(&forwarder.url()),
        &cases,
        &world,
        width * 8,
        |_| {},
    )
    .await
    .map_err(Stop::Absent)
}

fn report(a: &Args, cases: &[Case], ours: &Table, naive: Option<&Table>) -> Done {
    if a.markdown {
        print!("{}", faults::page(cases, Some(ours)));
        eprint!("{}", ours.complaints());
    } else if a.json {
        println!("{}", json!({"gateway": ours, "bare_forwarder": naive}));
    } else {
        print!("{}", ours.print(naive));
        let complaints = ours.complaints();
        if !complaints.is_empty() {
            print!("\n{complaints}");
        }
        println!(
            "\n{}: {} of {} cases failed, in {:.0} s",
            ours.who,
            ours.failed(),
            ours.outcomes.len(),
            ours.seconds
        );
        if let Some(n) = naive {
            println!(
                "{}: {} of {} cases failed, of {} names, in {:.0} s",
                n.who,
                n.failed(),
                n.outcomes.len(),
                n.faults_failed(),
                n.seconds
            );
        }
    }
    if ours.failed() > 0 {
        return Err(Stop::Finding(format!("{} cases failed", ours.failed())));
    }
    match naive.filter(|n| a.only.is_empty() && n.faults_failed() < NAIVE_FAILS) {
        Some(n) => Err(Stop::Finding(format!(
            "a bare forwarder fails {} faults only: this wall is none",
            n.faults_failed()
        ))),
        None => Ok(()),
    }
}
