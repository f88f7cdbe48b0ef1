//! What must hold of a run: of each request, once the ways and the records are known, and of the whole.

use std::time::Duration;

use super::call::DEADLINE;
use super::house::TARGETS;
use super::judge::{self, End};
use super::settle::{by_trace, compare};
use super::{Outcome, Records, Report, Ways};
use crate::soak::Bounds;

/// Sentences of one kind that are told at most.
const TOLD: usize = 5;
/// A machine that stands still for a larger share of the run is too busy for it.
const MOST_STILL: f64 = 0.05;
/// A run that is shorter says nothing of a slope: what the process needs at all is still being learned.
pub const SLOPE_FROM: Duration = Duration::from_secs(300);
/// Idle connections to providers that a gateway may have more than at its start.
const POOLED: u64 = 512;
/// `retry.max_attempts` where a plan says nothing of it, as this one does not.
const MAX_ATTEMPTS: usize = 4;

impl Report {
    fn accepted(&self) -> Vec<(Duration, Duration)> {
        self.reloaded
            .iter()
            .filter(|r| r.accepted)
            .map(|r| r.at)
            .collect()
    }

    /// Applies what can be judged only now: ways, records, and the rules about the whole.
    pub fn judge(&mut self, written: Result<Records, String>) {
        let ways = Ways::new(&self.windows, &self.accepted(), TARGETS.len()).stalled(&self.stalls);
        let empty = Records::default();
        let found = written.as_ref().unwrap_or(&empty);
        let of = by_trace(found);
        let seed = self.chaos.seed;
        for o in self.outcomes.iter_mut().chain(&mut self.settled.outcomes) {
            let (route, (began, ended)) = (o.call.route(), o.at);
            o.had_a_way = ways.had_a_way(route, began, ended);
            o.had_a_sound_target = ways.had_a_sound_target(route, began, ended);
            if o.end == End::Error {
                match ways.judge(route, o.status, began, ended) {
                    Ok(excuse) => o.excuse = Some(excuse),
                    Err(why) => o.wrong.push(format!("status {} {why}", o.status)),
                }
            }
            let trace = o.call.trace(seed);
            let own = of.get(trace.as_str()).map(Vec::as_slice).unwrap_or_default();
            let tries = own.iter().map(|record| record.attempts.len()).max().unwrap_or(0);
            o.wrong.extend(in_band(o, &ways, tries).map(str::to_owned));
            // Who is off is no part of the cascade, and without it nothing is degraded.
            let may_be_off = route.first.iter().any(|t| ways.may_be_off(*t, began, ended));
            let unmarked = o.by.is_some_and(|by| judge::is_weaker(&o.call, by)) && !o.degraded;
            if o.end == End::Whole && unmarked && !may_be_off {
                o.wrong
                    .push("the last resort answered, and nothing says that it is degraded".to_owned());
            }
            if written.is_ok() {
                o.wrong.extend(compare(o, own));
            }
        }
        self.rules(written.map(|r| r.wrong));
    }

    fn rules(&mut self, records: Result<Vec<String>, String>) {
        let mut broken = Vec::new();
        let still = self.stood_still();
        if still > self.chaos.length.mul_f64(MOST_STILL) {
            broken.push(format!(
                "this machine stood still for {:.1} s: too busy for a run that says anything, or for this --rate",
                still.as_secs_f64()
            ));
        }
        let wrong = self.all().filter(|o| !o.wrong.is_empty()).count();
        if wrong > 0 {
            broken.push(format!("{wrong} requests did not end as they must"));
        }
        if self.not_sent > 0 {
            broken.push(format!(
                "{} requests could not be sent: too many at once",
                self.not_sent
            ));
        }
        match records {
            Ok(wrong) => broken.extend(wrong.into_iter().take(TOLD).map(|w| format!("records: {w}"))),
            Err(why) => broken.push(why),
        }
        for r in self.reloaded.iter().filter(|r| !r.wrong.is_empty()).take(TOLD) {
            broken.push(format!(
                "reload at {:.1} s: {}",
                r.at.0.as_secs_f64(),
                r.wrong.join("; ")
            ));
        }
        broken.extend(self.settled.wrong.iter().cloned());
        if self.chaos.length >= SLOPE_FROM {
            broken.extend(self.rss.and_then(|s| s.grows(self.chaos.rss_mb_per_hour)));
        }
        let (before, after) = self.rest;
        if after.threads > before.threads + Bounds::default().threads {
            broken.push(format!(
                "{} threads at rest, {} before",
                after.threads, before.threads
            ));
        }
        if after.files > before.files + POOLED {
            broken.push(format!(
                "{} files open at rest, {} before",
                after.files, before.files
            ));
        }
        self.broken = broken;
    }
}

/// Why an error in band need not have been. It is right where whoever began the answer had a fault on (or the caller's time
/// was over, whoever was slow), and where nobody of a route whose streams are gone on with was well all the time, unless all
/// tries that the plan allows had been made.
fn in_band(o: &Outcome, ways: &Ways, tries: usize) -> Option<&'static str> {
    if o.end != End::InBand {
        return None;
    }
    let (began, ended) = o.at;
    let faulty = |t: usize| ways.faulty(t, began, ended);
    let out_of_time = ended.saturating_sub(began) >= DEADLINE;
    let broke = match o.by.filter(|_| !out_of_time) {
        Some(by) => faulty(by),
        None => o.call.route().targets().any(faulty),
    };
    if !broke {
        return Some("an error in band, though whoever had begun the answer was well all the time");
    }
    let left = o.not_gone_on() && tries < MAX_ATTEMPTS && !out_of_time;
    left.then_some("an error in band with tries left, though one that might have gone on was well")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::call::Call;
    use super::super::schedule::{Place, What, Window};
    use super::super::{Chaos, Histogram, Outcome, Reloaded, Schedule, Settled};
    use super::*;
    use crate::caller::Got;
    use crate::provider::Fault;
    use crate::records::{Attempt, Record};
    use crate::soak::Sample;

    const SEED: u64 = 1;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// A 503 to `ladder`, whose targets are 0 and 1.
    fn failed(n: u64, began: f64) -> Outcome {
        let got = Got {
            status: 503,
            id: format!("r{n}"),
            error: Some(json!({"message": "m", "type": "t", "param": null, "code": "c"})),
            ..Got::default()
        };
        Outcome::of(Call::to(0, SEED, n), &got, (s(began), s(began + 0.1)))
    }

    fn record(n: u64) -> Record {
        Record {
            id: format!("r{n}"),
            trace: format!("00-{}-0-01", Call::to(0, SEED, n).trace(SEED)),
            status: 503,
            end: "error".into(),
            ..Record::default()
        }
    }

    fn judged(outcomes: Vec<Outcome>, windows: &[(usize, f64, f64)], records: Vec<Record>) -> Report {
        let windows = windows.iter().map(|(target, from, to)| Window {
            place: Place::Target(*target),
            what: What::Fault(Fault::ServerError),
            from: s(*from),
            to: s(*to),
            share: None,
        });
        let chaos = Chaos {
            seed: SEED,
            length: s(60.0),
            rate: 1.0,
            reloads: 0,
            rss_mb_per_hour: 1.0,
        };
        let mut report = Report {
            chaos,
            schedule: Schedule::draw(SEED, s(60.0), 0),
            windows: windows.collect(),
            reloaded: Vec::new(),
            outcomes,
            not_sent: 0,
            late: Histogram::default(),
            stalls: Vec::new(),
            rss: None,
            rest: (Sample::default(), Sample::default()),
            samples: Vec::new(),
            settled: Settled::default(),
            records: 0,
            record_files: 0,
            broken: Vec::new(),
            details: String::new(),
            aftermath: String::new(),
            not_gone_on: String::new(),
        };
        report.judge(Ok(Records {
            all: records,
            ..Records::default()
        }));
        report
    }

    #[test]
    fn a_503_is_right_only_where_no_way_was_left() {
        let both = [(0, 9.0, 12.0), (1, 9.5, 12.0)];
        let fine = judged(vec![failed(1, 10.0)], &both, vec![record(1)]);
        assert_eq!(fine.broken, Vec::<String>::new());
        assert!(
            fine.text().contains("1 where every target had a fault on it"),
            "{}",
            fine.text()
        );
        let one = judged(vec![failed(1, 10.0)], &both[..1], vec![record(1)]);
        assert_eq!(one.broken, ["1 requests did not end as they must"]);
        assert!(one.outcomes[0].wrong[0].contains("a target of it was well"));
        assert_eq!(one.json()["requests"]["not_right"], 1);
    }

    /// A stream of `ladder` that target 0 began, and that ended in an error.
    fn broke_off(n: u64, began: f64) -> Outcome {
        let got = Got {
            status: 200,
            id: format!("r{n}"),
            answered_by: TARGETS[0].name.into(),
            error: Some(json!({"message": "m", "type": "t", "param": null, "code": "c"})),
            ..Got::default()
        };
        let mut call = Call::to(0, SEED, n);
        call.stream = true;
        Outcome::of(call, &got, (s(began), s(began + 0.1)))
    }

    fn cut(n: u64, tries: usize) -> Record {
        Record {
            status: 200,
            end: "cut".into(),
            attempts: vec![Attempt::default(); tries],
            ..record(n)
        }
    }

    #[test]
    fn an_error_in_band_needs_a_writer_that_broke_off_and_nobody_who_could_go_on() {
        let told = |windows: &[(usize, f64, f64)], tries| {
            let r = judged(vec![broke_off(1, 10.0)], windows, vec![cut(1, tries)]);
            r.outcomes[0].wrong.join("; ")
        };
        // The other one felt an earlier fault still.
        assert_eq!(told(&[(0, 9.5, 12.0), (1, 7.0, 8.0)], 2), "");
        // The other one was well.
        let why = told(&[(0, 9.5, 12.0)], 2);
        assert!(why.contains("might have gone on"), "{why}");
        assert_eq!(told(&[(0, 9.5, 12.0)], MAX_ATTEMPTS), "", "no try was left");
        // A fault of somebody else breaks no stream.
        let why = told(&[(0, 7.0, 8.0), (1, 9.5, 12.0)], 2);
        assert!(why.contains("had begun the answer was well"), "{why}");
        assert!(!include_str!("../../data/chaos-plan.toml").contains("max_attempts"));
    }

    #[test]
    fn a_machine_that_stood_still_excuses_what_was_under_way_and_is_told() {
        let mut r = judged(Vec::new(), &[], Vec::new());
        (r.outcomes, r.stalls) = (vec![failed(1, 10.0)], vec![(s(9.0), s(9.9))]);
        let all = || Records {
            all: vec![record(1)],
            ..Records::default()
        };
        r.judge(Ok(all()));
        assert_eq!(r.broken, Vec::<String>::new());
        assert!(
            r.text().contains("stood still 1 times, 0.9 s in all"),
            "{}",
            r.text()
        );
        (r.outcomes, r.stalls) = (vec![failed(1, 10.0)], vec![(s(30.0), s(34.0))]);
        r.judge(Ok(all()));
        let told = r.broken.join("; ");
        assert!(
            told.contains("too busy for a run") && told.contains("1 requests"),
            "{told}"
        );
    }

    #[test]
    fn a_request_without_a_record_or_with_two_is_noticed() {
        let both = [(0, 9.0, 12.0), (1, 9.5, 12.0)];
        for records in [vec![], vec![record(1), record(1)]] {
            let r = judged(vec![failed(1, 10.0)], &both, records);
            assert!(
                r.outcomes[0].wrong[0].contains("records"),
                "{:?}",
                r.outcomes[0].wrong
            );
        }
    }

    #[test]
    fn what_is_wrong_with_a_reload_or_not_given_back_breaks_the_run() {
        let mut r = judged(Vec::new(), &[], Vec::new());
        r.reloaded.push(Reloaded {
            wrong: vec!["its latency is unknown".into()],
            ..Reloaded::default()
        });
        r.settled
            .wrong
            .push("weir_requests_in_flight is 1 at rest".into());
        r.rest.1.threads = 1;
        r.not_sent = 2;
        r.judge(Ok(Records {
            wrong: vec!["the chain breaks".into()],
            ..Records::default()
        }));
        let told = r.broken.join("; ");
        for why in [
            "latency",
            "in_flight",
            "1 threads",
            "2 requests could not be sent",
            "the chain breaks",
        ] {
            assert!(told.contains(why), "{why}: {told}");
        }
    }
}
