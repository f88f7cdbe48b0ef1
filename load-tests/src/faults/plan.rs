//! The plan that the cases need: a route and its targets for each, so that no case sees what another did, and short
//! clocks.

use std::fmt::Write as _;

use super::case::{At, Case, Dialect, House};
use super::world::World;

/// Clocks and budgets; `{listen}` and `{admin}` are filled in by whoever starts the gateway.
const HEAD: &str = include_str!("../../data/faults-plan.toml");

/// USD for a million tokens of input and of output, at every target.
pub const PRICE: (f64, f64) = (1.0, 4.0);

impl House {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Usual, Self::Curt, Self::OneTry, Self::Thrifty];

    /// What its plan has in place of the usual one's lines.
    fn turns(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Usual => &[],
            Self::Curt => &[
                ("same_target = 1\n", "same_target = 0\n"),
                ("honor_retry_after_ms = 5_000\n", "honor_retry_after_ms = 0\n"),
                ("consecutive_failures = 5\n", "consecutive_failures = 2\n"),
            ],
            Self::OneTry => &[("max_attempts = 4\n", "max_attempts = 1\n")],
            Self::Thrifty => &[
                (
                    "budget = { ratio = 1.0, min_per_second = 1_000 }\n",
                    "budget = { ratio = 0.1, min_per_second = 0 }\n",
                ),
                (
                    "backoff = { base_ms = 20, max_ms = 100, jitter = true }\n",
                    "backoff = { base_ms = 100, max_ms = 1_000, jitter = true }\n",
                ),
                (
                    "consecutive_failures = 5\n",
                    "consecutive_failures = 1_000_000\nfailure_ratio = 1.0\nmin_requests = 1_000_000\n",
                ),
            ],
        }
    }

    /// The part of its plan that is the same for all cases.
    fn head(self) -> String {
        let turned = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
        self.turns().iter().fold(HEAD.to_owned(), turned)
    }
}

/// The plan of those of these cases that this house plays, against the providers of this world.
pub fn plan(house: House, cases: &[Case], world: &World) -> String {
    let mut out = house.head();
    let cases = || cases.iter().filter(|c| c.house == house);
    for (name, url) in world.places() {
        for (kind, base) in [("openai", format!("{url}/v1")), ("anthropic", url.clone())] {
            let _ = write!(
                out,
                "\n[providers.{name}-{kind}]\nkind = \"{kind}\"\nbase_url = \"{base}\"\n"
            );
        }
    }
    for case in cases() {
        let _ = write!(out, "\n# {}: {}\n", case.id(), case.about.replace('\n', " "));
        for (at, target) in case.targets() {
            let kind = match case.dialect {
                Dialect::Openai => "openai",
                Dialect::Anthropic => "anthropic",
            };
            let place = place(case, target.at);
            let _ = write!(
                out,
                "[targets.{}]\nprovider = \"{place}-{kind}\"\nmodel = \"{}\"\nprice = {{ input = {:.1}, output = {:.1} }}\n",
                case.target(at),
                case.model(at),
                PRICE.0,
                PRICE.1
            );
            if let Some(context) = target.context {
                let _ = writeln!(out, "context = {context}");
            }
            if target.prefill {
                let _ = writeln!(out, "capabilities = [\"tools\", \"json_schema\", \"prefill\"]");
            }
            if !target.lines.is_empty() {
                let _ = writeln!(out, "{}", target.lines);
            }
        }
        if case.second.is_some() {
            let _ = write!(
                out,
                "[routes.{}]\ntiers = [[\"{}\"], [\"{}\"]]\nstart = \"first\"\nverify = [\"finish\"]\n",
                case.id(),
                case.target(0),
                case.target(1)
            );
            if !case.lines.is_empty() {
                let _ = writeln!(out, "{}", case.lines);
            }
        }
    }
    if let (Some(mark), Some(case)) = (mark(world), cases().next()) {
        let _ = write!(out, "\n[aliases]\n{mark} = \"{}\"\n", case.asks_for());
    }
    out
}

/// A model's name that only the plan of this very world has: its ports are in it.
pub fn mark(world: &World) -> Option<String> {
    let (name, url) = world.places().last()?;
    let port = url.rsplit(':').next()?;
    Some(format!("wall-{name}-{port}"))
}

/// The plan of a gateway in front of another: every name that is asked for is a target there.
pub fn front_plan(house: House, cases: &[Case], behind: &str) -> String {
    let mut out = HEAD.to_owned();
    // It must not be quicker to give up than the one behind it.
    for (short, long) in [("700", "7_000"), ("1_200", "7_000"), ("1_500", "7_000")] {
        out = out.replace(&format!("_ms = {short}\n"), &format!("_ms = {long}\n"));
    }
    let _ = write!(
        out,
        "\n[providers.behind]\nkind = \"openai\"\nbase_url = \"{behind}/v1\"\n"
    );
    for name in cases.iter().filter(|c| c.house == house).map(Case::asks_for) {
        let _ = write!(
            out,
            "[targets.{name}]\nprovider = \"behind\"\nmodel = \"{name}\"\nprice = \"unmetered\"\n"
        );
    }
    out
}

/// The name of the place where a target of a case is.
pub fn place(case: &Case, at: At) -> String {
    match at {
        At::Shared => "shared".to_owned(),
        At::Dead => "dead".to_owned(),
        At::Deaf => "deaf".to_owned(),
        At::Resetting => "resetting".to_owned(),
        At::Own => format!("own-{}", case.id()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_a_house_turns_is_there() {
        for house in House::ALL {
            for (from, _) in house.turns() {
                assert!(HEAD.contains(from), "{house:?}: {from}");
            }
        }
    }
}
