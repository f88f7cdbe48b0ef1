//! One slot's chain, file by file and line by line.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use super::Progress;
use super::ids::Ids;
use super::lines::{Line, Lines, Said};
use super::report::{Chain, Report, Told, What};
use crate::telemetry::writer::files::{self, Found};

/// Bytes read at once.
const PIECE: usize = 64 * 1024;

/// Looks through one chain.
pub struct Walk<'a, 'p> {
    files: &'a [Found],
    report: &'a mut Report,
    ids: &'a mut Ids,
    progress: &'a mut Progress<'p>,
    chain: Chain,
    /// The hash that the next line has to name; `None` while it cannot be known.
    link: Option<String>,
    /// The first line of a first file was judged.
    begun: bool,
    /// The file with the last whole line.
    after: Option<String>,
    /// Bytes behind that line.
    torn: u64,
    /// The file that is looked at.
    file: String,
    /// What each file begins with.
    firsts: Vec<First>,
}

/// What a file begins with, as far as the file before needs to know it.
enum First {
    /// No whole line.
    Nothing,
    /// A line that is none of ours.
    Other,
    /// The file that it goes on from, and the bytes that the chain leaves out there.
    Head { after: Option<String>, torn: u64 },
}

/// A file's own name, as it is shown.
pub fn name(path: &Path) -> String {
    path.file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn first_of(path: &Path) -> First {
    let Ok(file) = File::open(path) else {
        return First::Nothing;
    };
    let mut text = Vec::new();
    let first = Lines::new(BufReader::new(file)).next(&mut text);
    if !first.is_ok_and(|line| line.is_some_and(|line| line.whole)) {
        return First::Nothing;
    }
    match Said::read(&text) {
        Some(said) if said.head().is_some() => First::Head {
            after: said.after.map(String::from),
            torn: said.torn_bytes,
        },
        _ => First::Other,
    }
}

impl<'a, 'p> Walk<'a, 'p> {
    /// `files` are one slot's, in order.
    pub fn new(
        files: &'a [Found],
        report: &'a mut Report,
        ids: &'a mut Ids,
        progress: &'a mut Progress<'p>,
    ) -> Self {
        let named = |f: Option<&Found>| f.map(|f| name(&f.path)).unwrap_or_default();
        let chain = Chain {
            slot: files.first().map_or(0, |f| f.slot),
            files: files.len() as u64,
            first: named(files.first()),
            last: named(files.last()),
            from_start: false,
            records: 0,
            bytes: 0,
            last_hash: None,
            breaks: 0,
        };
        Self {
            files,
            report,
            ids,
            progress,
            chain,
            link: None,
            begun: false,
            after: None,
            torn: 0,
            file: String::new(),
            firsts: files.iter().map(|f| first_of(&f.path)).collect(),
        }
    }

    /// Looks at all of it; for each file where the chain's part of it ends.
    pub fn run(&mut self) -> Vec<u64> {
        let mut ends = Vec::with_capacity(self.files.len());
        for (index, found) in self.files.iter().enumerate() {
            self.file = name(&found.path);
            let (end, already) = (self.end_of(index), self.progress.done);
            match self.file(found, end) {
                Ok(0) => {}
                Ok(bytes) => {
                    let told = self.ahead(index).is_some();
                    self.note(None, What::Torn { bytes, told });
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    // As if it had been removed before.
                    self.note(None, What::Pruned);
                    (self.link, self.begun) = (None, false);
                    (self.after, self.torn) = (None, 0);
                }
                Err(e) => {
                    self.broken(None, What::Unread { why: e.to_string() });
                    (self.link, self.begun) = (None, true);
                }
            }
            let left = found.bytes.saturating_sub(self.progress.done - already);
            self.progress.add(left);
            ends.push(end);
        }
        ends
    }

    /// What was found of the chain.
    pub fn into_chain(self) -> Chain {
        Chain {
            last_hash: self.link,
            ..self.chain
        }
    }

    /// The next file that begins with a line, if that is what a file begins with.
    fn ahead(&self, index: usize) -> Option<(usize, Option<&str>, u64)> {
        let mut behind = self.firsts.iter().enumerate().skip(index + 1);
        match behind.find(|(_, first)| !matches!(first, First::Nothing))? {
            (at, First::Head { after, torn }) => Some((at, after.as_deref(), *torn)),
            _ => None,
        }
    }

    /// Where the chain's part of a file ends. A writer that could not take back what it had begun to write (a disk that
    /// fails) leaves it out as torn, whole lines included.
    fn end_of(&self, index: usize) -> u64 {
        let Some((next, Some(after), torn)) = self.ahead(index) else {
            return u64::MAX;
        };
        let files = self.files.get(index..next).unwrap_or_default();
        let (here, all) = (
            files.first().map_or(0, |f| f.bytes),
            files.iter().map(|f| f.bytes).sum::<u64>(),
        );
        match all.checked_sub(torn) {
            Some(end) if end < here && after == self.file => end,
            _ => u64::MAX,
        }
    }

    /// One file; how many bytes at its end the chain leaves out.
    fn file(&mut self, found: &Found, end: u64) -> io::Result<u64> {
        let file = File::open(&found.path)?;
        let mut lines = Lines::new(BufReader::with_capacity(PIECE, file));
        let (mut text, mut torn) = (Vec::new(), 0);
        while let Some(line) = lines.next(&mut text)? {
            self.chain.bytes += line.bytes;
            self.progress.add(line.bytes);
            if !line.whole || line.at >= end {
                torn += line.bytes;
                continue;
            }
            if line.number == 1 {
                self.first_line(found, &text);
            } else {
                self.line(&line, &text);
            }
            self.link = Some(line.hash);
            if self.after.as_ref() != Some(&self.file) {
                self.after = Some(self.file.clone());
            }
            self.torn = 0;
        }
        self.torn += torn;
        Ok(torn)
    }

    fn first_line(&mut self, found: &Found, text: &[u8]) {
        let begun = std::mem::replace(&mut self.begun, true);
        let said = Said::read(text);
        let Some((said, place)) = said.and_then(|s| s.head().map(|place| (s, place))) else {
            let why = "is not what a file of records begins with: its first line was changed or taken out";
            return self.broken(Some(1), What::Head { why });
        };
        if place != (found.slot, found.number) {
            let why = "speaks of another file: this one was renamed, or put here";
            self.broken(Some(1), What::Head { why });
        }
        let after = said.after.as_deref();
        if !begun {
            let from_start = said.prev == files::zero_hash();
            if from_start != after.is_none() {
                let why = "contradicts itself: a chain begins with zeros and goes on from no file";
                self.broken(Some(1), What::Head { why });
            }
            if from_start {
                self.chain.from_start = true;
            } else {
                let after = after.map(str::to_owned);
                self.note(None, What::BeginsInTheMiddle { after });
            }
            return;
        }
        let Some(link) = &self.link else { return };
        if said.prev != *link {
            let here = |name: &str| {
                self.files
                    .iter()
                    .any(|f| f.path.file_name().is_some_and(|n| n == name))
            };
            let what = match after.filter(|name| !here(name)) {
                Some(after) => What::Missing {
                    after: after.to_owned(),
                },
                None => What::Detached,
            };
            return self.broken(Some(1), what);
        }
        if after != self.after.as_deref() {
            let why = "names another file than the one that it goes on from";
            self.broken(Some(1), What::Head { why });
        }
        if said.torn_bytes != self.torn {
            let (bytes, said) = (self.torn, said.torn_bytes);
            self.broken(Some(1), What::TornOtherwise { bytes, said });
        }
    }

    fn line(&mut self, line: &Line, text: &[u8]) {
        let number = Some(line.number);
        let Some(said) = Said::read(text).filter(|_| !line.too_long) else {
            return self.broken(number, What::Unreadable);
        };
        if self.link.as_deref() != Some(&*said.prev) {
            self.broken(number, What::Unchained);
        }
        let Some(id) = said.id else {
            let what = match said.chain {
                Some(_) => What::Head {
                    why: "is the first line of a file, and stands inside one",
                },
                None => What::Unreadable,
            };
            return self.broken(number, what);
        };
        self.chain.records += 1;
        self.ids.push(&id);
        if said.lost_before > 0 {
            let records = said.lost_before;
            self.note(number, What::Lost { records });
        }
    }

    fn broken(&mut self, line: Option<u64>, what: What) {
        self.chain.breaks += 1;
        let told = self.told(line, what);
        self.report.breaks.push(told);
    }

    fn note(&mut self, line: Option<u64>, what: What) {
        let told = self.told(line, what);
        self.report.notes.push(told);
    }

    fn told(&self, line: Option<u64>, what: What) -> Told {
        Told {
            slot: self.chain.slot,
            file: self.file.clone(),
            line,
            what,
        }
    }
}
