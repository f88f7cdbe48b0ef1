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
    /// By tenant and policy, those that were looked at most.
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

/// Bounds that are shown.
const SHOWN: usize = 100;

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
            bounds: app.cache().semantic().bounds(SHOWN),
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
    let (cache, telemetry) = (app.cache(), app.telemetry());
    let (stores, semantic) = (cache.stores(), cache.semantic().figures());
    for (name, (entries, bytes)) in [
        ("exact", stores.exact.held()),
        ("named", stores.named.held()),
        ("semantic", (semantic.entries as u64, semantic.bytes as u64)),
    ] {
        telemetry.gauge(Name::CacheBytes, &[name]).set(bytes as f64);
        telemetry.gauge(Name::CacheEntries, &[name]).set(entries as f64);
    }
    telemetry
        .gauge(Name::Flights, &[])
        .set(cache.flights().len() as f64);
}
