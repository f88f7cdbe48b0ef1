//! Live tasks of the runtimes that serve, as one figure.

use metrics::Gauge;
use tokio::runtime::Handle;

use super::Telemetry;
use super::names::Name;

/// One runtime's part of [`Name::Tasks`]. Dropping it takes that part out of the sum.
pub struct Tasks {
    runtime: Handle,
    sum: Gauge,
    told: f64,
}

impl Tasks {
    /// Of this runtime; nothing of it is told yet.
    pub fn of(runtime: Handle, t: &Telemetry) -> Self {
        Self {
            runtime,
            sum: t.gauge(Name::Tasks, &[]),
            told: 0.0,
        }
    }

    /// Brings its part up to date.
    pub fn report(&mut self) {
        let alive = self.runtime.metrics().num_alive_tasks() as f64;
        self.sum.increment(alive - self.told);
        self.told = alive;
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.sum.decrement(self.told);
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    /// A runtime with so many tasks that never end.
    fn busy(tasks: usize) -> Runtime {
        let runtime = Builder::new_current_thread().build().unwrap();
        for _ in 0..tasks {
            runtime.spawn(std::future::pending::<()>());
        }
        runtime
    }

    #[test]
    fn the_figure_is_the_sum_over_all_runtimes_and_goes_down_too() {
        let t = Telemetry::new();
        let told = |sum: &str| t.render().lines().any(|line| line == format!("weir_tasks {sum}"));
        let (one, other) = (busy(2), busy(3));
        let mut parts = [&one, &other].map(|runtime| Tasks::of(runtime.handle().clone(), &t));
        parts.iter_mut().for_each(Tasks::report);
        assert!(told("5"), "{}", t.render());
        let more = one.spawn(async {});
        parts.iter_mut().for_each(Tasks::report);
        assert!(told("6"), "{}", t.render());
        one.block_on(more).unwrap();
        parts.iter_mut().for_each(Tasks::report);
        assert!(told("5"), "told again, and not added again: {}", t.render());
        let [_one, other] = parts;
        drop(other);
        assert!(told("2"), "{}", t.render());
    }
}
