//! Handles of one plan, resolved once, found by index on a request's path.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram};

use super::Telemetry;
use super::names::Name;

/// Classes of status: `2xx`, `4xx`, `5xx`, `499` (the caller left).
const CLASSES: [&str; 4] = ["2xx", "4xx", "5xx", "gone"];

/// What step 7 may find.
const LOOKED: [&str; 4] = ["hit", "semantic", "coalesced", "miss"];

fn class(status: u16) -> usize {
    match status {
        499 => 3,
        500.. => 2,
        400.. => 1,
        _ => 0,
    }
}

/// Connections that were let go for what they did, by why.
#[derive(Clone)]
pub struct LetGo {
    talk: Counter,
    resets: Counter,
}

impl LetGo {
    fn new(t: &Telemetry) -> Self {
        let of = |why| t.counter(Name::LetGo, &[why]);
        Self {
            talk: of("talk"),
            resets: of("resets"),
        }
    }
    /// Counts one.
    pub fn told(&self, why: &'static str) {
        match why {
            "talk" => self.talk.increment(1),
            _ => self.resets.increment(1),
        }
    }
}

/// Handles that belong to no plan.
pub struct Process {
    /// See [`Name::InFlight`].
    pub in_flight: Gauge,
    /// See [`Name::Connections`].
    pub connections: Gauge,
    /// See [`Name::ConnectionsRefused`].
    pub connections_refused: Counter,
    /// See [`Name::ClientGone`].
    pub client_gone: Counter,
    /// See [`Name::ClientStalled`].
    pub client_stalled: Counter,
    /// See [`Name::LetGo`].
    pub let_go: LetGo,
    /// See [`Name::HandshakesFailed`].
    pub handshakes_failed: Counter,
    /// See [`Name::Panics`].
    pub panics: Counter,
    /// See [`Name::BodyBytes`].
    pub body_bytes: Gauge,
}

impl Process {
    /// Resolves them.
    pub fn new(t: &Telemetry) -> Self {
        Self {
            in_flight: t.gauge(Name::InFlight, &[]),
            connections: t.gauge(Name::Connections, &[]),
            connections_refused: t.counter(Name::ConnectionsRefused, &[]),
            client_gone: t.counter(Name::ClientGone, &[]),
            client_stalled: t.counter(Name::ClientStalled, &[]),
            let_go: LetGo::new(t),
            handshakes_failed: t.counter(Name::HandshakesFailed, &[]),
            panics: t.counter(Name::Panics, &[]),
            body_bytes: t.gauge(Name::BodyBytes, &[]),
        }
    }
}

/// Handles of one route (or of `-`, for requests that named none).
pub struct Route {
    /// See [`Name::Duration`].
    pub duration: Histogram,
    /// See [`Name::Ttft`].
    pub ttft: Histogram,
    /// See [`Name::Overhead`].
    pub overhead: Histogram,
    /// By what step 7 found; see [`Name::CacheLookups`].
    looked: [Counter; LOOKED.len()],
    nobody: [Counter; CLASSES.len()],
    /// By target; tier is the target's place in this route, `-` when a rule or a pin brought it in.
    by_target: Vec<[Counter; CLASSES.len()]>,
}

impl Route {
    /// Resolves the handles of route `name`, whose targets stand in these tiers. `targets` are all targets' names.
    pub fn new(
        t: &Telemetry,
        name: &str,
        targets: &[&str],
        tier_of: impl Fn(usize) -> Option<usize>,
    ) -> Self {
        let counters = |tier: &str, target: &str| {
            CLASSES.map(|class| t.counter(Name::Requests, &[name, tier, target, class]))
        };
        Self {
            duration: t.histogram(Name::Duration, &[name]),
            ttft: t.histogram(Name::Ttft, &[name]),
            overhead: t.histogram(Name::Overhead, &[name]),
            looked: LOOKED.map(|found| t.counter(Name::CacheLookups, &[name, found])),
            nobody: counters("-", "-"),
            by_target: targets
                .iter()
                .enumerate()
                .map(|(i, target)| counters(&tier_of(i).map_or("-".to_owned(), |n| n.to_string()), target))
                .collect(),
        }
    }

    /// Counts one request.
    pub fn request(&self, answered: Option<usize>, status: u16) {
        let row = answered
            .and_then(|i| self.by_target.get(i))
            .unwrap_or(&self.nobody);
        if let Some(counter) = row.get(class(status)) {
            counter.increment(1);
        }
    }
}

/// Handles of one target.
pub struct Target {
    name: Arc<str>,
    telemetry: Telemetry,
    /// Prompt tokens that were not cached.
    pub input: Counter,
    /// Prompt tokens from the provider's cache.
    pub cached: Counter,
    /// Generated tokens.
    pub output: Counter,
    /// Of those, reasoning.
    pub reasoning: Counter,
    /// See [`Name::Cost`].
    pub cost: Counter,
    /// Tries that ended well.
    pub ok: Counter,
    first: Counter,
    /// See [`Name::TargetOn`].
    pub on: Gauge,
}

impl Target {
    /// Resolves the handles of a target.
    pub fn new(t: &Telemetry, name: &str) -> Self {
        let tokens = |kind| t.counter(Name::Tokens, &[name, kind]);
        Self {
            name: name.into(),
            telemetry: t.clone(),
            input: tokens("input"),
            cached: tokens("cached"),
            output: tokens("output"),
            reasoning: tokens("reasoning"),
            cost: t.counter(Name::Cost, &[name]),
            ok: t.counter(Name::Attempts, &[name, "ok"]),
            first: t.counter(Name::Starts, &[name, "first"]),
            on: t.gauge(Name::TargetOn, &[name]),
        }
    }
    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
    /// Counts a try by outcome. Outcomes other than `ok` are rare enough to be looked up.
    pub fn attempt(&self, outcome: &'static str) {
        match outcome {
            "ok" => self.ok.increment(1),
            other => self
                .telemetry
                .counter(Name::Attempts, &[&self.name, other])
                .increment(1),
        }
    }
    /// Counts a start by its kind.
    pub fn started(&self, kind: &'static str) {
        match kind {
            "first" => self.first.increment(1),
            other => self
                .telemetry
                .counter(Name::Starts, &[&self.name, other])
                .increment(1),
        }
    }
    /// Counts a verdict: `pass`, `unchecked`, or the name of the check that failed.
    pub fn verdict(&self, verdict: &'static str) {
        self.telemetry
            .counter(Name::Verdicts, &[&self.name, verdict])
            .increment(1);
    }
}

/// Handles of one plan.
pub struct PlanHandles {
    telemetry: Telemetry,
    /// By route index.
    pub routes: Vec<Route>,
    /// By target index.
    pub targets: Vec<Target>,
    /// For requests that named no route: a target itself, or nothing that is known.
    none: Route,
}

impl PlanHandles {
    /// Resolves the handles of a plan.
    pub fn new(t: &Telemetry, plan: &routing::plan::Plan) -> Self {
        let names: Vec<&str> = plan.targets.iter().map(|target| &*target.name).collect();
        let tier_in = |tiers: &[Vec<routing::ids::TargetId>], target: usize| {
            tiers
                .iter()
                .position(|tier| tier.iter().any(|id| id.index() == target))
        };
        Self {
            telemetry: t.clone(),
            routes: plan
                .routes
                .iter()
                .map(|route| Route::new(t, &route.name, &names, |i| tier_in(&route.tiers, i)))
                .collect(),
            targets: names.iter().map(|name| Target::new(t, name)).collect(),
            none: Route::new(t, "-", &names, |_| None),
        }
    }
    /// Of a target, by name.
    pub fn target_named(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|t| &*t.name == name)
    }
    /// Of a route, or of requests that named none.
    pub fn route(&self, index: Option<usize>) -> &Route {
        index.and_then(|i| self.routes.get(i)).unwrap_or(&self.none)
    }
    /// Counts what step 7 found.
    pub fn looked(&self, route: Option<usize>, found: &'static str) {
        let at = LOOKED.iter().position(|f| *f == found);
        if let Some(counter) = at.and_then(|at| self.route(route).looked.get(at)) {
            counter.increment(1);
        }
    }
    /// Counts a look for questions that mean the same.
    pub fn sought(&self, route: Option<&str>, came_to: &'static str) {
        self.telemetry
            .counter(Name::SemanticLookups, &[route.unwrap_or("-"), came_to])
            .increment(1);
    }
    /// Counts a try that went on with a stream that broke.
    pub fn continuation(&self, way: &'static str, result: &'static str) {
        self.telemetry
            .counter(Name::Continuations, &[way, result])
            .increment(1);
    }
    /// Counts a request that a limit refused.
    pub fn over(&self, owner: &'static str, limit: &'static str) {
        self.telemetry
            .counter(Name::OverLimit, &[owner, limit])
            .increment(1);
    }
    /// Counts a second try beside a slow one.
    pub fn hedge(&self, target: &str, won: bool) {
        let result = if won { "won" } else { "lost" };
        self.telemetry
            .counter(Name::Hedges, &[target, result])
            .increment(1);
    }
    /// Counts a degraded answer by the words of its head: `step; reason=why`, both from tables of ours.
    pub fn degraded(&self, words: &str) {
        let (step, reason) = words.split_once("; reason=").unwrap_or((words, "-"));
        self.telemetry
            .counter(Name::Degraded, &[step, reason])
            .increment(1);
    }
    /// Counts a request whose deadline passed in this step.
    pub fn deadline(&self, step: &'static str) {
        self.telemetry.counter(Name::DeadlineDrops, &[step]).increment(1);
    }
    /// Counts an error by its label.
    pub fn error(&self, label: &'static str) {
        self.telemetry.counter(Name::Errors, &[label]).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_by_who_answered() {
        let t = Telemetry::new();
        let route = Route::new(&t, "auto", &["a", "b"], |i| (i == 1).then_some(0));
        route.request(Some(1), 200);
        route.request(Some(0), 502);
        route.request(None, 499);
        let text = t.render();
        for line in [
            r#"weir_requests_total{route="auto",tier="0",target="b",status="2xx"} 1"#,
            r#"weir_requests_total{route="auto",tier="-",target="a",status="5xx"} 1"#,
            r#"weir_requests_total{route="auto",tier="-",target="-",status="gone"} 1"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
