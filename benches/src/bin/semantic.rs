//! `cargo run --release -p benches --bin semantic`: how often does the semantic cache hit, and how often is it wrong?

use std::process::ExitCode;

use benches::semantic::data::{self, Family, Half};
use benches::semantic::embed::{Failure, Vectors};
use benches::semantic::evidence::{self, Errors};
use benches::semantic::guards;
use benches::semantic::play::{self, Way};
use benches::semantic::table::Line;
use clap::Parser;
use serde_json::{Value, json};

const ABSENT: u8 = 3;
/// What the report says is worth switching on: share of true paraphrases that hit at 1%.
const WORTH: f64 = 0.25;
/// Similarities that are tried as plain thresholds.
const THRESHOLDS: [f32; 9] = [0.80, 0.84, 0.88, 0.90, 0.92, 0.94, 0.96, 0.98, 0.99];

/// Plays streams of written questions (families by Zipf, each with paraphrases and near misses) through the semantic cache's
/// decision, with real embeddings, and tells hits and errors beside a plain threshold and the decision without guards.
#[derive(Parser)]
#[command(after_help = "Example:
  cargo run --release -p benches --bin semantic -- --max-error 0.01,0.05 --json

The judging half is reported; --tuning shows pair by pair what the guards do to the tuning half, and ends.
Exit codes: 0 fine, 1 the bound was exceeded or something failed, 3 the encoder's artifacts are absent.")]
struct Args {
    /// Print the figures as one JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
    /// Bounds on the error rate
    #[arg(long, value_delimiter = ',', default_value = "0.01,0.02,0.05")]
    max_error: Vec<f64>,
    /// Look-ups of one stream
    #[arg(long, default_value_t = 20_000)]
    lookups: u64,
    /// Streams, each with a seed of its own
    #[arg(long, default_value_t = 5)]
    streams: u64,
    /// First seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the tuning half's pairs: what the guards refuse of it, and each pair where they are wrong
    #[arg(long)]
    tuning: bool,
}

type Ended = (u8, String);

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err((code, what)) => {
            eprintln!("semantic: {what}");
            ExitCode::from(code)
        }
    }
}

fn failed(what: String) -> Ended {
    (1, what)
}

fn run(args: &Args) -> Result<ExitCode, Ended> {
    let judging = data::families(Half::Judging).map_err(failed)?;
    let tuning = data::families(Half::Tuning).map_err(failed)?;
    let answers = data::answers().map_err(failed)?;
    let questions = |families: &[Family]| -> Vec<String> {
        let all = families.iter().flat_map(|f| {
            let near = f.near.iter().map(|n| n.ask.clone());
            std::iter::once(f.ask.clone()).chain(f.same.clone()).chain(near)
        });
        all.collect()
    };
    let mut texts = questions(&tuning);
    if !args.tuning {
        texts.extend(questions(&judging));
    }
    texts.extend(
        answers
            .iter()
            .flat_map(|a| [a.answer.clone(), a.again.clone(), a.other.clone()]),
    );
    let vectors =
        Vectors::of(texts, |n, all| eprint!("\rembedded {n} of {all} ")).map_err(
            |failure| match failure {
                Failure::Absent(what) => (ABSENT, what),
                Failure::Broken(what) => (1, what),
            },
        )?;
    eprintln!();
    let told = |kind: &str, id: &str, a: &str, b: &str| {
        if args.tuning {
            println!("evidence {kind} {id}: {a} | {b}");
        }
    };
    let chosen = evidence::measure(
        answers.iter().filter(|a| evidence::is_chosen_on(a)),
        &tuning,
        &vectors,
        told,
    );
    // Of the held-out answers only the counts are shown.
    let held_out = answers.iter().filter(|a| !evidence::is_chosen_on(a));
    let measured = evidence::measure(held_out, &tuning, &vectors, |_, _, _, _| {});
    tell_evidence(&chosen, &measured);
    if args.tuning {
        tell_pairs(&tuning, &vectors, true);
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = json!({ "evidence": { "chosen_on": chosen, "held_out": measured }, "lookups": args.lookups, "streams": args.streams });
    let mut broken = false;
    for (half, families) in [(Half::Judging, &judging), (Half::Tuning, &tuning)] {
        println!("\n{} half, {} families", half.name(), families.len());
        let pairs = tell_pairs(families, &vectors, false);
        let lines = table(args, families, &tuning, &vectors, measured, half, &mut broken)?;
        if let Value::Object(all) = &mut report {
            all.insert(half.name().to_owned(), json!({ "pairs": pairs, "table": lines }));
        }
    }
    if args.json {
        println!("{report}");
    }
    Ok(if broken {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn tell_evidence(chosen: &Errors, measured: &Errors) {
    for (name, errors) in [("chosen on", chosen), ("held out", measured)] {
        for (what, said) in [("same answers", errors.same), ("other answers", errors.other)] {
            println!(
                "comparison of answers, {name}: of {} {what} {} taken for the same, {} for different, {} unsure",
                said.all(),
                said.same,
                said.different,
                said.unsure
            );
        }
    }
}

fn tell_pairs(families: &[Family], vectors: &Vectors, each: bool) -> Value {
    let pairs = guards::measure(families, vectors, |kind, refused, similarity, a, b| {
        let wrong = (kind == "same") == refused.is_some();
        if each && wrong {
            println!(
                "{kind} {similarity:.3} {}: {a} | {b}",
                refused.map_or("passed", |g| g.name())
            );
        }
    });
    for (kind, pairs) in &pairs {
        let by: Vec<String> = pairs
            .refused
            .iter()
            .map(|(guard, n)| format!("{guard} {n}"))
            .collect();
        println!(
            "{kind:>10}: {:4} of {:4} pairs alike enough, guards refuse {:5.1}%  ({})",
            pairs.pairs,
            pairs.all,
            pairs.share() * 100.0,
            by.join(", ")
        );
    }
    json!(pairs)
}

fn table(
    args: &Args,
    families: &[Family],
    tuning: &[Family],
    vectors: &Vectors,
    noise: Errors,
    half: Half,
    broken: &mut bool,
) -> Result<Vec<Value>, Ended> {
    let mut out = Vec::new();
    let play = |families: &[Family], way: Way, streams: u64| -> Result<Line, Ended> {
        let runs: Result<Vec<_>, String> = (0..streams)
            .map(|n| play::play(families, vectors, way, noise, args.lookups, args.seed + n))
            .collect();
        runs.map(|runs| Line::of(&runs)).map_err(failed)
    };
    println!(
        "{:<34} {:>26} {:>26} {:>22} {:>26} {:>7}",
        "", "hits", "paraphrases that hit", "wrong of look-ups", "wrong of hits", "worst"
    );
    let mut tell = |name: String, max_error: f64, line: &Line| {
        println!(
            "{name:<34} {:>26} {:>26} {:>22} {:>26} {:>6.2}%",
            line.hit_rate.to_string(),
            line.found.to_string(),
            line.error_rate.to_string(),
            line.wrong_hits.to_string(),
            line.worst * 100.0
        );
        out.push(json!({ "way": name, "max_error": max_error, "figures": line }));
    };
    for max_error in &args.max_error {
        let max_error_rate = *max_error;
        let percent = max_error * 100.0;
        let weir = play(
            families,
            Way::Weir {
                max_error_rate,
                guards: true,
            },
            args.streams,
        )?;
        tell(format!("{percent}%: weir"), max_error_rate, &weir);
        *broken |= weir.error_rate.value > max_error_rate;
        let bare = play(
            families,
            Way::Weir {
                max_error_rate,
                guards: false,
            },
            args.streams,
        )?;
        tell(format!("{percent}%: weir without guards"), max_error_rate, &bare);
        for guards in [false, true] {
            // The lowest threshold that keeps the bound on the tuning half: the best that taste could have chosen.
            let mut least = None;
            for threshold in THRESHOLDS {
                if play(
                    tuning,
                    Way::Threshold {
                        least: threshold,
                        guards,
                    },
                    1,
                )?
                .error_rate
                .value
                    <= max_error_rate
                {
                    least = Some(threshold);
                    break;
                }
            }
            let with = if guards { " and guards" } else { "" };
            match least {
                Some(least) => {
                    let line = play(families, Way::Threshold { least, guards }, args.streams)?;
                    tell(
                        format!("{percent}%: threshold {least}{with}"),
                        max_error_rate,
                        &line,
                    );
                }
                None => println!("{percent}%: no threshold{with} keeps it on the tuning half"),
            }
        }
        if half == Half::Judging && (max_error_rate - 0.01).abs() < 1e-9 {
            let worth = weir.found.value >= WORTH;
            println!(
                "at 1%, {:.1}% of true paraphrases hit: {}",
                weir.found.value * 100.0,
                if worth {
                    "worth switching on where questions are like these"
                } else {
                    "NOT worth switching on"
                }
            );
        }
    }
    Ok(out)
}
