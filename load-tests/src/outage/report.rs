//! What an outage adds up to.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Attempt, End, MOST_TRIES, Outage, Outcome, ROUTE, ROUTES, Records, TARGETS};
use crate::chaos::{Loaded, by_trace};
use crate::clock::us;
use crate::load::{Histogram, Summary};
use crate::timeline::Timeline;

/// A try of the target that was away, with when it began.
#[derive(Clone, Debug)]
struct Try {
    at: Duration,
    attempt: Attempt,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Report {
    outage: Outage,
    /// From when to when the provider was away.
    away: (Duration, Duration),
    outcomes: Vec<Outcome>,
    not_sent: u64,
    tries: Vec<Try>,
    /// Rules that are broken, one sentence each.
    pub broken: Vec<String>,
}

/// The target that is away, and the one that answers meanwhile.
fn names() -> (&'static str, &'static str) {
    let name = |at: Option<&usize>| at.and_then(|t| TARGETS.get(*t)).map_or("?", |t| t.name);
    let route = ROUTES.get(ROUTE);
    (
        name(route.and_then(|r| r.first.first())),
        name(route.and_then(|r| r.then.first())),
    )
}

impl Report {
    /// Judges it.
    pub(super) fn of(
        outage: &Outage,
        loaded: Loaded,
        away: (Duration, Duration),
        written: Result<Records, String>,
    ) -> Self {
        let mut out = Self {
            outage: *outage,
            away,
            outcomes: loaded.outcomes,
            not_sent: loaded.not_sent,
            tries: Vec::new(),
            broken: Vec::new(),
        };
        match written {
            Ok(records) => out.take(&records),
            Err(why) => out.broken.push(why),
        }
        out.rules();
        out
    }

    /// A refused connection is in no provider's log: what was tried is told by the gateway's records.
    fn take(&mut self, records: &Records) {
        self.broken
            .extend(records.wrong.iter().take(3).map(|w| format!("records: {w}")));
        let of = by_trace(records);
        for o in &self.outcomes {
            let own = of.get(o.call.trace(self.outage.seed).as_str());
            for record in own.into_iter().flatten() {
                for attempt in record.attempts.iter().filter(|a| a.target == names().0) {
                    self.tries.push(Try {
                        at: o.at.0 + Duration::from_micros(attempt.start_us),
                        attempt: attempt.clone(),
                    });
                }
            }
        }
    }

    fn rules(&mut self) {
        let mut broken = Vec::new();
        let failed = self.count(|o| !matches!(o.end, End::Whole | End::InBand));
        if failed > 0 {
            broken.push(format!("{failed} callers got no answer"));
        }
        let wrong = self.outcomes.iter().filter(|o| !o.wrong.is_empty());
        for o in wrong.take(3) {
            broken.push(format!("{}: {} {}", o.call.about(), o.wrong.join("; "), o.error));
        }
        if self.not_sent > 0 {
            broken.push(format!("{} requests could not be sent", self.not_sent));
        }
        let refused = self.refused();
        if refused > MOST_TRIES {
            broken.push(format!(
                "the dead provider was tried {refused} times, {MOST_TRIES} allowed"
            ));
        }
        let within = self.outage.back_within();
        match self.back() {
            Some(after) if after <= within => {}
            after => broken.push(format!(
                "in use again {} after its return, {:.1} s allowed",
                after.map_or("never".to_owned(), |a| format!("{:.1} s", a.as_secs_f64())),
                within.as_secs_f64()
            )),
        }
        self.broken.extend(broken);
    }

    fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.outcomes.iter().filter(|o| which(o)).count()
    }

    /// Tries that were begun while nobody listened.
    fn refused(&self) -> usize {
        self.dead_tries().count()
    }

    fn dead_tries(&self) -> impl Iterator<Item = &Try> {
        let (gone, back) = self.away;
        self.tries
            .iter()
            .filter(move |t| t.at >= gone && t.at < back && t.attempt.outcome != "ok")
    }

    /// From the return to the begin of the first try that was good.
    fn back(&self) -> Option<Duration> {
        let back = self.away.1;
        let good = self
            .tries
            .iter()
            .filter(|t| t.attempt.outcome == "ok" && t.at >= back);
        good.map(|t| t.at - back).min()
    }

    /// Requests that left before, while, and after it was away: how long they took.
    fn took(&self) -> [Summary; 3] {
        let (gone, back) = self.away;
        let mut of = [Histogram::default(), Histogram::default(), Histogram::default()];
        for o in &self.outcomes {
            let part = usize::from(o.at.0 >= gone) + usize::from(o.at.0 >= back);
            if let Some(h) = of.get_mut(part) {
                h.add(us(o.at.1.saturating_sub(o.at.0)));
            }
        }
        of.map(|h| h.summary())
    }

    fn timeline(&self) -> Timeline {
        let length = self.outage.length();
        let seconds = usize::try_from(length.as_secs()).unwrap_or(usize::MAX);
        let mut t = Timeline::new(length, seconds);
        let by = |name: &'static str| {
            let is = move |by: usize| TARGETS.get(by).is_some_and(|t| t.name == name);
            let whole = move |o: &&Outcome| o.end == End::Whole && o.by.is_some_and(is);
            self.outcomes.iter().filter(whole).map(|o| o.at.1)
        };
        let (first, second) = names();
        t.amounts(first, by(first));
        t.marks("  is dead", [(self.away.0, self.away.1, 'R')].into_iter());
        t.counts("  tried in vain", self.dead_tries().map(|t| t.at));
        t.amounts(second, by(second));
        let joined = self.outcomes.iter().filter(|o| o.joined && o.end == End::Whole);
        t.counts("joined", joined.map(|o| o.at.1));
        let ends = |end: End| self.outcomes.iter().filter(move |o| o.end == end).map(|o| o.at.1);
        t.counts("in band", ends(End::InBand));
        t.counts("errors", ends(End::Error).chain(ends(End::Lost)));
        t
    }

    /// For a script, on one line.
    pub fn json(&self) -> Value {
        let [before, during, after] = self.took();
        let (first, second) = names();
        json!({
            "ok": self.broken.is_empty(), "broken": self.broken, "seed": self.outage.seed, "rate": self.outage.rate,
            "dead": first, "answers": second, "away_s": [self.away.0.as_secs_f64(), self.away.1.as_secs_f64()],
            "requests": self.outcomes.len(), "whole": self.count(|o| o.end == End::Whole),
            "joined": self.count(|o| o.joined && o.end == End::Whole), "in_band": self.count(|o| o.end == End::InBand),
            "failed": self.count(|o| !matches!(o.end, End::Whole | End::InBand)),
            "tried_in_vain": self.refused(), "in_use_again_s": self.back().map(|d| d.as_secs_f64()),
            "took_ms": {"before": before, "while": during, "after": after}, "timeline": self.timeline().json(),
        })
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut out = self.timeline().print();
        let (first, _) = names();
        let _ = writeln!(
            out,
            "\n{} requests at {} a second: {} whole ({} of them begun by {first} and finished by another), {} in-band errors, {} \
             failed",
            self.outcomes.len(),
            self.outage.rate,
            self.count(|o| o.end == End::Whole),
            self.count(|o| o.joined && o.end == End::Whole),
            self.count(|o| o.end == End::InBand),
            self.count(|o| !matches!(o.end, End::Whole | End::InBand)),
        );
        let (gone, back) = self.away;
        let _ = writeln!(
            out,
            "{first} was away for {:.1} s: {} tries in vain meanwhile (by the records: a refused connection is in no log), in use again {} after its return",
            (back - gone).as_secs_f64(),
            self.refused(),
            self.back()
                .map_or("never".to_owned(), |d| format!("{:.2} s", d.as_secs_f64()))
        );
        for (what, s) in ["before", "while", "after"].iter().zip(self.took()) {
            let _ = writeln!(
                out,
                "{what:<7} {:>5} requests, took p50 {:.0} ms, p99 {:.0}, longest {:.0}",
                s.n, s.p50, s.p99, s.max
            );
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
    use crate::chaos::call::Call;
    use serde_json::json;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn outcome(n: u64, at: f64, right: bool) -> Outcome {
        let mut call = Call::to(ROUTE, 1, n);
        (call.stream, call.usage) = (false, false);
        let got = if right {
            Got {
                status: 200,
                id: format!("r{n}"),
                answered_by: "ladder-high".into(),
                models: vec!["lab-ladder-high".into()],
                ids: vec!["x".into()],
                text: call.words.clone(),
                finishes: vec!["stop".into()],
                ..Got::default()
            }
        } else {
            Got {
                status: 502,
                id: format!("r{n}"),
                error: Some(json!({"message": "m", "type": "t", "param": null, "code": "c"})),
                ..Got::default()
            }
        };
        Outcome::of(call, &got, (s(at), s(at + 0.1)))
    }

    fn records(tries: &[(u64, &str)]) -> Records {
        let all = tries.iter().map(|(n, outcome)| crate::records::Record {
            trace: format!("00-{}-01-01", Call::to(ROUTE, 1, *n).trace(1)),
            attempts: vec![Attempt {
                target: "ladder-low".into(),
                outcome: (*outcome).into(),
                ..Attempt::default()
            }],
            ..crate::records::Record::default()
        });
        Records {
            all: all.collect(),
            ..Records::default()
        }
    }

    fn report(outcomes: Vec<Outcome>, tries: &[(u64, &str)]) -> Report {
        let outage = Outage {
            seed: 1,
            rate: 10.0,
            away: s(10.0),
        };
        let loaded = Loaded {
            outcomes,
            ..Loaded::default()
        };
        Report::of(&outage, loaded, (s(5.0), s(15.0)), Ok(records(tries)))
    }

    #[test]
    fn an_outage_that_nobody_noticed() {
        let outcomes = vec![
            outcome(0, 1.0, true),
            outcome(1, 6.0, true),
            outcome(2, 19.0, true),
        ];
        let r = report(outcomes, &[(0, "ok"), (1, "target_fault"), (2, "ok")]);
        assert_eq!(
            (r.broken.len(), r.refused(), r.back()),
            (0, 1, Some(s(4.0))),
            "{:?}",
            r.broken
        );
        assert!(r.text().contains("in use again 4.00 s"), "{}", r.text());
        assert_eq!(r.json()["took_ms"]["while"]["n"], 1);
    }

    #[test]
    fn a_failed_caller_a_hammered_port_and_a_target_that_stays_away_are_told() {
        let r = report(vec![outcome(0, 6.0, false)], &[]);
        let told = r.broken.join("; ");
        assert!(
            told.contains("1 callers got no answer") && told.contains("never after its return"),
            "{told}"
        );
        let many: Vec<Outcome> = (0..30).map(|n| outcome(n, 7.0, true)).collect();
        let tries: Vec<(u64, &str)> = (0..30).map(|n| (n, "target_fault")).collect();
        assert!(report(many, &tries).broken.join("; ").contains("tried 30 times"));
    }
}
