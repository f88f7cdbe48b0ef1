//! A seed makes a world.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Arrival, Mood, Scenario, Server};
use crate::balance::mix;
use crate::plan;
use crate::units::Time;

/// Where the clock stands when a world begins.
const BEGIN: Time = Time(1_000_000);

/// Draws.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }
    fn pick<X: Copy>(&mut self, from: [X; 4]) -> X {
        let [a, b, c, d] = from;
        match self.below(4) {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        }
    }
}

/// The world of a seed.
///
/// # Panics
/// When the plan that it writes does not load: a mistake in this file.
#[expect(clippy::expect_used, reason = "a plan of our own making")]
pub fn scenario(seed: u64) -> Scenario {
    let mut r = Rng(seed.wrapping_mul(1_000_003));
    let mut text =
        String::from("version = 1\n[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n");
    let (mut tiers, mut servers) = (Vec::new(), Vec::new());
    for tier in 0..1 + r.below(3) {
        let mut names = Vec::new();
        for i in 0..1 + r.below(3) {
            let name = format!("t{tier}-{i}");
            let _ = write!(text, "[targets.{name}]\nprovider = \"p\"\nmodel = \"{name}\"\n");
            if r.one_in(6) {
                let _ = writeln!(text, "limits = {{ concurrency = {} }}", 1 + r.below(8));
            }
            if r.one_in(3) {
                let _ = writeln!(text, "weight = {}", 1 + r.below(4));
            }
            names.push(format!("{name:?}"));
            servers.push(server(&mut r));
        }
        tiers.push(format!("[{}]", names.join(", ")));
    }
    let (open, window) = (
        r.pick([500, 1_000, 5_000, 5_000]),
        r.pick([2_000, 10_000, 10_000, 30_000]),
    );
    let _ = write!(
        text,
        "[routes.auto]\ntiers = [{}]\nstart = \"{}\"\nverify = []\ndegrade = []\ncontinue = \"never\"\n\
         [timeouts]\nfirst_token_ms = {}\nattempt_ms = {}\n\
         [retry]\nmax_attempts = {}\nsame_target = {}\nbackoff = {{ base_ms = 50, max_ms = 400 }}\n\
         budget = {{ ratio = {}, min_per_second = {} }}\nhonor_retry_after_ms = {}\n\
         [breaker]\nfailure_ratio = {}\nmin_requests = {}\nwindow_ms = {window}\nconsecutive_failures = {}\nopen_ms = {open}\n\
         max_open_ms = {}\nprobes = {}\n",
        tiers.join(", "),
        r.pick(["first", "first", "first", "last"]),
        r.pick([500, 1_000, 3_000, 10_000]),
        r.pick([2_000, 5_000, 20_000, 20_000]),
        r.pick([1, 2, 4, 12]),
        r.pick([0, 1, 1, 2]),
        r.pick(["0.0", "0.1", "0.2", "1.0"]),
        r.pick([0, 1, 5, 50]),
        r.pick([0, 1_000, 5_000, 5_000]),
        r.pick(["0.2", "0.5", "0.5", "1.0"]),
        r.pick([5, 20, 20, 100]),
        r.pick([2, 5, 5, 9]),
        open * r.pick([1, 2, 4, 12]),
        r.pick([1, 1, 2, 3]),
    );
    // From draws of its own: the worlds of older seeds stay what they were.
    let mut h = Rng(seed.wrapping_mul(7_777_777) ^ 0x4ed6e);
    if seed % 4 == 1 {
        let _ = write!(
            text,
            "[hedge]\nenabled = true\nafter_quantile = {}\nmax_ratio = {}\n",
            h.pick(["0.5", "0.8", "0.9", "0.95"]),
            h.pick(["0.02", "0.05", "0.2", "1.0"]),
        );
    }
    if seed % 4 == 2 {
        text = richer(&text, seed);
    }
    let plan = plan::load(&text).expect("the plan of a world loads").plan;
    Scenario {
        plan,
        servers,
        arrivals: arrivals(&mut r),
        seed: r.next(),
    }
}

/// Streams that break are gone on with, and there is a ladder; in every second one answers are judged too, and in every
/// second one requests begin at the top, so that the ladder has rungs. From draws of its own, like hedges.
fn richer(text: &str, seed: u64) -> String {
    let mut h = Rng(seed.wrapping_mul(7_777_777) ^ 0x1adde4);
    let verify = if h.one_in(2) { "[\"finish\"]" } else { "[]" };
    let route = format!(
        "verify = {verify}\ndegrade = [\"weaker\"]\ndegrade_floor = 0.0\ncontinue = \"{}\"\n",
        h.pick(["stronger", "stronger", "any", "any"])
    );
    let text = text.replace("verify = []\ndegrade = []\ncontinue = \"never\"\n", &route);
    if h.one_in(2) {
        text.replace("start = \"first\"", "start = \"last\"")
    } else {
        text
    }
}

fn mood(r: &mut Rng) -> Mood {
    match r.below(12) {
        0 | 1 => Mood::Down,
        2 | 3 => Mood::Broken(r.ms(1, 200)),
        4 => Mood::Silent,
        5 => Mood::Limited(None),
        6 => Mood::Limited(Some(r.ms(10, 8_000))),
        7 => Mood::Cuts(r.ms(1, 300)),
        _ => well(r),
    }
}

fn well(r: &mut Rng) -> Mood {
    let first = r.ms(1, 300);
    Mood::Well {
        first,
        whole: first + r.ms(0, 1_500),
    }
}

fn server(r: &mut Rng) -> Server {
    let mut phases = vec![(Time(0), if r.one_in(5) { mood(r) } else { well(r) })];
    let mut at = BEGIN;
    for _ in 0..r.below(5) {
        at = at + r.ms(500, 25_000);
        phases.push((at, mood(r)));
    }
    Server { phases }
}

fn arrivals(r: &mut Rng) -> Vec<Arrival> {
    let mut at = BEGIN;
    let streams = r.below(4);
    let impatient = r.one_in(3);
    let mut out = Vec::new();
    // Steady, in bursts, or with pauses.
    let gap = r.pick([20, 100, 400, 1_500]);
    for _ in 0..60 + r.below(200) {
        at = at
            + match r.below(20) {
                0 => r.ms(0, gap * 20),
                1..=6 => Duration::ZERO,
                _ => r.ms(1, gap),
            };
        out.push(Arrival {
            at,
            stream: r.below(4) < streams,
            patience: if impatient && r.one_in(3) {
                r.ms(50, 3_000)
            } else {
                Duration::from_secs(600)
            },
            leaves: (impatient && r.one_in(4)).then(|| r.ms(1, 2_000)),
            resent: r.one_in(10),
        });
    }
    out
}
