//! The files of a folder of records: their names, their slots, and where a chain stands in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Numbers that are passed over when their names are taken (by what a crash or a full disk left behind).
const TAKEN: u64 = 64;

/// A file of fewer bytes holds no more than its first line.
pub const BARE: u64 = 256;

/// First line of a file.
#[derive(Serialize)]
struct Head<'a> {
    v: u8,
    chain: u32,
    file: u64,
    /// The file before, whose last whole line's hash is `prev`.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a str>,
    /// Bytes of a torn line at its end, which the chain leaves out.
    #[serde(skip_serializing_if = "is_zero")]
    torn_bytes: u64,
    prev: &'a str,
}

/// For `skip_serializing_if`.
pub fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A file of records.
pub struct Found {
    pub path: PathBuf,
    pub slot: u32,
    pub number: u64,
    pub bytes: u64,
    pub modified: SystemTime,
}

/// Where a chain stands: what its next file begins with.
pub struct Tail {
    /// The file with the last whole line.
    pub after: Option<String>,
    /// That line's hash.
    pub hash: String,
    /// Bytes behind it that are no whole line.
    pub torn: u64,
    /// Where those stand.
    pub torn_in: Option<PathBuf>,
}

/// A file that was begun.
pub struct Begun {
    pub file: File,
    pub path: PathBuf,
    pub number: u64,
    /// Bytes of its first line.
    pub size: u64,
    /// That line's hash.
    pub hash: String,
}

/// The first slot that nobody has.
pub fn take_slot(dir: &Path) -> io::Result<(u32, File)> {
    for slot in 0..64 {
        if let Some(lock) = lock_slot(dir, slot)? {
            return Ok((slot, lock));
        }
    }
    Err(io::Error::other("64 processes write records here already"))
}

/// The lock of a slot; `None`: a process has it.
pub fn lock_slot(dir: &Path, slot: u32) -> io::Result<Option<File>> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(format!("chain-{slot}.lock")))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// All files of records in a folder.
pub fn files(dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some((slot, number)) = entry.file_name().to_str().and_then(place_of) else {
            continue;
        };
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            // Another process has removed it just now.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        found.push(Found {
            path: entry.path(),
            slot,
            number,
            bytes: meta.len(),
            modified: meta.modified()?,
        });
    }
    Ok(found)
}

/// Slot and number in a file's name; `None`: not a file of records.
pub fn place_of(name: &str) -> Option<(u32, u64)> {
    let (slot, number) = name
        .strip_prefix("chain-")?
        .strip_suffix(".jsonl")?
        .split_once('-')?;
    Some((slot.parse().ok()?, number.parse().ok()?))
}

/// Where the chain of `slot` stands, and the number of its last file. A file that a crash or a full disk left without a
/// whole line does not begin the chain anew: the one before it counts.
pub fn tail(all: &[Found], slot: u32) -> io::Result<(Option<u64>, Tail)> {
    let mut own: Vec<&Found> = all.iter().filter(|f| f.slot == slot).collect();
    own.sort_by_key(|f| std::cmp::Reverse(f.number));
    let mut tail = Tail {
        after: None,
        hash: zero_hash(),
        torn: 0,
        torn_in: None,
    };
    for f in &own {
        let (hash, torn) = read_tail(&f.path)?;
        if torn > 0 {
            tail.torn += torn;
            tail.torn_in.get_or_insert_with(|| f.path.clone());
        }
        if let Some(hash) = hash {
            tail.hash = hash;
            tail.after = name_of(&f.path);
            break;
        }
    }
    Ok((own.first().map(|f| f.number), tail))
}

/// Hash of the last whole line of a file (`None`: it has none), and how many bytes stand behind it.
fn read_tail(path: &Path) -> io::Result<(Option<String>, u64)> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // A line is far shorter than this.
    let from = length.saturating_sub(4 * 1024 * 1024);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let torn = (bytes.len() - whole) as u64;
    let lines = bytes.get(..whole.saturating_sub(1)).unwrap_or_default();
    let last = lines.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    Ok(((whole > 0).then(|| hash(last)), torn))
}

/// Begins a file of `slot`, with `number` or the next one whose name is free.
pub fn begin(dir: &Path, slot: u32, number: u64, tail: &Tail) -> io::Result<Begun> {
    let mut taken = None;
    for number in number..number.saturating_add(TAKEN) {
        let path = dir.join(format!("chain-{slot}-{number:08}.jsonl"));
        let file = match OpenOptions::new().create_new(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                taken = Some(e);
                continue;
            }
            Err(e) => return Err(e),
        };
        let head = Head {
            v: 1,
            chain: slot,
            file: number,
            after: tail.after.as_deref(),
            torn_bytes: tail.torn,
            prev: &tail.hash,
        };
        return write_head(file, path, number, &head);
    }
    Err(taken.unwrap_or_else(|| io::Error::other("no free name for a file of records")))
}

fn write_head(mut file: File, path: PathBuf, number: u64, head: &Head<'_>) -> io::Result<Begun> {
    let mut line = serde_json::to_vec(head)?;
    let hash = hash(&line);
    line.push(b'\n');
    if let Err(e) = file.write_all(&line) {
        let _ = std::fs::remove_file(&path);
        return Err(e);
    }
    Ok(Begun {
        file,
        path,
        number,
        size: line.len() as u64,
        hash,
    })
}

/// A file's own name.
pub fn name_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// What the first line of a chain goes on from.
pub fn zero_hash() -> String {
    "0".repeat(64)
}

/// SHA-256 of a line, as hex.
pub fn hash(line: &[u8]) -> String {
    hex(&Sha256::digest(line))
}

/// Bytes in lower case.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}
