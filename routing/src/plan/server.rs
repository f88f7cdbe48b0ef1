//! Who is served, where, and within which limits: `[server]`, `[[keys]]`, `[limits]`.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::units::NanoUsd;

/// A secret by where it is found. The value is never in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretRef {
    /// `env:NAME`.
    Env(Arc<str>),
    /// `file:PATH`, read again when it changes.
    File(Arc<str>),
}

/// A value that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretOrText {
    /// As typed.
    Text(Arc<str>),
    /// To be looked up.
    Secret(SecretRef),
}

/// `[server] auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Everybody is tenant `default`.
    None,
    /// A key is asked for.
    Keys,
}

/// `[server]`.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// Data plane address.
    pub listen: Arc<str>,
    /// Admin plane address.
    pub admin: Arc<str>,
    /// Needed off loopback.
    pub admin_token: Option<SecretRef>,
    /// Bytes of one body.
    pub max_body_bytes: u64,
    /// Bytes of all bodies being read or held.
    pub max_body_bytes_in_flight: u64,
    /// Of those bytes: what one tenant may take, where callers have keys; never less than one body.
    pub tenant_body_share: f32,
    /// Data plane connections.
    pub max_connections: u32,
    /// What one address may do.
    pub per_address: PerAddress,
    /// Patience when the caller names none.
    pub default_deadline: Duration,
    /// Cap on what a caller may name.
    pub max_deadline: Duration,
    /// Not ready, connections still welcome.
    pub drain_delay: Duration,
    /// Then bodies have this long to end.
    pub drain_timeout: Duration,
    /// Who is asked for a key.
    pub auth: Auth,
    /// Allows `auth = "none"` off loopback.
    pub allow_anonymous: bool,
    /// Fetch missing artifacts at start.
    pub auto_pull: bool,
    /// TLS files, when given.
    pub tls: Option<TlsConfig>,
    /// `Host` values accepted beside loopback names.
    pub allowed_hosts: Vec<Arc<str>>,
    /// Browser origins that may call.
    pub cors_origins: Vec<Arc<str>>,
}

/// `[server] per_address`: before anybody knows who it is. 0: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PerAddress {
    /// Connections at once.
    pub connections: u32,
    /// Requests, with the whole minute as burst.
    pub requests_per_minute: u32,
    /// Requests with a key that nobody has, likewise.
    pub wrong_keys_per_minute: u32,
}

/// `[server] tls`.
#[derive(Clone, Debug, Serialize)]
pub struct TlsConfig {
    /// PEM chain.
    pub cert_file: Arc<str>,
    /// PEM key.
    pub key_file: Arc<str>,
    /// CA that client certificates must come from.
    pub client_ca_file: Option<Arc<str>>,
}

/// Who is served first when it is tight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// First.
    High,
    /// The default.
    Normal,
    /// Last.
    Low,
}

/// `[[keys]]`.
#[derive(Clone, Debug, Serialize)]
pub struct KeyConfig {
    /// For records and metrics.
    pub name: Arc<str>,
    /// Where the key itself is.
    pub key: SecretRef,
    /// Who pays.
    pub tenant: Arc<str>,
    /// Priority.
    pub class: Class,
    /// What it may name; `None` is everything. Names as in the file (routes, aliases, targets).
    pub routes: Option<Vec<Arc<str>>>,
    /// Its own limits.
    pub limits: Limits,
}

/// Limits of a key, tenant, route, target or of everything. Absent is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    /// A minute's requests, the whole minute as burst.
    pub requests_per_minute: Option<u64>,
    /// A minute's tokens, likewise.
    pub tokens_per_minute: Option<u64>,
    /// At once.
    pub concurrency: Option<u32>,
    /// A UTC day's money.
    pub usd_per_day: Option<NanoUsd>,
    /// Local targets: places in the queue.
    pub queue: Option<u32>,
}
