//! Balancing inside a tier: the better of two drawn targets, by peak EWMA, in flight and weight.
//!
//! Randomness is handed in, and the probability of the choice comes out, so that a record can be replayed and weighed.

use std::time::Duration;

use smallvec::SmallVec;

use crate::ids::TargetId;

/// Time constant with which an estimate of latency falls towards lower observations, and fades while there are none.
const DECAY: Duration = Duration::from_secs(10);

/// Takes one latency into a peak EWMA whose last observation is `age` old: a larger one counts at once, smaller ones pull
/// the estimate down with a time constant of ten seconds (as in Finagle's and linkerd's balancers). Microseconds; 0: unknown.
pub fn peak_ewma(old_us: u64, seen_us: u64, age: Duration) -> u64 {
    let seen_us = seen_us.max(1);
    if old_us == 0 || seen_us >= old_us {
        return seen_us;
    }
    let keep = kept(age);
    ((old_us as f64 * keep + seen_us as f64 * (1.0 - keep)) as u64).max(1)
}

/// What is left of an estimate after nothing was heard for so long. A target that was slow once must be asked again some
/// time, and only being asked can tell.
pub fn faded(latency_us: u64, silent: Duration) -> u64 {
    if latency_us == 0 {
        return 0;
    }
    ((latency_us as f64 * kept(silent)) as u64).max(1)
}

fn kept(age: Duration) -> f64 {
    (-(age.as_secs_f64() / DECAY.as_secs_f64())).exp()
}

/// One candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Which.
    pub target: TargetId,
    /// Share inside its tier; 0 is drawn only when all are 0.
    pub weight: u32,
    /// Tries in flight.
    pub in_flight: u32,
    /// Peak EWMA of its latency in microseconds, faded by its silence ([`faded`]); 0 while unknown.
    pub latency_us: u64,
    /// Share of its weight that it has, in thousandths: less than 1000 in its slow start after an outage.
    pub share: u16,
}

impl Candidate {
    /// Its weight now.
    fn strength(&self) -> f64 {
        f64::from(self.weight.max(1)) * f64::from(self.share.max(1)) / 1_000.0
    }
}

/// A choice and how likely it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Which.
    pub target: TargetId,
    /// Probability of this choice over all seeds.
    pub propensity: f32,
}

/// Power of two choices: two are drawn by weight without replacement, and the one with less load for its weight wins
/// (of two alike the one drawn first, so that idle targets share by weight). `None` when there is none.
pub fn choose(candidates: &[Candidate], seed: u64) -> Option<Choice> {
    let usual = usual_latency(candidates);
    let winner = winner(candidates, seed, usual)?;
    Some(Choice {
        target: candidates.get(winner)?.target,
        propensity: match candidates.len() {
            1 => 1.0,
            _ => propensity(candidates, winner, usual),
        },
    })
}

fn winner(candidates: &[Candidate], seed: u64, usual: u64) -> Option<usize> {
    if candidates.len() < 2 {
        return (!candidates.is_empty()).then_some(0);
    }
    let weights = |i: usize| share(candidates, i);
    let first = draw(candidates.len(), unit(mix(seed)), weights)?;
    let second = draw(candidates.len(), unit(mix(seed ^ 0x9e37_79b9_7f4a_7c15)), |i| {
        if i == first { 0.0 } else { weights(i) }
    })
    .unwrap_or(first);
    Some(better(candidates, first, second, usual))
}

/// All of them, in the order in which they should be asked: the choice, then the choice among the rest, and so on. (How
/// likely it was nobody asks.)
pub fn order(candidates: &[Candidate], seed: u64) -> SmallVec<[TargetId; 6]> {
    let mut left: SmallVec<[Candidate; 6]> = candidates.into();
    let mut out = SmallVec::new();
    while let Some(at) = winner(&left, mix(seed ^ left.len() as u64), usual_latency(&left)) {
        out.push(left.remove(at).target);
    }
    out
}

/// Latency that stands in where a target has none yet: the mean of the others, so that a newcomer is neither flooded
/// nor starved.
fn usual_latency(candidates: &[Candidate]) -> u64 {
    let known = candidates.iter().filter(|c| c.latency_us > 0);
    let (sum, n) = known.fold((0_u64, 0_u64), |(s, n), c| {
        (s.saturating_add(c.latency_us), n + 1)
    });
    sum.checked_div(n).unwrap_or(1)
}

/// Latency times queue, per weight: the load that one more request would meet.
fn load(c: &Candidate, usual: u64) -> f64 {
    let latency = if c.latency_us > 0 { c.latency_us } else { usual };
    latency as f64 * (f64::from(c.in_flight) + 1.0) / c.strength()
}

fn better(candidates: &[Candidate], a: usize, b: usize, usual: u64) -> usize {
    match (candidates.get(a), candidates.get(b)) {
        (Some(x), Some(y)) => {
            let (x, y) = (load(x, usual), load(y, usual));
            if y < x { b } else { a }
        }
        _ => a,
    }
}

/// Weight of a candidate, or 1 for each when all weights are 0.
fn share(candidates: &[Candidate], i: usize) -> f64 {
    if candidates.iter().all(|c| c.weight == 0) {
        return 1.0;
    }
    candidates.get(i).map_or(0.0, |c| match c.weight {
        0 => 0.0,
        _ => c.strength(),
    })
}

fn draw(n: usize, u: f64, weight: impl Fn(usize) -> f64) -> Option<usize> {
    let total: f64 = (0..n).map(&weight).sum();
    if total <= 0.0 {
        return None;
    }
    let mut left = u * total;
    let mut last = None;
    for i in 0..n {
        let w = weight(i);
        if w <= 0.0 {
            continue;
        }
        last = Some(i);
        if left < w {
            return last;
        }
        left -= w;
    }
    last
}

/// Exact, over ordered pairs.
fn propensity(candidates: &[Candidate], winner: usize, usual: u64) -> f32 {
    let n = candidates.len();
    let total: f64 = (0..n).map(|i| share(candidates, i)).sum();
    let mut p = 0.0;
    for first in 0..n {
        let a = share(candidates, first) / total;
        let rest = total - share(candidates, first);
        if rest <= 0.0 {
            if first == winner {
                p += a;
            }
            continue;
        }
        for second in (0..n).filter(|&s| s != first) {
            if better(candidates, first, second, usual) == winner {
                p += a * share(candidates, second) / rest;
            }
        }
    }
    p as f32
}

/// SplitMix64's finisher: a seed to evenly spread bits.
pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// In 0 to 1, without 1.
pub(crate) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(i: u16, weight: u32, in_flight: u32, latency_us: u64) -> Candidate {
        Candidate {
            target: TargetId(i),
            weight,
            in_flight,
            latency_us,
            share: 1_000,
        }
    }

    fn counts(candidates: &[Candidate], n: u64) -> Vec<u64> {
        let mut counts = vec![0; candidates.len()];
        for seed in 0..n {
            counts[choose(candidates, seed).unwrap().target.index()] += 1;
        }
        counts
    }

    #[test]
    fn none_and_one() {
        assert_eq!(choose(&[], 1), None);
        assert_eq!(
            choose(&[c(4, 0, 9, 9)], 1).unwrap(),
            Choice {
                target: TargetId(4),
                propensity: 1.0
            }
        );
    }

    #[test]
    fn propensity_is_the_frequency() {
        let set = [c(0, 3, 2, 900), c(1, 1, 0, 400), c(2, 2, 1, 0), c(3, 0, 0, 1)];
        let n = 40_000;
        let seen = counts(&set, n);
        let mut total = 0.0;
        for seed in 0..400 {
            let choice = choose(&set, seed).unwrap();
            let share = seen[choice.target.index()] as f32 / n as f32;
            assert!((share - choice.propensity).abs() < 0.01, "{choice:?} {share}");
        }
        for i in 0..set.len() {
            total += propensity(&set, i, usual_latency(&set));
        }
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        assert_eq!(seen[3], 0, "weight 0 is not drawn while others have one");
    }

    #[test]
    fn the_slow_one_of_two_is_left_alone() {
        let seen = counts(&[c(0, 1, 0, 10_000), c(1, 1, 0, 1_000)], 1_000);
        assert_eq!(seen, [0, 1_000]);
        let seen = counts(&[c(0, 1, 0, 1_000), c(1, 1, 50, 1_000)], 1_000);
        assert_eq!(seen, [1_000, 0]);
    }

    #[test]
    fn a_peak_counts_at_once_and_falls_with_time() {
        let second = Duration::from_secs(1);
        assert_eq!(peak_ewma(10_000, 500_000, second), 500_000);
        let after = peak_ewma(500_000, 10_000, 10 * second);
        assert!((150_000..250_000).contains(&after), "{after}");
        assert_eq!(peak_ewma(0, 7, second), 7);
    }

    #[test]
    fn one_that_was_slow_is_asked_again_after_a_while() {
        let slow = |silent| c(0, 1, 0, faded(10_000, Duration::from_secs(silent)));
        assert_eq!(counts(&[slow(0), c(1, 1, 0, 1_000)], 100), [0, 100]);
        assert_eq!(counts(&[slow(60), c(1, 1, 0, 1_000)], 100), [100, 0]);
        assert_eq!(
            (faded(0, Duration::ZERO), faded(5, Duration::MAX)),
            (0, 1),
            "0 is: unknown"
        );
    }

    #[test]
    fn a_slow_start_has_its_share_of_what_is_in_flight() {
        // At a tenth of its weight it is as loaded with none as the other with nine.
        let warming = |in_flight| Candidate {
            share: 100,
            ..c(0, 1, in_flight, 1_000)
        };
        assert_eq!(counts(&[warming(0), c(1, 1, 8, 1_000)], 100), [0, 100]);
        assert_eq!(counts(&[warming(0), c(1, 1, 10, 1_000)], 100), [100, 0]);
        assert_eq!(counts(&[warming(1), c(1, 1, 10, 1_000)], 100), [0, 100]);
    }

    #[test]
    fn the_order_names_everyone_once_and_spreads() {
        let set = [c(0, 1, 0, 0), c(1, 1, 0, 0), c(2, 1, 0, 0), c(3, 0, 0, 0)];
        let mut first = [0; 4];
        for seed in 0..400 {
            let order = order(&set, seed);
            let mut all: Vec<u16> = order.iter().map(|t| t.0).collect();
            first[usize::from(all[0])] += 1;
            assert_eq!(all[3], 3, "weight 0 comes last");
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3]);
        }
        assert!(first[..3].iter().all(|&n| n > 80), "{first:?}");
    }

    #[test]
    fn all_weights_zero_is_all_alike() {
        let seen = counts(&[c(0, 0, 0, 0), c(1, 0, 0, 0), c(2, 0, 0, 0)], 3_000);
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    }
}
