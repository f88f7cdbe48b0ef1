//! What came of looking through records.

use std::fmt;

use serde::Serialize;

use crate::telemetry::writer::files::is_zero;

/// Findings and notes that are listed; further ones are only counted.
pub const LISTED: usize = 100;

/// All chains that were looked at.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Nothing was found.
    pub whole: bool,
    /// One a slot.
    pub chains: Vec<Chain>,
    /// What breaks a chain.
    pub breaks: List,
    /// What is worth knowing and breaks nothing.
    pub notes: List,
    /// Records beyond the number whose ids can be looked at for a second one.
    #[serde(skip_serializing_if = "is_zero")]
    pub ids_unseen: u64,
}

/// One process's chain, over all its files.
#[derive(Debug, Serialize)]
pub struct Chain {
    /// Its slot.
    pub slot: u32,
    /// Files of it.
    pub files: u64,
    /// The first one that is here.
    pub first: String,
    /// The last one.
    pub last: String,
    /// Its first line is here; otherwise older files were removed.
    pub from_start: bool,
    /// Records in it.
    pub records: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Hash of its last line. Nothing inside a chain speaks for that line, nor for lines that stood behind it: who keeps
    /// this hash elsewhere can tell.
    pub last_hash: Option<String>,
    /// What breaks it.
    pub breaks: u64,
}

/// The first [`LISTED`] of something, and how many there are.
#[derive(Debug, Default, Serialize)]
pub struct List {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub listed: Vec<Told>,
}

impl List {
    pub(super) fn push(&mut self, told: Told) {
        self.count += 1;
        if self.listed.len() < LISTED {
            self.listed.push(told);
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Slot of its chain.
    pub slot: u32,
    /// Name of the file.
    pub file: String,
    /// The line, from 1; absent where it is about the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    // ---- breaks
    /// The line's `prev` is not the hash of the line before it.
    Unchained,
    /// The same of a file's first line; the file before is here.
    Detached,
    /// A file's first line goes on from a file that is not here.
    Missing {
        /// The file.
        after: String,
    },
    /// Not a line of ours.
    Unreadable,
    /// The first line of a file is not what a file begins with, or such a line stands elsewhere.
    Head {
        /// What is wrong with it.
        why: &'static str,
    },
    /// More or fewer bytes than the next file speaks of stand behind the last whole line.
    TornOtherwise {
        /// Bytes that are there.
        bytes: u64,
        /// Bytes that the next file's first line says.
        said: u64,
    },
    /// A record with the id of another one.
    Twice {
        /// The id.
        id: String,
        /// Where it stands first.
        first: String,
    },
    /// The file could not be read.
    Unread {
        /// Why.
        why: String,
    },
    // ---- notes
    /// Older files were removed.
    BeginsInTheMiddle {
        /// The file before, as far as it is told.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// Bytes at the end of a file that the chain leaves out.
    Torn {
        /// How many.
        bytes: u64,
        /// A later file's first line says so.
        told: bool,
    },
    /// Records were lost before this one.
    Lost {
        /// How many.
        records: u64,
    },
    /// Removed by the gateway while it was looked at.
    Pruned,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchained => f.write_str(
                "`prev` is not the hash of the line before: that line was changed, or one was taken out or put in here",
            ),
            Self::Detached => f.write_str(
                "`prev` is not the hash of the last line of the file before: that line was changed, or lines were taken \
                 off or put behind it",
            ),
            Self::Missing { after } => write!(f, "goes on from {after}, which is not here"),
            Self::Unreadable => f.write_str("is not a record: it was changed, or put in here"),
            Self::Head { why } => f.write_str(why),
            Self::TornOtherwise { bytes, said } => write!(
                f,
                "{bytes} bytes stand behind the last whole line before it, and it speaks of {said}"
            ),
            Self::Twice { id, first } => write!(f, "{id} has a record already, at {first}"),
            Self::Unread { why } => write!(f, "cannot be read: {why}"),
            Self::BeginsInTheMiddle { after: Some(after) } => {
                write!(f, "begins in the middle: {after} and older files were removed")
            }
            Self::BeginsInTheMiddle { after: None } => f.write_str("begins in the middle: its first line is gone"),
            Self::Torn { bytes, told: true } => {
                write!(f, "{bytes} bytes at its end are no whole line (a crash, a full disk); the next file says so too")
            }
            Self::Torn { bytes, told: false } => write!(
                f,
                "{bytes} bytes at its end are no whole line: a crash, or one that is being written now"
            ),
            Self::Lost { records } => write!(f, "{records} records were lost before this one: the disk refused them"),
            Self::Pruned => f.write_str("was removed while this looked on, as `keep_bytes` and `keep_days` ask"),
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chain in &self.chains {
            writeln!(f, "{chain}")?;
            for (mark, list) in [("BROKEN ", &self.breaks), ("", &self.notes)] {
                for told in list.listed.iter().filter(|t| t.slot == chain.slot) {
                    writeln!(f, "  {mark}{told}")?;
                }
            }
        }
        for (what, list) in [("breaks", &self.breaks), ("notes", &self.notes)] {
            let more = list.count - list.listed.len() as u64;
            if more > 0 {
                writeln!(f, "and {more} more {what}")?;
            }
        }
        if self.ids_unseen > 0 {
            writeln!(
                f,
                "{} records were not looked at for an id that stands twice: too many",
                self.ids_unseen
            )?;
        }
        match self.breaks.count {
            0 => f.write_str("whole"),
            n => write!(f, "NOT WHOLE: {n} found"),
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.breaks == 0 { "whole" } else { "BROKEN" };
        let begin = if self.from_start { ", from its start" } else { "" };
        let files = match self.files {
            1 => self.first.clone(),
            n => format!("{n} files, {} to {}", self.first, self.last),
        };
        write!(
            f,
            "chain {}: {state}; {} records{begin}; {files}",
            self.slot, self.records
        )?;
        match &self.last_hash {
            Some(hash) => write!(f, "\n  ends with {hash}"),
            None => Ok(()),
        }
    }
}
