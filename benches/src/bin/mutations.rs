//! `cargo run -p benches --bin mutations`: switches each promise of `tests/mutations.toml` off, one by one, and wants the
//! test that is named beside it to turn red.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use benches::mutations::cargo::{self, Ran};
use benches::mutations::list::{self, Mutation};
use benches::mutations::tree::Tree;
use clap::Parser;
use load_tests::clock::{Instant, now};
use serde::Serialize;

/// Switches off, one by one and in a copy of the source, what the tests are to notice.
#[derive(Parser)]
#[command(after_help = "Example:
  cargo run -p benches --bin mutations -- --check
  cargo run -p benches --bin mutations -- --only breaker-probe --only deadline

Exit codes: 0 each test turned red, 1 one did not or the list no longer fits the source, 2 wrong usage.")]
struct Args {
    /// Only the mutations of this name, or whose names begin with it and a hyphen
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only look whether every text is found exactly once, and every test
    #[arg(long)]
    check: bool,
    /// Where the copy and its build lie
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Seconds that the tests of one mutation may take
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Print the results as JSON on stdout, progress on stderr
    #[arg(long)]
    json: bool,
}

/// What became of one mutation.
#[derive(Serialize)]
struct Done<'a> {
    name: &'a str,
    file: &'a str,
    tests: &'a [String],
    #[serde(flatten)]
    verdict: Verdict,
    seconds: f64,
}

#[derive(Serialize)]
#[serde(tag = "verdict", content = "detail", rename_all = "snake_case")]
enum Verdict {
    /// Every named test failed.
    Red,
    /// These passed all the same.
    Survived(Vec<String>),
    /// It is no program any more: nothing was proved.
    DoesNotCompile(String),
    /// The tests did not end.
    Hung,
    /// They ended without a result.
    Silent(String),
    /// It could not be tried.
    Failed(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Red => f.write_str("red"),
            Self::Survived(tests) => write!(f, "SURVIVED: {} passed", tests.join(", ")),
            Self::DoesNotCompile(why) => write!(f, "DOES NOT COMPILE: {why}"),
            Self::Hung => f.write_str("HUNG: its tests did not end in time"),
            Self::Silent(last) => write!(f, "SILENT: its tests ended without a result: {last}"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err((code, what)) => {
            eprintln!("mutations: {what}");
            ExitCode::from(code)
        }
    }
}

/// Exit code, and why.
type Failure = (u8, String);

fn run(args: &Args) -> Result<bool, Failure> {
    let failed = |what: String| (1, what);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize().map_err(|e| (1, e.to_string()))?;
    let all = list::read(&root).map_err(failed)?;
    let problems = list::problems(&root, &all);
    if !problems.is_empty() {
        return Err(failed(format!(
            "{} no longer fits the source:\n  {}",
            list::FILE,
            problems.join("\n  ")
        )));
    }
    if args.check {
        println!(
            "{} mutations: every text is found once, and every test",
            all.len()
        );
        return Ok(true);
    }
    let chosen: Vec<&Mutation> = all.iter().filter(|m| is_chosen(&args.only, &m.name)).collect();
    if chosen.is_empty() {
        return Err((
            2,
            format!("no mutation is named so; {} names them all", list::FILE),
        ));
    }
    let target_dir = args.target_dir.clone().unwrap_or(root.join("target/mutations"));
    let target_dir = std::path::absolute(target_dir).map_err(|e| (1, e.to_string()))?;
    let tree = Tree::prepare(&root, &target_dir.join("tree")).map_err(failed)?;
    let work = Work {
        tree,
        target_dir,
        most: Duration::from_secs(args.seconds),
    };
    let began = now();
    work.green(&chosen).map_err(failed)?;
    let done: Vec<Done<'_>> = chosen.iter().map(|m| work.one(m)).collect();
    let red = done.iter().filter(|d| matches!(d.verdict, Verdict::Red)).count();
    eprintln!("{red} of {} turned red; {:.0} s", done.len(), seconds(began));
    if args.json {
        println!("{}", serde_json::to_string_pretty(&done).unwrap_or_default());
    }
    Ok(red == done.len())
}

fn is_chosen(only: &[String], name: &str) -> bool {
    let is = |o: &String| {
        name.strip_prefix(o.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    only.is_empty() || only.iter().any(is)
}

fn seconds(since: Instant) -> f64 {
    now().duration_since(since).as_secs_f64()
}

struct Work {
    tree: Tree,
    target_dir: PathBuf,
    most: Duration,
}

impl Work {
    fn build(&self, package: &str, target: Option<&str>) -> Result<PathBuf, String> {
        cargo::build(self.tree.path(), &self.target_dir, package, target)
    }

    fn tests(&self, program: &Path, package: &str, tests: &[String]) -> Result<Ran, String> {
        cargo::run(program, &self.tree.path().join(package), tests, self.most)
    }

    /// With nothing switched off all of them pass; else their turning red says nothing.
    fn green(&self, chosen: &[&Mutation]) -> Result<(), String> {
        let mut groups: BTreeMap<(&str, Option<&str>), Vec<String>> = BTreeMap::new();
        for m in chosen {
            let tests = groups.entry((&m.package, m.target.as_deref())).or_default();
            tests.extend(m.tests.iter().cloned());
            tests.sort();
            tests.dedup();
        }
        for ((package, target), tests) in groups {
            let of = target.unwrap_or("unit tests");
            eprintln!(
                "{package}, {of}: {} tests, with nothing switched off ...",
                tests.len()
            );
            let program = self.build(package, target)?;
            match self.tests(&program, package, &tests)? {
                Ran::Told(told) => {
                    let red: Vec<&String> = tests.iter().filter(|t| told.get(*t) != Some(&true)).collect();
                    if !red.is_empty() {
                        return Err(format!("{package}, {of}: red with nothing switched off: {red:?}"));
                    }
                }
                Ran::Hung => return Err(format!("{package}, {of}: not over in time")),
                Ran::Silent(last) => {
                    return Err(format!("{package}, {of}: not every test is there: {last}"));
                }
            }
        }
        Ok(())
    }

    fn one<'a>(&self, m: &'a Mutation) -> Done<'a> {
        let began = now();
        let verdict = self.judge(m).unwrap_or_else(Verdict::Failed);
        let seconds = seconds(began);
        eprintln!("{:<36} {seconds:>5.0} s  {verdict}", m.name);
        Done {
            name: &m.name,
            file: &m.file,
            tests: &m.tests,
            verdict,
            seconds,
        }
    }

    fn judge(&self, m: &Mutation) -> Result<Verdict, String> {
        let _mutated = self.tree.mutate(m)?;
        let program = match self.build(&m.package, m.target.as_deref()) {
            Ok(program) => program,
            Err(why) => return Ok(Verdict::DoesNotCompile(why)),
        };
        Ok(match self.tests(&program, &m.package, &m.tests)? {
            Ran::Told(told) => {
                let passed: Vec<String> = told
                    .into_iter()
                    .filter(|(_, ok)| *ok)
                    .map(|(name, _)| name)
                    .collect();
                if passed.is_empty() {
                    Verdict::Red
                } else {
                    Verdict::Survived(passed)
                }
            }
            Ran::Hung => Verdict::Hung,
            Ran::Silent(last) => Verdict::Silent(last),
        })
    }
}
