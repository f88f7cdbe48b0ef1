//! What is on, what is off and why: the body of `/readyz`.

use std::sync::Arc;

use routing::signals::TargetSignal;
use serde::Serialize;

use crate::app::App;
use crate::locals::{Locals, Shown};
use crate::runtime::Standing;
use crate::server::lifecycle::Phase;

/// The body of `/readyz`.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// This process can serve. A provider that is down does not change it.
    pub ready: bool,
    /// `starting`, `serving`, `draining`.
    pub phase: &'static str,
    /// Fingerprint of the plan.
    pub plan: String,
    /// Every target.
    pub targets: Vec<Target>,
    /// What is fetched and loaded.
    pub artifacts: Vec<Shown>,
    /// Keys that do not exist because their secret is absent.
    pub absent_keys: Vec<String>,
    /// Stored keys, and why their store cannot be read, if it cannot.
    pub stored_keys: crate::keys::Shown,
    /// What is worth knowing about the plan: parts without effect yet, rules that never match, ...
    pub notes: Vec<String>,
}

/// A target, now.
#[derive(Debug, Serialize)]
pub struct Target {
    /// Its name.
    pub name: Arc<str>,
    /// `on`, `starting`, `off`.
    pub state: &'static str,
    /// Why it is not on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Arc<str>>,
    /// As a decision sees it.
    pub signal: TargetSignal,
    /// Tries at once that it takes, as learned so far; absent for models in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Its breaker.
    pub breaker: routing::breaker::View,
    /// What an operator said: `on`, `drain`, `off`.
    pub wish: crate::target_state::Wish,
}

/// What is so now.
pub fn readiness(app: &App, locals: &Locals) -> Readiness {
    let (rt, phase) = (app.runtime(), app.lifecycle().phase());
    let now = app.clock().now();
    let signals = rt.signals(now, None, 0);
    let targets = rt
        .plan
        .targets
        .iter()
        .zip(&rt.about)
        .zip(signals.targets)
        .zip(rt.targets.iter())
        .map(|(((config, about), signal), target)| {
            let (state, why) = match (&about.standing, &signal.usable) {
                (Standing::Starting(why), _) => ("starting", Some(why.clone())),
                (Standing::Off(why), _) | (Standing::On, routing::signals::Usable::Off { why }) => {
                    ("off", Some(why.clone()))
                }
                (Standing::On, _) => ("on", None),
            };
            Target {
                name: config.name.clone(),
                state,
                why,
                signal,
                limit: target.state.limit(),
                breaker: target.state.breaker(now),
                wish: target.state.wished(),
            }
        });
    Readiness {
        ready: phase == Phase::Serving,
        phase: match phase {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Leaving | Phase::Closing | Phase::Ended => "draining",
        },
        plan: rt.plan.fingerprint.to_string(),
        targets: targets.collect(),
        artifacts: locals.shown(),
        absent_keys: rt
            .absent_keys
            .iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect(),
        stored_keys: app.stored_keys().shown(),
        notes: rt.notes.iter().map(ToString::to_string).collect(),
    }
}
