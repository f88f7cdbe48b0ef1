//! Counting a program's instructions with valgrind's callgrind.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Counts, What};

/// Is valgrind there?
pub fn version() -> Option<String> {
    let out = Command::new("valgrind").arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    (out.status.success() && !said.is_empty()).then_some(said)
}

/// Instructions of each thing, by this very program. `progress` is told what is being counted.
///
/// # Errors
/// valgrind or the program failed.
pub fn count(mut progress: impl FnMut(What)) -> Result<Counts, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut counts = Counts::default();
    for what in What::ALL {
        progress(what);
        let (few, many) = what.times();
        let (less, more) = (
            once(&program, folder.path(), what, few)?,
            once(&program, folder.path(), what, many)?,
        );
        let each = more.saturating_sub(less) / u64::from(many - few);
        counts.0.insert(what.name(), each);
    }
    Ok(counts)
}

fn once(program: &Path, folder: &Path, what: What, times: u32) -> Result<u64, String> {
    let file = folder.join("callgrind.out");
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--toggle-collect=*cost::counted*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(["run", what.name(), &times.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("valgrind cannot be started: {e}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(format!(
            "{} x {times} under valgrind: {}",
            what.name(),
            said.trim()
        ));
    }
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    totals(&text).filter(|n| *n > 0).ok_or_else(|| {
        format!(
            "callgrind counted nothing of {}: is `counted` in the program still?",
            what.name()
        )
    })
}

/// The line `totals: N` (or `summary: N`) at the end of callgrind's file.
fn totals(text: &str) -> Option<u64> {
    text.lines().rev().find_map(|line| {
        let count = line
            .strip_prefix("totals:")
            .or_else(|| line.strip_prefix("summary:"))?;
        count.split_whitespace().next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read() {
        let text = "version: 1\nevents: Ir\n\nfn=(1) main\n1 5\n\ntotals: 123456\n";
        assert_eq!(totals(text), Some(123_456));
        assert_eq!(totals("events: Ir\n"), None);
    }
}
