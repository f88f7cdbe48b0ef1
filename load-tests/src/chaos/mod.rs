//! Chaos: load as a day brings it, while faults of every kind are switched on and off at random and the plan is loaded
//! again and again. Every request is judged: exactly one end, nothing lost, doubled, mixed up or silently cut, and an error
//! only where the plan had no way left. Afterwards all is healed, and everything must be as it was.
//!
//! What happens follows from the seed: requests ([`call`]), faults and reloads ([`schedule`]). When it happens is measured,
//! and what is excused follows from that ([`ways`]).

pub mod call;
mod detail;
pub mod house;
pub mod judge;
pub mod reload;
mod report;
mod rules;
pub mod schedule;
mod settle;
pub mod ways;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use self::call::Call;
use self::house::{Edit, House, Target};
use self::judge::End;
use self::reload::{Reloaded, Reloader};
use self::schedule::{Schedule, Window};
use self::settle::Settled;
use self::ways::{Excuse, Ways};
use crate::caller::{self, Got};
use crate::client::Client;
use crate::clock::{Instant, now, us};
use crate::gateway::{self, Gateway};
use crate::load::{self, Arrivals, Histogram};
use crate::records::Records;
use crate::soak::{self, Sample, Slope};

pub use report::Report;
pub(crate) use settle::{by_trace, written};

/// The caller itself gives up after this.
const PATIENCE: Duration = Duration::from_secs(25);
/// Requests at once; more are not sent, but counted.
const MOST_AT_ONCE: usize = 4_000;
/// A request that leaves so late shows that this machine stood still: no clock of the gateway, nor of a provider, means
/// anything meanwhile.
const STALL: Duration = Duration::from_millis(300);
/// Between samples of the process.
const SAMPLE: Duration = Duration::from_secs(1);

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct Chaos {
    /// Of everything.
    pub seed: u64,
    /// How long requests are sent.
    pub length: Duration,
    /// Requests a second.
    pub rate: f64,
    /// Reloads of the plan over the run.
    pub reloads: u32,
    /// Growth of RSS over the second half that is allowed, in MB an hour (or anything inside twice its standard error).
    pub rss_mb_per_hour: f64,
}

/// How one request went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was asked.
    pub call: Call,
    /// When it left, and when it ended.
    pub at: (Duration, Duration),
    /// How it ended.
    pub end: End,
    /// Status; 0: none came.
    pub status: u16,
    /// `x-request-id`.
    pub id: String,
    /// Who answered. Index into [`house::TARGETS`].
    pub by: Option<usize>,
    /// More than one wrote the answer.
    pub joined: bool,
    /// It was marked as degraded.
    pub degraded: bool,
    /// Code and message of an error.
    pub error: String,
    /// Why an error is excused.
    pub excuse: Option<Excuse>,
    /// At least one target was well all the time, and felt no earlier fault.
    pub had_a_way: bool,
    /// At least one target was on and without a fault all the time.
    pub had_a_sound_target: bool,
    /// What is wrong, one sentence each.
    pub wrong: Vec<String>,
}

impl Outcome {
    /// The stream ended in an error, though somebody of its route who was well all the time might have gone on with it.
    /// Right only where the tries were spent by then.
    fn not_gone_on(&self) -> bool {
        self.end == End::InBand && self.had_a_way && self.call.route().goes_on
    }

    /// Judges what a caller got.
    pub fn of(call: Call, got: &Got, at: (Duration, Duration)) -> Self {
        let (end, wrong) = judge::judge(&call, got);
        let said = |key: &str| {
            let text = got.error.as_ref().and_then(|e| e.get(key)?.as_str());
            text.unwrap_or_default().to_owned()
        };
        let error = match (&got.error, &got.broken) {
            (Some(_), _) => format!("{}: {}", said("code"), said("message")),
            (None, Some(how)) => how.clone(),
            (None, None) => String::new(),
        };
        Self {
            call,
            at,
            end,
            status: got.status,
            id: got.id.clone(),
            by: Target::named(&got.answered_by),
            joined: got.models.len() > 1,
            degraded: !got.degraded.is_empty(),
            error,
            excuse: None,
            had_a_way: false,
            had_a_sound_target: false,
            wrong,
        }
    }
}

/// What the load generator saw.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) not_sent: u64,
    pub(crate) late: Histogram,
    /// When this machine stood still: a request left much later than it was due.
    pub(crate) stalls: Vec<(Duration, Duration)>,
}

/// Runs it against that program. `progress` gets a line about once a second.
///
/// # Errors
/// Something that it needs could not be had; findings are in the report.
pub async fn run(program: &Path, chaos: &Chaos, mut progress: impl FnMut(String)) -> Result<Report, String> {
    let schedule = Schedule::draw(chaos.seed, chaos.length, chaos.reloads);
    let house = House::start().map_err(|e| format!("a scripted provider could not be started: {e}"))?;
    let options = gateway::Options::fresh(house.plan(&Edit::default()), Vec::new());
    let gateway = Gateway::start(program, &options)
        .await
        .map_err(|e| e.to_string())?;
    let rest = soak::sample(gateway.pid())?;
    let began = now();
    let mut reloader = Reloader::new(&gateway, &house, began).await?;
    let client = Client::new(gateway.url()).map_err(|e| e.to_string())?;

    let reloaded: Mutex<Vec<Reloaded>> = Mutex::default();
    let (loaded, windows, (), samples) = {
        let done = Semaphore::new(0);
        let reload_all = async {
            for r in &schedule.reloads {
                tokio::time::sleep_until(began + r.at).await;
                let went = reloader.reload(r).await;
                reloaded.lock().unwrap_or_else(PoisonError::into_inner).push(went);
            }
        };
        let load = async {
            let settings = (chaos.seed, chaos.rate, chaos.length);
            let draw = |n| Call::draw(chaos.seed, n);
            let loaded = load(&client, settings, draw, began, |ended, bad| {
                let rss = soak::sample(gateway.pid()).map_or(0.0, |s| s.rss_bytes as f64 / 1e6);
                let plans = reloaded.lock().unwrap_or_else(PoisonError::into_inner).len();
                progress(format!(
                    "{:>4.0} s of {:.0}: {ended} ended, {bad} of them not right, {plans} reloads, RSS {rss:.1} MB",
                    (now() - began).as_secs_f64(),
                    chaos.length.as_secs_f64(),
                ));
            })
            .await;
            done.add_permits(1);
            loaded
        };
        tokio::join!(
            load,
            conduct(&house, &schedule, began),
            reload_all,
            watch(gateway.pid(), began, chaos.length, &done)
        )
    };
    let mut reloaded = reloaded.into_inner().unwrap_or_else(PoisonError::into_inner);
    progress("all is healed; waiting for everything to be as it was".to_owned());
    // The gateway must see all of our connections go.
    drop(client);
    let settled = settle::settle(&gateway, &house, &mut reloader, &mut reloaded, chaos.seed, began).await?;
    let found = written(&gateway, &loaded.outcomes, &settled.outcomes, chaos.seed).await;
    let mut report = Report {
        chaos: *chaos,
        schedule,
        windows,
        reloaded,
        outcomes: loaded.outcomes,
        not_sent: loaded.not_sent,
        late: loaded.late,
        stalls: loaded.stalls,
        rss: soak::second_half(&samples, chaos.length),
        rest: (rest, settled.rest),
        samples,
        settled,
        records: found.as_ref().map_or(0, |r| r.all.len()),
        record_files: found.as_ref().map_or(0, |r| r.files),
        broken: Vec::new(),
        details: String::new(),
        aftermath: String::new(),
        not_gone_on: String::new(),
    };
    report.judge(found);
    report.look_up(&gateway, &house);
    if let Err(e) = gateway.stop(Duration::from_secs(30)).await {
        report.broken.push(e.to_string());
    }
    Ok(report)
}

/// Sends what is due when it is due, whatever has become of the earlier ones.
pub(crate) async fn load(
    client: &Client,
    (seed, rate, length): (u64, f64, Duration),
    draw: impl Fn(u64) -> Call,
    began: Instant,
    mut progress: impl FnMut(usize, usize),
) -> Loaded {
    let slots = Arc::new(Semaphore::new(MOST_AT_ONCE));
    let (results, mut incoming) = mpsc::unbounded_channel();
    let mut loaded = Loaded::default();
    let arrivals = load::Schedule::new(Arrivals::Poisson, rate, length, u64::MAX, seed);
    let (mut shown, mut bad) = (began, 0);
    let mut take = |loaded: &mut Loaded, outcome: Outcome| {
        bad += usize::from(!outcome.wrong.is_empty());
        loaded.outcomes.push(outcome);
        if now() - shown >= Duration::from_secs(1) {
            shown = now();
            progress(loaded.outcomes.len(), bad);
        }
    };
    for (n, due) in (0u64..).zip(arrivals) {
        tokio::time::sleep_until(began + due).await;
        let left = now() - began;
        loaded.late.add(us(left.saturating_sub(due)));
        if left.saturating_sub(due) > STALL {
            match loaded.stalls.last_mut() {
                Some((_, end)) if *end >= due => *end = left,
                _ => loaded.stalls.push((due, left)),
            }
        }
        match slots.clone().try_acquire_owned() {
            Ok(slot) => {
                let (client, results, call) = (client.clone(), results.clone(), draw(n));
                tokio::spawn(async move {
                    let outcome = one(&client, call, seed, began).await;
                    let _ = results.send(outcome);
                    drop(slot);
                });
            }
            Err(_) => loaded.not_sent += 1,
        }
        while let Ok(outcome) = incoming.try_recv() {
            take(&mut loaded, outcome);
        }
    }
    drop(results);
    while let Some(outcome) = incoming.recv().await {
        take(&mut loaded, outcome);
    }
    loaded
}

async fn one(client: &Client, call: Call, seed: u64, began: Instant) -> Outcome {
    let left = now() - began;
    let got = caller::ask(client, call.body(), &call.headers(seed), PATIENCE, call.leave).await;
    Outcome::of(call, &got, (left, now() - began))
}

/// Switches everything on and off; gives the windows as they were.
async fn conduct(house: &House, schedule: &Schedule, began: Instant) -> Vec<Window> {
    let mut windows = schedule.windows.clone();
    let begins = schedule
        .windows
        .iter()
        .enumerate()
        .map(|(at, w)| (w.from, at, true));
    let ends = schedule
        .windows
        .iter()
        .enumerate()
        .map(|(at, w)| (w.to, at, false));
    let mut steps: Vec<(Duration, usize, bool)> = begins.chain(ends).collect();
    steps.sort();
    for (due, at, on) in steps {
        tokio::time::sleep_until(began + due).await;
        let Some(window) = windows.get_mut(at) else {
            continue;
        };
        if on {
            window.from = now() - began;
            house.switch_on(window);
        } else {
            house.switch_off(window);
            window.to = now() - began;
        }
    }
    windows
}

/// Samples of the process until the load has ended; those after `length` do not count.
async fn watch(pid: u32, began: Instant, length: Duration, done: &Semaphore) -> Vec<(f64, Sample)> {
    let mut samples = Vec::new();
    let mut tick = tokio::time::interval(SAMPLE);
    loop {
        tokio::select! {
            _ = done.acquire() => return samples,
            _ = tick.tick() => {}
        }
        let at = now() - began;
        if let Ok(s) = soak::sample(pid)
            && at <= length
        {
            samples.push((at.as_secs_f64(), s));
        }
    }
}
