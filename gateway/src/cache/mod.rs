//! Step 7's machinery: answers that are kept, and calls that are shared while they run.
//!
//! A request that may be shared ([`key::is_shareable`]) is looked for among the kept answers, then among the calls that run.
//! Who finds nothing leads a call of its own, as a [`flight`] that others may join. Where a route wants it, the answer to a
//! question that means the same may do ([`semantic`]).

pub mod flight;
pub mod flights;
pub mod keep;
pub mod key;
pub mod lead;
mod pump;
pub mod semantic;
pub mod store;
pub mod telling;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;

use self::flights::Flights;
use self::semantic::Memory;
pub use self::store::{Entry, Size, Stores};
use crate::providers::event::Usage;
use crate::telemetry::{Telemetry, record};

/// Everything that is kept or shared, of all cores.
pub struct Cache {
    stores: ArcSwap<Stores>,
    semantic: Memory,
    flights: Flights,
}

impl Cache {
    /// Stores of this size, empty.
    pub fn new(size: Size, telemetry: &Telemetry) -> Arc<Self> {
        Arc::new(Self {
            stores: ArcSwap::from_pointee(Stores::new(size)),
            semantic: Memory::new(size.semantic_bytes(), telemetry),
            flights: Flights::default(),
        })
    }

    /// Another plan is in use. Where it gives the cache another size, what was kept is forgotten; what is kept by meaning is
    /// only cut down, so that its bound goes on.
    pub fn resize(&self, size: Size) {
        if self.stores.load().size != size {
            self.stores.store(Arc::new(Stores::new(size)));
            self.semantic.set_bytes(size.semantic_bytes());
        }
    }

    /// Forgets every answer that is kept by its question.
    pub fn clear(&self) {
        self.stores.load().exact.clear();
        self.semantic.clear();
    }

    /// What is kept by meaning.
    pub fn semantic(&self) -> &Memory {
        &self.semantic
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
