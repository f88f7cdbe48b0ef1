//! `weir train` and `weir eval`: the heads that look at requests, made from recorded outcomes and judged on those that
//! were kept apart.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;
use std::time::SystemTime;

use indicatif::{ProgressBar, ProgressStyle};
use models::eval::{self, Evaluation};
use models::heads::Heads;
use models::store::Store;
use models::train::{self, Places, TrainError};

use super::models::progress;
use super::{Eval, Exit, Train};
use crate::clock::Clock;

/// What the encoder needs.
const ARTIFACTS: [&str; 2] = ["onnxruntime", "all-minilm-l6-v2"];

/// Runs `weir train`.
pub fn train(args: &Train) -> Exit {
    let date = today(Clock::system().wall());
    run(&args.data, args.threads, args.json, |places, on_step| {
        let evaluation = train::train(places, &args.out, &date, on_step)?;
        eprintln!("written to {}", args.out.display());
        Ok(evaluation)
    })
}

/// Runs `weir eval`.
pub fn eval(args: &Eval) -> Exit {
    run(&args.data, args.threads, args.json, |places, on_step| {
        let heads = Heads::builtin().map_err(|e| TrainError::Fit(e.to_string()))?;
        eval::eval(places, heads, on_step)
    })
}

fn run(
    data: &Path,
    threads: usize,
    json: bool,
    work: impl FnOnce(&Places, train::OnStep) -> Result<Evaluation, TrainError>,
) -> Exit {
    if !data.is_dir() {
        eprintln!(
            "{}: there is no such folder. The recorded outcomes are not part of the project: name the folder that holds \
             mmlu_route.jsonl.gz and its neighbours with --data",
            data.display()
        );
        return Exit::Absent;
    }
    let store = match Store::from_env() {
        Ok(store) => store,
        Err(e) => return super::models::failed(&e),
    };
    let show = progress();
    for name in ARTIFACTS {
        if let Err(e) = store.pull(name, &*show) {
            return super::models::failed(&e);
        }
    }
    let places = Places {
        data,
        store: &store,
        threads: threads.max(1),
    };
    let steps = Steps::default();
    match work(&places, &|step, done, all| steps.tell(step, done, all)) {
        Ok(evaluation) if json => {
            out!("{}", evaluation.json());
            Exit::Fine
        }
        Ok(evaluation) => {
            out!("{evaluation}");
            Exit::Fine
        }
        Err(e) => {
            eprintln!("{e}");
            if e.absent() { Exit::Absent } else { Exit::Finding }
        }
    }
}

/// A bar on a terminal, a line at each tenth elsewhere.
#[derive(Default)]
struct Steps(Mutex<Option<(String, usize, ProgressBar)>>);

impl Steps {
    fn tell(&self, step: &str, done: usize, all: usize) {
        let mut shown = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let tenth = (done * 10).checked_div(all).unwrap_or(10);
        let fresh = shown.as_ref().is_none_or(|(name, ..)| name != step);
        if fresh {
            let bar = if std::io::stderr().is_terminal() {
                ProgressBar::new(all as u64)
            } else {
                ProgressBar::hidden()
            };
            let style = ProgressStyle::with_template("{msg:<24} {bar:24} {pos} of {len} {eta:>4}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(step.to_owned());
            *shown = Some((step.to_owned(), usize::MAX, bar));
        }
        let Some((_, told, bar)) = shown.as_mut() else {
            return;
        };
        bar.set_position(done as u64);
        if *told != tenth && bar.is_hidden() {
            eprintln!("{step}: {done} of {all}");
        }
        *told = tenth;
        if done >= all {
            bar.finish_and_clear();
        }
    }
}

/// `2026-11-21`, from an HTTP date (`Sat, 21 Nov 2026 09:18:12 GMT`).
fn today(now: SystemTime) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let text = httpdate::fmt_http_date(now);
    let mut words = text.split(' ').skip(1);
    let (day, month, year) = (words.next(), words.next(), words.next());
    let month = MONTHS.iter().position(|m| Some(*m) == month).unwrap_or(0) + 1;
    format!(
        "{}-{month:02}-{}",
        year.unwrap_or_default(),
        day.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_day() {
        assert_eq!(
            today(UNIX_EPOCH + Duration::from_secs(1_795_252_691)),
            "2026-11-21"
        );
        assert_eq!(today(UNIX_EPOCH), "1970-01-01");
    }

    #[test]
    fn no_data_is_something_absent() {
        let args = Eval {
            data: "/nowhere/at/all".into(),
            threads: 1,
            json: false,
        };
        assert_eq!(eval(&args), Exit::Absent);
    }
}
