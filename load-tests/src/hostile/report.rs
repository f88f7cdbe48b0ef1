//! What came of it.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::Tally;

/// The bound on p95 under attack, in multiples of its quiet value.
const TIMES: u64 = 3;
/// Less than this is the machine's own noise.
const NOISE_US: u64 = 20_000;

/// The polite caller, in one part.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// Requests.
    pub asked: u64,
    /// Answered whole.
    pub whole: u64,
    /// 95th percentile of these, in microseconds.
    pub p95_us: u64,
    /// What came of some others.
    pub failed: Vec<String>,
}

impl Phase {
    fn json(&self) -> Value {
        json!({"asked": self.asked, "whole": self.whole, "p95_us": self.p95_us})
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Alone.
    pub quiet: Phase,
    /// Under attack.
    pub under: Phase,
    /// Alone again.
    pub after: Phase,
    /// What each attack did: its own count of connections, requests or frames.
    pub attacks: Vec<(&'static str, Tally)>,
    /// What is left of them.
    pub left: Vec<String>,
    /// Connections that were turned away.
    pub refused: f64,
    /// Readers that were let go.
    pub stalled: f64,
    /// What is broken, one sentence each.
    pub broken: Vec<String>,
}

impl Report {
    /// Finds what is broken.
    pub fn judge(&mut self) {
        for (name, phase) in [
            ("quiet", &self.quiet),
            ("under attack", &self.under),
            ("afterwards", &self.after),
        ] {
            if phase.whole < phase.asked || phase.asked == 0 {
                let sentence = format!(
                    "{name}: {} of {} polite requests were not answered whole: {:?}",
                    phase.asked - phase.whole,
                    phase.asked,
                    phase.failed
                );
                self.broken.push(sentence);
            }
        }
        let most = (self.quiet.p95_us * TIMES).max(self.quiet.p95_us + NOISE_US);
        if self.under.p95_us > most {
            let sentence = format!(
                "p95 under attack {} us, {} us quiet: more than {TIMES} times",
                self.under.p95_us, self.quiet.p95_us
            );
            self.broken.push(sentence);
        }
        let idle = self
            .attacks
            .iter()
            .filter(|(_, n)| n.load(Ordering::Relaxed) == 0);
        let idle: Vec<&str> = idle.map(|(name, _)| *name).collect();
        if !idle.is_empty() {
            self.broken
                .push(format!("these attacks did nothing: {}", idle.join(", ")));
        }
        self.broken
            .extend(self.left.iter().map(|l| format!("left behind: {l}")));
    }

    /// For a script.
    pub fn json(&self) -> Value {
        let attacks: serde_json::Map<String, Value> = self
            .attacks
            .iter()
            .map(|(name, n)| ((*name).to_owned(), json!(n.load(Ordering::Relaxed))))
            .collect();
        json!({
            "quiet": self.quiet.json(), "under": self.under.json(), "after": self.after.json(), "attacks": attacks,
            "connections_refused": self.refused, "readers_let_go": self.stalled, "broken": self.broken,
        })
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut out = String::from("polite caller        asked   whole      p95\n");
        for (name, phase) in [
            ("alone", &self.quiet),
            ("under attack", &self.under),
            ("afterwards", &self.after),
        ] {
            let ms = phase.p95_us as f64 / 1e3;
            let _ = writeln!(
                out,
                "{name:<18} {:>7} {:>7} {ms:>6.1} ms",
                phase.asked, phase.whole
            );
        }
        out.push_str("\nattacks, all at once (what each did)\n");
        for (name, n) in &self.attacks {
            let _ = writeln!(out, "{name:<34} {:>9}", n.load(Ordering::Relaxed));
        }
        let _ = writeln!(
            out,
            "\n{} connections turned away, {} readers let go; left behind: {}",
            self.refused,
            self.stalled,
            if self.left.is_empty() {
                "nothing"
            } else {
                "see below"
            }
        );
        for broken in &self.broken {
            let _ = writeln!(out, "BROKEN: {broken}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_slow_or_left_is_told() {
        let fine = Phase {
            asked: 10,
            whole: 10,
            p95_us: 30_000,
            failed: Vec::new(),
        };
        let mut good = Report {
            quiet: fine.clone(),
            under: Phase {
                p95_us: 90_000,
                ..fine.clone()
            },
            after: fine.clone(),
            ..Report::default()
        };
        good.judge();
        assert!(good.broken.is_empty(), "{:?}", good.broken);
        let mut bad = Report {
            under: Phase {
                whole: 9,
                p95_us: 90_001,
                ..fine.clone()
            },
            attacks: vec![("none", Tally::default())],
            left: vec!["x".to_owned()],
            ..good
        };
        bad.judge();
        assert_eq!(bad.broken.len(), 4, "{:?}", bad.broken);
    }
}
