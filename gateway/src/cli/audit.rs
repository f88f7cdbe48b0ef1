//! `weir audit`: is every record where its writer put it, and as it was written?

use std::io::IsTerminal;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::{AuditCommand, Exit};
use crate::telemetry::audit::{self, Nothing};

/// Runs it.
pub fn run(command: &AuditCommand) -> Exit {
    match command {
        AuditCommand::Verify { at, json } => verify(at, *json),
    }
}

fn verify(at: &Path, json: bool) -> Exit {
    let bar = bar();
    let report = audit::verify(at, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    match report {
        Ok(report) => {
            if json {
                out!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
            } else {
                out!("{report}");
            }
            if report.whole { Exit::Fine } else { Exit::Finding }
        }
        Err(nothing) => {
            eprintln!("{nothing}");
            match nothing {
                Nothing::Absent(..) | Nothing::Empty(_) => Exit::Absent,
                Nothing::NotOurs(_) => Exit::Usage,
            }
        }
    }
}

/// On a terminal only: elsewhere the report is there within seconds.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "verifying {bar:24} {bytes:>10} of {total_bytes} {bytes_per_sec:>12} {eta:>4}",
    );
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
