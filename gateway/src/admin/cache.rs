//! Kept answers at the admin plane: how many there are, how large, and how they are forgotten.

use routing::semantic::{Bound, Figures};
use serde::Serialize;

use crate::app::App;
use crate::telemetry::names::Name;

/// One store.
#[derive(Debug, Serialize)]
struct Store {
    entries: u64,
    bytes: u64,
}

/// What is kept by meaning, and how wrong it may have been.
#[derive(Debug, Serialize)]
struct Semantic {
    #[serde(flatten)]
    held: Figures,
    /// By tenant and policy.
    bounds: Vec<Bound>,
}

/// What is kept and what is shared.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// `[cache] max_bytes`.
    max_bytes: u64,
    /// Answers by their question.
    exact: Store,
    /// Answers by `idempotency-key`.
    named: Store,
    /// Answers by what their question means.
    semantic: Semantic,
    /// Calls that run and can be joined.
    flights: usize,
    /// Requests that read them.
    readers: usize,
}

/// As it is now.
pub fn shown(app: &App) -> Shown {
    let (stores, flights) = (app.cache().stores(), app.cache().flights());
    let of = |(entries, bytes)| Store { entries, bytes };
    Shown {
        max_bytes: stores.size.max_bytes,
        exact: of(stores.exact.held()),
        named: of(stores.named.held()),
        semantic: Semantic {
            held: app.cache().semantic().figures(),
            bounds: app.cache().semantic().bounds(),
        },
        flights: flights.len(),
        readers: flights.readers(),
    }
}

/// Forgets every answer that is kept by its question. Those kept by name stay: a repeat of such a request would be made twice.
pub fn clear(app: &App) -> Shown {
    app.cache().clear();
    tracing::warn!("an operator cleared the cache");
    shown(app)
}

/// Brings the gauges up to date.
pub fn report(app: &App) {
    let (shown, telemetry) = (shown(app), app.telemetry());
    for (name, store) in [("exact", &shown.exact), ("named", &shown.named)] {
        telemetry.gauge(Name::CacheBytes, &[name]).set(store.bytes as f64);
        telemetry
            .gauge(Name::CacheEntries, &[name])
            .set(store.entries as f64);
    }
    let semantic = shown.semantic.held;
    telemetry
        .gauge(Name::CacheBytes, &["semantic"])
        .set(semantic.bytes as f64);
    telemetry
        .gauge(Name::CacheEntries, &["semantic"])
        .set(semantic.entries as f64);
    telemetry.gauge(Name::Flights, &[]).set(shown.flights as f64);
}
