//! Looks through record files as [`super::writer`] leaves them: is every line the one that the line behind it speaks of?
//!
//! What a chain cannot tell by itself: whether its last line is as it was written, whether lines were taken off its end,
//! and whether somebody wrote all of it anew from some line on. Against these helps the hash of the last line, kept
//! elsewhere ([`Chain::last_hash`]).
//!
//! One line is in memory at a time, and eight bytes for each record's id.

mod ids;
mod lines;
mod report;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use self::report::{Chain, LISTED, List, Report, Told, What};
use self::walk::{Walk, name};
use super::writer::files::{self, Found};

/// Why there is nothing to look through.
#[derive(Debug)]
pub enum Nothing {
    /// It does not exist, or cannot be read.
    Absent(PathBuf, io::Error),
    /// A folder without a file of records.
    Empty(PathBuf),
    /// A file that is none of ours, by its name.
    NotOurs(PathBuf),
}

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(at, e) => write!(
                f,
                "{}: {e}; name a folder of records ($WEIR_HOME/records) or a file in it",
                at.display()
            ),
            Self::Empty(at) => write!(
                f,
                "{}: no records are here (files named chain-SLOT-NUMBER.jsonl)",
                at.display()
            ),
            Self::NotOurs(at) => write!(
                f,
                "{}: not a file of records, by its name: those are named chain-SLOT-NUMBER.jsonl",
                at.display()
            ),
        }
    }
}

/// How far it is: bytes looked at, and all of them.
pub struct Progress<'a> {
    tell: &'a mut dyn FnMut(u64, u64),
    done: u64,
    all: u64,
}

impl Progress<'_> {
    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        (self.tell)(self.done, self.all);
    }
}

/// Looks through one file, or through a folder's chains over all their files. `tell` hears how far it is: bytes done,
/// and bytes in all.
///
/// # Errors
/// When there is nothing to look through. A file that cannot be read is a finding.
pub fn verify(at: &Path, tell: &mut dyn FnMut(u64, u64)) -> Result<Report, Nothing> {
    let mut found = found(at)?;
    found.sort_by(|a, b| (a.slot, a.number, &a.path).cmp(&(b.slot, b.number, &b.path)));
    let mut progress = Progress {
        tell,
        done: 0,
        all: found.iter().map(|f| f.bytes).sum(),
    };
    let (mut report, mut ids, mut ends) = (Report::default(), ids::Ids::default(), Vec::new());
    for files in found.chunk_by(|a, b| a.slot == b.slot) {
        let mut walk = Walk::new(files, &mut report, &mut ids, &mut progress);
        ends.extend(walk.run());
        let chain = walk.into_chain();
        report.chains.push(chain);
    }
    report.ids_unseen = ids.unseen();
    ids.twice(&found, &ends, &mut progress, &mut |twice| {
        let chain = report.chains.iter_mut().find(|c| c.slot == twice.slot);
        if let Some(chain) = chain {
            chain.breaks += 1;
        }
        report.breaks.push(twice);
    });
    report.whole = report.breaks.count == 0;
    Ok(report)
}

fn found(at: &Path) -> Result<Vec<Found>, Nothing> {
    let absent = |e| Nothing::Absent(at.to_owned(), e);
    let meta = std::fs::metadata(at).map_err(absent)?;
    if meta.is_dir() {
        let found = files::files(at).map_err(absent)?;
        return if found.is_empty() {
            Err(Nothing::Empty(at.to_owned()))
        } else {
            Ok(found)
        };
    }
    let Some((slot, number)) = files::place_of(&name(at)) else {
        return Err(Nothing::NotOurs(at.to_owned()));
    };
    Ok(vec![Found {
        path: at.to_owned(),
        slot,
        number,
        bytes: meta.len(),
        modified: meta.modified().map_err(absent)?,
    }])
}
