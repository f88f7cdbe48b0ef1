//! `weir audit verify` as its user runs it: what it prints, and with what it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod program;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway::telemetry::Telemetry;
use gateway::telemetry::record::Record;
use gateway::telemetry::writer::{Limits, Writer};
use program::audit;

fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000)
}

/// Five records; their file.
fn five(dir: &Path) -> PathBuf {
    let limits = Limits {
        max_file_bytes: 1 << 20,
        keep_bytes: 1 << 30,
        keep_days: 30,
    };
    let (writer, opened) = Writer::start(dir, limits, wall, &Telemetry::new()).unwrap();
    let sink = writer.sink();
    for i in 0..5 {
        sink.send(Box::new(Record::open(&format!("req_{i}"), 7, Default::default())));
    }
    writer.close();
    opened.path
}

/// Exit code, what went to standard output, what went to standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    let output = audit(args);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn whole_records_end_with_0_and_changed_ones_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, file) = (dir.path().to_str().unwrap(), five(dir.path()));
    let (code, out, err) = run(&[folder]);
    assert_eq!((code, &*err), (0, ""));
    assert!(
        out.starts_with("chain 0: whole; 5 records, from its start;"),
        "{out}"
    );
    assert_eq!(out.lines().last(), Some("whole"));
    let text = std::fs::read_to_string(&file)
        .unwrap()
        .replacen("req_2", "req_7", 1);
    std::fs::write(&file, text).unwrap();
    let (code, out, _) = run(&[folder]);
    assert_eq!(code, 1);
    assert!(out.contains("BROKEN chain-0-00000000.jsonl:5: "), "{out}");
    assert_eq!(out.lines().last(), Some("NOT WHOLE: 1 found"));
    let (code, out, _) = run(&["--json", file.to_str().unwrap()]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["whole"]), (1, &false.into()));
    let found = &report["breaks"]["listed"][0];
    assert_eq!(
        (&found["file"], &found["line"], &found["kind"]),
        (&"chain-0-00000000.jsonl".into(), &5.into(), &"unchained".into())
    );
}

#[test]
fn wrong_usage_ends_with_2_and_nothing_there_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    assert_eq!(run(&[]).0, 2);
    let other = dir.path().join("routing.toml");
    std::fs::write(&other, "").unwrap();
    let (code, out, err) = run(&[other.to_str().unwrap()]);
    assert_eq!((code, &*out), (2, ""));
    assert!(err.contains("chain-SLOT-NUMBER.jsonl"), "{err}");
    let (code, _, err) = run(&[folder]);
    assert!(code == 3 && err.contains("no records are here"), "{err}");
    let (code, _, err) = run(&[&format!("{folder}/nowhere")]);
    assert!(code == 3 && err.contains("nowhere"), "{err}");
}
