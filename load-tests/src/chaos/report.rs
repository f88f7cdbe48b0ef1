//! What a run adds up to: judged, as JSON, and for people with its timeline.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::house::{House, PROVIDERS, TARGETS};
use super::judge::{self, End};
use super::schedule::{Place, What};
use super::settle::{by_trace, compare};
use super::{
    Chaos, Excuse, Gateway, Histogram, Outcome, Records, Reloaded, Sample, Schedule, Settled, Slope,
};
use super::{Ways, Window, us};
use crate::provider::Entry;
use crate::records;
use crate::soak::Bounds;
use crate::timeline::Timeline;

/// Requests that are shown in detail.
const SHOWN: usize = 5;
/// A run that is shorter says nothing of a slope: what the process needs at all is still being learned.
const SLOPE_FROM: Duration = Duration::from_secs(300);
/// Idle connections to providers that a gateway may have more than at its start.
const POOLED: u64 = 512;

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
    fn all(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().chain(&self.settled.outcomes)
    }

    fn accepted(&self) -> Vec<(Duration, Duration)> {
        self.reloaded
            .iter()
            .filter(|r| r.accepted)
            .map(|r| r.at)
            .collect()
    }

    /// Applies what can be judged only now: ways, records, and the rules about the whole.
    pub fn judge(&mut self, written: Result<Records, String>) {
        let ways = Ways::new(&self.windows, &self.accepted(), TARGETS.len());
        let empty = Records::default();
        let found = written.as_ref().unwrap_or(&empty);
        let of = by_trace(found);
        let seed = self.chaos.seed;
        for o in self.outcomes.iter_mut().chain(&mut self.settled.outcomes) {
            let (route, (began, ended)) = (o.call.route(), o.at);
            o.had_a_way = ways.had_a_way(route, began, ended);
            if o.end == End::Error {
                match ways.judge(route, o.status, began, ended) {
                    Ok(excuse) => o.excuse = Some(excuse),
                    Err(why) => o.wrong.push(format!("status {} {why}", o.status)),
                }
            }
            // A stream breaks only where a fault was on at somebody who may have written it.
            if o.end == End::InBand && !route.targets().any(|t| ways.faulty(t, began, ended)) {
                o.wrong
                    .push("an error in band, though every target was well".to_owned());
            }
            // Who is off is no part of the cascade, and without it nothing is degraded.
            let may_be_off = route.first.iter().any(|t| ways.may_be_off(*t, began, ended));
            let unmarked = o.by.is_some_and(|by| judge::is_weaker(&o.call, by)) && !o.degraded;
            if o.end == End::Whole && unmarked && !may_be_off {
                o.wrong
                    .push("the last resort answered, and nothing says that it is degraded".to_owned());
            }
            if written.is_ok() {
                let trace = o.call.trace(seed);
                let own = of.get(trace.as_str()).map(Vec::as_slice).unwrap_or_default();
                o.wrong.extend(compare(o, own));
            }
        }
        self.rules(written.map(|r| r.wrong));
    }

    fn rules(&mut self, records: Result<Vec<String>, String>) {
        let mut broken = Vec::new();
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
            Ok(wrong) => broken.extend(wrong.into_iter().take(SHOWN).map(|w| format!("records: {w}"))),
            Err(why) => broken.push(why),
        }
        for r in self.reloaded.iter().filter(|r| !r.wrong.is_empty()).take(SHOWN) {
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

    /// Looks up the first broken requests, and the first of those that are well worth a look.
    pub(super) fn look_up(&mut self, gateway: &Gateway, house: &House) {
        self.details = self.explain(gateway, house, |o| !o.wrong.is_empty());
        self.aftermath = self.explain(gateway, house, |o| o.excuse == Some(Excuse::Aftermath));
        self.not_gone_on = self.explain(gateway, house, Outcome::not_gone_on);
    }

    /// Some requests: what was asked, what came, what was switched on, what the record and the providers say.
    fn explain(&self, gateway: &Gateway, house: &House, which: impl Fn(&Outcome) -> bool) -> String {
        let first: Vec<&Outcome> = self.all().filter(|o| which(o)).take(SHOWN).collect();
        let ids: Vec<&str> = first.iter().map(|o| o.id.as_str()).collect();
        let lines = records::whole_lines(&gateway.home().join("records"), &ids);
        let mut out = String::new();
        for o in first {
            let at = |d: Duration| d.as_secs_f64();
            let _ = writeln!(
                out,
                "{}: {} to {:.3} s, {:?}, status {} {} {}",
                o.call.about(),
                format_args!("{:.3}", at(o.at.0)),
                at(o.at.1),
                o.end,
                o.status,
                o.id,
                o.error
            );
            for wrong in &o.wrong {
                let _ = writeln!(out, "    {wrong}");
            }
            for w in self.near(o) {
                let _ = writeln!(
                    out,
                    "    on: {} {} {:.3} to {:.3} s{}",
                    w.place.name(),
                    w.what.name(),
                    at(w.from),
                    at(w.to),
                    w.share.map(|s| format!(", a share of {s}")).unwrap_or_default()
                );
            }
            for entry in seen(house, &o.call.trace(self.chaos.seed)) {
                let _ = writeln!(out, "    {entry}");
            }
            let record = lines.iter().find(|(id, _)| *id == o.id);
            let _ = match record {
                Some((_, line)) => writeln!(out, "    record: {line}"),
                None => writeln!(out, "    no record"),
            };
        }
        out
    }

    /// Windows of the targets of a request, around its life.
    fn near<'a>(&'a self, o: &'a Outcome) -> impl Iterator<Item = &'a Window> {
        let around = Duration::from_secs(8);
        self.windows
            .iter()
            .filter(move |w| w.from <= o.at.1 && w.to + around >= o.at.0)
            .filter(|w| {
                w.place
                    .targets()
                    .any(|t| o.call.route().targets().any(|of| of == t))
            })
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

    /// Excused errors, by excuse: every target had a fault on it; one only felt an earlier one; a target refused.
    fn excused(&self) -> [usize; 3] {
        [Excuse::Faults, Excuse::Aftermath, Excuse::Refusal].map(|e| self.count(|o| o.excuse == Some(e)))
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
        let [by_faults, aftermath, refusal] = self.excused();
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
                "joined": self.count(|o| o.joined && o.end == End::Whole), "degraded": self.count(|o| o.degraded),
                "excused": {"faults": by_faults, "aftermath": aftermath, "refusal": refusal},
                "not_gone_on": self.count(Outcome::not_gone_on),
                "answered_by": self.answered_by(), "took_ms": self.took().summary(), "late_ms": self.late.summary()},
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
        let [by_faults, aftermath, refusal] = self.excused();
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
            "{} had a way left all the time; errors {:?}: {by_faults} where every target had a fault on it, {aftermath} in the \
             aftermath of one, {refusal} refusals passed on",
            self.count(|o| o.had_a_way),
            self.by_status()
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
            "took p50 {:.0} ms, p99 {:.0}, longest {:.0}; left late by p99 {:.1} ms",
            took.p50, took.p99, took.max, late.p99
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

/// What the providers saw of a request, a line each.
fn seen(house: &House, trace: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (at, (name, _)) in PROVIDERS.iter().enumerate() {
        let of = |e: &Entry| e.headers.get("traceparent").is_some_and(|t| t.contains(trace));
        let entries = house.provider(at).map(|p| p.log().select(of)).unwrap_or_default();
        for e in entries {
            out.push(format!(
                "{name} saw: {} status {}, {} of {} tokens, {:?}, {} ms",
                e.model,
                e.status,
                e.tokens_sent,
                e.tokens_planned,
                e.ended,
                e.ended_us.map_or(0, |end| end.saturating_sub(e.began_us) / 1_000)
            ));
        }
    }
    out
}
