//! What one owner may use, and has used. Atomics and a lock of some nanoseconds; touched a few times a request.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use routing::limit::{Bucket, Day, Level, Wait};
use routing::plan::Limits;
use routing::units::{NanoUsd, Time};

use super::journal::Journal;
use super::over::{Over, Owner, What};

/// The UTC day of the wall clock, and how much of it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Today {
    /// Days since 1970.
    pub day: u32,
    /// Until the next one.
    pub left: Duration,
}

const DAY_MS: u64 = 86_400_000;

impl Today {
    /// Of a wall time in milliseconds since 1970.
    pub fn of(unix_ms: u64) -> Self {
        Self {
            day: u32::try_from(unix_ms / DAY_MS).unwrap_or(u32::MAX),
            left: Duration::from_millis(DAY_MS - unix_ms % DAY_MS),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Meter {
    owner: Owner,
    id: String,
    requests: ArcSwapOption<Bucket>,
    tokens: ArcSwapOption<Bucket>,
    running: AtomicU32,
    /// Requests at once; 0: as many as come.
    most: AtomicU32,
    money: Mutex<Day>,
    journal: Option<Arc<Journal>>,
}

impl Meter {
    /// A new one. `day` is what the journal knows of it.
    pub fn new(owner: Owner, day: Day, journal: Option<Arc<Journal>>) -> Self {
        Self {
            id: owner.id(),
            owner,
            requests: ArcSwapOption::empty(),
            tokens: ArcSwapOption::empty(),
            running: AtomicU32::new(0),
            most: AtomicU32::new(0),
            money: Mutex::new(day),
            journal,
        }
    }

    /// Takes over the limits of a plan. What was used stays used.
    pub fn configure(&self, limits: &Limits, now: Time) {
        swap(&self.requests, limits.requests_per_minute, now);
        swap(&self.tokens, limits.tokens_per_minute, now);
        self.most
            .store(limits.concurrency.unwrap_or(0), Ordering::Relaxed);
        self.money().set_limit(limits.usd_per_day);
    }

    /// Who it belongs to.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Step 6: one request.
    ///
    /// # Errors
    /// There is none left in this minute.
    pub fn request(&self, now: Time) -> Result<(), Over> {
        match &*self.requests.load() {
            Some(bucket) => bucket
                .take(1, now)
                .map_err(|wait| self.over(What::Requests, bucket.per_minute().to_string(), after(wait))),
            None => Ok(()),
        }
    }

    /// A request that another limit refused.
    pub fn request_back(&self) {
        if let Some(bucket) = &*self.requests.load() {
            bucket.give_back(1);
        }
    }

    /// One more that runs.
    ///
    /// # Errors
    /// There are as many as may be. Nobody can say when one of them ends.
    pub fn enter(&self) -> Result<(), Over> {
        let most = self.most.load(Ordering::Relaxed);
        if self.running.fetch_add(1, Ordering::Relaxed) >= most && most > 0 {
            self.leave();
            return Err(self.over(What::Concurrency, most.to_string(), None));
        }
        Ok(())
    }

    /// One less.
    pub fn leave(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests that run.
    pub fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// Takes tokens in advance: how many were taken. More than a whole minute has are taken for the whole minute; what it
    /// comes to is charged in the end.
    ///
    /// # Errors
    /// There are not so many left.
    pub fn hold_tokens(&self, tokens: u64, now: Time) -> Result<u64, Over> {
        match &*self.tokens.load() {
            Some(bucket) => {
                let tokens = tokens.min(bucket.per_minute());
                bucket
                    .take(tokens, now)
                    .map(|()| tokens)
                    .map_err(|wait| self.over(What::Tokens, bucket.per_minute().to_string(), after(wait)))
            }
            None => Ok(0),
        }
    }

    /// What was taken in advance, against what was used.
    pub fn settle_tokens(&self, held: u64, used: u64, now: Time) {
        if let Some(bucket) = &*self.tokens.load() {
            match used.checked_sub(held) {
                Some(more) => bucket.charge(more, now),
                None => bucket.give_back(held - used),
            }
        }
    }

    /// Holds money.
    ///
    /// # Errors
    /// There is not so much left today. Where a whole day has less, no time is told: waiting does not help.
    pub fn hold_money(&self, amount: NanoUsd, today: Today) -> Result<(), Over> {
        let mut day = self.money();
        let Some(limit) = day.limit() else {
            let _ = day.hold(amount, today.day);
            return Ok(());
        };
        match day.hold(amount, today.day) {
            Ok(charge) => {
                // Under the lock: it is written down before anybody spends of it.
                if let (Some(charge), Some(journal)) = (charge, &self.journal) {
                    journal.write(&self.id, charge, false);
                }
                Ok(())
            }
            Err(_) => {
                let tomorrow = (amount <= limit).then_some(today.left);
                Err(self.over(What::Money, format!("{}", limit.usd()), tomorrow))
            }
        }
    }

    /// What was held against what was spent.
    pub fn settle_money(&self, held: NanoUsd, spent: NanoUsd, today: Today) {
        let mut day = self.money();
        let charge = day.settle(held, spent, today.day);
        if let (Some(charge), Some(journal)) = (charge, &self.journal) {
            journal.write(&self.id, charge, false);
        }
    }

    /// An orderly end: the journal has what was really spent.
    pub fn close(&self) {
        let day = self.money();
        if let (Some(_), Some(journal)) = (day.limit(), &self.journal) {
            journal.write(&self.id, day.exact(), true);
        }
    }

    /// Requests of this minute.
    pub fn requests_level(&self, now: Time) -> Option<Level> {
        self.requests.load().as_ref().map(|b| b.level(now))
    }

    /// Tokens of this minute.
    pub fn tokens_level(&self, now: Time) -> Option<Level> {
        self.tokens.load().as_ref().map(|b| b.level(now))
    }

    /// Spent today, held, and left, where there is a limit.
    pub fn money_level(&self, today: Today) -> (NanoUsd, NanoUsd, Option<NanoUsd>) {
        let day = self.money();
        (day.spent(today.day), day.held(), day.left(today.day))
    }

    fn over(&self, what: What, limit: String, wait: Option<Duration>) -> Over {
        Over {
            owner: self.owner.clone(),
            what,
            limit,
            wait,
        }
    }

    fn money(&self) -> MutexGuard<'_, Day> {
        // Plain values that are whole at every step.
        self.money.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn after(wait: Wait) -> Option<Duration> {
    match wait {
        Wait::After(after) => Some(after),
        Wait::TooLarge => None,
    }
}

fn swap(place: &ArcSwapOption<Bucket>, per_minute: Option<u64>, now: Time) {
    let old = place.load_full();
    let new = match (per_minute, &old) {
        (None, _) => None,
        (Some(n), Some(old)) if old.per_minute() == n => return,
        (Some(n), Some(old)) => Some(Arc::new(old.resumed(n, now))),
        (Some(n), None) => Some(Arc::new(Bucket::new(n))),
    };
    place.store(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(limits: &Limits) -> Meter {
        let meter = Meter::new(Owner::Key("a".into()), Day::default(), None);
        meter.configure(limits, Time(1));
        meter
    }

    #[test]
    fn days_are_those_of_utc() {
        let noon = Today::of(20_000 * DAY_MS + DAY_MS / 2);
        assert_eq!((noon.day, noon.left), (20_000, Duration::from_secs(43_200)));
    }

    #[test]
    fn without_limits_everything_passes_and_is_counted() {
        let free = meter(&Limits::default());
        for _ in 0..100 {
            free.request(Time(1)).unwrap();
            free.enter().unwrap();
            assert_eq!(free.hold_tokens(1 << 40, Time(1)), Ok(0));
            free.hold_money(NanoUsd(1), Today::of(0)).unwrap();
        }
        assert_eq!(free.running(), 100);
    }

    #[test]
    fn a_reload_keeps_what_was_used() {
        let limits = |n| Limits {
            requests_per_minute: Some(n),
            ..Limits::default()
        };
        let meter = meter(&limits(2));
        meter.request(Time(1)).unwrap();
        meter.request(Time(1)).unwrap();
        meter.configure(&limits(2), Time(2));
        assert!(meter.request(Time(2)).is_err());
        meter.configure(&limits(3), Time(2));
        assert!(meter.request(Time(2)).is_ok() && meter.request(Time(2)).is_err());
    }

    #[test]
    fn as_many_as_may_run_and_no_more() {
        let meter = meter(&Limits {
            concurrency: Some(2),
            ..Limits::default()
        });
        meter.enter().unwrap();
        meter.enter().unwrap();
        let over = meter.enter().unwrap_err();
        assert_eq!((over.code(), over.wait), ("key_concurrency", None));
        meter.leave();
        assert!(meter.enter().is_ok());
    }
    #[test]
    fn what_a_whole_day_does_not_have_is_not_to_be_waited_for() {
        let meter = meter(&Limits {
            usd_per_day: Some(NanoUsd(1_000)),
            ..Limits::default()
        });
        let noon = Today::of(DAY_MS / 2);
        let never = meter.hold_money(NanoUsd(1_001), noon).unwrap_err();
        assert_eq!((never.code(), never.wait), ("key_usd_per_day", None));
        meter.hold_money(NanoUsd(600), noon).unwrap();
        let tomorrow = meter.hold_money(NanoUsd(1_000), noon).unwrap_err();
        assert_eq!(tomorrow.wait, Some(Duration::from_secs(43_200)));
    }
}
