//! What one address may do before anybody knows who it is: connections at once, requests a minute, and requests with a key
//! that nobody has.
//!
//! governor counts the minutes; who has been quiet for long enough is forgotten. An IPv6 client has a whole /64 to choose
//! from, so that is one address here. What a proxy says of its clients (`x-forwarded-for`) is not listened to: anybody can
//! write that.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};
use governor::{Quota, RateLimiter};
use routing::plan::PerAddress;

use crate::clock::Clock;
use crate::error::{Error, Kind};

/// Addresses that are remembered by one limit. Beyond it, new ones share one count: bounded memory, also when somebody has a
/// million of them. Who is remembered keeps a count of its own.
const REMEMBERED: usize = 65_536;
/// So often it is looked who can be forgotten.
const SWEEP_EVERY: u64 = 4_096;
/// Where those beyond [`REMEMBERED`] are counted: nobody comes from there (RFC 6666).
const EVERYBODY_ELSE: IpAddr = IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0));

/// Our clock as governor reads it.
#[derive(Clone)]
struct Ticks(Clock);

impl governor::clock::Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_micros(self.0.now().0)
    }
}

/// What each address has had, and one count for those who came too late to be remembered.
#[derive(Default)]
struct Counts(DashMapStateStore<IpAddr>);

impl StateStore for Counts {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, address: &IpAddr, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let remembered = self.0.contains_key(address) || self.0.len() < REMEMBERED;
        let address = if remembered { address } else { &EVERYBODY_ELSE };
        self.0.measure_and_replace(address, f)
    }
}

impl ShrinkableKeyedStateStore<IpAddr> for Counts {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }
    fn shrink_to_fit(&self) {
        self.0.shrink_to_fit();
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

type Limiter = RateLimiter<IpAddr, Counts, Ticks, NoOpMiddleware<Duration>>;

/// One limit of so many a minute.
struct Minute {
    limiter: Limiter,
    ticks: Ticks,
    asked: AtomicU64,
    a_minute: u32,
}

impl Minute {
    /// `None`: there is no limit. Where `before` was the same one, it goes on with its counts.
    fn new(a_minute: u32, clock: &Clock, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let quota = Quota::per_minute(NonZeroU32::new(a_minute)?);
        if let Some(same) = before.filter(|m| m.a_minute == a_minute) {
            return Some(Arc::clone(same));
        }
        let ticks = Ticks(clock.clone());
        Some(Arc::new(Self {
            limiter: RateLimiter::new(quota, Counts::default(), ticks.clone()),
            ticks,
            asked: AtomicU64::new(0),
            a_minute,
        }))
    }

    /// Takes one; else how long it is until there is one.
    fn take(&self, address: IpAddr) -> Result<(), Duration> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.limiter.retain_recent();
        }
        let taken = self.limiter.check_key(&address);
        taken.map_err(|not_until| not_until.wait_time_from(self.ticks.now()))
    }
}

struct Settings {
    plan: PerAddress,
    requests: Option<Arc<Minute>>,
    wrong_keys: Option<Arc<Minute>>,
}

impl Settings {
    fn new(plan: PerAddress, clock: &Clock, before: Option<&Self>) -> Arc<Self> {
        let requests = before.and_then(|b| b.requests.as_ref());
        let wrong_keys = before.and_then(|b| b.wrong_keys.as_ref());
        Arc::new(Self {
            plan,
            requests: Minute::new(plan.requests_per_minute, clock, requests),
            wrong_keys: Minute::new(plan.wrong_keys_per_minute, clock, wrong_keys),
        })
    }
}

/// All addresses.
pub struct Addresses {
    settings: ArcSwap<Settings>,
    open: Mutex<HashMap<IpAddr, Open>>,
    clock: Clock,
}

impl Addresses {
    /// As the plan says.
    pub fn new(plan: PerAddress, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            settings: ArcSwap::new(Settings::new(plan, &clock, None)),
            open: Mutex::default(),
            clock,
        })
    }

    /// Another plan is in use. What was counted stays where its own limit does.
    pub fn configure(&self, plan: PerAddress) {
        let before = self.settings.load();
        if before.plan != plan {
            let after = Settings::new(plan, &self.clock, Some(&before));
            self.settings.store(after);
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of this address; `None`: it has as many as it may. Dropping it gives the place back.
    pub fn connect(self: &Arc<Self>, address: IpAddr) -> Option<Connected> {
        let most = self.settings.load().plan.connections;
        let address = network(address);
        let mut open = self.open();
        let place = open.entry(address).or_default();
        if most > 0 && place.connections >= most {
            return None;
        }
        place.connections += 1;
        let streams = Arc::clone(&place.streams);
        drop(open);
        Some(Connected {
            addresses: Arc::clone(self),
            peer: Peer { address, streams },
        })
    }

    /// Requests that one address may have open, of the `requests` that may be open in all: the part that it may have of all
    /// `connections`. On HTTP/2 each of those can ask for many. `None`: as many as there are.
    pub fn most_open(&self, requests: u64, connections: u32) -> Option<u64> {
        let most = self.settings.load().plan.connections;
        let part = requests.saturating_mul(u64::from(most)) / u64::from(connections.max(1));
        (most > 0).then(|| part.max(u64::from(most)))
    }

    /// A request of this address.
    ///
    /// # Errors
    /// 429, with the time to wait.
    pub fn request(&self, address: IpAddr) -> Result<(), Error> {
        let settings = self.settings.load();
        let Some(minute) = &settings.requests else {
            return Ok(());
        };
        minute.take(network(address)).map_err(|wait| {
            let message = format!(
                "this address may ask {} times a minute (server.per_address requests_per_minute)",
                minute.a_minute
            );
            refused("address_requests_per_minute", message, wait)
        })
    }

    /// A request of this address had a key that nobody has.
    ///
    /// # Errors
    /// 429, with the time to wait, in place of the 401. Nobody is told to try again by itself: the key stays wrong.
    pub fn wrong_key(&self, address: IpAddr) -> Result<(), Error> {
        let settings = self.settings.load();
        let Some(minute) = &settings.wrong_keys else {
            return Ok(());
        };
        minute.take(network(address)).map_err(|wait| {
            let message = format!(
                "this address sent more than {} wrong keys a minute (server.per_address wrong_keys_per_minute)",
                minute.a_minute
            );
            refused("address_wrong_keys", message, wait).for_good()
        })
    }
}

fn refused(code: &'static str, message: String, wait: Duration) -> Error {
    Error::new(Kind::OverLimit, message).code(code).retry_after(wait)
}

/// What counts as one address: all of an IPv4 one, the /64 of an IPv6 one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// What an address has open.
#[derive(Default)]
struct Open {
    connections: u32,
    streams: Arc<AtomicU64>,
}

/// Whose a connection is.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address; of IPv6 the /64.
    pub address: IpAddr,
    /// Its open requests on HTTP/2, by all of its connections.
    pub streams: Arc<AtomicU64>,
}

/// A connection in its address's count.
pub struct Connected {
    addresses: Arc<Addresses>,
    peer: Peer,
}

impl Connected {
    /// Whose it is.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut open = self.addresses.open();
        if let Some(place) = open.get_mut(&self.peer.address) {
            place.connections -= 1;
            if place.connections == 0 {
                open.remove(&self.peer.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(connections: u32, requests: u32, wrong_keys: u32) -> Arc<Addresses> {
        let plan = PerAddress {
            connections,
            requests_per_minute: requests,
            wrong_keys_per_minute: wrong_keys,
        };
        Addresses::new(plan, Clock::system())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_counted_and_given_back() {
        let a = addresses(2, 0, 0);
        let (one, two) = (a.connect(ip("10.0.0.1")), a.connect(ip("10.0.0.1")));
        assert!(one.is_some() && a.connect(ip("10.0.0.1")).is_none());
        assert!(
            a.connect(ip("::ffff:10.0.0.1")).is_none(),
            "the same, written otherwise"
        );
        assert!(a.connect(ip("10.0.0.2")).is_some(), "another one");
        drop(one);
        assert!(a.connect(ip("10.0.0.1")).is_some());
        drop(two);
        assert!(a.open().is_empty(), "nobody is remembered who has none");
    }

    #[test]
    fn an_ipv6_client_does_not_get_a_count_for_each_of_its_addresses() {
        let a = addresses(1, 0, 0);
        let _one = a.connect(ip("2001:db8:1:2::1"));
        assert!(a.connect(ip("2001:db8:1:2:ffff::9")).is_none());
        assert!(a.connect(ip("2001:db8:1:3::1")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_as_long_as_it_is_told_gets_in() {
        let a = addresses(0, 60, 0);
        for _ in 0..60 {
            a.request(ip("10.0.0.1")).unwrap();
        }
        let told = a.request(ip("10.0.0.1")).unwrap_err();
        let wait = told.retry_after_hint().unwrap();
        assert!(
            wait > Duration::from_millis(900) && wait <= Duration::from_secs(1),
            "{wait:?}"
        );
        a.request(ip("10.0.0.2")).unwrap();
        tokio::time::sleep(wait - Duration::from_millis(10)).await;
        assert!(a.request(ip("10.0.0.1")).is_err(), "too early");
        tokio::time::sleep(Duration::from_millis(11)).await;
        a.request(ip("10.0.0.1")).unwrap();
        a.wrong_key(ip("10.0.0.1")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_comes_back() {
        let a = addresses(0, 0, 1);
        let many = u32::try_from(REMEMBERED).unwrap() * 2;
        for n in 0..many {
            let _ = a.wrong_key(IpAddr::V4(std::net::Ipv4Addr::from_bits(n)));
        }
        let held = |a: &Addresses| a.settings.load().wrong_keys.as_ref().unwrap().limiter.len();
        assert!(held(&a) <= REMEMBERED + 1, "{}", held(&a));
        let known = IpAddr::V4(std::net::Ipv4Addr::from_bits(7));
        assert!(a.wrong_key(known).is_err(), "who is remembered has had its own");
        // governor forgets who could have asked once more in the meantime.
        tokio::time::sleep(Duration::from_secs(121)).await;
        for _ in 0..=SWEEP_EVERY {
            let _ = a.wrong_key(ip("10.0.0.1"));
        }
        assert_eq!(
            held(&a),
            2,
            "who asks, and the place that it shared before the sweep"
        );
    }

    #[test]
    fn a_limit_that_stays_keeps_its_count() {
        let a = addresses(0, 1, 0);
        let plan = a.settings.load().plan;
        a.request(ip("10.0.0.1")).unwrap();
        a.configure(plan);
        assert!(a.request(ip("10.0.0.1")).is_err());
        a.configure(PerAddress {
            connections: 7,
            wrong_keys_per_minute: 7,
            ..plan
        });
        assert!(a.request(ip("10.0.0.1")).is_err(), "another limit is another");
        a.configure(PerAddress {
            requests_per_minute: 0,
            ..plan
        });
        a.request(ip("10.0.0.1")).unwrap();
    }

    /// With every place taken, one who is remembered and has asked nothing lately is served by its own count.
    #[tokio::test(start_paused = true)]
    async fn who_is_remembered_does_not_share_with_a_crowd() {
        let a = addresses(0, 2, 0);
        a.request(ip("10.255.255.255")).unwrap();
        for n in 0..=u32::try_from(REMEMBERED).unwrap() {
            let _ = a.request(IpAddr::V4(std::net::Ipv4Addr::from_bits(n)));
        }
        let _ = a.request(ip("192.0.2.1"));
        assert!(
            a.request(ip("192.0.2.2")).is_err(),
            "the crowd's count is used up"
        );
        a.request(ip("10.255.255.255")).unwrap();
    }
}
