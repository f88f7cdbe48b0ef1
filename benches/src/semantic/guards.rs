//! What the guards refuse, pair by pair.

use std::collections::BTreeMap;

use routing::semantic::guards::{self, Guard};
use routing::semantic::store::FLOOR;
use routing::semantic::text::Ask;
use serde::Serialize;

use super::data::Family;
use super::embed::Vectors;

/// Pairs of one sort.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Pairs {
    /// Pairs that are alike enough to be compared.
    pub pairs: usize,
    /// All pairs of that sort.
    pub all: usize,
    /// Refused, by guard.
    pub refused: BTreeMap<&'static str, usize>,
}

impl Pairs {
    /// Share of the pairs that are refused.
    pub fn share(&self) -> f64 {
        self.refused.values().sum::<usize>() as f64 / self.pairs.max(1) as f64
    }
}

/// True paraphrases (`same`), and near misses by kind.
pub fn measure(
    families: &[Family],
    vectors: &Vectors,
    mut tell: impl FnMut(&str, Option<Guard>, f32, &str, &str),
) -> BTreeMap<String, Pairs> {
    let mut out: BTreeMap<String, Pairs> = BTreeMap::new();
    for family in families {
        let same: Vec<&String> = std::iter::once(&family.ask).chain(&family.same).collect();
        let mut pairs: Vec<(&str, &str, &str)> = Vec::new();
        for (n, a) in same.iter().enumerate() {
            pairs.extend(same.iter().skip(n + 1).map(|b| ("same", a.as_str(), b.as_str())));
            pairs.extend(
                family
                    .near
                    .iter()
                    .map(|near| (near.kind.as_str(), a.as_str(), near.ask.as_str())),
            );
        }
        for (kind, a, b) in pairs {
            let similarity = vectors.similarity(a, b).unwrap_or_default();
            let entry = out.entry(kind.to_owned()).or_default();
            entry.all += 1;
            if similarity < FLOOR {
                continue;
            }
            entry.pairs += 1;
            let refused = guards::refuse(&Ask::of(a), &Ask::of(b));
            if let Some(guard) = refused {
                *entry.refused.entry(guard.name()).or_default() += 1;
            }
            tell(kind, refused, similarity, a, b);
        }
    }
    out
}
