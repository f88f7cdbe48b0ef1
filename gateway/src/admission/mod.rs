//! Step 9's state: the work in flight, and the row of those who wait for a part of it or for a place at a target.
//!
//! One gate for the process. As long as there is room and nobody waits for it, passing is one atomic operation and leaving is
//! another. Who finds no room joins [`routing::admission::Line`] under a lock and is woken by whoever gives something back:
//! the permit, and the place at a target where it waits for one, are taken in its name before it is woken, so nobody who came
//! later can be quicker. A caller that leaves while it waits takes its place in the row with it; what it was just given goes
//! to the next.

mod wants;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use routing::admission::{Ask, Joined, Line, Pace, Shed, ShedWhy, Ticket};
use routing::plan::{Admission, Class};
use routing::units::Time;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use wants::Place;
pub use wants::Wants;

use crate::clock::Clock;
use crate::target_state::{Freed, Seat};
use crate::telemetry::Telemetry;
use crate::telemetry::names::Name;

/// The gate's word: who is in flight in its lowest bits (a plan allows a million) ...
const IN_FLIGHT: u64 = WAITS - 1;
/// ... above them who waits, for whatever ...
const WAITS: u64 = 1 << 24;
const WAITING: u64 = PERMIT - WAITS;
/// ... and above them who waits for a part of the work in flight alone.
const PERMIT: u64 = 1 << 44;

/// See the module.
pub struct Gate {
    clock: Clock,
    telemetry: Telemetry,
    /// Who waits, and what is in flight: in one word, so that who leaves and who begins to wait cannot miss each other.
    word: AtomicU64,
    max_in_flight: AtomicU32,
    places: AtomicU32,
    max_wait_us: AtomicU64,
    /// What a request usually is in flight for, in microseconds; 0 while unknown.
    held_us: AtomicU64,
    line: Mutex<Line<Waiter>>,
}

struct Waiter {
    wants: Wants,
    told: oneshot::Sender<Told>,
}

/// What somebody who waits is told.
type Told = Result<Entry, Shed>;

/// What was taken for somebody who had waited.
#[derive(Debug)]
pub struct Entry {
    /// Its part of the work in flight.
    pub permit: Permit,
    /// A place at one of the targets that it waited for.
    pub seat: Option<Seat>,
}

/// A part of the work in flight. Dropping it gives it to the next.
pub struct Permit {
    gate: Arc<Gate>,
    since: Time,
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit")
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.left(self.since);
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate with nothing behind it.
    pub fn new(config: &Admission, clock: Clock, telemetry: Telemetry) -> Arc<Self> {
        let gate = Arc::new(Self {
            clock,
            telemetry,
            word: AtomicU64::new(0),
            max_in_flight: AtomicU32::new(0),
            places: AtomicU32::new(0),
            max_wait_us: AtomicU64::new(0),
            held_us: AtomicU64::new(0),
            line: Mutex::default(),
        });
        gate.configure(config);
        gate
    }

    /// Takes over the bounds of a plan. What is in flight goes on; who waits, waits as long as it was to.
    pub fn configure(self: &Arc<Self>, config: &Admission) {
        self.max_in_flight.store(config.max_in_flight, Ordering::Relaxed);
        self.places.store(config.queue, Ordering::Relaxed);
        let us = u64::try_from(config.max_wait.as_micros()).unwrap_or(u64::MAX);
        self.max_wait_us.store(us, Ordering::Relaxed);
        self.pump(self.clock.now());
    }

    /// Longest that anybody waits.
    pub fn max_wait(&self) -> Duration {
        Duration::from_micros(self.max_wait_us.load(Ordering::Relaxed))
    }

    /// In flight.
    pub fn in_flight(&self) -> u32 {
        (self.word.load(Ordering::Relaxed) & IN_FLIGHT) as u32
    }

    /// Who waits, of one class.
    pub fn queued(&self, class: Class) -> usize {
        self.line().of(class)
    }

    /// Lets somebody pass while there is room and nobody waits for that. Those who wait for a target are in nobody's way.
    pub fn pass(self: &Arc<Self>, now: Time) -> Option<Permit> {
        let max = u64::from(self.max_in_flight.load(Ordering::Relaxed));
        let room = |word: u64| (word < PERMIT && word & IN_FLIGHT < max).then_some(word + 1);
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, room)
            .ok()?;
        Some(self.permit(now))
    }

    fn permit(self: &Arc<Self>, since: Time) -> Permit {
        Permit {
            gate: Arc::clone(self),
            since,
        }
    }

    /// Waits for a part of the work in flight, and for one of the places that `wants` names. `holds` is given up while it
    /// waits, and kept where it does not come to that.
    ///
    /// # Errors
    /// It is turned away: at once, when it would wait in vain; later, when its time is up or a higher class has its place.
    pub async fn wait(self: &Arc<Self>, ask: Ask, wants: Wants, holds: &mut Option<Permit>) -> Told {
        let (told, mut hears) = oneshot::channel();
        let from = self.clock.now();
        let look_at = wants.clone();
        let ticket = self
            .join(ask, Waiter { wants, told }, from)
            .inspect_err(|shed| self.count(*shed, ask.class))?;
        let mut waiting = Waiting {
            gate: self,
            ticket: Some(ticket),
        };
        // Others may have it meanwhile; the row was joined first, so that this one is not the last to hear of it.
        drop(holds.take());
        loop {
            let now = self.clock.now();
            let at = look_at.look_at(now).min(ask.until);
            let told = match self.clock.within(at, &mut hears).await {
                Some(told) => told.unwrap_or(Err(NOBODY)),
                None if self.clock.now() < ask.until => {
                    // The hold of a target is over.
                    self.pump(self.clock.now());
                    continue;
                }
                None => match waiting.gives_up() {
                    Some(shed) => Err(shed),
                    // Its turn came in this very moment.
                    None => (&mut hears).await.unwrap_or(Err(NOBODY)),
                },
            };
            waiting.ticket = None;
            match &told {
                Ok(_) => self.admitted(self.clock.now().since(from), ask.class),
                Err(shed) => self.count(*shed, ask.class),
            }
            return told;
        }
    }

    fn join(self: &Arc<Self>, ask: Ask, waiter: Waiter, now: Time) -> Result<Ticket, Shed> {
        let places = usize::try_from(self.places.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let mut line = self.line();
        let pace = self.pace(&waiter.wants, now);
        // Before it looks whether there is room: see `word`.
        waiter.wants.begins();
        self.word.fetch_add(weight(&waiter.wants), Ordering::SeqCst);
        let shares = |a: &Waiter, b: &Waiter| a.wants.shares(&b.wants);
        let joined = line.join(ask, waiter, places, pace, now, shares);
        let (ticket, out) = match joined {
            Joined::Waits { ticket, pushed_out } => (Ok(ticket), pushed_out),
            Joined::Shed(shed, waiter) => (Err(shed), Some(waiter)),
        };
        if let Some(out) = &out {
            self.ends(out);
        }
        drop(line);
        if ticket.is_ok()
            && let Some(out) = out
        {
            let come_back = pace.wait(0, now);
            let why = ShedWhy::PushedOut;
            let _ = out.told.send(Err(Shed { why, come_back }));
        }
        if ticket.is_ok() {
            // Somebody may have left between the look that found no room and the place in the row.
            self.pump(now);
        }
        ticket
    }

    /// Somebody waits no more.
    fn ends(&self, waiter: &Waiter) {
        self.word.fetch_sub(weight(&waiter.wants), Ordering::SeqCst);
        waiter.wants.ends();
    }

    /// How fast the row moves for those who want this.
    fn pace(&self, wants: &Wants, now: Time) -> Pace {
        if !wants.is_empty() {
            return wants.pace(now);
        }
        let held = self.held_us.load(Ordering::Relaxed);
        let max = u64::from(self.max_in_flight.load(Ordering::Relaxed)).max(1);
        Pace {
            turn: (held > 0).then(|| Duration::from_micros((held / max).max(1))),
            begins: now,
        }
    }

    fn left(self: &Arc<Self>, since: Time) {
        let now = self.clock.now();
        let us = u64::try_from(now.since(since).as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        // A lost update between two who leave costs one sample of an estimate.
        let held = match self.held_us.load(Ordering::Relaxed) {
            0 => us,
            old => (old - old / 16).saturating_add(us / 16).max(1),
        };
        self.held_us.store(held, Ordering::Relaxed);
        if self.word.fetch_sub(1, Ordering::SeqCst) & WAITING > 0 {
            self.pump(now);
        }
    }

    /// Lets in whoever can go now, in order. What it takes for them it takes under the lock; they hear of it outside.
    fn pump(self: &Arc<Self>, now: Time) {
        let mut out: SmallVec<[(oneshot::Sender<Told>, Entry); 2]> = SmallVec::new();
        let mut line = self.line();
        while !line.is_empty() && self.take() {
            let Some((_, waiter, Place { seat })) = line.next(now, |waiter| waiter.wants.place(now)) else {
                self.word.fetch_sub(1, Ordering::SeqCst);
                break;
            };
            self.ends(&waiter);
            let permit = self.permit(now);
            out.push((waiter.told, Entry { permit, seat }));
        }
        drop(line);
        for (told, entry) in out {
            // One that has just left gives it back at once, and so to the next.
            let _ = told.send(Ok(entry));
        }
    }

    /// One more in flight, whoever waits.
    fn take(&self) -> bool {
        let max = u64::from(self.max_in_flight.load(Ordering::Relaxed));
        let room = |word: u64| (word & IN_FLIGHT < max).then_some(word + 1);
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, room)
            .is_ok()
    }

    /// Takes somebody out of the row whose time is up, or who left. `None`: it has been told something already.
    fn give_up(&self, ticket: Ticket, now: Time) -> Option<Shed> {
        let mut line = self.line();
        let waiter = line.leave(ticket)?;
        self.ends(&waiter);
        let ahead = line.ahead(ticket, |other| other.wants.shares(&waiter.wants));
        Some(Shed {
            why: ShedWhy::Waited,
            come_back: self.pace(&waiter.wants, now).wait(ahead, now),
        })
    }

    fn count(&self, shed: Shed, class: Class) {
        let labels = [shed.why.as_str(), word(class)];
        self.telemetry.counter(Name::AdmissionShed, &labels).increment(1);
    }

    fn admitted(&self, after: Duration, class: Class) {
        let waited = self.telemetry.histogram(Name::AdmissionWaited, &[word(class)]);
        waited.record(after.as_secs_f64());
    }

    /// Brings the gauges up to date.
    pub fn report(&self) {
        self.telemetry
            .gauge(Name::AdmissionInFlight, &[])
            .set(f64::from(self.in_flight()));
        for class in [Class::High, Class::Normal, Class::Low] {
            let queued = self.telemetry.gauge(Name::AdmissionQueued, &[word(class)]);
            queued.set(self.queued(class) as f64);
        }
    }

    fn line(&self) -> MutexGuard<'_, Line<Waiter>> {
        // The row is whole between any two of its functions: a panic elsewhere has not torn it.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What somebody who waits adds to the gate's word.
fn weight(wants: &Wants) -> u64 {
    if wants.is_empty() { WAITS + PERMIT } else { WAITS }
}

/// Nobody is there any more who could tell it anything.
const NOBODY: Shed = Shed {
    why: ShedWhy::Waited,
    come_back: None,
};

fn word(class: Class) -> &'static str {
    match class {
        Class::High => "high",
        Class::Normal => "normal",
        Class::Low => "low",
    }
}

/// Somebody in the row. Dropped before it was told anything, its caller has left.
struct Waiting<'a> {
    gate: &'a Gate,
    ticket: Option<Ticket>,
}

impl Waiting<'_> {
    fn gives_up(&mut self) -> Option<Shed> {
        let ticket = self.ticket.take()?;
        self.gate.give_up(ticket, self.gate.clock.now())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.gives_up();
    }
}

/// The gate as targets know it.
#[derive(Debug)]
pub struct AtTargets(pub Arc<Gate>);

impl Freed for AtTargets {
    fn freed(&self, now: Time) {
        self.0.pump(now);
    }
    fn now(&self) -> Time {
        self.0.clock.now()
    }
}

#[cfg(test)]
mod tests;
