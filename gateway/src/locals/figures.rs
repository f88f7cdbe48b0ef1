//! What `/metrics` says of local models, brought up to date when it is asked.

use super::loader::Needed;
use super::{Locals, Slot};
use crate::telemetry::names::Name;

/// What is said of a model that runs, under the name of each target that it answers for.
const RUNNING: [Name; 4] = [
    Name::LocalQueue,
    Name::LocalRunning,
    Name::LocalWait,
    Name::LocalSpeed,
];

impl Locals {
    /// Sets the gauges of all local models and artifacts. Artifacts have their own names, models those of their targets in the
    /// plan, as everything else has: where several targets share a model, each shows the same.
    pub fn report(&self) {
        let t = &self.telemetry;
        let targets = self.targets();
        for (artifact, slot) in self.slots().iter() {
            let ready = match slot {
                Slot::Llm(llm, _) => !llm.has_stopped(),
                Slot::Encoder(_) | Slot::Present => true,
                _ => false,
            };
            t.gauge(Name::Artifacts, &[artifact])
                .set(f64::from(u8::from(ready)));
            let Slot::Llm(handle, _) = slot else { continue };
            let stats = handle.stats();
            let values = [
                f64::from(stats.queued),
                f64::from(stats.running),
                stats.predicted_wait_us as f64 / 1e6,
                f64::from(stats.decode_tokens_per_second),
            ];
            for target in targets.get(artifact).into_iter().flatten() {
                for (name, value) in RUNNING.into_iter().zip(values) {
                    t.gauge(name, &[target]).set(value);
                }
                t.counter(Name::LocalTokens, &[target])
                    .absolute(stats.completion_tokens);
            }
        }
    }

    /// Takes in which targets each model answers for. One that goes has nothing waiting and nothing running from then on.
    pub(super) fn take_names(&self, needed: &Needed) {
        let mut targets = self.targets();
        let before = std::mem::replace(&mut *targets, needed.targets());
        for target in before.values().flatten() {
            if targets.values().flatten().any(|stays| stays == target) {
                continue;
            }
            for name in RUNNING {
                self.telemetry.gauge(name, &[target]).set(0.0);
            }
        }
    }
}
