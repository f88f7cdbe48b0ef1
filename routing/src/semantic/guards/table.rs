//! Word lists that become sets of bits.

use std::collections::HashMap;

use super::super::text::{Ask, fold};

/// Rows of words or short phrases with one meaning each; a text has a set of rows.
#[derive(Debug)]
pub(super) struct Table {
    rows: HashMap<String, u128>,
    longest: usize,
}

impl Table {
    /// At most 128 rows; phrases of at most four words.
    pub(super) fn new(rows: &[&[&str]]) -> Table {
        let mut table = Table {
            rows: HashMap::new(),
            longest: 1,
        };
        for (at, row) in rows.iter().enumerate().take(128) {
            for phrase in *row {
                table.longest = table.longest.max(phrase.split(' ').count());
                *table.rows.entry(fold(phrase)).or_default() |= 1 << at;
            }
        }
        table
    }

    /// Rows that a text has words of. Where a longer phrase stands, the words in it are not looked at by themselves.
    pub(super) fn of(&self, ask: &Ask) -> u128 {
        self.found(ask).fold(0, |all, (_, bits)| all | bits)
    }

    /// Places and rows, in order.
    pub(super) fn found<'a>(&'a self, ask: &'a Ask) -> impl Iterator<Item = (usize, u128)> + 'a {
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < ask.words.len() {
                let here = at;
                for length in (1..=self.longest.min(ask.words.len() - at)).rev() {
                    if let Some(bits) = self.at(ask, here, length) {
                        at += length;
                        return Some((here, bits));
                    }
                }
                at += 1;
            }
            None
        })
    }

    fn at(&self, ask: &Ask, from: usize, length: usize) -> Option<u128> {
        let words = ask.words.get(from..from + length)?;
        match words {
            [one] => self.rows.get(&one.low).copied(),
            many => {
                let phrase = many.iter().map(|w| w.low.as_str()).collect::<Vec<_>>().join(" ");
                self.rows.get(&phrase).copied()
            }
        }
    }

    /// Rows of a single word.
    pub(super) fn word(&self, low: &str) -> u128 {
        self.rows.get(low).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_come_before_their_words() {
        let table = Table::new(&[&["most"], &["at most", "höchstens"], &["x"]]);
        assert_eq!(table.of(&Ask::of("most")), 1);
        assert_eq!(table.of(&Ask::of("at most x")), 0b110);
        assert_eq!(table.of(&Ask::of("HOCHSTENS")), 0b10);
    }
}
