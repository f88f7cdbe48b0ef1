//! The command line of `weir`.

/// A line on stdout. Whoever reads it may have gone (`weir check | head`): that is no reason to panic.
macro_rules! out {
    ($($args:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($args)*);
    }};
}

mod audit;
mod check;
mod connect;
mod explain;
mod files;
mod heads;
mod init;
mod keys;
mod models;
mod places;
mod plan_file;
mod ready;
mod serve;
mod signals;
mod stores;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// What a command comes to. The numbers are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Fine,
    /// 1: a finding (a plan with mistakes, an artifact that does not verify).
    Finding,
    /// 2: wrong usage. clap uses the same.
    Usage,
    /// 3: something it needs is absent.
    Absent,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Fine => 0,
            Exit::Finding => 1,
            Exit::Usage => 2,
            Exit::Absent => 3,
        })
    }
}

/// An inference gateway and model router: small models inside, stronger ones above, one OpenAI-compatible endpoint.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    after_help = "Example:\n  weir\n  curl http://127.0.0.1:8080/v1/models"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the endpoint (what `weir` alone does)
    #[command(after_help = "Example:\n  weir serve --config routing.toml --listen 127.0.0.1:8080")]
    Serve(Serve),
    /// Read a plan and tell all its problems at once
    #[command(after_help = "Example:\n  weir check routing.toml\n  weir check routing.toml --connect")]
    Check(Check),
    /// Say which model a request would go to first, and why; nothing is generated
    #[command(after_help = "Example:\n  weir explain --prompt 'What is 17 * 23?'")]
    Explain(Explain),
    /// List, fetch and verify models and their runtime
    #[command(after_help = "Example:\n  weir models list")]
    Models(Models),
    /// Make, list and take back keys of callers, without a restart
    #[command(after_help = "Example:\n  weir keys create --name team-a --usd-per-day 20")]
    Keys(keys::Keys),
    /// Look through records: is every line where its writer put it, and as it was written?
    #[command(after_help = "Example:\n  weir audit verify ~/.local/share/weir/records")]
    Audit(Audit),
    /// Write the built-in plan, with every key documented
    #[command(after_help = "Example:\n  weir init && weir check routing.toml")]
    Init(Init),
    /// Train the heads that look at requests, on recorded outcomes
    #[command(after_help = "Example:\n  weir train --data outcomes/ --out models/heads")]
    Train(Train),
    /// Judge the heads on outcomes that were kept apart, beside prompt length and chance
    #[command(after_help = "Example:\n  weir eval --data outcomes/")]
    Eval(Eval),
}

#[derive(Args, Debug, Default)]
struct Serve {
    /// The plan; without it ./routing.toml, else the built-in plan
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the data plane, instead of the plan's
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address of the admin plane, instead of the plan's
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

#[derive(Args, Debug)]
struct Check {
    /// The plan
    #[arg(value_name = "FILE", default_value = "routing.toml")]
    file: PathBuf,
    /// The plan, as the other commands take it
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Also ask each provider for its list of models, which is free: is it there, does it take the key, is base_url right
    #[arg(long)]
    connect: bool,
    /// Machine-readable
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Which plan.
    fn plan(&self) -> &Path {
        self.config.as_ref().unwrap_or(&self.file)
    }
}

#[derive(Args, Debug)]
struct Explain {
    /// The plan; without it ./routing.toml, else the built-in plan
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Text of a chat with one turn, to the default route
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "request",
        required_unless_present = "request"
    )]
    prompt: Option<String>,
    /// A file with the body of a chat request; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// The file holds one body a line; prints one line of JSON for each
    #[arg(long, requires = "request")]
    lines: bool,
    /// Machine-readable
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Models {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// What there is, and what is on this machine
    #[command(after_help = "Example:\n  weir models list")]
    List {
        /// Machine-readable
        #[arg(long)]
        json: bool,
    },
    /// Fetch artifacts (those of the built-in plan when none is named)
    #[command(after_help = "Example:\n  weir models pull smollm2-135m-instruct-q4_1")]
    Pull {
        /// Names from `weir models list`
        names: Vec<String>,
    },
    /// Hash every byte of what is here
    #[command(after_help = "Example:\n  weir models verify")]
    Verify {
        /// Names from `weir models list`; all that are present when none is named
        names: Vec<String>,
    },
}

#[derive(Args, Debug)]
struct Audit {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check the hash chain of a file of records, or of all chains of a folder
    ///
    /// Found, with file and line: a line that was changed, taken out, put in or moved; a file that is missing between
    /// others; a second record of one request. Told: torn last lines and records that a full disk refused. A chain does
    /// not speak for its last line, nor for what stood behind it: keep the hash that it ends with elsewhere.
    ///
    /// Exit code 0: whole; 1: something was found; 2: wrong usage; 3: no records there.
    #[command(after_help = "Example:\n  weir audit verify ~/.local/share/weir/records\n  \
                      weir audit verify --json chain-0-00000000.jsonl")]
    Verify {
        /// A folder of records, or one file of it (then it may begin anywhere)
        #[arg(value_name = "F")]
        at: PathBuf,
        /// Machine-readable
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
struct Init {
    /// Where to write it
    #[arg(value_name = "FILE", default_value = "routing.toml")]
    file: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

#[derive(Args, Debug)]
struct Train {
    /// The folder with the recorded outcomes
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where heads and abilities are written; outcomes of local models are read from its folder `outcomes`
    #[arg(long, value_name = "DIR", default_value = "models/heads")]
    out: PathBuf,
    /// Threads for the encoder
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Machine-readable figures
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Eval {
    /// The folder with the recorded outcomes
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Threads for the encoder
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Machine-readable
    #[arg(long)]
    json: bool,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let exit = match Cli::parse().command {
        None => serve::run(&Serve::default()),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Explain(args)) => explain::run(&args),
        Some(Command::Models(args)) => models::run(&args.command),
        Some(Command::Keys(args)) => keys::run(&args),
        Some(Command::Audit(args)) => audit::run(&args.command),
        Some(Command::Init(args)) => init::run(&args),
        Some(Command::Train(args)) => heads::train(&args),
        Some(Command::Eval(args)) => heads::eval(&args),
    };
    exit.into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_help_has_an_example() {
        fn walk(command: &mut clap::Command) {
            let help = command.render_help().to_string();
            assert!(help.contains("Example:"), "{}\n{help}", command.get_name());
            // clap's own `help` command only repeats the others.
            for sub in command
                .get_subcommands_mut()
                .filter(|sub| sub.get_name() != "help")
            {
                walk(sub);
            }
        }
        let mut cli = Cli::command();
        cli.clone().debug_assert();
        walk(&mut cli);
    }

    #[test]
    fn check_takes_its_plan_alone_or_as_the_other_commands_do() {
        let plan = |args: &[&str]| match Cli::try_parse_from([&["weir", "check"], args].concat()) {
            Ok(Cli {
                command: Some(Command::Check(check)),
            }) => Some(check.plan().to_owned()),
            _ => None,
        };
        assert_eq!(plan(&[]), Some("routing.toml".into()));
        assert_eq!(plan(&["a.toml", "--json"]), Some("a.toml".into()));
        assert_eq!(plan(&["--config", "a.toml"]), Some("a.toml".into()));
        assert_eq!(plan(&["a.toml", "--config", "b.toml"]), None);
    }
}
