//! Shares with intervals.

use serde::Serialize;

use super::play::{Counts, Played, Rng};

/// Resampled sets of families behind an interval.
const SAMPLES: usize = 2_000;

/// A share and its 95% interval, by resampling families: questions of one family stand or fall together, so that a formula
/// for independent draws would be far too sure.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Share {
    /// As counted.
    pub value: f64,
    /// 2.5%.
    pub low: f64,
    /// 97.5%.
    pub high: f64,
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Share { value, low, high } = self;
        write!(
            f,
            "{:.2}% ({:.2} to {:.2})",
            value * 100.0,
            low * 100.0,
            high * 100.0
        )
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Line {
    /// Counts over all runs.
    pub counts: Counts,
    /// Hits over look-ups.
    pub hit_rate: Share,
    /// Wrong over look-ups: what is bounded.
    pub error_rate: Share,
    /// Wrong over hits.
    pub wrong_hits: Share,
    /// Paraphrases answered rightly without a call.
    pub found: Share,
    /// Greatest error rate at any time after the first thousand look-ups, of the worst run.
    pub worst: f64,
}

impl Line {
    /// Of runs over the same families.
    pub fn of(runs: &[Played]) -> Line {
        let mut families: Vec<Counts> = Vec::new();
        for run in runs {
            families.resize(families.len().max(run.families.len()), Counts::default());
            families
                .iter_mut()
                .zip(&run.families)
                .for_each(|(all, one)| all.add(one));
        }
        let mut counts = Counts::default();
        families.iter().for_each(|f| counts.add(f));
        let share = |of: fn(&Counts) -> (u64, u64)| interval(&families, of);
        Line {
            counts,
            hit_rate: share(|c| (c.hits, c.lookups)),
            error_rate: share(|c| (c.wrong, c.lookups)),
            wrong_hits: share(|c| (c.wrong, c.hits)),
            found: share(|c| (c.found, c.paraphrases)),
            worst: runs.iter().map(|r| r.worst).fold(0.0, f64::max),
        }
    }
}

fn interval(families: &[Counts], of: fn(&Counts) -> (u64, u64)) -> Share {
    let ratio = |sum: (u64, u64)| sum.0 as f64 / sum.1.max(1) as f64;
    let add = |sum: (u64, u64), one: &Counts| {
        let (part, whole) = of(one);
        (sum.0 + part, sum.1 + whole)
    };
    let mut rng = Rng::new(11);
    let mut drawn: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let picks = (0..families.len())
                .filter_map(|_| families.get((rng.unit() * families.len() as f64) as usize));
            ratio(picks.fold((0, 0), add))
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| {
        drawn
            .get((share * (drawn.len() - 1) as f64).round() as usize)
            .copied()
            .unwrap_or_default()
    };
    Share {
        value: ratio(families.iter().fold((0, 0), add)),
        low: at(0.025),
        high: at(0.975),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_that_is_wrong_makes_a_wide_interval() {
        let counts = |wrong| Counts {
            lookups: 100,
            hits: 50,
            wrong,
            ..Counts::default()
        };
        let mut families = vec![counts(0); 19];
        families.push(counts(40));
        let line = Line::of(&[Played {
            families,
            worst: 0.0,
            known: None,
        }]);
        assert!((line.error_rate.value - 0.02).abs() < 1e-9);
        assert!(
            line.error_rate.low == 0.0 && line.error_rate.high > 0.05,
            "{}",
            line.error_rate
        );
        assert!((line.hit_rate.low - 0.5).abs() < 1e-9);
    }
}
