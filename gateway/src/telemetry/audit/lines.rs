//! The lines of a file of records, one after the other, in bounded memory whatever the file holds.

use std::borrow::Cow;
use std::io::{self, BufRead};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::super::writer::files::hex;

/// A longer line is hashed, but not kept: no record is as long as that.
pub const LONGEST: usize = 4 * 1024 * 1024;

/// Where a line stands, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: u64,
    /// Its first byte's offset.
    pub at: u64,
    /// Its bytes, with its line feed.
    pub bytes: u64,
    /// SHA-256 of it without its line feed, as hex.
    pub hash: String,
    /// It ends in a line feed; otherwise it is what a crash left, or is being written now.
    pub whole: bool,
    /// Longer than [`LONGEST`]: its text was not kept.
    pub too_long: bool,
}

/// Reads lines.
pub struct Lines<R> {
    from: R,
    number: u64,
    at: u64,
}

impl<R: BufRead> Lines<R> {
    pub fn new(from: R) -> Self {
        Self {
            from,
            number: 0,
            at: 0,
        }
    }

    /// The next line; its text, without its line feed, is in `text`.
    pub fn next(&mut self, text: &mut Vec<u8>) -> io::Result<Option<Line>> {
        text.clear();
        let mut hasher = Sha256::new();
        let (mut bytes, mut whole, mut too_long) = (0_u64, false, false);
        while !whole {
            let there = match self.from.fill_buf() {
                Ok(there) => there,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if there.is_empty() {
                break;
            }
            let end = memchr::memchr(b'\n', there);
            whole = end.is_some();
            let piece = there.get(..end.unwrap_or(there.len())).unwrap_or_default();
            hasher.update(piece);
            too_long |= text.len() + piece.len() > LONGEST;
            if !too_long {
                text.extend_from_slice(piece);
            }
            let taken = piece.len() + usize::from(whole);
            bytes += taken as u64;
            self.from.consume(taken);
        }
        if bytes == 0 {
            return Ok(None);
        }
        self.number += 1;
        let line = Line {
            number: self.number,
            at: self.at,
            bytes,
            hash: hex(&hasher.finalize()),
            whole,
            too_long,
        };
        self.at += bytes;
        Ok(Some(line))
    }
}

/// What a line says of its place in the chain.
#[derive(Debug, Deserialize)]
pub struct Said<'a> {
    /// Hash of the line before.
    pub prev: Cow<'a, str>,
    /// A record's.
    #[serde(borrow, default)]
    pub id: Option<Cow<'a, str>>,
    #[serde(default)]
    pub lost_before: u64,
    /// A first line's: slot, number, the file before and the bytes that the chain leaves out at its end.
    #[serde(default)]
    pub chain: Option<u32>,
    #[serde(default)]
    pub file: Option<u64>,
    #[serde(borrow, default)]
    pub after: Option<Cow<'a, str>>,
    #[serde(default)]
    pub torn_bytes: u64,
}

impl<'a> Said<'a> {
    /// `None`: not a line of ours.
    pub fn read(text: &'a [u8]) -> Option<Self> {
        // A sequence would be taken for a struct.
        if text.first() != Some(&b'{') {
            return None;
        }
        serde_json::from_slice(text).ok()
    }

    /// A file's first line: its slot and number.
    pub fn head(&self) -> Option<(u32, u64)> {
        self.chain.zip(self.file).filter(|_| self.id.is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;
    use crate::telemetry::writer::files::hash;

    fn lines(bytes: &[u8], room: usize) -> Vec<(Line, Vec<u8>)> {
        let mut lines = Lines::new(BufReader::with_capacity(room, bytes));
        let mut text = Vec::new();
        std::iter::from_fn(|| lines.next(&mut text).unwrap().map(|line| (line, text.clone()))).collect()
    }

    #[test]
    fn lines_are_the_same_however_they_are_read() {
        let bytes = b"one\n\ntwo and more\nto";
        for room in 1..30 {
            let found = lines(bytes, room);
            let told: Vec<_> = found
                .iter()
                .map(|(l, text)| (l.number, l.at, l.bytes, l.whole, text.as_slice()))
                .collect();
            let expected: [(u64, u64, u64, bool, &[u8]); 4] = [
                (1, 0, 4, true, b"one"),
                (2, 4, 1, true, b""),
                (3, 5, 13, true, b"two and more"),
                (4, 18, 2, false, b"to"),
            ];
            assert_eq!(told, expected);
            assert!(found.iter().all(|(l, text)| l.hash == hash(text)));
        }
    }

    #[test]
    fn what_has_no_end_is_hashed_and_not_kept() {
        let mut bytes = vec![b'x'; LONGEST + 1];
        let whole = hash(&bytes);
        bytes.push(b'\n');
        let found = lines(&bytes, 8_192);
        let (line, text) = &found[0];
        assert!(line.too_long && line.whole && text.len() <= LONGEST);
        assert_eq!((&line.hash, line.bytes), (&whole, bytes.len() as u64));
        bytes.remove(0);
        assert!(!lines(&bytes, 8_192)[0].0.too_long);
    }
}
