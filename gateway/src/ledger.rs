//! A request's record while it is open, with what is counted and held for it.
//!
//! There is exactly one per request: it is opened in step 1, moves into the body, and is written when it is dropped,
//! whatever ended it.

use std::sync::Arc;
use std::time::Duration;

use routing::units::Time;

use crate::clock::Clock;
use crate::leases::Leases;
use crate::limits::{Reservation, Standing};
use crate::telemetry::handles::{PlanHandles, Process};
use crate::telemetry::record::{End, Record};
use crate::telemetry::writer::Sink;

/// Somebody who knows what a request came to, perhaps later than the request itself ends: a call that others read as well.
pub trait Payer: Send + Sync {
    /// Writes it down now, or takes the ledger over until it is known (`true`: then it is empty, and nothing more is done).
    fn settle(&self, ledger: &mut Ledger) -> bool;
}

/// An open record.
pub struct Ledger {
    /// What is written in the end.
    pub record: Box<Record>,
    /// Given back in the end.
    pub leases: Leases,
    /// Of the limits that cover it: settled before its last byte leaves.
    pub reservation: Option<Arc<Reservation>>,
    /// How the caller stands with its limits, for the head.
    pub standing: Option<Standing>,
    /// When the head was there.
    pub started: Time,
    /// Time that was not our own so far: the caller's body, a queue, the classifier, the upstream.
    pub waited: Waited,
    /// Index of the route, for the metrics.
    pub route: Option<usize>,
    /// Index of the target that answered, for the metrics.
    pub answered: Option<usize>,
    /// The shared call that this request leads.
    pub payer: Option<Arc<dyn Payer>>,
    clock: Clock,
    sink: Sink,
    process: Arc<Process>,
    handles: Arc<PlanHandles>,
    step_at: Time,
}

/// Where time went that was not our own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// For the caller's body.
    pub body: Duration,
    /// For the classifier.
    pub classify: Duration,
    /// In a queue.
    pub queue: Duration,
    /// For the upstream or the local model, up to the head.
    pub upstream: Duration,
}

impl Waited {
    /// All of it.
    pub fn total(self) -> Duration {
        self.body + self.classify + self.queue + self.upstream
    }
}

impl Ledger {
    /// Opens a record.
    pub fn open(
        record: Record,
        clock: Clock,
        sink: Sink,
        process: Arc<Process>,
        handles: Arc<PlanHandles>,
    ) -> Self {
        let started = clock.now();
        Self {
            record: Box::new(record),
            leases: Leases::default(),
            reservation: None,
            standing: None,
            started,
            waited: Waited::default(),
            route: None,
            answered: None,
            payer: None,
            clock,
            sink,
            process,
            handles,
            step_at: started,
        }
    }

    /// Enters a step: its name is recorded, with the time that the step before took.
    pub fn step(&mut self, name: &'static str) {
        self.close_step();
        self.record.step = name;
    }

    fn close_step(&mut self) {
        let now = self.clock.now();
        self.record
            .steps_us
            .push((self.record.step, micros(now.since(self.step_at))));
        self.step_at = now;
    }

    /// Metric handles of the plan that the request began with.
    pub fn handles(&self) -> &Arc<PlanHandles> {
        &self.handles
    }

    /// Handles that belong to no plan.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// The clock of the process.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Time since the head.
    pub fn elapsed(&self) -> Duration {
        self.clock.now().since(self.started)
    }

    /// The response's head goes out now: from here on the time is the body's.
    pub fn head_sent(&mut self, status: u16) {
        self.close_step();
        self.record.step = "body";
        self.record.status = status;
        self.record.overhead_us = micros(self.elapsed().saturating_sub(self.waited.total()));
    }

    /// The first content of a stream goes out now.
    pub fn first_content(&mut self) {
        if self.record.ttft_us.is_none() {
            self.record.ttft_us = Some(micros(self.elapsed()));
        }
    }

    /// All that is in it, for who goes on with it; what is left has nothing to say.
    pub fn hand_over(&mut self) -> Self {
        Self {
            record: std::mem::take(&mut self.record),
            leases: std::mem::take(&mut self.leases),
            reservation: self.reservation.take(),
            standing: self.standing.take(),
            started: self.started,
            waited: self.waited,
            route: self.route,
            answered: self.answered,
            payer: None,
            clock: self.clock.clone(),
            sink: self.sink.clone(),
            process: Arc::clone(&self.process),
            handles: Arc::clone(&self.handles),
            step_at: self.step_at,
        }
    }

    /// A bug was caught.
    pub fn panicked(&self) {
        self.process.panics.increment(1);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if self.payer.take().is_some_and(|payer| payer.settle(self)) {
            return;
        }
        self.close_step();
        let record = &mut self.record;
        record.total_us = micros(self.clock.now().since(self.started));
        let gone = record.end == End::Gone;
        let route = self.handles.route(self.route);
        route.request(self.answered, if gone { 499 } else { record.status });
        route.duration.record(record.total_us as f64 / 1e6);
        route.overhead.record(record.overhead_us as f64 / 1e6);
        if let Some(us) = record.ttft_us {
            route.ttft.record(us as f64 / 1e6);
        }
        if gone {
            self.process.client_gone.increment(1);
            record.error.get_or_insert("client_closed_request");
        }
        if let Some(label) = record.error {
            self.handles.error(label);
        }
        self.sink.send(std::mem::take(record));
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
