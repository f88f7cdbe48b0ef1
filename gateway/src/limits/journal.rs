//! What is charged to a day, in a file, before it is spent: one JSON object a line, the last word on each owner counts.
//!
//! Lines are written by one `write` each, not synced: they survive the end of the process, however it ends; a power cut
//! may lose the last of them. One process owns a file by a lock; a second one on the same folder writes its own, and its
//! budgets are its own too. When the disk refuses, serving goes on and it is said.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use routing::limit::Charge;
use routing::units::NanoUsd;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// Beyond this it is written anew, with one line an owner.
const MAX_BYTES: u64 = 1 << 20;
/// Processes on one folder.
const SLOTS: u32 = 64;

#[derive(Serialize, Deserialize)]
struct Line {
    day: u32,
    owner: String,
    /// Nano-dollars.
    charged: u64,
    /// At an orderly end: this was spent, not charged in advance.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    exact: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    state: Mutex<State>,
    _lock: File,
}

#[derive(Debug)]
struct State {
    file: File,
    bytes: u64,
    /// What each owner is charged now.
    last: HashMap<String, (u32, u64)>,
    failing: bool,
}

impl Journal {
    /// Opens the folder's first free journal and reads what it says.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn open(dir: &Path) -> io::Result<(Self, HashMap<String, Charge>)> {
        std::fs::create_dir_all(dir)?;
        let (slot, lock) = take_slot(dir)?;
        if slot > 0 {
            tracing::warn!(
                "another gateway counts money in {}: the budgets of this one are its own, so together they may spend more",
                dir.display()
            );
        }
        let path = dir.join(format!("budgets-{slot}.jsonl"));
        let last = read(&path)?;
        let (file, bytes) = rewrite(&path, &last)?;
        let known = last.iter().map(|(owner, &(day, charged))| {
            let charge = Charge {
                day,
                charged: NanoUsd(charged),
            };
            (owner.clone(), charge)
        });
        let known = known.collect();
        let state = State {
            file,
            bytes,
            last,
            failing: false,
        };
        let journal = Self {
            path,
            state: Mutex::new(state),
            _lock: lock,
        };
        Ok((journal, known))
    }

    /// Writes down a charge.
    pub fn write(&self, owner: &str, charge: Charge, exact: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (day, charged) = (charge.day, charge.charged.0);
        let said = (day, charged);
        match state.last.get_mut(owner) {
            Some(last) => *last = said,
            None => {
                state.last.insert(owner.to_owned(), said);
            }
        }
        let line = Line {
            day,
            owner: owner.to_owned(),
            charged,
            exact,
        };
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        state.bytes += text.len() as u64;
        let written = if state.bytes > MAX_BYTES {
            rewrite(&self.path, &state.last).map(|(file, bytes)| (state.file, state.bytes) = (file, bytes))
        } else {
            state.file.write_all(&text)
        };
        match (written, state.failing) {
            (Ok(()), _) => state.failing = false,
            (Err(e), false) => {
                state.failing = true;
                tracing::error!(
                    "{} cannot be written: {e}. Budgets go on in memory; what is spent now is forgotten if this process ends",
                    self.path.display()
                );
            }
            (Err(_), true) => {}
        }
    }
}

fn take_slot(dir: &Path) -> io::Result<(u32, File)> {
    for slot in 0..SLOTS {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(format!("budgets-{slot}.lock")))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok((slot, lock)),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(io::Error::other(format!(
        "{SLOTS} processes count money here already"
    )))
}

/// The last word on each owner. A line that was torn by a crash says nothing.
fn read(path: &Path) -> io::Result<HashMap<String, (u32, u64)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(e) => return Err(e),
    };
    let mut last: HashMap<String, (u32, u64)> = HashMap::new();
    for line in BufReader::new(file).split(b'\n') {
        let Ok(line) = serde_json::from_slice::<Line>(&line?) else {
            continue;
        };
        let said = (line.day, line.charged);
        let known = last.entry(line.owner).or_insert(said);
        // Two threads may write in another order than they charged: more counts, unless it is the exact figure.
        if line.exact || said > *known {
            *known = said;
        }
    }
    Ok(last)
}

/// Anew, beside it, and then in its place.
fn rewrite(path: &Path, last: &HashMap<String, (u32, u64)>) -> io::Result<(File, u64)> {
    let mut text = Vec::new();
    for (owner, &(day, charged)) in last {
        let line = Line {
            day,
            owner: owner.clone(),
            charged,
            exact: false,
        };
        serde_json::to_writer(&mut text, &line)?;
        text.push(b'\n');
    }
    let beside = path.with_extension("new");
    std::fs::write(&beside, &text)?;
    std::fs::rename(&beside, path)?;
    let file = OpenOptions::new().append(true).open(path)?;
    Ok((file, text.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(day: u32, charged: u64) -> Charge {
        Charge {
            day,
            charged: NanoUsd(charged),
        }
    }

    #[test]
    fn what_was_charged_is_there_after_a_crash_torn_line_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, known) = Journal::open(dir.path()).unwrap();
        assert!(known.is_empty());
        journal.write("key:a", charge(7, 500), false);
        journal.write("key:a", charge(7, 900), false);
        journal.write("key:a", charge(7, 700), false);
        journal.write("total", charge(7, 100), false);
        drop(journal);
        let path = dir.path().join("budgets-0.jsonl");
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"day\":7,\"owner\":\"to");
        std::fs::write(&path, torn).unwrap();
        let (journal, known) = Journal::open(dir.path()).unwrap();
        assert_eq!(known["key:a"], charge(7, 900), "more counts");
        assert_eq!(known["total"], charge(7, 100));
        journal.write("key:a", charge(7, 650), true);
        drop(journal);
        assert_eq!(Journal::open(dir.path()).unwrap().1["key:a"], charge(7, 650));
    }

    #[test]
    fn a_second_process_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (first, _) = Journal::open(dir.path()).unwrap();
        first.write("total", charge(7, 100), false);
        let (_second, known) = Journal::open(dir.path()).unwrap();
        assert!(known.is_empty());
    }

    #[test]
    fn it_does_not_grow() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        for i in 0..30_000 {
            journal.write("tenant:with-a-name", charge(7, i), false);
        }
        let bytes = std::fs::metadata(dir.path().join("budgets-0.jsonl"))
            .unwrap()
            .len();
        assert!(bytes < MAX_BYTES, "{bytes}");
        drop(journal);
        assert_eq!(
            Journal::open(dir.path()).unwrap().1["tenant:with-a-name"],
            charge(7, 29_999)
        );
    }
}
