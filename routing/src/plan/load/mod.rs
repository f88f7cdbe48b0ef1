//! From the text of `routing.toml` to a [`Plan`]: all mistakes at once.
//!
//! The file is read table by table. A value that is wrong is told and its default taken, so that reading goes on; a plan
//! comes out only when nothing was told. Names are collected first, so that sections may stand in any order.

mod address;
mod idle;
mod limits;
mod mask;
mod money;
mod names;
mod operation;
mod provider;
mod route;
mod rule;
mod server;
mod source;
mod table;
mod target;
mod value;

use toml::Spanned;
use toml::de::DeTable;

use self::names::Names;
use self::source::{At, Source};
use self::table::Table;
use super::problem::Problems;
use super::{Compiled, Plan};
use crate::ids::Fingerprint;

pub use self::names::is_label;
pub use self::server::Exposed;

/// The version of the file that this program reads.
const VERSION: u64 = 1;

/// Reads a plan. Pure: looks at no file and no environment variable, so whether a secret is there is for the caller.
///
/// # Errors
/// Every mistake in the file, in order of line, each with its place, what is wrong and what to do. Secrets that were
/// typed into the file are never repeated.
pub fn load(text: &str) -> Result<Compiled, Problems> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let source = Source::new(text);
    let unread = source.syntax(&errors);
    let plan = read(&source, &root);
    idle::note(&source, root.get_ref());
    let (problems, notes) = source.finish(&unread);
    if problems.is_empty() {
        Ok(Compiled { plan, notes })
    } else {
        Err(Problems(problems))
    }
}

fn read(source: &Source<'_>, root: &Spanned<DeTable<'_>>) -> Plan {
    let t = Table::new(
        source,
        At {
            path: String::new(),
            span: 0..0,
        },
        root.get_ref(),
    );
    let version = t.int("version", VERSION, 0..=u64::from(u32::MAX));
    if version != VERSION {
        t.problem(
            "version",
            format!("this program reads version {VERSION}"),
            "write version = 1, or use the program that the file was written for",
        );
    }
    let (providers_t, targets_t) = (t.table("providers"), t.table("targets"));
    let (routes_t, aliases_t) = (t.table("routes"), t.table("aliases"));
    let names = Names::collect(&providers_t, &targets_t, &routes_t, &aliases_t);

    let clocks = operation::timeouts(&t.table("timeouts"), &operation::DEFAULT_TIMEOUTS);
    let server = section(&t, "server", server::server);
    let providers = provider::providers(&providers_t, &names);
    let targets = target::targets(&targets_t, &names, &providers, &clocks);
    let routes = route::routes(&routes_t, &names);
    let keys = server::keys(&t, &names, server.auth);
    let mut plan = Plan {
        fingerprint: Fingerprint::default(),
        keys,
        tenants: server::tenants(&t.table("tenants")),
        total_limits: section(&t, "limits", server::total),
        aliases: route::aliases(&aliases_t, &names),
        rules: rule::rules(&t.list("rules").unwrap_or_default(), &names, &routes),
        timeouts: clocks,
        retry: section(&t, "retry", operation::retry),
        hedge: section(&t, "hedge", operation::hedge),
        breaker: section(&t, "breaker", operation::breaker),
        admission: section(&t, "admission", operation::admission),
        cache: section(&t, "cache", operation::cache),
        classify: section(&t, "classify", operation::classify),
        records: section(&t, "records", operation::records),
        telemetry: section(&t, "telemetry", operation::telemetry),
        server,
        providers,
        targets,
        routes,
    };
    t.finish();
    money::note(&targets_t, &plan);
    super::canonical::seal(&mut plan);
    plan
}

/// Reads one section and refuses its unknown keys.
fn section<'a, 't, T>(t: &Table<'a, 't>, key: &'static str, read: impl FnOnce(&Table<'a, 't>) -> T) -> T {
    let section = t.table(key);
    let out = read(&section);
    section.finish();
    out
}
