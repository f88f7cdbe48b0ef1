//! What one cached answer has been seen to be good for.
//!
//! After vCache (arXiv 2502.03771): there is no similarity above which a question is the same question; where that lies
//! differs from entry to entry. So each keeps its own observations (how alike was the question, was the fresh answer the
//! same), and hits only as far as they, and little else, say that it will be right. vCache fits a logistic curve to them
//! and trusts it; here the estimate only says what is worth venturing, and the bound is kept by [`super::governor`],
//! which trusts nothing.

/// Observations an entry keeps; the newest replace the oldest.
pub const KEPT: usize = 48;
/// A right answer speaks for questions that are at most so much less alike.
const RIGHT_REACH: f32 = 0.04;
/// A wrong one speaks against questions that are at most so much more alike.
const WRONG_REACH: f32 = 0.04;
/// What all entries together say counts as much as so many observations of the entry itself.
const STRENGTH: f64 = 2.0;

/// One comparison of the cached answer with a fresh one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Of the question with the entry's own.
    pub similarity: f32,
    /// The answers were the same.
    pub same: bool,
}

/// The observations of one entry, or of all entries of a scope.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    kept: Vec<Observation>,
    next: usize,
}

impl Observations {
    /// Takes one.
    pub fn push(&mut self, seen: Observation) {
        if self.kept.len() < KEPT {
            self.kept.push(seen);
        } else if let Some(slot) = self.kept.get_mut(self.next) {
            *slot = seen;
            self.next = (self.next + 1) % KEPT;
        }
    }

    /// Observations that say something about questions of this similarity: all, and the wrong ones among them.
    fn about(&self, similarity: f32) -> (f64, f64) {
        let (mut all, mut wrong) = (0.0, 0.0);
        for seen in &self.kept {
            if seen.same && seen.similarity <= similarity + RIGHT_REACH {
                all += 1.0;
            }
            if !seen.same && seen.similarity >= similarity - WRONG_REACH {
                all += 1.0;
                wrong += 1.0;
            }
        }
        (all, wrong)
    }

    /// Estimated probability that the cached answer would be wrong for a question of this similarity, where `usual` is
    /// that of all entries of the scope.
    pub fn wrong(&self, similarity: f32, usual: f64) -> f64 {
        let (all, wrong) = self.about(similarity);
        ((STRENGTH * usual + wrong) / (STRENGTH + all)).clamp(0.0, 1.0)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// None yet.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.kept.capacity() * size_of::<Observation>()
    }
}

/// Similarities are counted in steps of a fiftieth.
const STEPS: usize = 50;
/// Steps on either side that are counted in.
const NEAR: usize = 2;
/// When a step has so many observations, all are halved: old ones fade.
const FULL: f64 = 1_000.0;

/// What has been seen over all entries of a scope, by similarity.
#[derive(Clone, Debug)]
pub struct Pool {
    steps: [(f64, f64); STEPS + 1],
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            steps: [(0.0, 0.0); STEPS + 1],
        }
    }
}

impl Pool {
    fn step(similarity: f32) -> usize {
        (similarity.clamp(0.0, 1.0) * STEPS as f32).floor() as usize
    }

    /// Takes one observation.
    pub fn push(&mut self, seen: Observation) {
        if let Some((all, wrong)) = self.steps.get_mut(Self::step(seen.similarity)) {
            *all += 1.0;
            *wrong += f64::from(u8::from(!seen.same));
            if *all >= FULL {
                *all /= 2.0;
                *wrong /= 2.0;
            }
        }
    }

    /// Share of wrong answers at about this similarity. With nothing seen one in four is expected.
    pub fn usual(&self, similarity: f32) -> f64 {
        let at = Self::step(similarity);
        let near = self.steps.iter().skip(at.saturating_sub(NEAR)).take(2 * NEAR + 1);
        let (all, wrong) = near.fold((0.0, 0.0), |(a, w), (all, wrong)| (a + all, w + wrong));
        (wrong + 1.0) / (all + 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(similarity: f32, same: bool) -> Observation {
        Observation { similarity, same }
    }

    #[test]
    fn an_entry_needs_evidence_of_its_own() {
        let mut own = Observations::default();
        assert!(own.wrong(0.9, 0.2) > 0.15);
        for _ in 0..KEPT {
            own.push(seen(0.88, true));
        }
        assert!(own.wrong(0.9, 0.2) < 0.01);
        assert!(own.wrong(0.7, 0.2) > 0.15, "nothing was seen down there");
    }

    #[test]
    fn a_wrong_answer_speaks_against_what_is_less_alike() {
        let mut own = Observations::default();
        for _ in 0..20 {
            own.push(seen(0.9, true));
        }
        own.push(seen(0.92, false));
        assert!(own.wrong(0.91, 0.01) > 0.04);
        assert!(
            own.wrong(0.99, 0.01) < 0.01,
            "much more alike than the one that was wrong"
        );
    }

    #[test]
    fn old_observations_make_room() {
        let mut own = Observations::default();
        own.push(seen(0.9, false));
        for _ in 0..KEPT {
            own.push(seen(0.9, true));
        }
        assert_eq!(own.len(), KEPT);
        assert!(own.wrong(0.9, 0.0) < 1e-9);
    }

    #[test]
    fn the_pool_knows_what_is_usual() {
        let mut pool = Pool::default();
        assert_eq!(pool.usual(0.9), 0.25);
        for n in 0..1_000 {
            pool.push(seen(0.9, n % 20 != 0));
        }
        assert!((pool.usual(0.91) - 0.05).abs() < 0.01);
        assert_eq!(pool.usual(0.5), 0.25);
    }
}
