//! The bound in worlds that are made to break it. A world settles whether the cached answer would be wrong before each look-up,
//! knowing everything that came before; then the coin is thrown.

use super::evidence::MISS;
use super::*;
use crate::balance::{mix, unit};
use crate::units::Time;

const ENTRIES: usize = 40;

/// What a world may look at: what the entry has shown so far.
#[derive(Clone, Copy, Default)]
struct Past {
    /// Explorations in a row that were the same.
    good: u32,
    /// Hits since the last exploration.
    hits: u32,
}

#[derive(Clone, Copy, Debug)]
enum World {
    /// The more alike, the likelier right.
    Honest,
    /// The more alike, the likelier wrong.
    Inverted,
    /// Right for half of the time, then always wrong.
    Turncoat,
    /// Wrong as soon as an entry has shown itself to be good.
    Flatterer,
    /// Wrong in a share of cases that no similarity shows.
    Noisy,
    /// Wrong whenever the entry has hit before without being looked at.
    Sneak,
}

const WORLDS: [World; 6] = [
    World::Honest,
    World::Inverted,
    World::Turncoat,
    World::Flatterer,
    World::Noisy,
    World::Sneak,
];

impl World {
    fn wrong(self, similarity: f64, past: Past, progress: f64, draw: f64) -> bool {
        match self {
            World::Honest => draw < (0.97 - similarity).max(0.0) * 2.0,
            World::Inverted => draw < (similarity - 0.75).max(0.0) * 3.0,
            World::Turncoat => progress > 0.5,
            World::Flatterer => past.good >= 8,
            World::Noisy => draw < 0.03,
            World::Sneak => past.hits >= 2,
        }
    }
}

struct Seen {
    hits: u64,
    wrong: u64,
    /// At some time wrong answers were more than allowed.
    broken: bool,
}

fn play(world: World, seed: u64, max_error_rate: f64, lookups: u64, miss: f64) -> Seen {
    let mut store = Semantic::new(Limits {
        guards: false,
        miss,
        ..Limits::default()
    });
    let partitions: Vec<Partition> = (0..ENTRIES as u64)
        .map(|n| {
            Partition::of(&Parts {
                tenant: "t",
                policy: 1,
                space: "plane",
                context: &n.to_le_bytes(),
                tools: b"",
                parameters: b"",
                language: [0; 2],
            })
            .unwrap()
        })
        .collect();
    let own = Vector::of(&[1.0, 0.0]).unwrap();
    for partition in &partitions {
        let question = Question {
            partition,
            text: "own",
            vector: &own,
            max_error_rate,
        };
        store.insert(question, (), 0, Time::NEVER);
    }
    let mut rng = mix(seed);
    let mut draw = || {
        rng = mix(rng);
        rng
    };
    let mut pasts = [Past::default(); ENTRIES];
    let mut seen = Seen {
        hits: 0,
        wrong: 0,
        broken: false,
    };
    for n in 1..=lookups {
        // Some entries are asked for far more often than others.
        let at = (unit(draw()).powi(3) * ENTRIES as f64) as usize;
        let similarity = 0.75 + 0.24 * unit(draw());
        let past = pasts[at];
        let wrong = world.wrong(similarity, past, n as f64 / lookups as f64, unit(draw()));
        let vector = Vector::of(&[similarity as f32, (1.0 - similarity * similarity).sqrt() as f32]).unwrap();
        let question = Question {
            partition: &partitions[at],
            text: "other",
            vector: &vector,
            max_error_rate,
        };
        match store.look(question, Time(0), draw()) {
            Look::Hit { .. } => {
                seen.hits += 1;
                seen.wrong += u64::from(wrong);
                pasts[at].hits += 1;
            }
            Look::Explore { trial, .. } => {
                let same = !wrong || unit(draw()) < miss;
                store.learn(&trial, if same { Verdict::Same } else { Verdict::Different });
                pasts[at].hits = 0;
                pasts[at].good = if same { past.good + 1 } else { 0 };
            }
            Look::Repeat(()) | Look::Miss { .. } => panic!("every look-up has its candidate"),
        }
        seen.broken |= seen.wrong as f64 > max_error_rate * n as f64;
    }
    seen
}

/// With probability 95% the bound holds at all times, in each world by itself.
#[test]
fn the_bound_holds_whatever_the_world_does() {
    const SEEDS: u64 = 16;
    for world in WORLDS {
        for (rate, miss) in [(0.05, 0.0), (0.02, MISS), (0.01, 0.0)] {
            let broken = (0..SEEDS)
                .filter(|seed| play(world, *seed, rate, 6_000, miss).broken)
                .count();
            // More than 4 of 16 at 5% each: once in a thousand such tests, and the seeds do not change.
            assert!(
                broken <= 4,
                "{world:?} at {rate}: broken with {broken} of {SEEDS} seeds"
            );
        }
    }
}

/// The bound is not kept by never hitting.
#[test]
fn a_world_that_means_well_is_hit() {
    let seen = play(World::Honest, 7, 0.02, 20_000, 0.0);
    assert!(seen.hits > 1_000, "{} hits", seen.hits);
    assert!(
        seen.wrong > 0,
        "a world in which nothing can go wrong shows nothing"
    );
}

/// What the entries' own estimates allow, without the governor, is more than the bound: it is the governor that keeps it.
#[test]
fn estimates_alone_do_not_keep_it() {
    let mut own = entry::Observations::default();
    let (mut wrong, mut rng) = (0_u32, 5_u64);
    let (mut good, lookups, allowed) = (0, 8_000, 0.02);
    for _ in 0..lookups {
        rng = mix(rng);
        let is_wrong = good >= 8;
        if unit(rng) < allowed / own.wrong(0.9, 0.1) {
            wrong += u32::from(is_wrong);
        } else {
            own.push(entry::Observation {
                similarity: 0.9,
                same: !is_wrong,
            });
            good = if is_wrong { 0 } else { good + 1 };
        }
    }
    assert!(f64::from(wrong) > allowed * f64::from(lookups), "{wrong}");
}
