//! Records: any bytes are looked through to their end, and what is called whole is not, once a byte of it is changed.
//!
//! The input is the text of one or several files, divided by lines of `---`. `@prev@` in a line becomes the hash of the
//! line before, also over the ends of files: no amount of luck finds one.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use gateway::telemetry::audit::{Report, verify};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use weir_fuzz::two_places;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    // In memory where there is such a folder.
    let shared = Path::new("/dev/shm");
    if shared.is_dir() {
        tempfile::tempdir_in(shared)
    } else {
        tempfile::tempdir()
    }
    .expect("a folder")
});

fuzz_target!(|data: &[u8]| {
    let mut prev = "0".repeat(64);
    let files: Vec<Vec<u8>> = split(data)
        .into_iter()
        .take(4)
        .map(|file| linked(file, &mut prev))
        .collect();
    let report = looked_through(&files);
    let bytes = |list: &[Vec<u8>]| list.iter().map(|f| f.len() as u64).sum::<u64>();
    assert_eq!(report.chains.iter().map(|c| c.bytes).sum::<u64>(), bytes(&files));
    assert_eq!(report.whole, report.breaks.count == 0);
    assert!(report.breaks.listed.len() as u64 <= report.breaks.count);
    assert_eq!(
        report.breaks.count,
        report.chains.iter().map(|c| c.breaks).sum::<u64>()
    );
    if let [only] = files.as_slice()
        && report.whole
    {
        changed(only, data);
    }
});

/// A byte of any line but the last is changed, and it is found.
fn changed(file: &[u8], seed: &[u8]) {
    let whole = file.iter().rposition(|b| *b == b'\n').map_or(0, |i| i);
    let last = file[..whole].iter().rposition(|b| *b == b'\n').map_or(0, |i| i);
    for at in two_places(seed).into_iter().flatten().take(3) {
        let Some(at) = at.checked_rem(last) else { return };
        let mut other = file.to_vec();
        other[at] = if other[at] == b'x' { b'y' } else { b'x' };
        let report = looked_through(&[other]);
        assert!(!report.whole, "byte {at} was changed");
    }
}

fn looked_through(files: &[Vec<u8>]) -> Report {
    let dir = DIR.path();
    let path = |i: usize| dir.join(format!("chain-0-{i:08}.jsonl"));
    for (i, file) in files.iter().enumerate() {
        std::fs::write(path(i), file).expect("a file");
    }
    for i in files.len()..4 {
        let _ = std::fs::remove_file(path(i));
    }
    let mut far = (0, 0);
    let report = verify(dir, &mut |done, all| {
        assert!(done >= far.0 && done <= all, "{done} of {all}");
        far = (done, all);
    })
    .expect("a folder of records");
    assert_eq!(far.0, far.1, "it says when it is through");
    report
}

fn split(data: &[u8]) -> Vec<&[u8]> {
    const MARK: &[u8] = b"\n---\n";
    let mut files = Vec::new();
    let mut rest = data;
    while let Some(at) = rest.windows(MARK.len()).position(|w| w == MARK) {
        // The line feed belongs to the line before.
        files.push(&rest[..=at]);
        rest = &rest[at + MARK.len()..];
    }
    files.push(rest);
    files
}

fn linked(file: &[u8], prev: &mut String) -> Vec<u8> {
    let mut out = Vec::new();
    for line in file.split_inclusive(|b| *b == b'\n') {
        let start = out.len();
        let mut rest = line;
        while let Some(at) = rest.windows(6).position(|w| w == b"@prev@") {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(prev.as_bytes());
            rest = &rest[at + 6..];
        }
        out.extend_from_slice(rest);
        if let Some(text) = out[start..].strip_suffix(b"\n") {
            *prev = hash(text);
        }
    }
    out
}

fn hash(line: &[u8]) -> String {
    Sha256::digest(line)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
