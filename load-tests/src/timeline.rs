//! A run as text: a column a slice of time, a row for each one who answered, and marks for what was done to them.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// Heights of a cell, from hardly anything to the most that there is.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Rows over one length of time.
#[derive(Clone, Debug)]
pub struct Timeline {
    length: Duration,
    columns: usize,
    rows: Vec<(String, Row)>,
}

#[derive(Clone, Debug)]
enum Row {
    /// As blocks, all rows on one scale.
    Amounts(Vec<u32>),
    /// As digits.
    Counts(Vec<u32>),
    /// As letters.
    Marks(Vec<char>),
}

impl Timeline {
    /// Without rows. A column is never shorter than half a second.
    pub fn new(length: Duration, most_columns: usize) -> Self {
        let fit = usize::try_from(length.as_millis() / 500).unwrap_or(usize::MAX);
        Self {
            length,
            columns: fit.clamp(1, most_columns.max(1)),
            rows: Vec::new(),
        }
    }

    fn column(&self, at: Duration) -> usize {
        let share = at.as_secs_f64() / self.length.as_secs_f64().max(1e-9);
        ((share * self.columns as f64) as usize).min(self.columns.saturating_sub(1))
    }

    fn counted(&self, at: impl Iterator<Item = Duration>) -> Vec<u32> {
        let mut cells = vec![0; self.columns];
        for at in at {
            if let Some(cell) = cells.get_mut(self.column(at)) {
                *cell += 1;
            }
        }
        cells
    }

    /// How many there were in each slice, as blocks.
    pub fn amounts(&mut self, name: &str, at: impl Iterator<Item = Duration>) {
        let row = Row::Amounts(self.counted(at));
        self.rows.push((name.to_owned(), row));
    }

    /// How many there were in each slice, as digits; nothing where there was none.
    pub fn counts(&mut self, name: &str, at: impl Iterator<Item = Duration>) {
        let row = Row::Counts(self.counted(at));
        self.rows.push((name.to_owned(), row));
    }

    /// A letter in each slice that a span touches; the later span wins.
    pub fn marks(&mut self, name: &str, spans: impl Iterator<Item = (Duration, Duration, char)>) {
        let mut cells = vec![' '; self.columns];
        for (from, to, letter) in spans {
            let touched = cells.get_mut(self.column(from)..=self.column(to));
            touched.into_iter().flatten().for_each(|cell| *cell = letter);
        }
        self.rows.push((name.to_owned(), Row::Marks(cells)));
    }

    /// The rows under a line of seconds.
    pub fn print(&self) -> String {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
        let most = self
            .rows
            .iter()
            .filter_map(|(_, row)| match row {
                Row::Amounts(cells) => cells.iter().max(),
                Row::Counts(_) | Row::Marks(_) => None,
            })
            .max();
        let most = f64::from(most.copied().unwrap_or(1).max(1));
        let mut out = format!("{:width$}", "");
        let mut at = 0;
        while at < self.columns {
            let seconds = self.length.as_secs_f64() * at as f64 / self.columns as f64;
            let _ = write!(out, "{:<10}", format!("|{seconds:.0}s"));
            at += 10;
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        for (name, row) in &self.rows {
            let cells: String = match row {
                Row::Amounts(cells) => cells.iter().map(|n| block(*n, most)).collect(),
                Row::Counts(cells) => cells.iter().map(|n| digit(*n)).collect(),
                Row::Marks(cells) => cells.iter().collect(),
            };
            let _ = writeln!(out, "{name:width$}{}", cells.trim_end());
        }
        out
    }

    /// The same for a script: the length of a slice in seconds, and each row's cells.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(name, row)| {
            let cells = match row {
                Row::Amounts(cells) | Row::Counts(cells) => json!(cells),
                Row::Marks(cells) => json!(cells.iter().collect::<String>()),
            };
            json!([name, cells])
        });
        json!({
            "slice_s": self.length.as_secs_f64() / self.columns as f64,
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}

fn block(n: u32, most: f64) -> char {
    let height = (f64::from(n) / most * BLOCKS.len() as f64).ceil() as usize;
    match height {
        0 => '·',
        height => BLOCKS.get(height - 1).copied().unwrap_or('█'),
    }
}

fn digit(n: u32) -> char {
    match n {
        0 => ' ',
        n => char::from_digit(n, 10).unwrap_or('+'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn rows_stand_under_their_seconds() {
        let mut t = Timeline::new(s(20), 20);
        t.amounts("a", [s(0), s(0), s(0), s(0), s(11), s(20)].into_iter());
        t.marks("faults", [(s(3), s(5), 'c'), (s(5), s(5), 'R')].into_iter());
        t.counts("errors", std::iter::repeat_n(s(7), 12).chain([s(8)]));
        let text = t.print();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       |0s       |10s");
        assert_eq!(lines[1], "a      █··········▂·······▂");
        assert_eq!(lines[2], "faults    ccR");
        assert_eq!(lines[3], "errors        +1");
        assert_eq!(t.json()["slice_s"], 1.0);
        assert_eq!(t.json()["rows"][0][1][0], 4);
    }

    #[test]
    fn a_short_run_has_few_columns() {
        let t = Timeline::new(Duration::from_millis(1_200), 100);
        assert_eq!(t.json()["slice_s"], 0.6);
        assert_eq!(Timeline::new(Duration::ZERO, 100).columns, 1);
    }
}
