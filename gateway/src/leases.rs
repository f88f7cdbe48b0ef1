//! What is held for a request until its body has ended. Dropping gives it back at once, in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::Gauge;
use smallvec::SmallVec;

use crate::admission::Permit;

/// Tenants whose budget is kept when nobody uses it.
const TENANTS: usize = 10_000;

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
    /// Nothing of it yet: a lease that grows.
    pub fn lease(self: &Arc<Self>) -> Bytes {
        Bytes {
            budget: Arc::clone(self),
            tenant: None,
            bytes: 0,
        }
    }
    /// `bytes` of it, or `None` when there is not so much left.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Bytes> {
        let mut lease = self.lease();
        lease.grow_to(bytes).is_ok().then_some(lease)
    }
    fn has(&self, more: u64) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        self.used().checked_add(more).is_some_and(|sum| sum <= max)
    }
    fn add(&self, more: u64) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let took = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                used.checked_add(more).filter(|sum| *sum <= max)
            });
        if took.is_ok() {
            self.gauge.increment(more as f64);
        }
        took.is_ok()
    }
    fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        self.gauge.decrement(bytes as f64);
    }
    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A budget for each tenant, so that none of them can take all of the one for everybody.
pub struct TenantBytes {
    tenants: Mutex<HashMap<Arc<str>, Arc<ByteBudget>>>,
    max: AtomicU64,
}

impl TenantBytes {
    /// `max` bytes each.
    pub fn new(max: u64) -> Self {
        Self {
            tenants: Mutex::default(),
            max: AtomicU64::new(max),
        }
    }
    /// Another bound, from a new plan.
    pub fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
        self.tenants().values().for_each(|budget| budget.set_max(max));
    }
    /// That of this tenant.
    pub fn of(&self, tenant: &Arc<str>) -> Arc<ByteBudget> {
        let mut tenants = self.tenants();
        if let Some(budget) = tenants.get(tenant) {
            return Arc::clone(budget);
        }
        // As many as there are keys; those of keys that are gone make room.
        if tenants.len() >= TENANTS {
            tenants.retain(|_, budget| budget.used() > 0 || Arc::strong_count(budget) > 1);
        }
        let budget = ByteBudget::new(self.max.load(Ordering::Relaxed), Gauge::noop());
        tenants.insert(Arc::clone(tenant), Arc::clone(&budget));
        budget
    }
    fn tenants(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<ByteBudget>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which budget has not so much left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// The one for everybody.
    Everybodys,
    /// The tenant's part of it.
    Tenants,
}

/// Bytes of a [`ByteBudget`], and of its tenant's, once that is known.
pub struct Bytes {
    budget: Arc<ByteBudget>,
    tenant: Option<Arc<ByteBudget>>,
    bytes: u64,
}

impl Bytes {
    /// Bytes held.
    pub fn held(&self) -> u64 {
        self.bytes
    }
    /// They are this tenant's too; `false` when its budget has not so much left.
    pub fn belong_to(&mut self, tenant: Arc<ByteBudget>) -> bool {
        let fits = tenant.add(self.bytes);
        if fits && let Some(before) = self.tenant.replace(tenant) {
            before.give(self.bytes);
        }
        fits
    }
    /// Would there be room for `bytes` now? Holds no more than before.
    ///
    /// # Errors
    /// The budget that has not so much left.
    pub fn fits(&self, bytes: u64) -> Result<(), Short> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 && !self.budget.has(more) {
            return Err(Short::Everybodys);
        }
        match &self.tenant {
            Some(tenant) if more > 0 && !tenant.has(more) => Err(Short::Tenants),
            _ => Ok(()),
        }
    }
    /// Holds at least `bytes`.
    ///
    /// # Errors
    /// The budget that has not so much left; what was held stays.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), Short> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        if !self.budget.add(more) {
            return Err(Short::Everybodys);
        }
        if self.tenant.as_ref().is_some_and(|tenant| !tenant.add(more)) {
            self.budget.give(more);
            return Err(Short::Tenants);
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
        if let Some(tenant) = &self.tenant {
            tenant.give(self.bytes);
        }
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
        assert_eq!(a.grow_to(61), Err(Short::Everybodys));
        assert_eq!(a.fits(61), Err(Short::Everybodys));
        drop(b);
        assert_eq!((a.fits(100), budget.used()), (Ok(()), 60), "asked for, not held");
        assert_eq!(a.grow_to(61), Ok(()));
        assert_eq!(a.grow_to(5), Ok(()), "never shrinks");
        assert_eq!(budget.used(), 61);
        let mut leases = Leases::default();
        leases.hold(Lease::Bytes(a));
        drop(leases);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_tenant_cannot_take_what_is_everybodys() {
        let (all, tenants) = (ByteBudget::new(100, Gauge::noop()), TenantBytes::new(50));
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut of_a = all.take(40).unwrap();
        assert!(of_a.belong_to(tenants.of(&a)));
        assert_eq!(of_a.fits(51), Err(Short::Tenants));
        assert_eq!(of_a.grow_to(51), Err(Short::Tenants));
        assert_eq!(of_a.grow_to(50), Ok(()));
        let mut too_much = all.take(1).unwrap();
        assert!(!too_much.belong_to(tenants.of(&a)));
        assert!(too_much.belong_to(tenants.of(&b)));
        assert_eq!(too_much.grow_to(50), Ok(()));
        assert_eq!(too_much.grow_to(51), Err(Short::Everybodys), "all of it is used");
        assert_eq!(
            (all.used(), tenants.of(&a).used(), tenants.of(&b).used()),
            (100, 50, 50)
        );
        tenants.set_max(10);
        assert!(
            !all.take(0).unwrap().belong_to(tenants.of(&a)),
            "a new plan counts at once"
        );
        drop((of_a, too_much));
        assert_eq!(
            (all.used(), tenants.of(&a).used(), tenants.of(&b).used()),
            (0, 0, 0)
        );
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
