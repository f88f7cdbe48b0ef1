//! `weir models`: the artifact store from the command line.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use models::store::{Phase, Progress, Store, StoreError, Update, human_bytes};

use super::{Exit, ModelsCommand};

/// Runs it.
pub fn run(command: &ModelsCommand) -> Exit {
    let store = match Store::from_env() {
        Ok(store) => store,
        Err(e) => return failed(&e),
    };
    match command {
        ModelsCommand::List { json } => list(&store, *json),
        ModelsCommand::Pull { names } => {
            let names = or_else(names, &store, |s| s.default && s.supported);
            each(&names, |name, progress| {
                store.pull(name, progress).map(|l| (l.version, l.dir))
            })
        }
        ModelsCommand::Verify { names } => {
            let names = or_else(names, &store, |s| s.present);
            each(&names, |name, progress| {
                store.verify(name, progress).map(|l| (l.version, l.dir))
            })
        }
    }
}

fn list(store: &Store, json: bool) -> Exit {
    let all = store.list();
    if json {
        out!("{}", serde_json::to_string_pretty(&all).unwrap_or_default());
        return Exit::Fine;
    }
    out!(
        "{:<34} {:<9} {:<8} {:>10}  {:<12} about",
        "name",
        "version",
        "kind",
        "size",
        "here"
    );
    for s in &all {
        let here = match (s.present, s.supported) {
            (true, _) => "yes",
            (false, true) => "no",
            (false, false) => "not for this",
        };
        let size = s.bytes.map_or_else(|| "?".to_owned(), human_bytes);
        out!(
            "{:<34} {:<9} {:<8} {size:>10}  {here:<12} {} ({})",
            s.name,
            s.version,
            s.kind.to_string(),
            s.about,
            s.licence
        );
    }
    out!("\nIn {}", store.root().display());
    Exit::Fine
}

fn or_else(names: &[String], store: &Store, pick: impl Fn(&models::store::Status) -> bool) -> Vec<String> {
    if !names.is_empty() {
        return names.to_vec();
    }
    store
        .list()
        .into_iter()
        .filter(|s| pick(s))
        .map(|s| s.name)
        .collect()
}

fn each<T>(names: &[String], work: T) -> Exit
where
    T: Fn(&str, &dyn Progress) -> Result<(String, std::path::PathBuf), StoreError>,
{
    if names.is_empty() {
        eprintln!(
            "there is nothing to do: no artifact is named, and none is here; `weir models list` shows what there is"
        );
        return Exit::Absent;
    }
    let show = progress();
    let mut exit = Exit::Fine;
    for name in names {
        match work(name, &*show) {
            Ok((version, dir)) => out!("{name} {version}: verified, in {}", dir.display()),
            Err(e) => exit = failed(&e),
        }
    }
    exit
}

/// Says what went wrong with the store.
pub fn failed(e: &StoreError) -> Exit {
    eprintln!("{e}");
    if e.absent() { Exit::Absent } else { Exit::Finding }
}

/// Bars on a terminal, plain lines elsewhere.
pub fn progress() -> Arc<dyn Progress + Send + Sync> {
    if std::io::stderr().is_terminal() {
        Arc::new(Bars::default())
    } else {
        Arc::new(Lines::default())
    }
}

/// One bar an artifact.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<String, (Phase, ProgressBar)>>,
}

impl Progress for Bars {
    fn update(&self, u: Update<'_>) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let (phase, bar) = bars
            .entry(u.artifact.to_owned())
            .or_insert_with(|| (Phase::Waiting, self.all.add(ProgressBar::no_length())));
        if *phase != u.phase {
            *phase = u.phase;
            bar.set_message(format!("{} {}", u.artifact, u.phase.word()));
            bar.set_style(style(u.total.is_some()));
        }
        if let Some(total) = u.total {
            bar.set_length(total);
        }
        bar.set_position(u.done);
        if u.phase == Phase::Done {
            bar.finish_and_clear();
        }
    }
    fn note(&self, artifact: &str, text: &str) {
        let _ = self.all.println(format!("{artifact}: {text}"));
    }
}

fn style(known: bool) -> ProgressStyle {
    let template = if known {
        "{msg:<48} {bar:24} {bytes:>10} of {total_bytes} {bytes_per_sec:>12} {eta:>4}"
    } else {
        "{msg:<48} {spinner} {bytes:>10} {bytes_per_sec:>12}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A line at each tenth.
#[derive(Default)]
struct Lines {
    told: Mutex<HashMap<String, (Phase, u64)>>,
}

impl Progress for Lines {
    fn update(&self, u: Update<'_>) {
        let tenth = u
            .total
            .filter(|t| *t > 0)
            .map_or(0, |total| u.done.saturating_mul(10) / total);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(u.artifact.to_owned(), (u.phase, tenth)) == Some((u.phase, tenth)) {
            return;
        }
        drop(told);
        let of = u
            .total
            .map(|t| format!(" of {}", human_bytes(t)))
            .unwrap_or_default();
        match u.phase {
            Phase::Waiting => eprintln!("{}: waiting for another process that fetches it", u.artifact),
            Phase::Done => eprintln!("{}: done", u.artifact),
            phase => eprintln!("{}: {} {}{of}", u.artifact, phase.word(), human_bytes(u.done)),
        }
    }
    fn note(&self, artifact: &str, text: &str) {
        eprintln!("{artifact}: {text}");
    }
}
