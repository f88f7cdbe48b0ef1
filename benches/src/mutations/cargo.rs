//! Building a crate's tests, and running some of them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

/// Builds the tests of a crate (`target`: one integration test of it) and gives the program that runs them.
///
/// # Errors
/// What the compiler said.
pub fn build(tree: &Path, target_dir: &Path, package: &str, target: Option<&str>) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args([
            "test",
            "--no-run",
            "--quiet",
            "--message-format=json",
            "-p",
            package,
        ])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(tree);
    match target {
        Some(name) => command.args(["--test", name]),
        None => command.arg("--lib"),
    };
    let built = command
        .output()
        .map_err(|e| format!("cargo cannot be run: {e}"))?;
    let said: Vec<Value> = String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    if !built.status.success() {
        let errors = said.iter().filter(|m| m["message"]["level"] == "error");
        let errors: Vec<&str> = errors.filter_map(|m| m["message"]["rendered"].as_str()).collect();
        return Err(match errors.first() {
            Some(first) => (*first).to_owned(),
            None => String::from_utf8_lossy(&built.stderr).into_owned(),
        });
    }
    said.iter()
        .filter(|m| m["reason"] == "compiler-artifact" && m["profile"]["test"] == true)
        .find_map(|m| m["executable"].as_str())
        .map(PathBuf::from)
        .ok_or_else(|| format!("cargo built no tests of {package}"))
}

/// What became of some tests.
#[derive(Debug, PartialEq, Eq)]
pub enum Ran {
    /// By name: did it pass?
    Told(BTreeMap<String, bool>),
    /// Not over in time; it was ended.
    Hung,
    /// It ended without a word about each of them: an abort, or there is no such test.
    Silent(String),
}

/// Runs these tests and no others, for no longer than `most`.
///
/// # Errors
/// A sentence, when the program does not start.
pub fn run(program: &Path, folder: &Path, tests: &[String], most: Duration) -> Result<Ran, String> {
    let mut child = Command::new(program)
        .args(tests)
        .args(["--exact", "--color=never"])
        .current_dir(folder)
        .env("INSTA_UPDATE", "no")
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    let mut out = child.stdout.take().ok_or("no output")?;
    let (give, take) = channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = out.read_to_string(&mut text);
        let _ = give.send(text);
    });
    let text = match take.recv_timeout(most) {
        Ok(text) => text,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(Ran::Hung);
        }
    };
    let _ = child.wait();
    let told = told(&text);
    if tests.iter().all(|t| told.contains_key(t)) {
        return Ok(Ran::Told(told));
    }
    let last = text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or_default();
    Ok(Ran::Silent(last.to_owned()))
}

/// `test NAME ... ok` and `test NAME ... FAILED`.
fn told(text: &str) -> BTreeMap<String, bool> {
    text.lines()
        .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "))
        .filter_map(|(name, result)| match result.trim() {
            "ok" => Some((name.to_owned(), true)),
            "FAILED" => Some((name.to_owned(), false)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        let text = "\nrunning 3 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... ignored, slow\n\ntest result: FAILED.";
        let expected = [("a::b".to_owned(), true), ("c".to_owned(), false)];
        assert_eq!(told(text), expected.into());
    }
}
