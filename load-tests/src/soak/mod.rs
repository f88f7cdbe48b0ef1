//! Hours in minutes: mixed load against a gateway while its memory, files, threads and gauges are watched. It breaks a bound
//! when memory grows for good, when something is not given back at rest, or when a request fails that was meant to work.
//!
//! Figures at rest are taken twice: after a short warm-up under the same load, and after the run; each time with all of our
//! connections closed and a pause for the gateway to notice.

mod sample;
mod slope;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::client::Client;
use crate::clock::{now, wall_s};
use crate::load::{self, Mix, Report, Run};
use crate::records;

pub use sample::{Sample, counters, gauges, sample};
pub use slope::{Slope, slope};

/// What to run.
#[derive(Clone, Debug)]
pub struct Soak {
    /// The gateway's data plane.
    pub target: String,
    /// Its admin plane, for `/metrics`.
    pub admin: Option<String>,
    /// Its process, for `/proc`.
    pub pid: u32,
    /// Where its records lie, where they are to be looked at.
    pub records: Option<PathBuf>,
    /// The load; its length is the soak's.
    pub run: Run,
    /// Load before the first figures at rest.
    pub warm_up: Duration,
    /// Pause before figures at rest are taken.
    pub settle: Duration,
    /// Between samples.
    pub every: Duration,
    /// The bounds.
    pub bounds: Bounds,
}

/// When it is no longer fine.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bounds {
    /// Growth of RSS over the second half, in MB an hour; more is broken only where it is also beyond twice its standard
    /// error.
    pub rss_mb_per_hour: f64,
    /// Files at rest may differ by so many (pooled connections come and go), and live tasks too (a core that has such
    /// connections has a task that looks after them).
    pub files: u64,
    /// Threads at rest may differ by so many.
    pub threads: u64,
    /// Requests that may fail without being meant to.
    pub failures: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            rss_mb_per_hour: 1.0,
            files: 4,
            threads: 0,
            failures: 0,
        }
    }
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When it ended, seconds since 1970.
    pub at: u64,
    /// The load's own report.
    pub load: Report,
    /// Samples under load, with seconds since the start.
    pub samples: Vec<(f64, Sample)>,
    /// Growth of RSS over the second half.
    pub rss: Option<Slope>,
    /// At rest before and after.
    pub rest: (Sample, Sample),
    /// Gauges at rest before and after.
    pub gauges: (BTreeMap<String, f64>, BTreeMap<String, f64>),
    /// What its counters grew by in between.
    pub counted: BTreeMap<String, f64>,
    /// Records that are still there (old files are deleted), and the files.
    pub records: (usize, usize),
    /// What is broken, one sentence each; empty when all is fine.
    pub broken: Vec<String>,
}

/// Runs it. `progress` gets a line about once a second.
pub async fn run(soak: &Soak, mix: &Mix, mut progress: impl FnMut(String)) -> Result<Outcome, String> {
    let client = || Client::new(&soak.target).map_err(|e| e.to_string());
    progress(format!("warming up for {} s", soak.warm_up.as_secs()));
    let warm = Run {
        length: soak.warm_up,
        seed: soak.run.seed ^ 1,
        ..soak.run.clone()
    };
    load::run(&client()?, mix, &warm, |_| {}).await;
    let (rest_before, page_before) = at_rest(soak).await?;
    let began = now();
    let mut samples = Vec::new();
    let load_client = client()?;
    let load = {
        let watch = async {
            let mut tick = tokio::time::interval(soak.every);
            loop {
                tick.tick().await;
                if let Ok(s) = sample(soak.pid) {
                    samples.push(((now() - began).as_secs_f64(), s));
                }
            }
        };
        let load = load::run(&load_client, mix, &soak.run, |r| {
            let rss = sample(soak.pid).map_or(0.0, |s| s.rss_bytes as f64 / 1e6);
            progress(format!(
                "{:>5.0} s of {:.0}: {} ended, {} failed, p99 {:.1} ms, RSS {rss:.1} MB",
                r.elapsed.as_secs_f64(),
                soak.run.length.as_secs_f64(),
                r.ended(),
                r.failed(),
                r.total.summary().p99
            ));
        });
        tokio::select! {
            never = watch => never,
            load = load => load,
        }
    };
    drop(load_client);
    let (rest_after, page_after) = at_rest(soak).await?;
    let records = soak.records.as_deref().map(records::read).transpose()?;
    let mut outcome = Outcome {
        at: wall_s(),
        load,
        rss: second_half(&samples, soak.run.length),
        samples,
        rest: (rest_before, rest_after),
        gauges: (gauges(&page_before), gauges(&page_after)),
        counted: grown(&counters(&page_before), &counters(&page_after)),
        records: records.as_ref().map_or((0, 0), |r| (r.all.len(), r.files)),
        broken: Vec::new(),
    };
    outcome.broken = judge(&outcome, &soak.bounds);
    let wrong = records.into_iter().flat_map(|r| r.wrong);
    outcome
        .broken
        .extend(wrong.map(|w| format!("records: {w}")).take(20));
    Ok(outcome)
}

/// Growth of RSS over the second half of a run of this length.
pub fn second_half(samples: &[(f64, Sample)], length: Duration) -> Option<Slope> {
    let half = length.as_secs_f64() / 2.0;
    let points: Vec<(f64, f64)> = samples
        .iter()
        .filter(|(t, _)| *t >= half)
        .map(|(t, s)| (*t, s.rss_bytes as f64))
        .collect();
    slope(&points)
}

/// Its figures at rest, and its page of metrics (empty where none is told).
async fn at_rest(soak: &Soak) -> Result<(Sample, String), String> {
    tokio::time::sleep(soak.settle).await;
    let s = sample(soak.pid)?;
    let Some(admin) = &soak.admin else {
        return Ok((s, String::new()));
    };
    let admin = Client::new(admin).map_err(|e| e.to_string())?;
    let text = admin
        .get("/metrics")
        .await
        .map_err(|e| e.to_string())?
        .bytes()
        .await
        .map_err(|e| e.to_string())?;
    Ok((s, String::from_utf8_lossy(&text).into_owned()))
}

fn grown(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let was = |name: &String| before.get(name).copied().unwrap_or_default();
    after.iter().map(|(n, v)| (n.clone(), v - was(n))).collect()
}

/// Live tasks of the runtimes that serve.
const TASKS: &str = "weir_tasks";
/// Calls that run and can be joined.
const FLIGHTS: &str = "weir_flights";
/// Before what is told of local models, which a gateway may not have.
const LOCAL: &str = "weir_local_";

/// Gauges that count what is held for somebody: at rest they must be back where they were. A test of the gateway
/// (`telemetry/names.rs`) sees that it has each of them.
pub const HELD: [&str; 9] = [
    "weir_requests_in_flight",
    "weir_admission_in_flight",
    "weir_admission_queued",
    "weir_body_bytes_in_flight",
    "weir_connections",
    FLIGHTS,
    "weir_local_batch_size",
    "weir_local_queue_depth",
    TASKS,
];

/// What is held at rest that was not held before, by the gauges of two pages; nothing where no page was read.
fn not_given_back(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, b: &Bounds) -> Vec<String> {
    let mut out = Vec::new();
    if after.is_empty() {
        return out;
    }
    for name in HELD {
        let Some(value) = after.get(name) else {
            if !name.starts_with(LOCAL) {
                out.push(format!(
                    "{name} is not on the gateway's page of metrics: nobody compared it"
                ));
            }
            continue;
        };
        let was = before.get(name).copied().unwrap_or(0.0);
        let more = if name == TASKS { b.files as f64 } else { 0.0 };
        if *value > was + more {
            out.push(format!("{name} is {value} at rest, {was} before"));
        }
    }
    out
}

fn judge(o: &Outcome, b: &Bounds) -> Vec<String> {
    let mut out = Vec::new();
    out.extend(o.rss.and_then(|s| s.grows(b.rss_mb_per_hour)));
    let (before, after) = (&o.rest.0, &o.rest.1);
    if after.files > before.files + b.files {
        out.push(format!(
            "{} files open at rest, {} before",
            after.files, before.files
        ));
    }
    if after.threads > before.threads + b.threads {
        out.push(format!(
            "{} threads at rest, {} before",
            after.threads, before.threads
        ));
    }
    out.extend(not_given_back(&o.gauges.0, &o.gauges.1, b));
    let counted = |name: &str| o.counted.get(name).copied().unwrap_or_default();
    let (requests, written) = (counted("weir_requests_total"), counted("weir_records_total"));
    if requests != written {
        out.push(format!("{requests} requests were counted, and {written} records"));
    }
    for never in [
        "weir_record_faults_total",
        "weir_panics_total",
        "weir_usage_lost_total",
    ] {
        if counted(never) > 0.0 {
            out.push(format!("{never} grew by {}", counted(never)));
        }
    }
    if o.load.failed() > b.failures {
        out.push(format!(
            "{} requests failed without being meant to: {:?}",
            o.load.failed(),
            o.load.failures
        ));
    }
    out
}

impl Outcome {
    /// For a script.
    pub fn json(&self, bounds: &Bounds) -> Value {
        json!({
            "at": self.at, "ok": self.broken.is_empty(), "broken": self.broken, "bounds": bounds, "load": self.load.json(),
            "rss_slope_mb_per_hour": self.rss.map(|s| s.mb_per_hour()),
            "rss_slope_standard_error_mb_per_hour": self.rss.map(|s| s.standard_error_mb_per_hour()),
            "rest": {"before": self.rest.0, "after": self.rest.1},
            "gauges": {"before": self.gauges.0, "after": self.gauges.1}, "counted": self.counted,
            "records": {"read": self.records.0, "files": self.records.1},
            "samples": self.samples.iter().map(|(t, s)| json!([t, s.rss_bytes, s.files, s.threads])).collect::<Vec<_>>(),
        })
    }

    /// For a person.
    pub fn table(&self) -> String {
        let mut out = self.load.table();
        if let Some(s) = &self.rss {
            out.push_str(&format!(
                "RSS over the second half: {:+.2} MB/h, standard error {:.2} ({} samples)\n",
                s.mb_per_hour(),
                s.standard_error_mb_per_hour(),
                s.n
            ));
        }
        let (b, a) = (&self.rest.0, &self.rest.1);
        out.push_str(&format!(
            "at rest before / after: RSS {:.1} / {:.1} MB, files {} / {}, threads {} / {}\n",
            b.rss_bytes as f64 / 1e6,
            a.rss_bytes as f64 / 1e6,
            b.files,
            a.files,
            b.threads,
            a.threads
        ));
        let at_rest = |name: &str| {
            let of = |page: &BTreeMap<String, f64>| page.get(name).map_or("?".to_owned(), f64::to_string);
            format!("{} / {}", of(&self.gauges.0), of(&self.gauges.1))
        };
        out.push_str(&format!(
            "at rest before / after: live tasks {}, shared calls {}\n",
            at_rest(TASKS),
            at_rest(FLIGHTS)
        ));
        let counted = |name: &str| self.counted.get(name).copied().unwrap_or_default();
        out.push_str(&format!(
            "records: {} written of {} requests; {} in {} files read, their chain followed\n",
            counted("weir_records_total"),
            counted("weir_requests_total"),
            self.records.0,
            self.records.1
        ));
        for sentence in &self.broken {
            out.push_str(&format!("BROKEN: {sentence}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gauges of a gateway at rest that has two cores and no local model.
    fn at_rest() -> BTreeMap<String, f64> {
        let names = HELD.iter().filter(|name| !name.starts_with(LOCAL));
        let mut gauges: BTreeMap<String, f64> = names.map(|name| ((*name).to_owned(), 0.0)).collect();
        gauges.insert(TASKS.to_owned(), 4.0);
        gauges.insert("weir_heap_bytes".to_owned(), 1e8);
        gauges
    }

    #[test]
    fn what_is_held_at_rest_and_was_not_before_is_told_by_name() {
        let (before, bounds) = (at_rest(), Bounds::default());
        let mut after = at_rest();
        after.insert("weir_heap_bytes".to_owned(), 2e8);
        assert_eq!(not_given_back(&before, &after, &bounds), [""; 0]);
        for name in HELD {
            let mut leaky = after.clone();
            let was = before.get(name).copied().unwrap_or(0.0);
            leaky.insert(name.to_owned(), was + 5.0);
            let told = format!("{name} is {} at rest, {was} before", was + 5.0);
            assert_eq!(not_given_back(&before, &leaky, &bounds), [told]);
        }
    }

    #[test]
    fn as_many_tasks_may_differ_as_files_and_no_shared_call() {
        let (before, mut after) = (at_rest(), at_rest());
        after.insert(TASKS.to_owned(), 8.0);
        assert_eq!(not_given_back(&before, &after, &Bounds::default()), [""; 0]);
        after.insert(FLIGHTS.to_owned(), 1.0);
        assert_eq!(
            not_given_back(&before, &after, &Bounds::default()),
            ["weir_flights is 1 at rest, 0 before"]
        );
    }

    #[test]
    fn a_gauge_that_is_not_there_is_told_and_no_page_is_no_finding() {
        let (before, mut after) = (at_rest(), at_rest());
        after.remove(TASKS);
        let told = not_given_back(&before, &after, &Bounds::default());
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with("weir_tasks is not on the gateway's page"),
            "{told:?}"
        );
        let nothing = BTreeMap::new();
        assert_eq!(not_given_back(&nothing, &nothing, &Bounds::default()), [""; 0]);
    }
}
