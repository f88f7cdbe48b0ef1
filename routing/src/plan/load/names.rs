//! Names: which there are, which characters they have, that no two are the same, and what a reference stands for.

use std::sync::Arc;

use super::super::near::nearest;
use super::super::rule::TierRef;
use super::super::{Named, ProviderKind};
use super::source::{At, Source};
use super::table::{Table, short};
use super::value::Value;
use crate::ids::{ProviderId, RouteId, TargetId};

/// Longest name, in bytes: names stand in headers and metric labels.
const MAX_NAME: usize = 64;
/// Most entries of one section; ids are small.
const MAX_ENTRIES: usize = 4_096;
/// Tiers of one cascade; tier indices are a byte.
pub(super) const MAX_TIERS: usize = 255;

/// The provider that is always there.
pub(super) const LOCAL: &str = "local";

/// Every name that another part of the file may refer to, each list in order of name.
pub(super) struct Names {
    pub providers: Vec<Arc<str>>,
    pub targets: Vec<Arc<str>>,
    pub routes: Vec<Arc<str>>,
    pub aliases: Vec<Arc<str>>,
}

impl Names {
    /// Collects the names of these tables; tells bad characters, collisions and too many.
    pub fn collect(
        providers: &Table<'_, '_>,
        targets: &Table<'_, '_>,
        routes: &Table<'_, '_>,
        aliases: &Table<'_, '_>,
    ) -> Self {
        let of = |table: &Table<'_, '_>| {
            let names = table.names();
            if names.len() > MAX_ENTRIES {
                table.source.problem(
                    &table.at,
                    format!("{} entries are too many", names.len()),
                    format!("at most {MAX_ENTRIES}"),
                );
            }
            for (name, at, _) in &names {
                check_name(table.source, at, name);
            }
            names
                .into_iter()
                .map(|(name, ..)| name)
                .take(MAX_ENTRIES)
                .collect::<Vec<_>>()
        };
        let mut known = Self {
            providers: of(providers),
            targets: of(targets),
            routes: of(routes),
            aliases: of(aliases),
        };
        let taken = |names: &[Arc<str>], name: &Arc<str>| names.binary_search(name).is_ok();
        for (name, at, _) in targets.names() {
            if taken(&known.routes, &name) {
                collision(targets.source, &at, "route");
            } else if taken(&known.aliases, &name) {
                collision(targets.source, &at, "alias");
            }
        }
        for (name, at, _) in aliases.names() {
            if taken(&known.routes, &name) {
                collision(aliases.source, &at, "route");
            }
        }
        if let Err(i) = known.providers.binary_search_by(|p| p.as_ref().cmp(LOCAL)) {
            known.providers.insert(i, Arc::from(LOCAL));
        }
        known
    }

    pub fn provider(&self, value: &Value<'_, '_>) -> Option<ProviderId> {
        let name = value.text()?;
        let found = self.providers.binary_search_by(|p| p.as_ref().cmp(name)).ok();
        if found.is_none() {
            let near = nearest(name, self.providers.iter().map(AsRef::as_ref));
            let help = suggestion(near, || {
                format!(
                    "add [providers.{}], or use one of: {}",
                    short(name),
                    self.providers.join(", ")
                )
            });
            value.joint(format!("there is no provider `{}`", short(name)), help);
        }
        found.and_then(|i| u16::try_from(i).ok()).map(ProviderId)
    }

    pub fn target(&self, value: &Value<'_, '_>) -> Option<TargetId> {
        let name = value.text()?;
        let found = self.target_named(name);
        if found.is_none() {
            let holds = |names: &[Arc<str>]| names.iter().any(|n| n.as_ref() == name);
            let help = if holds(&self.routes) || holds(&self.aliases) {
                "a tier holds targets, not routes or aliases".to_owned()
            } else {
                let near = nearest(name, self.targets.iter().map(AsRef::as_ref));
                suggestion(near, || {
                    format!(
                        "add [targets.{}], or use one of: {}",
                        short(name),
                        list(&self.targets)
                    )
                })
            };
            value.joint(format!("there is no target `{}`", short(name)), help);
        }
        found
    }

    fn target_named(&self, name: &str) -> Option<TargetId> {
        let index = self.targets.binary_search_by(|t| t.as_ref().cmp(name)).ok()?;
        u16::try_from(index).ok().map(TargetId)
    }

    /// A route or a target.
    pub fn named(&self, value: &Value<'_, '_>) -> Option<Named> {
        let name = value.text()?;
        if let Ok(i) = self.routes.binary_search_by(|r| r.as_ref().cmp(name)) {
            return u16::try_from(i).ok().map(|i| Named::Route(RouteId(i)));
        }
        if let Some(id) = self.target_named(name) {
            return Some(Named::Target(id));
        }
        let help = if self.aliases.iter().any(|a| a.as_ref() == name) {
            "this is an alias itself; name the route or target that it stands for".to_owned()
        } else {
            let known = self.routes.iter().chain(&self.targets).map(AsRef::as_ref);
            suggestion(nearest(name, known), || {
                "an alias stands for a route or a target".to_owned()
            })
        };
        value.joint(format!("there is no route or target `{}`", short(name)), help);
        None
    }

    /// A name that a client may use: a route, an alias or a target.
    pub fn callable(&self, name: &str, at: &At, source: &Source<'_>) {
        let known = || {
            self.routes
                .iter()
                .chain(&self.aliases)
                .chain(&self.targets)
                .map(AsRef::as_ref)
        };
        if !known().any(|k: &str| k == name) {
            let help = suggestion(nearest(name, known()), || {
                "name routes, aliases or targets; an upstream's model name is covered by its target"
                    .to_owned()
            });
            source.joint(
                at,
                format!("there is no route, alias or target `{}`", short(name)),
                help,
            );
        }
    }

    /// A route, by name.
    pub fn route(&self, name: &str, at: &At, source: &Source<'_>) {
        if !self.routes.iter().any(|r| r.as_ref() == name) {
            let near = nearest(name, self.routes.iter().map(AsRef::as_ref));
            let help = suggestion(near, || format!("routes of this plan: {}", list(&self.routes)));
            source.joint(at, format!("there is no route `{}`", short(name)), help);
        }
    }

    /// A tier by index or by a target in it. Whether a cascade has it is for the caller to see.
    pub fn tier(&self, value: &Value<'_, '_>) -> Option<TierRef> {
        match value.raw {
            toml::de::DeValue::String(_) => self.target(value).map(TierRef::Target),
            _ => value
                .int(0..=MAX_TIERS as u64 - 1)
                .and_then(|i| u8::try_from(i).ok())
                .map(TierRef::Index),
        }
    }

    /// `[["a", "b"], ["c"]]`: at least one tier, none empty, no target twice.
    pub fn tiers(&self, value: &Value<'_, '_>) -> Option<Vec<Vec<TargetId>>> {
        let tiers = value.list()?;
        if tiers.is_empty() {
            value.problem(
                "a cascade has at least one tier",
                "for example: tiers = [[\"small\"], [\"large\"]]",
            );
        }
        if tiers.len() > MAX_TIERS {
            value.problem(
                format!("{} tiers are too many", tiers.len()),
                format!("at most {MAX_TIERS}"),
            );
            return None;
        }
        let mut seen: Vec<TargetId> = Vec::new();
        let mut out = Vec::with_capacity(tiers.len());
        for tier in &tiers {
            if let toml::de::DeValue::String(name) = tier.raw {
                tier.problem(
                    "a tier is a list of targets",
                    format!("write [\"{}\"]", short(name)),
                );
                continue;
            }
            let Some(items) = tier.list() else { continue };
            if items.is_empty() {
                tier.problem(
                    "this tier is empty",
                    "name at least one target, or delete the tier",
                );
            }
            let mut targets = Vec::with_capacity(items.len());
            for item in &items {
                let Some(id) = self.target(item) else { continue };
                if seen.contains(&id) {
                    item.problem(
                        "this target stands in the cascade already",
                        "each target has one place in a cascade",
                    );
                }
                seen.push(id);
                targets.push(id);
            }
            out.push(targets);
        }
        Some(out)
    }
}

fn suggestion(near: Option<&str>, otherwise: impl FnOnce() -> String) -> String {
    near.map_or_else(otherwise, |near| format!("did you mean `{near}`?"))
}

fn list(names: &[Arc<str>]) -> String {
    let shown: Vec<&str> = names.iter().take(12).map(AsRef::as_ref).collect();
    let more = if names.len() > shown.len() { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn collision(source: &Source<'_>, at: &At, with: &str) {
    source.joint(
        at,
        format!(
            "there is {} {with} of the same name",
            if with == "alias" { "an" } else { "a" }
        ),
        "routes, aliases and targets share one space of names: rename one of the two",
    );
}

/// Letters, digits and `. _ - : / @ +`; not only digits, which would read as a tier's index.
fn check_name(source: &Source<'_>, at: &At, name: &str) {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-:/@+".contains(&b);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !starts || !name.bytes().all(good) || name.len() > MAX_NAME {
        source.problem(
            at,
            "this is no name",
            format!("a name begins with a letter or digit and has letters, digits and . _ - : / @ + (at most {MAX_NAME})"),
        );
    } else if name.bytes().all(|b| b.is_ascii_digit()) {
        source.problem(
            at,
            "a name of digits alone reads as the index of a tier",
            "put a letter in it",
        );
    }
}

/// Names of tenants and keys: as [`check_name`], digits alone are fine.
pub(super) fn check_label(source: &Source<'_>, at: &At, name: &str) {
    if !is_label(name) {
        source.problem(
            at,
            "this is no name",
            format!("letters, digits and . _ - : / @ + (at most {MAX_NAME}): it stands in metric labels"),
        );
    }
}

/// A name that a tenant or a key may have, wherever it is given: it stands in metric labels.
pub fn is_label(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-:/@+".contains(c);
    name.len() <= MAX_NAME && name.chars().all(good)
}

/// `kind` of a provider.
pub(super) const KINDS: [(&str, ProviderKind); 2] = [
    ("openai", ProviderKind::Openai),
    ("anthropic", ProviderKind::Anthropic),
];
