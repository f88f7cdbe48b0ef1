//! What a serving process keeps on the disk: budgets, records, usage; and the keys that it reads there. Nothing of it is
//! needed to serve: what cannot be used is told, and serving goes on.

use std::path::Path;
use std::sync::Arc;

use routing::plan::Plan;

use crate::app::App;
use crate::clock::Clock;
use crate::keys::Watcher;
use crate::limits::{Journal, Local};
use crate::telemetry::Telemetry;
use crate::telemetry::names::Name;
use crate::telemetry::writer::{Limits, Sink, Tap, Writer};
use crate::usage::Keeper;

/// Meters, with a journal of what is charged to a day. A folder that cannot be used is told, and serving goes on.
pub fn budgets(data: &Path) -> Local {
    match Journal::open(data) {
        Ok((journal, known)) => Local::journalled(journal, known),
        Err(e) => {
            tracing::error!(
                "money is counted in memory only, and begins at nothing with each start: {} cannot be used: {e}",
                data.display()
            );
            Local::default()
        }
    }
}

/// Reads stored keys, and goes on looking. Where no thread can be had, those that were read count.
pub fn watch_keys(app: &App, data: &Path) -> Option<Watcher> {
    let (live, telemetry) = (Arc::clone(app.stored_keys()), app.telemetry().clone());
    let hears = app.clone();
    let started = Watcher::start(data, live, telemetry, move |said| hears.store_says(said));
    started
        .inspect_err(|e| tracing::error!("stored keys are not watched: no thread could be started: {e}"))
        .ok()
}

/// Who keeps usage. Where no thread can be had, that is told, and serving goes on.
pub fn keep_usage(plan: &Plan, data: &Path, clock: &Clock, telemetry: &Telemetry) -> Option<Keeper> {
    Keeper::start(data, plan.records.keep_days, clock, telemetry)
        .inspect_err(|e| tracing::error!("usage is not kept: no thread could be started: {e}"))
        .ok()
}

/// Records, unless they are off, and who adds them up. A folder that cannot be used is told, and serving goes on.
pub fn records(
    plan: &Plan,
    data: &Path,
    telemetry: &Telemetry,
    usage: Option<&Keeper>,
) -> (Sink, Option<Writer>) {
    let config = &plan.records;
    let tap = || usage.map(|usage| Box::new(usage.feed()) as Box<dyn Tap>);
    if config.path.is_empty() {
        return unwritten(telemetry, tap());
    }
    let dir = data.join(&*config.path);
    let limits = Limits {
        max_file_bytes: config.max_file_bytes,
        keep_bytes: config.keep_bytes,
        keep_days: config.keep_days,
    };
    #[allow(
        clippy::disallowed_methods,
        reason = "the writer's thread only compares it with the age of files"
    )]
    let started = Writer::tapped(&dir, limits, std::time::SystemTime::now, telemetry, tap());
    match started {
        Ok((writer, opened)) => {
            if let Some((path, bytes)) = opened.torn {
                tracing::warn!(
                    "the last line of {} was torn ({bytes} bytes); the chain goes on behind it",
                    path.display()
                );
            }
            (writer.sink(), Some(writer))
        }
        Err(e) => {
            telemetry.counter(Name::RecordFaults, &["open"]).increment(1);
            tracing::error!("no records are written: {} cannot be used: {e}", dir.display());
            unwritten(telemetry, tap())
        }
    }
}

/// No records, but their sums.
fn unwritten(telemetry: &Telemetry, tap: Option<Box<dyn Tap>>) -> (Sink, Option<Writer>) {
    let started = tap.map(|tap| Writer::unwritten(telemetry, tap)).transpose();
    match started {
        Ok(writer) => (writer.as_ref().map_or_else(Sink::none, Writer::sink), writer),
        Err(e) => {
            tracing::error!("usage is not counted: no thread could be started: {e}");
            (Sink::none(), None)
        }
    }
}
