//! `[server]`, `[[keys]]`, `[tenants.NAME]`, `[limits]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::problem::Weight;
use super::super::server::{Auth, Class, KeyConfig, Limits, PerAddress, SecretRef, Server, TlsConfig};
use super::address::{collide, is_loopback, split, url};
use super::limits::{Whose, limits};
use super::names::{Names, check_label};
use super::table::Table;

/// A day: longer clocks are mistakes of unit.
pub(super) const DAY_MS: u64 = 86_400_000;

pub(super) fn server(t: &Table<'_, '_>) -> Server {
    let listen = address(t, "listen", "127.0.0.1:8080");
    let max_connections = t.u32("max_connections", 10_000, 1..=1_000_000);
    let server = Server {
        per_address: per_address(t, &listen, max_connections),
        listen,
        admin: address(t, "admin", "127.0.0.1:9090"),
        admin_token: t.get("admin_token").and_then(|v| v.secret()),
        max_body_bytes: t.int("max_body_bytes", 8_388_608, 1_024..=1 << 32),
        max_body_bytes_in_flight: t.int("max_body_bytes_in_flight", 536_870_912, 1_024..=1 << 44),
        tenant_body_share: t.ratio("tenant_body_share", 0.5),
        max_connections,
        default_deadline: t.ms("default_deadline_ms", 600_000, 1..=DAY_MS),
        max_deadline: t.ms("max_deadline_ms", 3_600_000, 1..=DAY_MS),
        drain_delay: t.ms("drain_delay_ms", 2_000, 0..=DAY_MS),
        drain_timeout: t.ms("drain_timeout_ms", 30_000, 0..=DAY_MS),
        auth: t.word("auth", &[("none", Auth::None), ("keys", Auth::Keys)], Auth::None),
        allow_anonymous: t.bool("allow_anonymous", false),
        auto_pull: t.bool("auto_pull", true),
        tls: tls(t),
        allowed_hosts: hosts(t),
        cors_origins: origins(t),
    };
    fits(t, &server);
    server
}

fn address(t: &Table<'_, '_>, key: &'static str, default: &str) -> Arc<str> {
    let typed = t.get(key).and_then(|v| v.text().map(|text| (v, text)));
    let Some((value, text)) = typed else {
        return Arc::from(default);
    };
    if split(text).is_none() {
        value.problem(
            "this is no address",
            format!("host and port, for example \"{default}\"; every interface: \"0.0.0.0:PORT\""),
        );
    }
    Arc::from(text)
}

/// On loopback everybody is one address.
fn per_address(t: &Table<'_, '_>, listen: &str, max_connections: u32) -> PerAddress {
    let p = t.table("per_address");
    let local = split(listen).is_some_and(|(host, _)| is_loopback(host));
    let (connections, wrong_keys) = if local {
        (0, 0)
    } else {
        (max_connections.div_ceil(2), 60)
    };
    let found = PerAddress {
        connections: p.u32("connections", connections, 0..=1_000_000),
        requests_per_minute: p.u32("requests_per_minute", 0, 0..=1_000_000_000),
        wrong_keys_per_minute: p.u32("wrong_keys_per_minute", wrong_keys, 0..=1_000_000),
    };
    p.finish();
    found
}

fn tls(t: &Table<'_, '_>) -> Option<TlsConfig> {
    let tls = t.table("tls");
    if !tls.is_present() {
        tls.finish();
        return None;
    }
    let (cert, key) = (tls.text("cert_file"), tls.text("key_file"));
    let ca = tls.text("client_ca_file");
    for (name, value) in [("cert_file", &cert), ("key_file", &key)] {
        if value.is_none() {
            tls.missing(name, "tls needs both cert_file and key_file, paths of PEM files");
        }
    }
    tls.finish();
    Some(TlsConfig {
        cert_file: cert?,
        key_file: key?,
        client_ca_file: ca,
    })
}

fn hosts(t: &Table<'_, '_>) -> Vec<Arc<str>> {
    let hosts = t.texts("allowed_hosts").unwrap_or_default();
    for (host, at) in &hosts {
        let with_port = split(host).is_some();
        let bare = split(&format!("{host}:1")).is_some();
        if !(with_port || bare) {
            t.source.problem(
                at,
                "this is no host name",
                "as in the Host header: \"gateway.internal\" or \"gateway.internal:8080\"",
            );
        }
    }
    hosts.into_iter().map(|(host, _)| host).collect()
}

fn origins(t: &Table<'_, '_>) -> Vec<Arc<str>> {
    let origins = t.texts("cors_origins").unwrap_or_default();
    for (origin, at) in &origins {
        let good = origin.as_ref() == "*" || url(origin, &["http", "https"]).is_ok_and(|u| u.path.is_empty());
        if !good {
            t.source.problem(
                at,
                "this is no origin",
                "scheme, host and port without a path: \"https://app.example.com\"",
            );
        }
    }
    origins.into_iter().map(|(origin, _)| origin).collect()
}

/// What must hold between the keys of `[server]`.
fn fits(t: &Table<'_, '_>, server: &Server) {
    if server.default_deadline > server.max_deadline {
        let help =
            "default_deadline_ms must not exceed max_deadline_ms, which caps what a caller may ask for";
        t.source.joint(
            &t.key_at("default_deadline_ms"),
            "the default is longer than the longest",
            help,
        );
    }
    if server.max_body_bytes > server.max_body_bytes_in_flight {
        let help = "max_body_bytes_in_flight is the budget for all bodies; it must hold at least one";
        t.source.joint(
            &t.key_at("max_body_bytes"),
            "one body would not fit into the budget for all",
            help,
        );
    }
    if server.auth == Auth::None && server.cors_origins.iter().any(|o| o.as_ref() == "*") {
        let help = "name the origins, or ask for keys: auth = \"keys\"";
        t.source.joint(
            &t.key_at("cors_origins"),
            "with auth = \"none\" every web page could call this gateway",
            help,
        );
    }
    for exposed in server.exposed() {
        t.source.joint(&t.key_at(exposed.key), exposed.what, exposed.help);
    }
}

impl Server {
    /// Why these addresses must not be bound; empty when they may. Ask again when the command line replaces one.
    pub fn exposed(&self) -> Vec<Exposed> {
        let off_loopback = |address: &str| split(address).is_some_and(|(host, _)| !is_loopback(host));
        let mut out = Vec::new();
        if off_loopback(&self.listen) && self.auth == Auth::None && !self.allow_anonymous {
            out.push(Exposed {
                key: "listen",
                what: "with auth = \"none\" everybody who reaches this address could spend your money",
                help: "set auth = \"keys\" and make a key (`weir keys create`, or [[keys]]), listen on 127.0.0.1, or say allow_anonymous = true",
            });
        }
        if off_loopback(&self.admin) && self.admin_token.is_none() {
            out.push(Exposed {
                key: "admin",
                what: "an admin port off loopback needs a token",
                help: "add admin_token = \"env:WEIR_ADMIN_TOKEN\", or keep it on 127.0.0.1",
            });
        }
        if collide(&self.listen, &self.admin) {
            out.push(Exposed {
                key: "admin",
                what: "listen and admin never share a port",
                help: "give the admin port another number",
            });
        }
        out
    }
}

/// An address that must not be bound as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The key of `[server]`.
    pub key: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// What to do.
    pub help: &'static str,
}

pub(super) fn keys(root: &Table<'_, '_>, names: &Names, auth: Auth) -> Vec<KeyConfig> {
    let values = root.list("keys").unwrap_or_default();
    let mut keys: Vec<KeyConfig> = Vec::with_capacity(values.len());
    for value in &values {
        let Some(t) = value.table() else { continue };
        if let Some(key) = key(&t, names) {
            if keys.iter().any(|k| k.name == key.name) {
                t.source.joint(
                    &t.key_at("name"),
                    "there is another key of this name",
                    "records and metrics tell keys apart by name",
                );
            }
            if keys.iter().any(|k| k.key == key.key) {
                t.source.joint(
                    &t.key_at("key"),
                    "another entry takes its key from the same place",
                    "one key belongs to one entry",
                );
            }
            keys.push(key);
        }
        t.finish();
    }
    if auth == Auth::Keys && values.is_empty() {
        let at = root.table("server").key_at("auth");
        root.source.note(
            &at,
            Weight::Plain,
            "auth is \"keys\" and the plan has no [[keys]]: only stored keys can call (`weir keys create`)",
        );
    }
    if let (Auth::None, Some(first)) = (auth, values.first()) {
        first.source.note(
            &first.at,
            Weight::Plain,
            "nobody is asked for a key while server.auth is \"none\"",
        );
    }
    keys
}

fn key(t: &Table<'_, '_>, names: &Names) -> Option<KeyConfig> {
    let name = t.text("name");
    let secret = t.get("key");
    let tenant = t.text("tenant").unwrap_or_else(|| Arc::from("default"));
    let classes = [
        ("high", Class::High),
        ("normal", Class::Normal),
        ("low", Class::Low),
    ];
    let class = t.word("class", &classes, Class::Normal);
    let routes = t.texts("routes").map(|routes| {
        routes
            .iter()
            .for_each(|(name, at)| names.callable(name, at, t.source));
        if routes.is_empty() {
            t.problem(
                "routes",
                "this key may name nothing",
                "name routes, or delete the line: then it may name everything",
            );
        }
        routes.into_iter().map(|(name, _)| name).collect()
    });
    let limits = limits(t, "limits", Whose::Other);
    check_label(t.source, &t.key_at("tenant"), &tenant);
    match &name {
        Some(name) => check_label(t.source, &t.key_at("name"), name),
        None if t.get("name").is_none() => {
            t.missing("name", "a short name for records and metrics: name = \"team-a\"")
        }
        None => {}
    }
    let key: Option<SecretRef> = match secret {
        Some(secret) => secret.secret(),
        None => {
            t.missing("key", "where the key itself is: key = \"env:TEAM_A_KEY\"");
            None
        }
    };
    Some(KeyConfig {
        name: name?,
        key: key?,
        tenant,
        class,
        routes,
        limits,
    })
}

pub(super) fn tenants(t: &Table<'_, '_>) -> BTreeMap<Arc<str>, Limits> {
    let mut out = BTreeMap::new();
    for (name, at, value) in t.names() {
        check_label(t.source, &at, &name);
        let Some(tenant) = value.table() else { continue };
        out.insert(name, limits(&tenant, "limits", Whose::Other));
        tenant.finish();
    }
    out
}

pub(super) fn total(t: &Table<'_, '_>) -> Limits {
    limits(t, "total", Whose::Other)
}
