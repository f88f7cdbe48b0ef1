//! What a run comes to, class by class, and the rules.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Asked, CLASSES, LEAD_IN, Overload, TIMES};
use crate::clock::us;
use crate::load::{Histogram, Summary};
use crate::provider::Beyond;

/// Goodput under the threefold load, as a share of that under the single one, must be at least this.
const LEAST: f64 = 0.9;
/// The share of the high class that must be served under the threefold load: there is room for all of it.
const LEAST_HIGH: f64 = 0.9;

/// One provider under one load.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the provider does with too much.
    pub beyond: Beyond,
    /// The load, in capacities.
    pub times: f64,
    /// Every request.
    pub asked: Vec<Asked>,
    /// Requests that could not be sent: a mistake of the test.
    pub not_sent: u64,
    /// Tries that the provider refused.
    pub refused: usize,
    /// The target's limit at the end, as the gateway has it.
    pub limit: Option<u64>,
}

/// How one class fared, behind the beginning of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Fared {
    asked: usize,
    good: usize,
    shed: usize,
    late: usize,
    other: usize,
    took: Summary,
}

impl Fared {
    fn share(&self) -> f64 {
        self.good as f64 / (self.asked.max(1)) as f64
    }
}

/// The word for it.
pub fn word(beyond: Beyond) -> &'static str {
    match beyond {
        Beyond::Refuse => "refuses",
        Beyond::Queue => "queues",
    }
}

/// A whole answer inside its deadline.
pub fn is_good(asked: &Asked, deadline: Duration) -> bool {
    let got = &asked.got;
    let whole = got.status == 200 && got.error.is_none() && got.broken.is_none() && got.nonsense.is_none();
    let ended = !got.finishes.is_empty() && (!asked.stream || got.done == Some(0));
    whole && ended && got.took <= deadline
}

fn code(asked: &Asked) -> &str {
    let code = asked.got.error.as_ref().and_then(|e| e.get("code"));
    code.and_then(Value::as_str).unwrap_or("")
}

impl Run {
    fn of<'a>(&'a self, class: Option<usize>, lead_in: bool) -> impl Iterator<Item = &'a Asked> + use<'a> {
        let of = move |a: &&Asked| class.is_none_or(|c| a.class == c) && (a.due < LEAD_IN) == lead_in;
        self.asked.iter().filter(of)
    }

    fn fared(&self, class: Option<usize>, deadline: Duration) -> Fared {
        let mut fared = Fared::default();
        let mut took = Histogram::default();
        for asked in self.of(class, false) {
            fared.asked += 1;
            if is_good(asked, deadline) {
                fared.good += 1;
                took.add(us(asked.got.took));
            } else if code(asked) == "overloaded" {
                fared.shed += 1;
            } else if code(asked) == "deadline_exceeded"
                || (asked.got.status == 200 && asked.got.took > deadline)
            {
                fared.late += 1;
            } else {
                fared.other += 1;
            }
        }
        fared.took = took.summary();
        fared
    }

    /// Good answers a second, behind the beginning and in it.
    fn goodput(&self, overload: &Overload) -> (f64, f64) {
        let good = |lead_in| {
            self.of(None, lead_in)
                .filter(|a| is_good(a, overload.deadline))
                .count() as f64
        };
        (
            good(false) / overload.length.as_secs_f64(),
            good(true) / LEAD_IN.as_secs_f64(),
        )
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Report {
    overload: Overload,
    runs: Vec<Run>,
    /// Rules that are broken, one sentence each.
    pub broken: Vec<String>,
}

impl Report {
    /// Judges it.
    pub(super) fn of(overload: Overload, runs: Vec<Run>) -> Self {
        let mut report = Self {
            overload,
            runs,
            broken: Vec::new(),
        };
        for beyond in [Beyond::Refuse, Beyond::Queue] {
            report.judge(beyond);
        }
        report
    }

    fn run(&self, beyond: Beyond, times: f64) -> Option<&Run> {
        self.runs.iter().find(|r| r.beyond == beyond && r.times == times)
    }

    fn judge(&mut self, beyond: Beyond) {
        let (Some(once), Some(more)) = (self.run(beyond, 1.0), self.run(beyond, TIMES)) else {
            return;
        };
        let mut broken = Vec::new();
        let name = word(beyond);
        let kept = more.goodput(&self.overload).0 / once.goodput(&self.overload).0.max(1e-9);
        if kept < LEAST {
            broken.push(format!(
                "the provider that {name}: goodput at {TIMES} x is {:.1}% of that at 1 x, at least {:.0}% is asked for",
                kept * 100.0,
                LEAST * 100.0
            ));
        }
        let fared = |class| more.fared(Some(class), self.overload.deadline);
        let (high, low) = (fared(0), fared(CLASSES.len() - 1));
        if high.share() < LEAST_HIGH || high.share() < low.share() {
            broken.push(format!(
                "the provider that {name}: {:.1}% of the high class were served at {TIMES} x, and {:.1}% of the low one",
                high.share() * 100.0,
                low.share() * 100.0
            ));
        }
        if low.good > 0 && high.took.p50 > low.took.p50 {
            broken.push(format!(
                "the provider that {name}: the high class waited longer than the low one ({:.0} and {:.0} ms at the median)",
                high.took.p50, low.took.p50
            ));
        }
        for run in [once, more] {
            let silent = run
                .asked
                .iter()
                .filter(|a| a.got.status == 0 || a.got.broken.is_some())
                .count();
            if silent > 0 || run.not_sent > 0 {
                broken.push(format!(
                    "the provider that {name}, {} x: {silent} callers got no answer at all, {} could not ask",
                    run.times, run.not_sent
                ));
            }
        }
        self.broken.extend(broken);
    }

    /// For a script, on one line.
    pub fn json(&self) -> Value {
        let runs = self.runs.iter().map(|run| {
            let (goodput, lead_in) = run.goodput(&self.overload);
            let of = |class| {
                let f = run.fared(class, self.overload.deadline);
                json!({"asked": f.asked, "good": f.good, "shed": f.shed, "late": f.late, "other": f.other, "took_ms": f.took})
            };
            let classes: serde_json::Map<String, Value> = (0..)
                .zip(CLASSES)
                .map(|(i, (name, ..))| (name.to_owned(), of(Some(i))))
                .collect();
            json!({
                "provider": word(run.beyond), "times": run.times, "goodput_per_s": goodput,
                "goodput_lead_in_per_s": lead_in, "all": of(None), "classes": classes,
                "refused_by_provider": run.refused, "limit": run.limit,
            })
        });
        json!({
            "ok": self.broken.is_empty(), "broken": self.broken, "seed": self.overload.seed,
            "capacity": self.overload.capacity, "capacity_per_s": self.overload.rate(),
            "deadline_ms": self.overload.deadline.as_millis() as u64, "runs": runs.collect::<Vec<_>>(),
        })
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut out = format!(
            "a provider that answers {} at once, {:.1} a second; callers wait {} ms; {} s behind the first {} of each run\n\n",
            self.overload.capacity,
            self.overload.rate(),
            self.overload.deadline.as_millis(),
            self.overload.length.as_secs(),
            LEAD_IN.as_secs()
        );
        let _ = writeln!(
            out,
            "{:<9}{:<6}{:<8}{:>7}{:>7}{:>8}{:>7}{:>7}{:>7}{:>9}{:>9}",
            "provider",
            "load",
            "class",
            "asked",
            "good",
            "share",
            "shed",
            "late",
            "other",
            "p50 ms",
            "p99 ms"
        );
        for run in &self.runs {
            let rows = [(None, "all")]
                .into_iter()
                .chain((0..).zip(CLASSES).map(|(i, (name, ..))| (Some(i), name)));
            for (class, name) in rows {
                let f = run.fared(class, self.overload.deadline);
                let _ = writeln!(
                    out,
                    "{:<9}{:<6}{:<8}{:>7}{:>7}{:>7.1}%{:>7}{:>7}{:>7}{:>9.0}{:>9.0}",
                    word(run.beyond),
                    format!("{} x", run.times),
                    name,
                    f.asked,
                    f.good,
                    f.share() * 100.0,
                    f.shed,
                    f.late,
                    f.other,
                    f.took.p50,
                    f.took.p99
                );
            }
        }
        out.push('\n');
        for run in &self.runs {
            let (goodput, lead_in) = run.goodput(&self.overload);
            let _ = writeln!(
                out,
                "{} at {} x: goodput {goodput:.1} a second ({lead_in:.1} in the beginning), limit at the end {}, {} tries refused",
                word(run.beyond),
                run.times,
                run.limit.map_or("unknown".to_owned(), |l| l.to_string()),
                run.refused
            );
        }
        for beyond in [Beyond::Refuse, Beyond::Queue] {
            if let (Some(once), Some(more)) = (self.run(beyond, 1.0), self.run(beyond, TIMES)) {
                let kept = more.goodput(&self.overload).0 / once.goodput(&self.overload).0.max(1e-9);
                let _ = writeln!(
                    out,
                    "{}: goodput at {TIMES} x is {:.1}% of that at 1 x (asked for: {:.0}%)",
                    word(beyond),
                    kept * 100.0,
                    LEAST * 100.0
                );
            }
        }
        for sentence in &self.broken {
            let _ = writeln!(out, "BROKEN: {sentence}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Got;

    fn asked(class: usize, ms: u64, good: bool) -> Asked {
        let error = json!({"code": "overloaded"});
        Asked {
            due: LEAD_IN,
            class,
            stream: true,
            got: Got {
                status: if good { 200 } else { 503 },
                finishes: vec!["stop".to_owned()],
                done: Some(0),
                error: (!good).then_some(error),
                took: Duration::from_millis(ms),
                ..Got::default()
            },
        }
    }

    fn report(once: Vec<Asked>, more: Vec<Asked>) -> Report {
        let overload = Overload {
            seed: 1,
            capacity: 16,
            length: Duration::from_secs(10),
            deadline: Duration::from_secs(1),
        };
        let run = |times, asked| Run {
            beyond: Beyond::Queue,
            times,
            asked,
            not_sent: 0,
            refused: 0,
            limit: Some(16),
        };
        Report::of(overload, vec![run(1.0, once), run(TIMES, more)])
    }

    #[test]
    fn what_is_kept_is_no_finding() {
        let once: Vec<Asked> = (0..30).map(|n| asked(n % 3, 300, true)).collect();
        let mut more: Vec<Asked> = (0..28).map(|_| asked(0, 300, true)).collect();
        more.extend((0..60).map(|n| asked(2, 400, n == 0)));
        let r = report(once, more);
        assert!(r.broken.is_empty(), "{:?}", r.broken);
        assert!(r.text().contains("goodput at 3 x is 96.7%"), "{}", r.text());
        assert_eq!(r.json()["runs"][1]["classes"]["low"]["shed"], 59);
    }

    #[test]
    fn a_late_answer_is_no_good_one_and_what_sinks_is_told() {
        let once: Vec<Asked> = (0..30).map(|n| asked(n % 3, 300, true)).collect();
        let more = (0..30)
            .map(|n| asked(n % 3, if n % 3 == 2 { 900 } else { 1_100 }, true))
            .collect();
        let r = report(once, more);
        let told = r.broken.join("; ");
        assert!(told.contains("goodput at 3 x is 33.3%"), "{told}");
        assert!(told.contains("0.0% of the high class"), "{told}");
        assert_eq!(r.json()["runs"][1]["all"]["late"], 20);
        let mut lost = vec![asked(0, 1, true)];
        lost[0].got.status = 0;
        assert!(
            report(lost, Vec::new())
                .broken
                .join("; ")
                .contains("1 callers got no answer")
        );
    }
}
