//! The command line. Exit codes: 0 fine, 1 a finding, 2 wrong usage, 3 something it needs is absent.

mod abuse;
mod caps;
mod chaos;
mod demo;
mod faults;
mod guards;
mod ladder;
mod load;
mod outage;
mod overload;
mod overshoot;
mod proof;
mod provider;
mod soak;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Looks at the gateway from outside: fake provider, load, soak, hostile input, caps, guards, faults, chaos, outage, overload, ladder, routing proof, demo.
#[derive(Debug, Parser)]
#[command(name = "load-tests", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Provider(provider::Args),
    Load(load::Args),
    Soak(soak::Args),
    Abuse(abuse::Args),
    Caps(caps::Args),
    Guards(guards::Args),
    Faults(faults::Args),
    Chaos(chaos::Args),
    Outage(outage::Args),
    Overload(overload::Args),
    Ladder(ladder::Args),
    Overshoot(overshoot::Args),
    RoutingProof(proof::Args),
}

/// Why a command ends without doing its work.
enum Stop {
    /// Exit 1: it looked, and found something wrong.
    Finding(String),
    /// Exit 2.
    Usage(String),
    /// Exit 3.
    Absent(String),
}

type Done = Result<(), Stop>;

/// A report, for a script or for a person.
fn shown(
    json: bool,
    as_json: impl FnOnce() -> serde_json::Value,
    as_text: impl FnOnce() -> String,
) -> String {
    if json {
        format!("{}\n", as_json())
    } else {
        as_text()
    }
}

/// How a command that looks for something broken ends: its report on stdout, then exit 1 when there is something.
fn conclude(shown: &str, broken: usize, what: &str) -> Done {
    print!("{shown}");
    match broken {
        0 => Ok(()),
        n => Err(Stop::Finding(format!("{n} {what}"))),
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => return ended(Err(Stop::Absent(format!("no runtime: {e}")))),
    };
    ended(runtime.block_on(async {
        match cli.command {
            Command::Demo(a) => demo::run(a).await,
            Command::Provider(a) => provider::run(a).await,
            Command::Load(a) => load::run(a).await,
            Command::Soak(a) => soak::run(a).await,
            Command::Abuse(a) => abuse::run(a).await,
            Command::Caps(a) => caps::run(a).await,
            Command::Guards(a) => guards::run(a).await,
            Command::Faults(a) => faults::run(a).await,
            Command::Chaos(a) => chaos::run(a).await,
            Command::Outage(a) => outage::run(a).await,
            Command::Overload(a) => overload::run(a).await,
            Command::Ladder(a) => ladder::run(a).await,
            Command::Overshoot(a) => overshoot::run(a).await,
            Command::RoutingProof(a) => proof::run(a).await,
        }
    }))
}

fn ended(done: Done) -> ExitCode {
    let (code, why) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Stop::Finding(why)) => (1, why),
        Err(Stop::Usage(why)) => (2, why),
        Err(Stop::Absent(why)) => (3, why),
    };
    if !why.is_empty() {
        eprintln!("{why}");
    }
    ExitCode::from(code)
}

/// A line of progress on stderr: over itself on a terminal, else every tenth as a line of its own.
struct Progress {
    terminal: bool,
    lines: u64,
}

impl Progress {
    fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            lines: 0,
        }
    }

    fn show(&mut self, line: &str) {
        if self.terminal {
            eprint!("\r\x1b[2K{line}");
        } else if self.lines.is_multiple_of(10) {
            eprintln!("{line}");
        }
        self.lines += 1;
    }

    fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_has_an_example_in_its_help() {
        let mut cli = Cli::command();
        cli.build();
        Cli::command().debug_assert();
        for command in cli.get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(
                command.get_name() == "help" || help.contains("Example"),
                "{}",
                command.get_name()
            );
        }
    }
}
