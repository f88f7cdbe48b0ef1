//! Ids of records that stand twice. A request has exactly one record.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;

use xxhash_rust::xxh3::xxh3_64;

use super::Progress;
use super::lines::{Lines, Said};
use super::report::{LISTED, Told, What};
use super::walk::name;
use crate::telemetry::writer::files::Found;

/// Ids that are looked at: 128 MiB. At 1 KiB a record that is 16 GiB of records.
const MOST: usize = 16 * 1024 * 1024;

/// Hashes of all ids.
#[derive(Default)]
pub struct Ids {
    hashes: Vec<u64>,
    unseen: u64,
}

impl Ids {
    pub fn push(&mut self, id: &str) {
        if self.hashes.len() < MOST {
            self.hashes.push(xxh3_64(id.as_bytes()));
        } else {
            self.unseen += 1;
        }
    }

    /// Records whose id was not looked at.
    pub fn unseen(&self) -> u64 {
        self.unseen
    }

    /// Hashes that stand twice. Two ids may share one.
    fn suspects(mut self) -> Vec<u64> {
        self.hashes.sort_unstable();
        let pairs = self.hashes.windows(2).filter(|w| w.first() == w.last());
        let mut suspects: Vec<u64> = pairs.filter_map(|w| w.first().copied()).collect();
        suspects.dedup();
        suspects.truncate(LISTED);
        suspects
    }

    /// Looks through the files once more, if it must, and says where an id stands that has stood before. `ends`: where
    /// each file's part of its chain ends.
    pub fn twice(
        self,
        files: &[Found],
        ends: &[u64],
        progress: &mut Progress<'_>,
        say: &mut dyn FnMut(Told),
    ) {
        let suspects = self.suspects();
        if suspects.is_empty() {
            return;
        }
        progress.all += files.iter().map(|f| f.bytes).sum::<u64>();
        let mut first: HashMap<String, String> = HashMap::new();
        let mut text = Vec::new();
        for (file, end) in files.iter().zip(ends) {
            let Ok(from) = File::open(&file.path) else {
                continue;
            };
            let mut lines = Lines::new(BufReader::with_capacity(64 * 1024, from));
            while let Ok(Some(line)) = lines.next(&mut text) {
                progress.add(line.bytes);
                if !line.whole || line.at >= *end || line.number == 1 {
                    continue;
                }
                let Some(id) = Said::read(&text).and_then(|s| s.id) else {
                    continue;
                };
                if suspects.binary_search(&xxh3_64(id.as_bytes())).is_err() {
                    continue;
                }
                match first.get(&*id) {
                    Some(first) => say(Told {
                        slot: file.slot,
                        file: name(&file.path),
                        line: Some(line.number),
                        what: What::Twice {
                            id: id.into_owned(),
                            first: first.clone(),
                        },
                    }),
                    None if first.len() < LISTED => {
                        let place = format!("{}:{}", name(&file.path), line.number);
                        first.insert(id.into_owned(), place);
                    }
                    None => {}
                }
            }
        }
    }
}
