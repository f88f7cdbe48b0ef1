//! Requests in full: what was asked, what came, what was switched on, what the record and the providers say.

use std::fmt::Write as _;
use std::time::Duration;

use super::house::{House, PROVIDERS};
use super::{Excuse, Gateway, Outcome, Report, Window};
use crate::provider::Entry;
use crate::records;

/// Requests of one kind that are shown.
const SHOWN: usize = 5;

impl Report {
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
