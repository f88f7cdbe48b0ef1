//! A process that is killed in the middle of its work, and the next one in the same home: records are readable, what the
//! kill took is told, nothing else is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![cfg(unix)]

mod program;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use load_tests::provider::{Options, Provider, Script};
use program::{Weir, audit, records, request, until};

/// Answered before the kill, and their records written.
const ENDED: usize = 40;
/// Streams in the middle of which it is killed.
const OPEN: usize = 100;
/// Answered by the next process.
const AFTER: usize = 5;

const WHOLE: &str = r#"{"model":"auto","messages":[{"role":"user","content":"hello"}]}"#;
const STREAM: &str = r#"{"model":"auto","stream":true,"messages":[{"role":"user","content":"hello [[lab: tokens=20 ending=stall end_after=5]]"}]}"#;

fn provider() -> Provider {
    Provider::start_on_thread(Script::default(), Options::default()).unwrap()
}

/// Reads a head; the request's id.
fn id_of(client: &mut BufReader<TcpStream>) -> String {
    let (mut id, mut line) = (String::new(), String::new());
    client.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    while line != "\r\n" {
        if let Some(value) = line.strip_prefix("x-request-id: ") {
            id = value.trim().to_owned();
        }
        line.clear();
        client.read_line(&mut line).unwrap();
    }
    id
}

/// A whole answer; the request's id.
fn answer(weir: &Weir) -> String {
    let mut client = BufReader::new(weir.send(WHOLE));
    let id = id_of(&mut client);
    let mut body = String::new();
    client.read_to_string(&mut body).unwrap();
    assert!(body.contains("finish_reason"), "{body}");
    id
}

/// A stream of which some text has come; it stays open.
fn begin(weir: &Weir) -> (String, BufReader<TcpStream>) {
    let mut client = BufReader::new(weir.send(STREAM));
    let id = id_of(&mut client);
    until(&mut client, "\"content\":\"");
    (id, client)
}

/// Waits until so many records are on the disk: the writer looks by itself.
fn written(home: &Path, count: usize) {
    // Nobody ever sends: what comes is the time to look again.
    let (_quiet, looks) = std::sync::mpsc::channel::<()>();
    for _ in 0..4_000 {
        if records(home).len() >= count {
            return;
        }
        let _ = looks.recv_timeout(Duration::from_millis(5));
    }
    panic!("{} of {count} records after 20 s", records(home).len());
}

/// How many records each id has.
fn by_id(home: &Path) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for record in records(home) {
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        *found
            .entry(record["id"].as_str().unwrap().to_owned())
            .or_insert(0) += 1;
    }
    found
}

fn verified(home: &Path) -> serde_json::Value {
    let folder = home.join("records");
    let told = audit(&["--json", folder.to_str().unwrap()]);
    let report = serde_json::from_slice(&told.stdout).unwrap();
    assert!(told.status.success(), "{report:#}");
    report
}

/// The files of the one chain, in order.
fn files(home: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.join("records")).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    files.sort();
    files
}

/// Kills when it goes.
struct Killed<'a>(&'a Weir);

impl Drop for Killed<'_> {
    fn drop(&mut self) {
        self.0.signal("-KILL");
    }
}

#[test]
fn killed_in_the_middle_of_a_hundred_streams_it_loses_only_what_was_open() {
    let provider = provider();
    let home = tempfile::tempdir().unwrap();
    let mut first = Weir::start(home.path(), provider.address(), 0);
    let ended: Vec<String> = (0..ENDED).map(|_| answer(&first)).collect();
    let open: Vec<(String, BufReader<TcpStream>)> = (0..OPEN).map(|_| begin(&first)).collect();
    written(home.path(), ENDED);
    // The writer is at work when it happens.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Ok(mut client) = TcpStream::connect(&first.address) {
                    // The kill may come between any two bytes.
                    let _ = client.write_all(request("connection: close\r\n", WHOLE).as_bytes());
                    let _ = client.read_to_end(&mut Vec::new());
                }
            });
        }
        // Whatever comes of it: they end with the process.
        let _killed = Killed(&first);
        written(home.path(), ENDED + 50);
    });
    assert!(!first.child.wait().unwrap().success());
    let left = by_id(home.path());

    let second = Weir::start(home.path(), provider.address(), 0);
    let after: Vec<String> = (0..AFTER).map(|_| answer(&second)).collect();
    written(home.path(), left.len() + AFTER);
    let report = verified(home.path());
    assert_eq!(report["whole"], true, "{report:#}");
    let mut second = second;
    second.terminate();
    assert!(second.child.wait().unwrap().success());

    let found = by_id(home.path());
    for id in ended.iter().chain(&after) {
        assert_eq!(found.get(id), Some(&1), "{id}");
    }
    assert!(found.values().all(|count| *count == 1), "{found:?}");
    assert_eq!(found.len(), left.len() + AFTER, "what was on the disk is there");
    // Its record is written when a body has ended; these never did.
    assert!(open.iter().all(|(id, _)| !found.contains_key(id)));
    // The lock went with its holder: the same chain goes on.
    let report = verified(home.path());
    let chains = report["chains"].as_array().unwrap();
    assert_eq!((chains.len(), files(home.path()).len()), (1, 2), "{report:#}");
    assert_eq!(chains[0]["records"], found.len());
    // If the kill tore a line, the report says so.
    let torn = std::fs::read(&files(home.path())[0]).unwrap().last() != Some(&b'\n');
    let told = report["notes"]["listed"].as_array().unwrap();
    assert_eq!(told.iter().any(|n| n["kind"] == "torn"), torn, "{report:#}");
}

#[test]
fn a_line_torn_by_a_kill_is_told_and_the_chain_goes_on_behind_it() {
    let provider = provider();
    let home = tempfile::tempdir().unwrap();
    let mut first = Weir::start(home.path(), provider.address(), 0);
    let ids: Vec<String> = (0..ENDED).map(|_| answer(&first)).collect();
    written(home.path(), ENDED);
    first.signal("-KILL");
    first.child.wait().unwrap();
    let path = files(home.path()).remove(0);
    let text = std::fs::read_to_string(&path).unwrap();
    let last = text.lines().last().unwrap().len();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len((text.len() - 1 - last / 2) as u64).unwrap();
    let torn = last - last / 2;

    let mut second = Weir::start(home.path(), provider.address(), 0);
    let told = until(&mut second.logged, "was torn");
    assert!(told.contains(&format!("({torn} bytes)")), "{told}");
    let after = answer(&second);
    second.terminate();
    assert!(second.child.wait().unwrap().success());
    let report = verified(home.path());
    let notes = report["notes"]["listed"].as_array().unwrap();
    assert_eq!(notes.len(), 1, "{report:#}");
    let told = (&notes[0]["kind"], &notes[0]["bytes"], &notes[0]["told"]);
    assert_eq!(told, (&"torn".into(), &torn.into(), &true.into()), "{report:#}");
    let found = by_id(home.path());
    assert_eq!(found.len(), ENDED, "all but the torn one, and the one behind it");
    assert_eq!(found.get(ids.last().unwrap()), None);
    assert_eq!(found.get(&after), Some(&1));
}
