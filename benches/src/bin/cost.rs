//! `cargo run --release -p benches --bin cost`: what a request costs in instructions, and how much of it is for the day on
//! which a provider fails.

use std::process::ExitCode;

use benches::cost::ceilings::Ceilings;
use benches::cost::{Counts, What, valgrind};
use clap::{Parser, Subcommand};
use serde_json::json;

/// The allocator of the gateway: what is counted is what runs.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ABSENT: u8 = 3;

/// Instructions of a request with retry, breaker, balancing and clocks on and off, and of each of these parts.
#[derive(Parser)]
#[command(after_help = "Example:
  cargo run --release -p benches --bin cost            # counts all of it: about a minute
  cargo run --release -p benches --bin cost -- --json

Counted by valgrind's callgrind (apt-get install valgrind), which repeats on a busy machine; reading the time is a call of
the kernel there and not counted. Exit codes: 0 fine, 1 a ceiling of benches/src/cost/ceilings.json is exceeded, 3 valgrind
is absent.")]
struct Args {
    /// Print the figures as one JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Does one thing so often, to be counted from outside
    #[command(hide = true)]
    Run {
        /// What
        what: What,
        /// How often
        times: u32,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Role::Run { what, times }) = args.role {
        return match what.run(times) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => fail(1, &why),
        };
    }
    let Some(version) = valgrind::version() else {
        return fail(ABSENT, "valgrind is not there: apt-get install valgrind");
    };
    let counted = valgrind::count(|what| eprint!("\rcounting {:<16}", what.name()));
    eprintln!("\r{:<24}", "");
    match counted.and_then(|counts| Ok((Ceilings::checked_in()?, counts))) {
        Ok((ceilings, counts)) => tell(&args, &version, &ceilings, &counts),
        Err(why) => fail(1, &why),
    }
}

fn fail(code: u8, why: &str) -> ExitCode {
    eprintln!("cost: {why}");
    ExitCode::from(code)
}

fn tell(args: &Args, version: &str, ceilings: &Ceilings, counts: &Counts) -> ExitCode {
    let exceeded = ceilings.exceeded(counts);
    if args.json {
        let shares = |f: &dyn Fn(bool) -> f64| json!({"whole": f(false), "stream": f(true)});
        println!(
            "{}",
            json!({
                "valgrind": version,
                "instructions": counts,
                "more_percent": shares(&|stream| counts.more(stream)),
                "parts_percent": shares(&|stream| counts.share(stream)),
                "guards_percent": shares(&|stream| counts.guards(stream)),
                "exceeded": exceeded,
            })
        );
    } else {
        for what in What::ALL {
            println!("{:<16}{:>12} instructions", what.name(), counts.of(what));
        }
        for (name, stream) in [("whole", false), ("stream", true)] {
            println!(
                "{name:<16}{:>11.1}% more with everything on; all parts together: {} instructions, {:.1}%; {:.1}% more with \
                 every guard on",
                counts.more(stream),
                counts.parts(stream),
                counts.share(stream),
                counts.guards(stream)
            );
        }
    }
    if exceeded.is_empty() {
        return ExitCode::SUCCESS;
    }
    fail(1, &exceeded.join("; "))
}
