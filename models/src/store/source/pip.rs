//! Wheels, by this machine's own pip: it knows the owner's index, proxy and certificates, and no Python of ours is
//! needed. pip shows its progress only to a terminal, so the bytes that it has written are measured instead.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::super::error::StoreError;
use super::super::files;
use super::super::progress::Phase;
use super::Fetch;

/// Lines of pip's output kept for an error.
const TAIL: usize = 40;
/// The folder of a work room that pip puts wheels into.
const WHEELS: &str = "pip-wheels";
/// The file beside a wheel that is whole: which package it is. pip writes no part of a wheel that could be gone on with.
const WHOLE: &str = "whole";
/// What a try that failed leaves to the next.
const KEPT: &str = "artifacts that are in place stay, and pip fetches this one from its beginning";

/// Is this what pip has brought to a work room?
pub(super) fn can_resume(path: &Path) -> bool {
    path.ends_with(WHEELS)
}

/// Takes away what pip has brought.
pub(super) fn forget(work: &Path) -> Result<(), StoreError> {
    let wheels = work.join(WHEELS);
    match std::fs::remove_dir_all(&wheels) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("removing", &wheels, e)),
        _ => Ok(()),
    }
}

/// Downloads `what` (`PACKAGE==VERSION`) and answers the wheel's path in the work room. One that an earlier pull got whole
/// and could not put into its place is taken as it is.
pub(super) fn download(fetch: &Fetch, what: &str) -> Result<PathBuf, StoreError> {
    let (temp, dest) = (fetch.work.join("pip-temp"), fetch.work.join(WHEELS));
    if std::fs::read(dest.join(WHOLE)).is_ok_and(|of| of == what.as_bytes())
        && let Some(wheel) = wheel_in(&dest)?
    {
        return Ok(wheel);
    }
    forget(fetch.work)?;
    files::make_folder(&temp)?;
    files::make_folder(&dest)?;
    let mut child = start(fetch, what, &temp, &dest)?;
    let lines = watch(&mut child, || {
        let bytes = files::bytes_below(&temp).max(files::bytes_below(&dest));
        fetch
            .reporter
            .at(Phase::Downloading, bytes, fetch.artifact.download_bytes);
    });
    let status = child
        .wait()
        .map_err(|e| StoreError::io("waiting for pip in", fetch.work, e))?;
    if !status.success() {
        return Err(explain(what, &lines, fetch.work));
    }
    let wheel = wheel_in(&dest)?.ok_or_else(|| StoreError::Pip {
        what: what.to_owned(),
        detail: "it reported success and left no wheel".to_owned(),
    })?;
    files::write_whole(&dest.join(WHOLE), what.as_bytes())?;
    Ok(wheel)
}

fn wheel_in(dest: &Path) -> Result<Option<PathBuf>, StoreError> {
    let entries = std::fs::read_dir(dest).map_err(|e| StoreError::io("reading the folder", dest, e))?;
    let mut wheels = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "whl"));
    Ok(wheels.next())
}

/// The pips to try, in order.
fn candidates(pip: Option<&OsString>) -> Vec<Vec<OsString>> {
    match pip {
        Some(own) => vec![vec![own.clone()]],
        None => [&["pip"][..], &["pip3"], &["python3", "-m", "pip"]]
            .iter()
            .map(|words| words.iter().map(OsString::from).collect())
            .collect(),
    }
}

fn start(fetch: &Fetch, what: &str, temp: &Path, dest: &Path) -> Result<Child, StoreError> {
    let candidates = candidates(fetch.settings.pip.as_ref());
    for words in &candidates {
        let Some((program, first)) = words.split_first() else {
            continue;
        };
        if !works(program, first) {
            continue;
        }
        return Command::new(program)
            .args(first)
            .args([
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--no-input",
                "--disable-pip-version-check",
            ])
            // pip's own cache would be a second copy of what the store keeps anyway.
            .args(["--no-cache-dir", "--progress-bar", "off", "--dest"])
            .arg(dest)
            .arg(what)
            .env("TMPDIR", temp)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| StoreError::io("starting", Path::new(program), e));
    }
    let tried = candidates
        .iter()
        .map(|w| w.join(std::ffi::OsStr::new(" ")).to_string_lossy().into_owned());
    Err(StoreError::NoPip {
        tried: tried.collect(),
    })
}

/// `python3` may be there without pip, and a shim called `pip` without anything behind it: ask.
fn works(program: &OsString, first: &[OsString]) -> bool {
    let mut command = Command::new(program);
    command
        .args(first)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}

/// Reads both of pip's outputs to their end; `tick` runs at the start, every 200 ms and at the end.
fn watch(child: &mut Child, mut tick: impl FnMut()) -> Vec<String> {
    let (tx, rx) = mpsc::channel();
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|o| Box::new(o) as Box<dyn Read + Send>),
        child.stderr.take().map(|e| Box::new(e) as Box<dyn Read + Send>),
    ];
    for output in outputs.into_iter().flatten() {
        let tx = tx.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(io::Result::ok) {
                if tx.send(String::from_utf8_lossy(&line).trim().to_owned()).is_err() {
                    break;
                }
            }
        });
    }
    drop(tx);
    let mut lines = std::collections::VecDeque::new();
    loop {
        tick();
        match rx.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                if lines.len() == TAIL {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    tick();
    lines.into()
}

/// Turns pip's last words into one of our errors. Only the words are there to go by: its exit code is 1 for all.
fn explain(what: &str, lines: &[String], work: &Path) -> StoreError {
    let all = lines.join("\n").to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| all.contains(w));
    let telling = lines
        .iter()
        .rev()
        .find(|l| l.starts_with("ERROR"))
        .or(lines.last());
    let detail = telling
        .map_or("it printed nothing", |l| l.trim_start_matches("ERROR:").trim())
        .to_owned();
    let what = what.to_owned();
    if has(&["no space left on device", "disk quota exceeded"]) {
        return StoreError::DiskFull {
            folder: work.to_owned(),
            need: None,
            free: None,
        };
    }
    // Without a network pip retries, warns about each try, and ends with "no matching distribution": the warnings tell.
    if has(&[
        "name resolution",
        "name or service not known",
        "nodename nor servname",
        "newconnectionerror",
        "connection refused",
        "network is unreachable",
        "no route to host",
        "connecttimeout",
        "readtimeout",
        "timed out",
        "connection reset",
        "connection aborted",
        "connection broken",
        "proxyerror",
        "sslerror",
        "max retries exceeded",
    ]) {
        let warning = lines
            .iter()
            .find(|l| l.starts_with("WARNING"))
            .cloned()
            .unwrap_or(detail);
        return StoreError::NoNetwork {
            what: format!("{what} (by pip)"),
            detail: warning,
            kept: KEPT,
        };
    }
    if has(&["no matching distribution", "could not find a version"]) {
        return StoreError::NotThere { what, detail };
    }
    StoreError::Pip { what, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(text: &str) -> StoreError {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        explain("x==1", &lines, Path::new("/work"))
    }

    #[test]
    fn a_missing_network_is_told_from_a_missing_package() {
        let offline = "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(...: Failed to \
                       establish a new connection: [Errno -3] Temporary failure in name resolution')': /simple/x/\n\
                       ERROR: Could not find a version that satisfies the requirement x==1 (from versions: none)\n\
                       ERROR: No matching distribution found for x==1";
        assert!(matches!(explained(offline), StoreError::NoNetwork { .. }));
        let (_, absent) = offline.split_once('\n').unwrap();
        assert!(matches!(explained(absent), StoreError::NotThere { .. }));
        assert!(matches!(
            explained(
                "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
            ),
            StoreError::DiskFull { .. }
        ));
        let other = explained("something odd\nERROR: it broke");
        assert!(
            matches!(&other, StoreError::Pip { detail, .. } if detail == "it broke"),
            "{other}"
        );
        assert!(matches!(explained(""), StoreError::Pip { .. }));
    }

    #[test]
    fn a_named_pip_is_the_only_one_tried() {
        assert_eq!(
            candidates(Some(&"mine".into())),
            vec![vec![OsString::from("mine")]]
        );
        assert_eq!(candidates(None).len(), 3);
    }
}
