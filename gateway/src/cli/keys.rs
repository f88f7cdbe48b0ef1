//! `weir keys`: make, list and take back stored keys. A running gateway sees it by itself.

mod values;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use routing::plan::{Auth, Limits, Plan, nearest};
use routing::units::NanoUsd;
use serde::Serialize;

use super::plan_file::Origin;
use super::{Exit, places};
use crate::civil;
use crate::clock::Clock;
use crate::keys::store::{self, New, No, Places};
use crate::keys::stored::{self, Row, State};

#[derive(Args, Debug)]
pub struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key; it is printed once, and can be used at once
    ///
    /// Standard output has the key and nothing else. Only a keyed hash of it is kept, in $WEIR_HOME (keys.sqlite, and
    /// keys.secret beside it: a backup needs both). Keys count where the plan says `auth = "keys"`.
    ///
    /// Exit code 0: made; 1: not made (the name is taken, the database or its secret cannot be used); 2: wrong usage; 3: the
    /// plan that --config names cannot be read.
    #[command(
        after_help = "Example:\n  weir keys create --name team-a --tenant team-a --usd-per-day 20 --expires 30d\n  \
                      KEY=$(weir keys create --name ci --class low --routes fast --requests-per-minute 60)"
    )]
    Create(Create),
    /// What keys there are, without the keys
    ///
    /// Exit code 0: listed, be it none; 1: the database cannot be used; 2: wrong usage.
    #[command(
        after_help = "Example:\n  weir keys list\n  weir keys list --json | jq '.[] | select(.state == \"live\").name'"
    )]
    List {
        /// Machine-readable
        #[arg(long)]
        json: bool,
    },
    /// Take a key back; a running gateway refuses it within a second
    ///
    /// What the key has begun ends as it would. Its name is free again.
    ///
    /// Exit code 0: taken back, now or before; 1: the database cannot be used; 2: wrong usage; 3: no such key.
    #[command(after_help = "Example:\n  weir keys revoke team-a")]
    Revoke {
        /// Its name
        name: String,
        /// Machine-readable
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
struct Create {
    /// For records, metrics, usage and limits
    #[arg(long, value_name = "NAME", value_parser = values::label)]
    name: Arc<str>,
    /// Who pays
    #[arg(long, value_name = "NAME", value_parser = values::label, default_value = "default")]
    tenant: Arc<str>,
    /// Who is served first when it is tight
    #[arg(long, value_parser = ["high", "normal", "low"], default_value = "normal")]
    class: String,
    /// What it may name: routes, aliases, targets, with commas between; left out: everything
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    routes: Option<Vec<String>>,
    /// How long it counts: 90s, 15m, 12h, 30d or 52w; left out: until it is revoked
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    expires: Option<std::time::Duration>,
    /// Requests a minute; left out: no limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    requests_per_minute: Option<u64>,
    /// Tokens a minute; left out: no limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    tokens_per_minute: Option<u64>,
    /// Requests at once; left out: no limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    concurrency: Option<u32>,
    /// Dollars a UTC day; left out: no limit
    #[arg(long, value_name = "USD", value_parser = values::usd)]
    usd_per_day: Option<NanoUsd>,
    /// The plan whose names --name and --routes are compared with; without it ./routing.toml, where there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Machine-readable, with the key
    #[arg(long)]
    json: bool,
}

/// A key as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    tenant: &'a str,
    class: &'static str,
    /// Absent: everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<&'a [Arc<str>]>,
    limits: ShownLimits,
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
    last_four: &'a str,
    state: State,
    /// Once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

#[derive(Serialize)]
struct ShownLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usd_per_day: Option<f64>,
}

/// Runs it.
pub fn run(args: &Keys) -> Exit {
    let (places, now) = (Places::of(&places::data()), Clock::system().unix_ms());
    match &args.command {
        Command::Create(args) => create(&places, args, now),
        Command::List { json } => list(&places, *json, now),
        Command::Revoke { name, json } => revoke(&places, name, *json, now),
    }
}

fn create(places: &Places, args: &Create, now: u64) -> Exit {
    let routes = args.routes.as_ref().map(|names| {
        let names = names
            .iter()
            .map(|name| name.trim())
            .filter(|name| !name.is_empty());
        names.map(Arc::from).collect::<Vec<Arc<str>>>()
    });
    if routes.as_ref().is_some_and(Vec::is_empty) {
        eprintln!(
            "--routes names nothing: name routes, aliases or targets, or leave it out: then the key may name everything"
        );
        return Exit::Usage;
    }
    if let Err(exit) = fits(args, routes.as_deref().unwrap_or_default()) {
        return exit;
    }
    let after = |d: std::time::Duration| now.saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let new = New {
        name: Arc::clone(&args.name),
        tenant: Arc::clone(&args.tenant),
        class: stored::class(&args.class).unwrap_or(routing::plan::Class::Normal),
        routes,
        limits: Limits {
            requests_per_minute: args.requests_per_minute,
            tokens_per_minute: args.tokens_per_minute,
            concurrency: args.concurrency,
            usd_per_day: args.usd_per_day,
            queue: None,
        },
        expires_ms: args.expires.map(after),
    };
    match store::create(places, new, now) {
        Ok((row, key)) => {
            let told = if args.json {
                json_of(&shown(&row, now, Some(&key)))
            } else {
                key
            };
            if let Err(e) = say(&told) {
                eprintln!(
                    "key {} was made and could not be written out ({e}): nobody has it now; `weir keys revoke {}`",
                    row.name, row.name
                );
                return Exit::Finding;
            }
            if !args.json {
                eprintln!(
                    "key {} for tenant {}: {}; {}. It is shown this once: only a hash of it is kept.",
                    row.name,
                    row.tenant,
                    limits(&row.limits).unwrap_or_else(|| "no limits of its own".to_owned()),
                    row.expires_ms
                        .map_or("it does not expire".to_owned(), |at| format!(
                            "expires {}",
                            civil::time(at)
                        ))
                );
            }
            Exit::Fine
        }
        Err(no) => refused(places, &args.name, &no),
    }
}

/// Compares names with those of the plan: a key of the plan would go before this one.
fn fits(args: &Create, routes: &[Arc<str>]) -> Result<(), Exit> {
    let origin = Origin::find(args.config.as_deref());
    if origin == Origin::BuiltIn {
        return Ok(());
    }
    let plan = match origin.load() {
        Ok(compiled) => compiled.plan,
        Err(no) if args.config.is_some() => {
            eprintln!("{}", no.say(&origin));
            return Err(no.exit());
        }
        Err(_) => {
            eprintln!(
                "note: {} has mistakes, so names are not compared with it",
                origin.say()
            );
            return Ok(());
        }
    };
    if plan.server.auth == Auth::None {
        eprintln!(
            "note: server.auth is \"none\" in {}: nobody is asked for a key there",
            origin.say()
        );
    }
    if plan.keys.iter().any(|key| key.name == args.name) {
        eprintln!(
            "{} has a key `{}` of its own, which would go before this one: take another name",
            origin.say(),
            args.name
        );
        return Err(Exit::Finding);
    }
    for name in routes
        .iter()
        .filter(|name| !names(&plan).any(|known| known == &***name))
    {
        let near = nearest(name, names(&plan)).map(|near| format!("; did you mean `{near}`?"));
        eprintln!(
            "note: {} has no route, alias or target `{name}`{}",
            origin.say(),
            near.unwrap_or_default()
        );
    }
    Ok(())
}

fn names(plan: &Plan) -> impl Iterator<Item = &str> {
    let routes = plan.routes.iter().map(|r| &*r.name);
    let aliases = plan.aliases.keys().map(|name| &**name);
    routes.chain(aliases).chain(plan.targets.iter().map(|t| &*t.name))
}

fn list(places: &Places, json: bool, now: u64) -> Exit {
    let rows = match store::list(places) {
        Ok(rows) => rows,
        Err(no) => return refused(places, "", &no),
    };
    // Whoever reads may have seen enough.
    let _ = say(&listed(places, &rows, json, now));
    Exit::Fine
}

fn listed(places: &Places, rows: &[Row], json: bool, now: u64) -> String {
    if json {
        return json_of(&rows.iter().map(|row| shown(row, now, None)).collect::<Vec<_>>());
    }
    if rows.is_empty() {
        let at = places.database.display();
        return format!("no stored keys in {at}; `weir keys create --name NAME` makes one");
    }
    let head = [
        "NAME",
        "TENANT",
        "CLASS",
        "ENDS WITH",
        "STATE",
        "CREATED",
        "EXPIRES",
        "ROUTES",
        "LIMITS",
    ];
    let mut lines = vec![head.map(String::from)];
    lines.extend(rows.iter().map(|row| {
        let state = match (row.state(now), row.revoked_ms) {
            (State::Revoked, Some(at)) => format!("revoked {}", day(at)),
            (State::Expired, _) => "expired".to_owned(),
            _ => "live".to_owned(),
        };
        let routes = row.routes.as_ref();
        [
            row.name.to_string(),
            row.tenant.to_string(),
            stored::word(row.class).to_owned(),
            row.last_four.to_string(),
            state,
            day(row.created_ms),
            row.expires_ms.map_or("never".to_owned(), civil::time),
            routes.map_or("all".to_owned(), |routes| routes.join(",")),
            limits(&row.limits).unwrap_or_else(|| "none".to_owned()),
        ]
    }));
    aligned(&lines).join("\n")
}

fn revoke(places: &Places, name: &str, json: bool, now: u64) -> Exit {
    match store::revoke(places, name, now) {
        Ok(revoked) => {
            let told = if json {
                json_of(&serde_json::json!({ "name": name, "revoked_now": revoked }))
            } else if revoked {
                format!("key {name} is revoked: a running gateway refuses it within a second")
            } else {
                format!("key {name} was revoked before")
            };
            let _ = say(&told);
            Exit::Fine
        }
        Err(no) => refused(places, name, &no),
    }
}

/// Says why not.
fn refused(places: &Places, name: &str, no: &No) -> Exit {
    let at = places.database.display();
    match no {
        No::Taken => {
            eprintln!(
                "there is a key `{name}` already: take another name, or `weir keys revoke {name}` first"
            );
            Exit::Finding
        }
        No::Unknown => {
            eprintln!("there is no stored key `{name}` in {at}; `weir keys list` shows what there is");
            Exit::Absent
        }
        No::Secret(why) => {
            eprintln!("{why}");
            Exit::Finding
        }
        No::Random(why) => {
            eprintln!("the operating system gives no random numbers: {why}");
            Exit::Finding
        }
        No::Database(trouble) => {
            eprintln!("{at} cannot be used: {trouble}");
            Exit::Finding
        }
    }
}

fn shown<'a>(row: &'a Row, now: u64, key: Option<&'a str>) -> Shown<'a> {
    Shown {
        name: &row.name,
        tenant: &row.tenant,
        class: stored::word(row.class),
        routes: row.routes.as_deref(),
        limits: ShownLimits {
            requests_per_minute: row.limits.requests_per_minute,
            tokens_per_minute: row.limits.tokens_per_minute,
            concurrency: row.limits.concurrency,
            usd_per_day: row.limits.usd_per_day.map(NanoUsd::usd),
        },
        created: civil::time(row.created_ms),
        expires: row.expires_ms.map(civil::time),
        revoked: row.revoked_ms.map(civil::time),
        last_four: &row.last_four,
        state: row.state(now),
        key,
    }
}

/// In the words of the plan; `None`: there are none.
fn limits(limits: &Limits) -> Option<String> {
    let parts = [
        limits
            .requests_per_minute
            .map(|n| format!("requests_per_minute {n}")),
        limits.tokens_per_minute.map(|n| format!("tokens_per_minute {n}")),
        limits.concurrency.map(|n| format!("concurrency {n}")),
        limits
            .usd_per_day
            .map(|money| format!("usd_per_day {}", money.usd())),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Columns under each other.
fn aligned<const N: usize>(lines: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.len().max(*width);
        }
    }
    let row = |line: &[String; N]| {
        let cells = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(row).collect()
}

fn day(unix_ms: u64) -> String {
    civil::time(unix_ms).get(..10).unwrap_or_default().to_owned()
}

fn json_of(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// A line, or several, to standard output; whoever read there may be gone.
fn say(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let lines = [
            ["A".to_owned(), "B".to_owned()],
            ["long".to_owned(), "c".to_owned()],
        ];
        assert_eq!(aligned(&lines), ["A     B", "long  c"]);
    }
}
