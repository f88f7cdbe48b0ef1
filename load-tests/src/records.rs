//! The gateway's records, read from its files: what each request was written down as, and whether the chain holds.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// One request, as far as a test compares it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Record {
    /// `x-request-id`.
    pub id: String,
    /// The caller's `traceparent`.
    pub trace: String,
    /// Wall time of its head, milliseconds since 1970.
    pub time_ms: u64,
    /// Status.
    pub status: u16,
    /// `whole`, `error`, `cut`, `gone`.
    pub end: String,
    /// Who answered.
    pub answered: String,
    /// Every try.
    pub attempts: Vec<Attempt>,
}

/// One try.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// Target.
    pub target: String,
    /// `first`, `retry`, `failover`, `continue`, ...
    pub kind: String,
    /// `ok`, `target_fault`, `caller_fault`, `neutral`.
    pub outcome: String,
    /// The exact fault.
    pub fault: String,
    /// Start, in microseconds from the request's head.
    pub start_us: u64,
    /// End, likewise.
    pub end_us: u64,
}

/// All records of a folder.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// In the order in which they were written.
    pub all: Vec<Record>,
    /// Files.
    pub files: usize,
    /// What is wrong with the files, one sentence each.
    pub wrong: Vec<String>,
}

/// Files of records, in their order: slots one after the other, numbers rising.
fn files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(dir).map_err(|e| format!("cannot read {}: {e}", dir.display()))?;
    let mut out: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    // Names have their numbers with leading zeros.
    out.sort();
    Ok(out)
}

fn lines(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// Hash of a line as its successor holds it.
fn hash(line: &str) -> String {
    let digest = Sha256::digest(line.as_bytes());
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads all files of one process's chain.
///
/// # Errors
/// The folder, or a file of it, cannot be read.
pub fn read(dir: &Path) -> Result<Records, String> {
    let mut out = Records::default();
    let mut before: Option<String> = None;
    for path in files(dir)? {
        out.files += 1;
        for (at, line) in (1..).zip(lines(&path)?.lines()) {
            let place = || format!("{}:{at}", path.file_name().unwrap_or_default().display());
            let value: Value = match serde_json::from_str(line) {
                Ok(value) => value,
                Err(e) => {
                    out.wrong.push(format!("{}: not JSON ({e})", place()));
                    continue;
                }
            };
            let prev = value.get("prev").and_then(Value::as_str).unwrap_or_default();
            if before.as_deref().is_some_and(|b| b != prev) {
                out.wrong
                    .push(format!("{}: the chain breaks before this line", place()));
            }
            before = Some(hash(line));
            if let Some(n) = value.get("lost_before") {
                out.wrong
                    .push(format!("{}: {n} records were lost before this line", place()));
            }
            if value.get("id").is_some() {
                match serde_json::from_value(value) {
                    Ok(record) => out.all.push(record),
                    Err(e) => out.wrong.push(format!("{}: not a record ({e})", place())),
                }
            }
        }
    }
    Ok(out)
}

/// The whole lines of some requests, by id, for people.
pub fn whole_lines(dir: &Path, ids: &[&str]) -> Vec<(String, Value)> {
    let mut out = Vec::new();
    for path in files(dir).unwrap_or_default() {
        for line in lines(&path).unwrap_or_default().lines() {
            // Parsing all of them would take longer than the test itself.
            let Some(id) = ids.iter().find(|id| !id.is_empty() && line.contains(**id)) else {
                continue;
            };
            if let Ok(value) = serde_json::from_str(line) {
                out.push(((*id).to_owned(), value));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(lines: &[&str]) -> String {
        let mut prev = "0".repeat(64);
        let mut out = String::new();
        for line in lines {
            let line = line.replace("PREV", &prev);
            prev = hash(&line);
            out.push_str(&line);
            out.push('\n');
        }
        out
    }

    #[test]
    fn a_chain_is_followed_over_files_and_a_changed_line_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let text = written(&[
            r#"{"v":1,"chain":0,"file":1,"prev":"PREV"}"#,
            r#"{"id":"r1","status":200,"end":"whole","prev":"PREV"}"#,
            r#"{"v":1,"chain":0,"file":2,"prev":"PREV"}"#,
            r#"{"id":"r2","trace":"00-aa-bb-01","attempts":[{"target":"a","start_us":5}],"prev":"PREV"}"#,
        ]);
        let at = text.find("{\"v\":1,\"chain\":0,\"file\":2").unwrap();
        let (first, second) = text.split_at(at);
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        put("chain-0-00000001.jsonl", first);
        put("chain-0-00000002.jsonl", second);
        let records = read(dir.path()).unwrap();
        assert_eq!(
            (records.wrong.len(), records.files, records.all.len()),
            (0, 2, 2),
            "{records:?}"
        );
        assert_eq!(records.all[1].attempts[0].start_us, 5);
        assert_eq!(whole_lines(dir.path(), &["r2"]).len(), 1);
        put(
            "chain-0-00000001.jsonl",
            &first.replace("\"status\":200", "\"status\":201"),
        );
        assert!(read(dir.path()).unwrap().wrong[0].contains("00000002.jsonl:1: the chain breaks"));
    }

    #[test]
    fn lost_records_and_torn_lines_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let text = written(&[r#"{"id":"r1","lost_before":3,"prev":"PREV"}"#]) + "{\"id\":";
        std::fs::write(dir.path().join("chain-0-00000001.jsonl"), text).unwrap();
        let wrong = read(dir.path()).unwrap().wrong.join("; ");
        assert!(
            wrong.contains("3 records were lost") && wrong.contains(":2: not JSON"),
            "{wrong}"
        );
    }
}
