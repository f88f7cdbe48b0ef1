//! Telemetry: metrics, records, the log. It imports nothing else of this crate.
//!
//! There is no global recorder: each process (and each test) has its own [`Telemetry`], and handles are resolved when a
//! plan is compiled, so that a request only touches atomics.

pub mod audit;
pub mod handles;
pub mod log;
pub mod names;
pub mod panics;
pub mod record;
pub mod tasks;
pub mod writer;

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use self::names::{Name, Shape};

/// Where handles come from and where `/metrics` reads. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// An empty set of metrics.
    pub fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for spec in Name::ALL.iter().map(|n| n.spec()) {
            if let Shape::Histogram(buckets) = spec.shape {
                // Refused only for an empty list, and none of ours is.
                let whole = Matcher::Full(spec.name.to_owned());
                builder = match builder.set_buckets_for_metric(whole, buckets) {
                    Ok(with) => with,
                    Err(_) => PrometheusBuilder::new(),
                };
            }
        }
        let recorder = builder.build_recorder();
        for spec in Name::ALL.iter().map(|n| n.spec()) {
            let name = KeyName::from_const_str(spec.name);
            match spec.shape {
                Shape::Counter => recorder.describe_counter(name, None, spec.help.into()),
                Shape::Gauge => recorder.describe_gauge(name, None, spec.help.into()),
                Shape::Histogram(_) => recorder.describe_histogram(name, None, spec.help.into()),
            }
        }
        let handle = recorder.handle();
        Self {
            recorder: Arc::new(recorder),
            handle,
        }
    }

    /// A counter's handle; `labels` are the values in the order of [`names::Spec::labels`].
    pub fn counter(&self, name: Name, labels: &[&str]) -> Counter {
        self.recorder.register_counter(&key(name, labels), &METADATA)
    }
    /// A gauge's handle.
    pub fn gauge(&self, name: Name, labels: &[&str]) -> Gauge {
        self.recorder.register_gauge(&key(name, labels), &METADATA)
    }
    /// A histogram's handle.
    pub fn histogram(&self, name: Name, labels: &[&str]) -> Histogram {
        self.recorder.register_histogram(&key(name, labels), &METADATA)
    }
    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        self.handle.render()
    }
    /// Empties the histograms' buffers into their buckets. Without it they grow for ever: call it every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

static METADATA: Metadata<'static> = Metadata::new("weir", Level::INFO, None);

fn key(name: Name, values: &[&str]) -> Key {
    let spec = name.spec();
    debug_assert_eq!(spec.labels.len(), values.len(), "{}", spec.name);
    let labels: Vec<Label> = spec
        .labels
        .iter()
        .zip(values)
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(spec.name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let t = Telemetry::new();
        t.counter(Name::Attempts, &["small", "ok"]).increment(2);
        t.histogram(Name::Overhead, &["auto"]).record(0.0002);
        t.upkeep();
        let text = t.render();
        assert!(
            text.contains(r#"weir_attempts_total{target="small",outcome="ok"} 2"#),
            "{text}"
        );
        assert!(
            text.contains(r#"weir_overhead_seconds_bucket{route="auto",le="0.00025"} 1"#),
            "{text}"
        );
    }

    #[test]
    fn two_processes_in_one_do_not_mix() {
        let (a, b) = (Telemetry::new(), Telemetry::new());
        a.counter(Name::Panics, &[]).increment(1);
        assert!(!b.render().contains("weir_panics_total 1"));
    }
}
