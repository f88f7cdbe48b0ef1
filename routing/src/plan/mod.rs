//! `routing.toml`, compiled: immutable, complete, every default filled in, every name resolved to an index.
//!
//! Field names are those of the file. What was typed is seen by [`load()`] alone; a request sees only [`Plan`].

mod builtin;
mod canonical;
mod load;
pub mod memory;
mod near;
mod operation;
mod problem;
mod query;
mod route;
mod rule;
mod server;
mod target;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::ids::{Fingerprint, RouteId, TargetId};

pub use builtin::BUILTIN;
pub use load::{Exposed, is_label, load};
pub use memory::{CONNECTION_BUFFER, worst_case};
pub use near::{likeness, nearest};
pub use operation::{Admission, Breaker, CacheConfig, Classify, Hedge, Records, Retry, Telemetry, Timeouts};
pub use problem::{Note, Problem, Problems, Weight};
pub use route::{
    Check, ContentFilter, ContinueWith, DegradeStep, HoldBack, Message, Objective, OnFail, RouteCache,
    RouteConfig, Start, Uncalibrated,
};
pub use rule::{Condition, Rule, Then, TierRef};
pub use server::{Auth, Class, KeyConfig, Limits, PerAddress, SecretOrText, SecretRef, Server, TlsConfig};
pub use target::{Params, Price, ProviderConfig, ProviderKind, TargetConfig};

/// A plan that loads, and what is worth knowing about it.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The plan.
    pub plan: Plan,
    /// Parts without effect yet, rules that never match, ...: `weir check` prints them, start warns, `/readyz` lists.
    pub notes: Vec<Note>,
}

/// A compiled plan.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Over everything that can change a decision or an answer.
    pub fingerprint: Fingerprint,
    /// `[server]`.
    pub server: Server,
    /// `[[keys]]`.
    pub keys: Vec<KeyConfig>,
    /// `[tenants.NAME]` limits, by tenant.
    pub tenants: BTreeMap<Arc<str>, Limits>,
    /// `[limits] total`.
    pub total_limits: Limits,
    /// `[providers.NAME]`, in order of name; `local` is always there.
    pub providers: Vec<ProviderConfig>,
    /// `[targets.NAME]`, in order of name.
    pub targets: Vec<TargetConfig>,
    /// `[routes.NAME]`, in order of name.
    pub routes: Vec<RouteConfig>,
    /// `[aliases]`: what a client may also call a route or a target.
    pub aliases: BTreeMap<Arc<str>, Named>,
    /// `[[rules]]`, in order.
    pub rules: Vec<Rule>,
    /// `[timeouts]`.
    pub timeouts: Timeouts,
    /// `[retry]`.
    pub retry: Retry,
    /// `[hedge]`.
    pub hedge: Hedge,
    /// `[breaker]`.
    pub breaker: Breaker,
    /// `[admission]`.
    pub admission: Admission,
    /// `[cache]`.
    pub cache: CacheConfig,
    /// `[classify]`.
    pub classify: Classify,
    /// `[records]`.
    pub records: Records,
    /// `[telemetry]`.
    pub telemetry: Telemetry,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    /// A route: may choose.
    Route(RouteId),
    /// A target: a promise, that model or an error.
    Target(TargetId),
}

impl Plan {
    /// Provider of a target.
    pub fn provider_of(&self, target: TargetId) -> &ProviderConfig {
        &self.providers[self.targets[target.index()].provider.index()]
    }
    /// A target by index.
    pub fn target(&self, id: TargetId) -> &TargetConfig {
        &self.targets[id.index()]
    }
    /// A route by index.
    pub fn route(&self, id: RouteId) -> &RouteConfig {
        &self.routes[id.index()]
    }
}
