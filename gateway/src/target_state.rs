//! What we have seen of a target. Kept by name and endpoint, so that it outlives plans; process-wide, touched a few
//! times per try: atomics, and a lock of some nanoseconds around the breaker.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use routing::admission::{Adaptive, Felt};
use routing::balance;
use routing::breaker::{Breaker, Change, Pass, Sign, View, Why as Reason};
use routing::latency::Latencies;
use routing::signals::{Ability, Hold, TargetSignal, Usable};
use routing::units::Time;
use serde::{Deserialize, Serialize};

/// One target's state.
#[derive(Debug, Default)]
pub struct TargetState {
    in_flight: AtomicU32,
    /// Tries at once, as [`Adaptive`] has it now; 0: as many as come.
    room: AtomicU32,
    /// All of them ran, since the last one ended.
    reached: AtomicBool,
    /// Requests that wait for one of its places: who comes meanwhile waits behind them.
    wanted: AtomicU32,
    /// Who is told when a place is free.
    told: OnceLock<Arc<dyn Freed>>,
    /// Peak EWMA in microseconds; 0 while unknown.
    latency_us: AtomicU64,
    /// Whole answers, streams: when a try is slow for this target.
    latencies: [Latencies; 2],
    /// When it was last observed, in microseconds of the process clock.
    observed_at: AtomicU64,
    /// Prompt tokens as counted by the target, per 1,024 of our estimate; 0 while unknown.
    prompt_ratio: AtomicU32,
    /// Tokens of a usual answer; 0 while unknown.
    usual_answer: AtomicU32,
    /// Held back for everyone until then, and why; 0: not held. See [`packed`].
    held: AtomicU64,
    /// Holds for a 429 without a word, one after the other; see [`TargetState::limited`].
    limited: AtomicU32,
    /// Off because of what it answered (401, quota, unknown model).
    off: ArcSwapOption<Box<str>>,
    /// What an operator said: see [`Wish`].
    wish: AtomicU8,
    guarded: Mutex<Guarded>,
    /// The breaker has something to say: it is not closed, or starts slowly. Saves the lock where nothing happened.
    stirred: AtomicBool,
    /// Openings, by reason.
    opened: [AtomicU64; Reason::ALL.len()],
}

/// The breaker with its settings, and what the target takes at once: locked for some nanoseconds, a few times a try.
#[derive(Debug, Default)]
struct Guarded {
    config: routing::plan::Breaker,
    breaker: Breaker,
    /// `None`: as many as come (a model in this process keeps to its own number).
    adaptive: Option<Adaptive>,
}

/// Hears of places that become free.
pub trait Freed: Send + Sync + std::fmt::Debug {
    /// A target that somebody waits for has a place, or is known to have none for a while.
    fn freed(&self, now: Time);
    /// Now: a place may be given back where nobody knows the time.
    fn now(&self) -> Time;
}

/// What an operator wants of a target. Kept over reloads, until another word or the end of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// It may be called.
    #[default]
    On,
    /// New requests do not choose it; those that already have it among theirs may go on to.
    Drain,
    /// Nothing starts there any more. What runs comes to its own end.
    Off,
}

/// What the answers of a target have taught us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Its count of prompt tokens, per 1,024 of our estimate.
    pub prompt_ratio: Option<u32>,
    /// Tokens of a usual answer.
    pub answer: Option<u32>,
}

impl Learned {
    /// Tokens of a prompt as the target would count them.
    pub fn prompt(self, estimated: u64) -> u64 {
        match self.prompt_ratio {
            Some(ratio) => estimated.saturating_mul(u64::from(ratio)).div_ceil(1_024),
            None => estimated,
        }
    }
}

/// Why a try may not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// Its permits are taken.
    Full,
    /// The breaker is open, or its probes are under way; it may be asked again then.
    Breaker(Time),
}

/// A place at a target, taken before the try that will have it. Dropping it gives it back.
#[derive(Debug)]
pub struct Seat {
    state: Arc<TargetState>,
    since: Time,
    /// A try was made in it.
    used: bool,
    /// A first word is awaited in it.
    silent: bool,
    /// The try went well.
    well: bool,
}

impl Seat {
    /// It is a place at that target.
    pub fn is_at(&self, state: &Arc<TargetState>) -> bool {
        Arc::ptr_eq(&self.state, state)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.state.given_back(self);
    }
}

/// What a try holds of its target: a permit, and its pass through the breaker. Dropping it gives both back.
#[derive(Debug)]
pub struct Leave {
    pass: Pass,
    seat: Seat,
}

impl Leave {
    /// What the try says of its target.
    pub fn told(&mut self, sign: Sign, now: Time) -> Option<Change> {
        self.seat.well |= sign == Sign::Good;
        self.seat.state.told(&mut self.pass, sign, now)
    }
    /// What it made felt of how much the target can take.
    pub fn felt(&self, felt: Felt, now: Time) {
        self.seat.state.felt(felt, now);
    }
    /// It is a stream: how long its first word takes says how much stands in its way.
    pub fn awaits_word(&mut self) {
        self.seat.silent = true;
    }
    /// The first word, content or a thought. Only the first call counts.
    pub fn first_word(&mut self, now: Time) {
        if std::mem::take(&mut self.seat.silent) {
            self.felt(Felt::Word(now.since(self.seat.since)), now);
        }
    }
    /// This try is one of the breaker's probes.
    pub fn is_probe(&self) -> bool {
        self.pass.is_probe()
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let since = self.seat.since;
        self.seat.state.told(&mut self.pass, Sign::Nothing, since);
    }
}

impl TargetState {
    /// Takes over what a plan says: the breaker's settings, and how many tries there may be at once at most.
    pub fn configure(&self, breaker: &routing::plan::Breaker, most: Option<u32>) {
        let mut guarded = self.lock();
        guarded.config = breaker.clone();
        match (&mut guarded.adaptive, most) {
            (Some(adaptive), Some(most)) => adaptive.set_ceiling(most),
            (adaptive, most) => *adaptive = most.map(Adaptive::new),
        }
        self.publish(&guarded);
    }

    /// From now on somebody is told when a place is free that is waited for.
    pub fn tells(&self, whom: &dyn Fn() -> Arc<dyn Freed>) {
        self.told.get_or_init(whom);
    }

    fn publish(&self, guarded: &Guarded) {
        let room = guarded.adaptive.as_ref().map_or(0, Adaptive::room);
        self.room.store(room, Ordering::Relaxed);
    }

    /// Steps `permit` and `breaker`: lets a try in, until what it gets is dropped. Neither waits.
    ///
    /// # Errors
    /// Why not.
    pub fn begin(self: &Arc<Self>, now: Time) -> Result<Leave, Shut> {
        let seat = self.claim(now).ok_or(Shut::Full)?;
        self.begin_in(seat, now)
    }

    /// Lets a try in that has its place already.
    ///
    /// # Errors
    /// The breaker's word; the place is given back.
    pub fn begin_in(&self, mut seat: Seat, now: Time) -> Result<Leave, Shut> {
        let entered = {
            let mut guarded = self.lock();
            let Guarded { config, breaker, .. } = &mut *guarded;
            let entered = breaker.enter(config, now);
            self.stirred
                .store(!breaker.is_quiet(config, now), Ordering::Relaxed);
            entered
        };
        match entered {
            Ok(pass) => {
                (seat.since, seat.used) = (now, true);
                Ok(Leave { pass, seat })
            }
            Err(until) => Err(Shut::Breaker(until)),
        }
    }

    /// A place, if there is one.
    pub fn claim(self: &Arc<Self>, now: Time) -> Option<Seat> {
        let room = self.room.load(Ordering::Relaxed);
        let one_more = |running: u32| (room == 0 || running < room).then_some(running + 1);
        // In one order with `wanted`: who gives a place back sees who has begun to wait, or who waits sees the place.
        let took = self
            .in_flight
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        if room > 0 && took.map_or(true, |before| before + 1 >= room) {
            self.reached.store(true, Ordering::Relaxed);
        }
        took.ok()?;
        Some(Seat {
            state: Arc::clone(self),
            since: now,
            used: false,
            silent: false,
            well: false,
        })
    }

    /// A place for somebody who has just come: none while others wait for it.
    pub fn sit(self: &Arc<Self>, now: Time) -> Option<Seat> {
        if self.wanted.load(Ordering::SeqCst) > 0 {
            return None;
        }
        self.claim(now)
    }

    fn given_back(&self, seat: &Seat) {
        let since = seat.since;
        let whom = self.told.get();
        let now = whom.map_or(since, |whom| whom.now());
        let running = self.in_flight.load(Ordering::Relaxed);
        if seat.used && self.room.load(Ordering::Relaxed) > 0 {
            let mut guarded = self.lock();
            if let Some(adaptive) = &mut guarded.adaptive {
                let reached = self.reached.swap(false, Ordering::Relaxed);
                if seat.silent {
                    adaptive.felt(Felt::NoWord(now.since(since)), running, now);
                }
                adaptive.ended(running, seat.well.then(|| now.since(since)), reached, now);
            }
            self.publish(&guarded);
        }
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.tell_free(now);
    }

    fn tell_free(&self, now: Time) {
        if self.wanted.load(Ordering::SeqCst) > 0
            && let Some(whom) = self.told.get()
        {
            whom.freed(now);
        }
    }

    /// Somebody waits for one of its places.
    pub fn want(&self) {
        self.wanted.fetch_add(1, Ordering::SeqCst);
    }

    /// ... and does so no more.
    pub fn unwant(&self) {
        self.wanted.fetch_sub(1, Ordering::SeqCst);
    }

    fn felt(&self, felt: Felt, now: Time) {
        if self.room.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut guarded = self.lock();
        if let Some(adaptive) = &mut guarded.adaptive {
            adaptive.felt(felt, self.in_flight.load(Ordering::Relaxed), now);
        }
        self.publish(&guarded);
    }

    /// Tries at once, as learned so far; `None`: as many as come.
    pub fn limit(&self) -> Option<u32> {
        Some(self.room.load(Ordering::Relaxed)).filter(|room| *room > 0)
    }

    /// From the end of one try to the next, while as many run as may; `None` while unknown.
    pub fn turn(&self) -> Option<Duration> {
        self.lock().adaptive.as_ref()?.turn()
    }

    fn told(&self, pass: &mut Pass, sign: Sign, now: Time) -> Option<Change> {
        if sign == Sign::Good && self.limited.load(Ordering::Relaxed) > 0 {
            self.limited.store(0, Ordering::Relaxed);
        }
        let mut guarded = self.lock();
        let Guarded {
            config,
            breaker,
            adaptive,
        } = &mut *guarded;
        if let (Sign::Good, Some(adaptive)) = (sign, adaptive.as_mut()) {
            adaptive.went_well(self.in_flight.load(Ordering::Relaxed));
        }
        let change = breaker.told(config, pass, sign, now)?;
        if let (Change::Closed, Some(adaptive)) = (&change, adaptive.as_mut()) {
            // What lowered it was an outage; slow start is for what comes after one.
            adaptive.forgive();
        }
        self.stirred
            .store(!breaker.is_quiet(config, now), Ordering::Relaxed);
        self.publish(&guarded);
        if let Change::Opened(opened) = change
            && let Some(count) = self.opened.get(opened.why as usize)
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Some(change)
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        // Plain values that are whole at every step: a panic elsewhere has not torn them.
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The breaker, for people and metrics.
    pub fn breaker(&self, now: Time) -> View {
        let guarded = self.lock();
        guarded.breaker.view(&guarded.config, now)
    }

    /// Openings so far, by reason.
    pub fn openings(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        let count = |why: Reason| {
            self.opened
                .get(why as usize)
                .map_or(0, |n| n.load(Ordering::Relaxed))
        };
        Reason::ALL.into_iter().map(move |why| (why, count(why)))
    }

    /// Tries in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Takes in one latency (first content of a stream, the whole of a whole answer).
    pub fn observe(&self, stream: bool, latency: Duration, now: Time) {
        if let Some(latencies) = self.latencies.get(usize::from(stream)) {
            latencies.observe(latency);
        }
        let seen = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let before = self.observed_at.swap(now.0, Ordering::Relaxed);
        let old = self.latency_us.load(Ordering::Relaxed);
        // A lost update between two observers costs one sample of an estimate.
        let new = balance::peak_ewma(old, seen, now.since(Time(before)));
        self.latency_us.store(new, Ordering::Relaxed);
    }

    /// This share of its tries had content (whole answers: had ended) by then; `None` while too few were seen.
    pub fn slow_after(&self, stream: bool, share: f32) -> Option<Duration> {
        self.latencies.get(usize::from(stream))?.quantile(share)
    }

    /// What its provider counted, against what we had estimated. A mean that forgets slowly; a lost update between two
    /// threads costs one sample.
    pub fn learn(&self, estimated: u32, prompt: u64, answer: u64) {
        let mix = |old: u32, new: u64| {
            let new = new.clamp(1, u64::from(u32::MAX / 2)) as u32;
            if old == 0 {
                new
            } else {
                ((u64::from(old) * 15 + u64::from(new)) / 16).max(1) as u32
            }
        };
        if estimated > 0 && prompt > 0 {
            let ratio = prompt.saturating_mul(1_024) / u64::from(estimated);
            let old = self.prompt_ratio.load(Ordering::Relaxed);
            self.prompt_ratio
                .store(mix(old, ratio.clamp(128, 8_192)), Ordering::Relaxed);
        }
        let old = self.usual_answer.load(Ordering::Relaxed);
        self.usual_answer.store(mix(old, answer), Ordering::Relaxed);
    }

    /// What its answers have taught us so far.
    pub fn learned(&self) -> Learned {
        let known = |n: u32| (n > 0).then_some(n);
        Learned {
            prompt_ratio: known(self.prompt_ratio.load(Ordering::Relaxed)),
            answer: known(self.usual_answer.load(Ordering::Relaxed)),
        }
    }

    /// What an operator wants of it. [`Wish::On`] also says that it is mended: what it was switched off for, its hold, its
    /// breaker and its limit are forgotten.
    pub fn wish(&self, wish: Wish) {
        self.wish.store(wish as u8, Ordering::Relaxed);
        if wish == Wish::On {
            self.off.store(None);
            self.held.store(0, Ordering::Relaxed);
            self.limited.store(0, Ordering::Relaxed);
            let mut guarded = self.lock();
            guarded.breaker.forgive();
            if let Some(adaptive) = &mut guarded.adaptive {
                adaptive.forgive();
            }
            self.publish(&guarded);
            self.stirred.store(false, Ordering::Relaxed);
        }
    }

    /// What an operator wants of it.
    pub fn wished(&self) -> Wish {
        match self.wish.load(Ordering::Relaxed) {
            1 => Wish::Drain,
            2 => Wish::Off,
            _ => Wish::On,
        }
    }

    /// Holds the target back for everyone until `until`; a longer hold stands, with its own reason.
    pub fn hold(&self, until: Time, why: Hold) {
        self.held.fetch_max(packed(until, why), Ordering::Relaxed);
    }

    /// It is limited, and does not say until when: how many holds for that came before this one, without a good answer in
    /// between. Those that come while it is held belong to the same hold.
    pub fn limited(&self, now: Time) -> u32 {
        let (until, _) = unpacked(self.held.load(Ordering::Relaxed));
        if until > now {
            return self.limited.load(Ordering::Relaxed).saturating_sub(1);
        }
        self.limited.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes it out of every cascade until the plan is loaded again: key, account or name must be mended by a person.
    /// Returns `true` the first time, so that it is said once.
    pub fn switch_off(&self, why: &str) -> bool {
        self.off.swap(Some(Arc::new(why.into()))).is_none()
    }

    /// A new plan may have mended it.
    pub fn forgive(&self) {
        self.off.store(None);
    }

    /// What a decision sees. `ability` is the measured one, if there is one; local targets add their queue's figures.
    pub fn signal(&self, now: Time, ability: Option<Ability>) -> TargetSignal {
        let room = self.room.load(Ordering::Relaxed);
        let in_flight = self.in_flight();
        let full = room > 0 && (in_flight >= room || self.wanted.load(Ordering::Relaxed) > 0);
        let usable = match self.usable(now) {
            Usable::Yes if self.wished() == Wish::Drain => Usable::Off {
                why: "drained by an operator".into(),
            },
            Usable::Yes if full => Usable::Full { until: None },
            usable => usable,
        };
        let latency_us = self.latency_us.load(Ordering::Relaxed);
        let observed = Time(self.observed_at.load(Ordering::Relaxed));
        TargetSignal {
            usable,
            in_flight,
            latency_us,
            silent_us: match latency_us {
                0 => 0,
                _ => u64::try_from(now.since(observed).as_micros()).unwrap_or(u64::MAX),
            },
            slow_start: self.slow_start(now),
            ability,
            ..TargetSignal::default()
        }
    }

    fn slow_start(&self, now: Time) -> Option<u16> {
        if !self.stirred.load(Ordering::Relaxed) {
            return None;
        }
        let guarded = self.lock();
        let share = guarded.breaker.share(&guarded.config, now);
        (share < 1_000).then_some(share)
    }

    /// May it be called, as far as its own answers and an operator tell. Permits are not looked at.
    pub fn usable(&self, now: Time) -> Usable {
        if self.wished() == Wish::Off {
            return Usable::Off {
                why: "switched off by an operator".into(),
            };
        }
        if let Some(why) = self.off.load().as_deref() {
            return Usable::Off {
                why: Arc::from(&**why),
            };
        }
        let (until, why) = unpacked(self.held.load(Ordering::Relaxed));
        if until > now {
            return Usable::Held { until, why };
        }
        if self.stirred.load(Ordering::Relaxed) {
            let guarded = self.lock();
            if let Err(until) = guarded.breaker.may_enter(&guarded.config, now) {
                return Usable::Open { until };
            }
        }
        Usable::Yes
    }
}

/// A point in time with a reason in its lowest bit, so that both change at once and the later point is the larger
/// number. 63 bits of microseconds are enough.
fn packed(until: Time, why: Hold) -> u64 {
    until.0.min(u64::MAX >> 1) << 1 | u64::from(why == Hold::Limited)
}

fn unpacked(held: u64) -> (Time, Hold) {
    let why = if held & 1 == 1 {
        Hold::Limited
    } else {
        Hold::Failed
    };
    (Time(held >> 1), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let state = TargetState::default();
        state.observe(true, Duration::from_millis(10), at(1_000));
        state.observe(true, Duration::from_millis(500), at(1_001));
        assert_eq!(state.signal(at(1_001), None).latency_us, 500_000);
        state.observe(true, Duration::from_millis(10), at(11_001));
        let faded = state.signal(at(11_001), None).latency_us;
        assert!((150_000..250_000).contains(&faded), "{faded}");
    }

    #[test]
    fn held_until_the_longer_of_two_points() {
        let state = TargetState::default();
        state.hold(at(5_000), Hold::Failed);
        state.hold(at(3_000), Hold::Limited);
        let longer = Usable::Held {
            until: at(5_000),
            why: Hold::Failed,
        };
        assert_eq!(state.usable(at(4_000)), longer);
        assert_eq!(state.usable(at(5_000)), Usable::Yes);
    }

    #[test]
    fn holds_without_a_word_are_counted_until_a_good_answer() {
        let state = Arc::new(TargetState::default());
        assert_eq!(state.limited(at(1_000)), 0);
        state.hold(at(1_100), Hold::Limited);
        // Two tries that ran beside the first.
        assert_eq!((state.limited(at(1_050)), state.limited(at(1_060))), (0, 0));
        assert_eq!(state.limited(at(1_100)), 1);
        assert_eq!(state.limited(at(1_300)), 2);
        state.begin(at(1_400)).unwrap().told(Sign::Good, at(1_400));
        assert_eq!(state.limited(at(1_500)), 0);
    }

    #[test]
    fn off_is_said_once_and_forgiven_by_a_reload() {
        let state = TargetState::default();
        assert!(state.switch_off("401 from the provider: check OPENAI_API_KEY"));
        assert!(!state.switch_off("again"));
        assert!(state.usable(at(1)).off());
        state.forgive();
        assert!(state.usable(at(1)).yes());
    }

    #[test]
    fn a_dropped_try_is_counted_out() {
        let state = Arc::new(TargetState::default());
        let a = state.begin(at(1)).unwrap();
        let b = state.begin(at(1)).unwrap();
        assert_eq!(state.in_flight(), 2);
        drop((a, b));
        assert_eq!(state.in_flight(), 0);
    }

    #[test]
    fn no_more_tries_at_once_than_the_plan_says() {
        let state = Arc::new(TargetState::default());
        state.configure(&routing::plan::Breaker::default(), Some(2));
        let first = state.begin(at(1)).unwrap();
        let _second = state.begin(at(1)).unwrap();
        assert_eq!(state.begin(at(1)).unwrap_err(), Shut::Full);
        assert_eq!(state.signal(at(1), None).usable, Usable::Full { until: None });
        drop(first);
        assert!(state.begin(at(1)).is_ok());
    }

    /// Fails it until it opens.
    fn broken(state: &Arc<TargetState>, now: Time) -> Time {
        for _ in 0..5 {
            let mut leave = state.begin(now).unwrap();
            if let Some(Change::Opened(opened)) = leave.told(Sign::Failed, now) {
                return opened.until;
            }
        }
        panic!("it did not open")
    }

    #[test]
    fn an_open_breaker_is_seen_and_a_dropped_probe_lets_the_next_one_in() {
        let state = Arc::new(TargetState::default());
        let until = broken(&state, at(1));
        assert_eq!(state.in_flight(), 0, "a refused or ended try holds no permit");
        assert_eq!(state.usable(at(2)), Usable::Open { until });
        assert_eq!(state.begin(at(2)).unwrap_err(), Shut::Breaker(until));
        assert_eq!(state.in_flight(), 0);
        let probe = state.begin(until).unwrap();
        assert!(probe.is_probe());
        assert!(matches!(state.usable(until), Usable::Open { .. }));
        drop(probe);
        let mut next = state.begin(until).unwrap();
        assert_eq!(next.told(Sign::Good, until), Some(Change::Closed));
        assert!(state.usable(until).yes());
        assert_eq!(state.signal(until, None).slow_start, Some(100));
        let later = until + Duration::from_secs(10);
        assert_eq!(state.signal(later, None).slow_start, None);
        assert_eq!(state.openings().map(|(_, n)| n).sum::<u64>(), 1);
    }

    #[test]
    fn new_settings_do_not_close_it() {
        let state = Arc::new(TargetState::default());
        let until = broken(&state, at(1));
        state.configure(&routing::plan::Breaker::default(), None);
        state.forgive();
        assert_eq!(state.usable(at(2)), Usable::Open { until });
    }

    #[test]
    fn an_operator_drains_switches_off_and_mends() {
        let state = Arc::new(TargetState::default());
        state.wish(Wish::Drain);
        assert!(
            state.signal(at(2), None).usable.off(),
            "no new request chooses it"
        );
        assert!(state.usable(at(2)).yes(), "one that has it may go on to it");
        state.wish(Wish::Off);
        assert!(state.usable(at(2)).off());
        state.forgive();
        assert!(state.usable(at(2)).off(), "a reload does not undo it");
        state.wish(Wish::On);
        assert!(state.signal(at(2), None).usable.yes());
        broken(&state, at(1));
        state.switch_off("401");
        state.wish(Wish::On);
        assert!(state.signal(at(2), None).usable.yes());
    }
}
