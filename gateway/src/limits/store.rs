//! Where meters are kept, and which of them count for a request.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use routing::ids::RouteId;
use routing::limit::{Charge, Day, Level};
use routing::plan::{Limits, Plan};
use routing::units::Time;

use super::Meters;
use super::journal::Journal;
use super::meter::Meter;
use super::over::{Over, Owner};

/// Keeps a meter for each owner. In this process today; one that replicas share fills the same meters with leases.
pub trait Store: Send + Sync {
    /// The meter of an owner, with these limits from now on.
    fn meter(&self, owner: Owner, limits: &Limits, now: Time) -> Arc<Meter>;
    /// The meter of an owner who has asked for one before.
    fn known(&self, owner: &Owner) -> Option<Arc<Meter>>;
    /// Every meter that was ever asked for.
    fn all(&self) -> Vec<Arc<Meter>>;
}

/// The meter of an owner, where these limits want one. Without a limit now, what it had before does not go on counting.
pub fn meter_of(store: &dyn Store, owner: Owner, limits: &Limits, now: Time) -> Option<Arc<Meter>> {
    if limits != &Limits::default() {
        return Some(store.meter(owner, limits, now));
    }
    if let Some(old) = store.known(&owner) {
        old.configure(limits, now);
    }
    None
}

/// Meters of this process. As many as names of limits were ever in a plan, or of stored keys.
#[derive(Default)]
pub struct Local {
    meters: Mutex<HashMap<Owner, Arc<Meter>>>,
    /// What the journal knew at the start.
    known: HashMap<String, Charge>,
    journal: Option<Arc<Journal>>,
}

impl Local {
    /// With a journal, and what it knew.
    pub fn journalled(journal: Journal, known: HashMap<String, Charge>) -> Self {
        Self {
            known,
            journal: Some(Arc::new(journal)),
            ..Self::default()
        }
    }
}

impl Store for Local {
    fn meter(&self, owner: Owner, limits: &Limits, now: Time) -> Arc<Meter> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        let meter = meters.entry(owner).or_insert_with_key(|owner| {
            let known = self.known.get(&owner.id());
            let day = known.map_or_else(Day::default, |c| Day::restored(c.day, c.charged));
            Arc::new(Meter::new(owner.clone(), day, self.journal.clone()))
        });
        meter.configure(limits, now);
        Arc::clone(meter)
    }

    fn known(&self, owner: &Owner) -> Option<Arc<Meter>> {
        let meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        meters.get(owner).cloned()
    }

    fn all(&self) -> Vec<Arc<Meter>> {
        let meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        meters.values().cloned().collect()
    }
}

/// The meters of a plan. Owners without a limit have none: they cost nothing.
#[derive(Debug, Default)]
pub struct Limiters {
    keys: Vec<Option<Arc<Meter>>>,
    tenants: BTreeMap<Arc<str>, Arc<Meter>>,
    routes: Vec<Option<Arc<Meter>>>,
    total: Option<Arc<Meter>>,
    /// By target index: what the providers grant.
    pub targets: Vec<Option<Arc<Meter>>>,
}

impl Limiters {
    /// Of a plan.
    pub fn new(plan: &Plan, store: &dyn Store, now: Time) -> Self {
        let meter = |owner: Owner, limits: &Limits| meter_of(store, owner, limits, now);
        // A target's concurrency is its permit's, and a local one's queue the engine's.
        let granted = |limits: &Limits| Limits {
            concurrency: None,
            queue: None,
            ..limits.clone()
        };
        Self {
            keys: plan
                .keys
                .iter()
                .map(|k| meter(Owner::Key(k.name.clone()), &k.limits))
                .collect(),
            tenants: plan
                .tenants
                .iter()
                .filter_map(|(name, limits)| {
                    Some((name.clone(), meter(Owner::Tenant(name.clone()), limits)?))
                })
                .collect(),
            routes: plan
                .routes
                .iter()
                .map(|r| meter(Owner::Route(r.name.clone()), &r.limits))
                .collect(),
            total: meter(Owner::Total, &plan.total_limits),
            targets: plan
                .targets
                .iter()
                .map(|t| meter(Owner::Target(t.name.clone()), &granted(&t.limits)))
                .collect(),
        }
    }

    /// The meter of a key of the plan, by its index.
    pub fn of_key(&self, index: usize) -> Option<Arc<Meter>> {
        self.keys.get(index).cloned().flatten()
    }

    /// The meters that count for a request: this one of its key's, and others.
    pub fn of(&self, key: Option<Arc<Meter>>, tenant: &str, route: Option<RouteId>) -> Meters {
        let tenant = self.tenants.get(tenant).cloned();
        let route = route.and_then(|id| self.routes.get(id.index())?.clone());
        [key, tenant, route, self.total.clone()]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// How a caller stands with the tightest of its limits; what `x-ratelimit-*` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Requests of this minute.
    pub requests: Option<Level>,
    /// Tokens of this minute.
    pub tokens: Option<Level>,
}

impl Standing {
    /// With these meters, now.
    pub fn of(meters: &Meters, now: Time) -> Self {
        let tightest = |levels: &mut dyn Iterator<Item = Level>| levels.min_by_key(|l| l.remaining);
        Self {
            requests: tightest(&mut meters.iter().filter_map(|m| m.requests_level(now))),
            tokens: tightest(&mut meters.iter().filter_map(|m| m.tokens_level(now))),
        }
    }
}

/// One request from each of them, or from none.
///
/// # Errors
/// The limit with the longest wait, so that a client that waits as it is told gets in.
pub fn take_request(meters: &Meters, now: Time) -> Result<(), Over> {
    all_or_nothing(meters, |m| m.request(now), |m, ()| m.request_back())
}

/// Does `take` at every meter; where one refuses, the others get back what was taken, and the longest wait is told.
pub(super) fn all_or_nothing<T>(
    meters: &Meters,
    take: impl Fn(&Arc<Meter>) -> Result<T, Over>,
    back: impl Fn(&Arc<Meter>, T),
) -> Result<(), Over> {
    let mut taken: smallvec::SmallVec<[(usize, T); 4]> = smallvec::SmallVec::new();
    let mut refused: Option<Over> = None;
    for (i, meter) in meters.iter().enumerate() {
        match take(meter) {
            Ok(t) => taken.push((i, t)),
            Err(over) => {
                // One that nobody can tell the end of weighs most.
                let longer = |old: &Over| match (old.wait, over.wait) {
                    (Some(a), Some(b)) => b > a,
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                if refused.as_ref().is_none_or(longer) {
                    refused = Some(over);
                }
            }
        }
    }
    let Some(over) = refused else { return Ok(()) };
    for (i, t) in taken {
        if let Some(meter) = meters.get(i) {
            back(meter, t);
        }
    }
    Err(over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn limiters(store: &Local, more: &str) -> (Plan, Limiters) {
        let plan = testing::plan(&format!(
            "[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n[targets.t]\nprovider = \"p\"\n\
             model = \"m\"\nprice = \"unmetered\"\n[routes.auto]\ntiers = [[\"t\"]]\n{more}"
        ));
        let limiters = Limiters::new(&plan, store, Time(1));
        (plan, limiters)
    }

    #[test]
    fn who_has_no_limit_has_no_meter() {
        let (_, none) = limiters(&Local::default(), "");
        assert!(none.of(None, "default", Some(RouteId(0))).is_empty());
        let all = "limits = { concurrency = 9 }\n[limits]\ntotal = { requests_per_minute = 5 }\n[tenants.default]\nlimits = { requests_per_minute = 3 }\n";
        let (_, limiters) = limiters(&Local::default(), all);
        assert_eq!(limiters.of(None, "default", Some(RouteId(0))).len(), 3);
        assert_eq!(limiters.of(None, "other", None).len(), 1);
    }

    #[test]
    fn all_or_nothing_and_the_longest_wait_is_told() {
        let text = "[limits]\ntotal = { requests_per_minute = 5 }\n[tenants.default]\nlimits = { requests_per_minute = 3 }\n";
        let store = Local::default();
        let (_, limiters) = limiters(&store, text);
        let meters = limiters.of(None, "default", None);
        for _ in 0..3 {
            take_request(&meters, Time(1)).unwrap();
        }
        let over = take_request(&meters, Time(1)).unwrap_err();
        assert_eq!(
            (over.code(), over.limit.as_str()),
            ("tenant_requests_per_minute", "3")
        );
        assert_eq!(Standing::of(&meters, Time(1)).requests.unwrap().remaining, 0);
        // What the refused one took of the total came back.
        let total = limiters.of(None, "other", None);
        assert_eq!(Standing::of(&total, Time(1)).requests.unwrap().remaining, 2);
        take_request(&total, Time(1)).unwrap();
        take_request(&total, Time(1)).unwrap();
        let over = take_request(&meters, Time(1)).unwrap_err();
        assert_eq!(over.code(), "tenant_requests_per_minute", "20 s against 12 s");
    }

    #[test]
    fn a_limit_that_is_taken_out_of_the_plan_counts_no_more() {
        let store = Local::default();
        let (_, first) = limiters(&store, "[limits]\ntotal = { concurrency = 1 }\n");
        let held = first.of(None, "default", None);
        held[0].enter().unwrap();
        assert!(held[0].enter().is_err());
        let (_, second) = limiters(&store, "");
        assert!(second.of(None, "default", None).is_empty());
        assert!(held[0].enter().is_ok());
    }
}
