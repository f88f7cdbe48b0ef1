//! Step 7's machinery: answers that are kept, and calls that are shared while they run.
//!
//! A request that may be shared ([`key::is_shareable`]) is looked for among the kept answers, then among the calls that run.
//! Who finds nothing leads a call of its own, as a [`flight`] that others may join.

pub mod flight;
pub mod flights;
pub mod keep;
pub mod key;
pub mod lead;
mod pump;
pub mod store;
pub mod telling;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;

use self::flights::Flights;
pub use self::store::{Entry, Stores};
use crate::providers::event::Usage;
use crate::telemetry::record;

/// Everything that is kept or shared, of all cores.
pub struct Cache {
    stores: ArcSwap<Stores>,
    flights: Flights,
}

impl Cache {
    /// Stores of so many bytes, empty.
    pub fn new(max_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            stores: ArcSwap::from_pointee(Stores::new(max_bytes)),
            flights: Flights::default(),
        })
    }

    /// Another plan is in use. Where it gives the cache another size, what was kept is forgotten.
    pub fn resize(&self, max_bytes: u64) {
        if self.stores.load().max_bytes != max_bytes {
            self.stores.store(Arc::new(Stores::new(max_bytes)));
        }
    }

    /// What is kept.
    pub fn stores(&self) -> Arc<Stores> {
        self.stores.load_full()
    }

    /// What runs.
    pub fn flights(&self) -> &Flights {
        &self.flights
    }
}

/// Figures of an answer that nobody paid for again.
fn recorded(usage: &Usage) -> record::Usage {
    record::Usage {
        prompt: usage.prompt,
        completion: usage.completion,
        cached: usage.cached,
        cache_write: usage.cache_write,
        reasoning: usage.reasoning,
        from: "cache",
    }
}
