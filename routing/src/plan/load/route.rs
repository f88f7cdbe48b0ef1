//! `[routes.NAME]` and `[aliases]`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::super::Named;
use super::super::problem::Weight;
use super::super::route::{
    Check, ContentFilter, ContinueWith, DegradeStep, HoldBack, Message, Objective, OnFail, RouteCache,
    RouteConfig, Start, Uncalibrated,
};
use super::super::rule::TierRef;
use super::limits::{Whose, limits, nano_usd};
use super::names::Names;
use super::server::DAY_MS;
use super::table::Table;
use super::value::Value;
use crate::ids::{Fingerprint, TargetId};

/// Checks that run unless the route names its own: those with a low rate of false alarms.
const DEFAULT_CHECKS: [Check; 4] = [
    Check::Finish,
    Check::Repetition,
    Check::JsonSchema,
    Check::ToolArguments,
];
/// `degrade` when the file says nothing.
const DEFAULT_LADDER: [DegradeStep; 3] = [DegradeStep::Weaker, DegradeStep::StaleCache, DegradeStep::Message];
/// What the last rung says when the file says nothing.
const DEFAULT_MESSAGE: (u16, &str) = (503, "Busy. Please try again in a moment.");
/// Most tokens that can be held back by number.
const MAX_HOLD_BACK: u64 = 100_000;

/// All routes in order of name.
pub(super) fn routes(t: &Table<'_, '_>, names: &Names) -> Vec<RouteConfig> {
    let typed = t.names();
    let one = |(name, _, value): &(Arc<str>, _, Value<'_, '_>)| {
        route(
            name,
            value.table().unwrap_or_else(|| Table::absent(t.source)),
            names,
        )
    };
    typed.iter().take(names.routes.len()).map(one).collect()
}

fn route(name: &Arc<str>, t: Table<'_, '_>, names: &Names) -> RouteConfig {
    let tiers = t.get("tiers");
    if tiers.is_none() && t.is_present() {
        t.missing(
            "tiers",
            "a cascade, cheapest first: tiers = [[\"small\"], [\"large\"]]",
        );
    }
    let tiers = tiers.and_then(|v| names.tiers(&v)).unwrap_or_default();
    let starts = [
        ("predicted", Start::Predicted),
        ("first", Start::First),
        ("last", Start::Last),
    ];
    let start = t.word("start", &starts, Start::Predicted);
    let uncalibrated = [
        ("strongest", Uncalibrated::Strongest),
        ("cheapest", Uncalibrated::Cheapest),
    ];
    let route = RouteConfig {
        name: name.clone(),
        min_tier: min_tier(&t, names, &tiers),
        tiers,
        start,
        uncalibrated: t.word("uncalibrated", &uncalibrated, Uncalibrated::Strongest),
        objective: objective(&t),
        max_added: t.ms("max_added_ms", 5_000, 1..=DAY_MS),
        verify: verify(&t),
        on_fail: t.word(
            "on_fail",
            &[("return", OnFail::Return), ("error", OnFail::Error)],
            OnFail::Return,
        ),
        hold_back: hold_back(&t),
        hold_back_max: t.ms("hold_back_max_ms", 1_500, 1..=DAY_MS),
        degrade: degrade(&t),
        degrade_floor: t.ratio("degrade_floor", 0.5),
        message: message(&t),
        continue_with: t.word(
            "continue",
            &[
                ("stronger", ContinueWith::Stronger),
                ("any", ContinueWith::Any),
                ("never", ContinueWith::Never),
            ],
            ContinueWith::Stronger,
        ),
        content_filter: t.word(
            "content_filter",
            &[
                ("pass", ContentFilter::Pass),
                ("escalate", ContentFilter::Escalate),
            ],
            ContentFilter::Pass,
        ),
        cache: cache(&t),
        limits: limits(&t, "limits", Whose::Other),
        fingerprint: Fingerprint::default(),
    };
    idle_keys(&t, &route);
    t.finish();
    route
}

/// Keys that this route's other keys leave without effect.
fn idle_keys(t: &Table<'_, '_>, route: &RouteConfig) {
    if route.start != Start::Predicted {
        for key in ["uncalibrated", "objective", "max_added_ms"] {
            if t.get(key).is_some() {
                t.source.note(
                    &t.key_at(key),
                    Weight::Plain,
                    "acts only with start = \"predicted\"",
                );
            }
        }
    }
    if route.tiers.len() == 1 && route.hold_back != HoldBack::Tokens(0) {
        t.source.note(
            &t.key_at("hold_back_tokens"),
            Weight::Plain,
            "this cascade has one tier: nothing could replace what is held back, so nothing is",
        );
    }
}

fn min_tier(t: &Table<'_, '_>, names: &Names, tiers: &[Vec<TargetId>]) -> u8 {
    let Some(value) = t.get("min_tier") else { return 0 };
    let index = match names.tier(&value) {
        None => return 0,
        Some(TierRef::Index(index)) => usize::from(index),
        Some(TierRef::Target(id)) => tiers
            .iter()
            .position(|tier| tier.contains(&id))
            .unwrap_or(usize::MAX),
    };
    match u8::try_from(index) {
        Ok(index) if usize::from(index) < tiers.len() => index,
        // Without tiers that could be read there is nothing to compare with.
        _ if tiers.is_empty() => 0,
        _ => {
            let help = match tiers.len() {
                1 => "it has one tier, 0".to_owned(),
                n => format!("from 0 to {}, or a target in its tiers", n - 1),
            };
            value.joint("this cascade has no such tier", help);
            0
        }
    }
}

fn objective(t: &Table<'_, '_>) -> Objective {
    let default = Objective::QualityFloor(0.95);
    let o = t.table("objective");
    let floor = o
        .opt_number("quality_floor", 0.0..=1.0)
        .map(|n| Objective::QualityFloor(n as f32));
    let cost = o
        .opt_number("usd_per_1k_requests", 0.0..=1e6)
        .map(|n| Objective::UsdPer1kRequests(nano_usd(n)));
    let threshold = o
        .opt_number("threshold", 0.0..=1.0)
        .map(|n| Objective::Threshold(n as f32));
    let named = ["quality_floor", "usd_per_1k_requests", "threshold"]
        .iter()
        .filter(|k| o.get(k).is_some())
        .count();
    if o.is_present() && named != 1 {
        let help =
            "exactly one of quality_floor, usd_per_1k_requests and threshold: { quality_floor = 0.95 }";
        o.source.problem(&o.at, "an objective is one goal", help);
    }
    o.finish();
    floor.or(cost).or(threshold).unwrap_or(default)
}

fn verify(t: &Table<'_, '_>) -> Vec<Check> {
    let words = Check::ALL.map(|(check, name)| (name, check));
    let Some(values) = t.list("verify") else {
        return DEFAULT_CHECKS.to_vec();
    };
    let mut checks: Vec<Check> = values.iter().filter_map(|v| v.word(&words)).collect();
    checks.sort_unstable();
    checks.dedup();
    checks
}

fn hold_back(t: &Table<'_, '_>) -> HoldBack {
    let Some(value) = t.get("hold_back_tokens") else {
        return HoldBack::Tokens(0);
    };
    let held = match value.raw {
        DeValue::String(_) => value.word(&[("all", HoldBack::All)]),
        _ => value
            .int(0..=MAX_HOLD_BACK)
            .and_then(|n| u32::try_from(n).ok())
            .map(HoldBack::Tokens),
    };
    held.unwrap_or(HoldBack::Tokens(0))
}

fn degrade(t: &Table<'_, '_>) -> Vec<DegradeStep> {
    let words = [
        ("weaker", DegradeStep::Weaker),
        ("stale_cache", DegradeStep::StaleCache),
        ("local", DegradeStep::Local),
        ("message", DegradeStep::Message),
    ];
    let Some(values) = t.list("degrade") else {
        return DEFAULT_LADDER.to_vec();
    };
    let mut steps: Vec<DegradeStep> = Vec::new();
    for value in &values {
        let Some(step) = value.word(&words) else { continue };
        if steps.contains(&step) {
            value.problem(
                "this rung stands on the ladder already",
                "each rung once, in the order in which they are tried",
            );
        } else if steps.contains(&DegradeStep::Message) {
            value.problem(
                "no rung comes after the message",
                "the message always works: put it last",
            );
        }
        steps.push(step);
    }
    steps
}

fn message(t: &Table<'_, '_>) -> Message {
    let m = t.table("message");
    let status = m
        .opt_int("status", 200..=599)
        .unwrap_or(u64::from(DEFAULT_MESSAGE.0));
    if !(status == 200 || (400..=599).contains(&status)) {
        m.problem(
            "status",
            "a client would not take this status for an answer or an error",
            "200, or 400 to 599 (503 says: try again)",
        );
    }
    let text = m.text("text").unwrap_or_else(|| Arc::from(DEFAULT_MESSAGE.1));
    m.finish();
    Message {
        status: u16::try_from(status).unwrap_or(DEFAULT_MESSAGE.0),
        text,
    }
}

fn cache(t: &Table<'_, '_>) -> RouteCache {
    let c = t.table("cache");
    let semantic = c.table("semantic");
    let cache = RouteCache {
        exact_ttl: Duration::from_secs(c.int("exact_ttl_s", 0, 0..=31_536_000)),
        sampled: c.bool("sampled", false),
        semantic: semantic.bool("enabled", false),
        max_error_rate: semantic.ratio("max_error_rate", 0.01),
    };
    if cache.semantic && cache.exact_ttl.is_zero() {
        semantic.problem(
            "enabled",
            "it gives out answers that are kept, and `exact_ttl_s = 0` keeps none",
            "say how long an answer may be used: cache = { exact_ttl_s = 600, semantic = { enabled = true } }",
        );
    }
    semantic.finish();
    c.finish();
    cache
}

pub(super) fn aliases(t: &Table<'_, '_>, names: &Names) -> BTreeMap<Arc<str>, Named> {
    t.names()
        .into_iter()
        .filter_map(|(name, _, value)| Some((name, names.named(&value)?)))
        .collect()
}
