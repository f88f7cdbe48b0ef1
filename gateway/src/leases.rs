//! What is held for a request until its body has ended. Dropping gives it back at once, in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Gauge;
use smallvec::SmallVec;

use crate::admission::Permit;

/// All leases of one request. They move from the steps into the body.
#[derive(Default)]
pub struct Leases(SmallVec<[Lease; 4]>);

/// One of them.
pub enum Lease {
    /// Bytes of the request's body.
    Bytes(Bytes),
    /// A place among the requests in flight.
    Place(Place),
    /// Its part of the work that may be in flight.
    Admitted(Permit),
    /// A permit, limit or reservation of a step that came later; its own drop gives it back.
    Other(Box<dyn Send + Sync>),
}

impl Leases {
    /// Holds another one.
    pub fn hold(&mut self, lease: Lease) {
        self.0.push(lease);
    }
}

impl Extend<Lease> for Leases {
    fn extend<I: IntoIterator<Item = Lease>>(&mut self, leases: I) {
        self.0.extend(leases);
    }
}

/// One budget of bytes for all bodies that are being read or held.
pub struct ByteBudget {
    used: AtomicU64,
    max: AtomicU64,
    gauge: Gauge,
}

impl ByteBudget {
    /// A budget of `max` bytes.
    pub fn new(max: u64, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            max: AtomicU64::new(max),
            gauge,
        })
    }
    /// Another bound, from a new plan. What is held stays held.
    pub fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }
    /// `bytes` of it, or `None` when there is not so much left.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Bytes> {
        let mut lease = Bytes {
            budget: Arc::clone(self),
            bytes: 0,
        };
        lease.grow_to(bytes).then_some(lease)
    }
    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// Bytes of a [`ByteBudget`].
pub struct Bytes {
    budget: Arc<ByteBudget>,
    bytes: u64,
}

impl Bytes {
    /// Bytes held.
    pub fn held(&self) -> u64 {
        self.bytes
    }
    /// Holds at least `bytes`; `false` when the budget has not so much left (what was held stays).
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let max = self.budget.max.load(Ordering::Relaxed);
        let took = self
            .budget
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                used.checked_add(more).filter(|sum| *sum <= max)
            });
        if took.is_ok() {
            self.bytes += more;
            self.budget.gauge.increment(more as f64);
        }
        took.is_ok()
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.gauge.decrement(self.bytes as f64);
    }
}

/// One more in a count that goes down by itself.
pub struct Place {
    count: Arc<AtomicU64>,
    gauge: Gauge,
}

impl Place {
    /// Counts one more.
    pub fn take(count: &Arc<AtomicU64>, gauge: &Gauge) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        gauge.increment(1.0);
        Self {
            count: Arc::clone(count),
            gauge: gauge.clone(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.gauge.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_exceeded_and_comes_back() {
        let budget = ByteBudget::new(100, Gauge::noop());
        let mut a = budget.take(60).unwrap();
        assert!(budget.take(41).is_none());
        let b = budget.take(40).unwrap();
        assert!(!a.grow_to(61));
        drop(b);
        assert!(a.grow_to(61));
        assert!(a.grow_to(5), "never shrinks");
        assert_eq!(budget.used(), 61);
        let mut leases = Leases::default();
        leases.hold(Lease::Bytes(a));
        drop(leases);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_place_is_given_back() {
        let count = Arc::new(AtomicU64::new(0));
        let place = Place::take(&count, &Gauge::noop());
        assert_eq!(count.load(Ordering::Relaxed), 1);
        drop(place);
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }
}
