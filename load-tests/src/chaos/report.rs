//! What a run adds up to: judged, as JSON, and for people with its timeline.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::house::TARGETS;
use super::judge::End;
use super::rules::SLOPE_FROM;
use super::schedule::{Place, What};
use super::{Chaos, Excuse, Histogram, Outcome, Reloaded, Sample, Schedule, Settled, Slope, Window, us};
use crate::timeline::Timeline;

/// How it went.
pub struct Report {
    /// The settings.
    pub chaos: Chaos,
    /// What was to happen.
    pub schedule: Schedule,
    /// Windows as they were switched.
    pub windows: Vec<Window>,
    /// Reloads as they went.
    pub reloaded: Vec<Reloaded>,
    /// Every request of the load.
    pub outcomes: Vec<Outcome>,
    /// Not sent, because too many were under way.
    pub not_sent: u64,
    /// How late requests left: when this is not small the generator was too slow, and the run says less than it seems.
    pub late: Histogram,
    /// When this machine stood still.
    pub stalls: Vec<(Duration, Duration)>,
    /// Growth of RSS over the second half.
    pub rss: Option<Slope>,
    /// The process at rest, at the start and at the end.
    pub rest: (Sample, Sample),
    /// Samples with seconds since the start.
    pub samples: Vec<(f64, Sample)>,
    /// What was found after the healing.
    pub settled: Settled,
    /// Records that were read.
    pub records: usize,
    /// Files of records.
    pub record_files: usize,
    /// Rules that are broken, one sentence each; empty when all is fine.
    pub broken: Vec<String>,
    /// The first broken requests, in full.
    pub details: String,
    /// Likewise, the first errors that are excused only by what an earlier fault left behind.
    pub aftermath: String,
    /// Likewise, the first streams that ended in an error though somebody who was well might have gone on with them.
    pub not_gone_on: String,
}

impl Report {
    /// Every request, those of the end included.
    pub(super) fn all(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().chain(&self.settled.outcomes)
    }

    fn timeline(&self) -> Timeline {
        let mut t = Timeline::new(self.chaos.length, 120);
        for (at, target) in TARGETS.iter().enumerate() {
            let by = self
                .outcomes
                .iter()
                .filter(|o| o.end == End::Whole && o.by == Some(at));
            t.amounts(target.name, by.map(|o| o.at.1));
            let of = self.windows.iter().filter(|w| w.place.targets().any(|t| t == at));
            let mut marks: Vec<&Window> = of.collect();
            // What a whole provider does is what counts.
            marks.sort_by_key(|w| matches!(w.place, Place::Provider(_)));
            t.marks("", marks.into_iter().map(|w| (w.from, w.to, w.what.letter())));
        }
        let ends = |end: End| self.outcomes.iter().filter(move |o| o.end == end).map(|o| o.at.1);
        t.marks(
            "stood still",
            self.stalls.iter().map(|(from, to)| (*from, *to, '!')),
        );
        t.counts("errors", ends(End::Error));
        t.counts("in band", ends(End::InBand));
        let joined = self.outcomes.iter().filter(|o| o.joined && o.end == End::Whole);
        t.counts("joined", joined.map(|o| o.at.1));
        t.counts(
            "not right",
            self.outcomes
                .iter()
                .filter(|o| !o.wrong.is_empty())
                .map(|o| o.at.1),
        );
        let plans = self
            .reloaded
            .iter()
            .map(|r| (r.at.0, r.at.0, if r.refused { 'x' } else { '|' }));
        t.marks("reloads", plans.filter(|(at, ..)| *at <= self.chaos.length));
        t
    }

    fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.outcomes.iter().filter(|o| which(o)).count()
    }

    fn by_status(&self) -> BTreeMap<u16, usize> {
        let mut out = BTreeMap::new();
        for o in self.outcomes.iter().filter(|o| o.end == End::Error) {
            *out.entry(o.status).or_default() += 1;
        }
        out
    }

    fn answered_by(&self) -> BTreeMap<&'static str, usize> {
        let mut out = BTreeMap::new();
        for o in self.outcomes.iter().filter(|o| o.end == End::Whole) {
            let name = o.by.and_then(|by| TARGETS.get(by)).map_or("?", |t| t.name);
            *out.entry(name).or_default() += 1;
        }
        out
    }

    fn took(&self) -> Histogram {
        let mut h = Histogram::default();
        for o in self.outcomes.iter().filter(|o| o.end != End::Left) {
            h.add(us(o.at.1.saturating_sub(o.at.0)));
        }
        h
    }

    fn excused(&self, why: Excuse) -> usize {
        self.count(|o| o.excuse == Some(why))
    }

    /// For how long this machine stood still.
    pub(super) fn stood_still(&self) -> Duration {
        self.stalls
            .iter()
            .map(|(from, to)| to.saturating_sub(*from))
            .sum()
    }

    fn breakers(&self) -> (usize, usize) {
        let sum = |f: fn(&Reloaded) -> usize| self.reloaded.iter().map(f).sum();
        (sum(|r| r.open), sum(|r| r.kept))
    }

    fn switched(&self) -> [usize; 3] {
        let count = |f: fn(&What) -> bool| self.windows.iter().filter(|w| f(&w.what)).count();
        [
            count(|w| matches!(w, What::Fault(_))),
            count(|w| matches!(w, What::Habit(_))),
            count(|w| matches!(w, What::State(_))),
        ]
    }

    /// For a script, on one line.
    pub fn json(&self) -> Value {
        let ends = [End::Whole, End::InBand, End::Error, End::Left, End::Lost];
        let ends: BTreeMap<&str, usize> = ends
            .iter()
            .map(|e| (e.word(), self.count(|o| o.end == *e)))
            .collect();
        let [faults, habits, states] = self.switched();
        let (open, kept) = self.breakers();
        let back: BTreeMap<&str, f64> = self
            .settled
            .back
            .iter()
            .map(|(name, after)| (*name, after.as_secs_f64()))
            .collect();
        json!({
            "ok": self.broken.is_empty(), "broken": self.broken, "seed": self.chaos.seed,
            "seconds": self.chaos.length.as_secs_f64(), "rate": self.chaos.rate,
            "requests": {"sent": self.outcomes.len(), "not_sent": self.not_sent, "ends": ends, "status": self.by_status(),
                "not_right": self.count(|o| !o.wrong.is_empty()), "had_a_way": self.count(|o| o.had_a_way),
                "had_a_sound_target": self.count(|o| o.had_a_sound_target),
                "joined": self.count(|o| o.joined && o.end == End::Whole), "degraded": self.count(|o| o.degraded),
                "excused": {"faults": self.excused(Excuse::Faults), "off": self.excused(Excuse::Off),
                    "aftermath": self.excused(Excuse::Aftermath), "refusal": self.excused(Excuse::Refusal)},
                "not_gone_on": self.count(Outcome::not_gone_on),
                "answered_by": self.answered_by(), "took_ms": self.took().summary(), "late_ms": self.late.summary()},
            "stood_still": {"times": self.stalls.len(), "seconds": self.stood_still().as_secs_f64()},
            "switched": {"faults": faults, "habits": habits, "states": states},
            "reloads": {"accepted": self.reloaded.iter().filter(|r| r.accepted).count(),
                "refused": self.reloaded.iter().filter(|r| r.refused).count(), "open_breakers": open, "seen_kept": kept},
            "back_s": back, "held": self.settled.held,
            "records": {"read": self.records, "files": self.record_files},
            "rss_slope_mb_per_hour": self.rss.map(|s| s.mb_per_hour()),
            "rss_slope_standard_error_mb_per_hour": self.rss.map(|s| s.standard_error_mb_per_hour()),
            "rest": {"before": self.rest.0, "after": self.rest.1},
            "samples": self.samples.iter().map(|(t, s)| json!([t, s.rss_bytes, s.files, s.threads])).collect::<Vec<_>>(),
            "schedule": self.schedule.windows, "timeline": self.timeline().json(), "details": self.details,
            "aftermath": self.aftermath, "not_gone_on": self.not_gone_on,
        })
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut out = self.timeline().print();
        let _ = writeln!(out, "{}\n", What::LETTERS);
        let count = |end: End| self.count(|o| o.end == end);
        let [faults, habits, states] = self.switched();
        let _ = writeln!(
            out,
            "{} requests in {:.0} s, seed {}: {} whole ({} by more than one, {} degraded), {} in-band errors, {} errors, {} left, {} lost",
            self.outcomes.len(),
            self.chaos.length.as_secs_f64(),
            self.chaos.seed,
            count(End::Whole),
            self.count(|o| o.joined && o.end == End::Whole),
            self.count(|o| o.degraded),
            count(End::InBand),
            count(End::Error),
            count(End::Left),
            count(End::Lost),
        );
        let _ = writeln!(
            out,
            "{} had a way left all the time, and so no excuse for an error. {} had a target that was on and without a fault: {} of \
             them got an error in the aftermath of an earlier one",
            self.count(|o| o.had_a_way),
            self.count(|o| o.had_a_sound_target),
            self.excused(Excuse::Aftermath),
        );
        let _ = writeln!(
            out,
            "errors {:?}: {} where every target had a fault on it, {} where the others were off until a reload, {} refusals passed on",
            self.by_status(),
            self.excused(Excuse::Faults),
            self.excused(Excuse::Off),
            self.excused(Excuse::Refusal),
        );
        let _ = writeln!(
            out,
            "in-band errors though a target that might have gone on was well all the time: {}",
            self.count(Outcome::not_gone_on)
        );
        let (open, kept) = self.breakers();
        let _ = writeln!(
            out,
            "switched on and off: {faults} faults of targets, {habits} habits, {states} states of providers; reloads: {} accepted, \
             {} refused; {open} breakers were open at one, {kept} of them seen open until the same moment after it",
            self.reloaded.iter().filter(|r| r.accepted).count(),
            self.reloaded.iter().filter(|r| r.refused).count(),
        );
        let (took, late) = (self.took().summary(), self.late.summary());
        let _ = writeln!(
            out,
            "took p50 {:.0} ms, p99 {:.0}, longest {:.0}; left late by p99 {:.1} ms; this machine stood still {} times, {:.1} s in all",
            took.p50,
            took.p99,
            took.max,
            late.p99,
            self.stalls.len(),
            self.stood_still().as_secs_f64()
        );
        let back: Vec<String> = self
            .settled
            .back
            .iter()
            .map(|(name, after)| format!("{name} {:.2}", after.as_secs_f64()))
            .collect();
        let _ = writeln!(
            out,
            "in use again after the healing, in seconds: {}",
            back.join(", ")
        );
        let _ = writeln!(out, "records: {} in {} files", self.records, self.record_files);
        let (b, a) = self.rest;
        let _ = writeln!(
            out,
            "at rest before / after: RSS {:.1} / {:.1} MB, files {} / {}, threads {} / {}",
            b.rss_bytes as f64 / 1e6,
            a.rss_bytes as f64 / 1e6,
            b.files,
            a.files,
            b.threads,
            a.threads
        );
        if let Some(s) = &self.rss {
            let judged = if self.chaos.length < SLOPE_FROM {
                " (not judged: the run is too short)"
            } else {
                ""
            };
            let _ = writeln!(
                out,
                "RSS over the second half: {:+.2} MB/h, standard error {:.2}, {} samples{judged}",
                s.mb_per_hour(),
                s.standard_error_mb_per_hour(),
                s.n
            );
        }
        if !self.broken.is_empty() {
            let _ = write!(out, "\n{}", self.details);
            for sentence in &self.broken {
                let _ = writeln!(out, "BROKEN: {sentence}");
            }
        }
        out
    }

    /// What was switched on and off, a line each.
    pub fn printed_schedule(&self) -> String {
        let mut out = String::new();
        for w in &self.windows {
            let share = w.share.map(|s| format!(" for {s}")).unwrap_or_default();
            let _ = writeln!(
                out,
                "{:>7.2} to {:>7.2} s  {:<16} {}{share}",
                w.from.as_secs_f64(),
                w.to.as_secs_f64(),
                w.place.name(),
                w.what.name()
            );
        }
        out
    }
}
