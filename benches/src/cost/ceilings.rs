//! What may not be exceeded, checked in: a fresh clone has nothing else to compare with.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Counts, What};

const FILE: &str = include_str!("ceilings.json");

/// See `ceilings.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceilings {
    /// Instructions, by name.
    pub instructions: BTreeMap<String, u64>,
    /// How much more a request may cost with everything on than with it off, in per cent.
    pub more_percent: f64,
}

impl Ceilings {
    /// The file that is checked in.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn checked_in() -> Result<Self, String> {
        serde_json::from_str(FILE).map_err(|e| format!("benches/src/cost/ceilings.json: {e}"))
    }

    /// What is exceeded, a sentence each.
    pub fn exceeded(&self, counts: &Counts) -> Vec<String> {
        let mut all = Vec::new();
        for what in What::ALL {
            let (count, most) = (counts.of(what), self.instructions.get(what.name()));
            if let Some(most) = most.filter(|most| count > **most) {
                all.push(format!("{}: {count} instructions, {most} allowed", what.name()));
            }
        }
        for (name, stream) in [("whole", false), ("stream", true)] {
            let more = counts.more(stream);
            if more > self.more_percent {
                all.push(format!(
                    "{name}: {more:.1}% more with everything on, {}% allowed",
                    self.more_percent
                ));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_everything_that_is_counted_and_nothing_else() {
        let ceilings = Ceilings::checked_in().unwrap();
        let named: Vec<&str> = ceilings.instructions.keys().map(String::as_str).collect();
        let mut all: Vec<&str> = What::ALL.iter().map(|w| w.name()).collect();
        all.sort_unstable();
        assert_eq!(named, all);
    }

    #[test]
    fn what_is_above_is_told() {
        let ceilings = Ceilings {
            instructions: [("whole-on".to_owned(), 100)].into(),
            more_percent: 5.0,
        };
        let mut counts = Counts::default();
        counts.0.insert("whole-on", 100);
        counts.0.insert("whole-off", 99);
        assert!(ceilings.exceeded(&counts).is_empty());
        counts.0.insert("whole-on", 110);
        let told = ceilings.exceeded(&counts);
        assert_eq!(told.len(), 2, "{told:?}");
    }
}
