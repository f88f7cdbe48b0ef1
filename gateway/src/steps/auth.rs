//! Step 3, `auth`: from headers only, who is it; and may a browser's page talk to us.
//!
//! It stands before any body is read. With `auth = "none"` credentials are ignored. It must never keep or log a key:
//! only keyed hashes are held, and the look-up takes as long for a wrong key as for a right one.

use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};
use routing::plan::{Auth, Class, Plan, Server};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who pays.
    pub tenant: Arc<str>,
    /// The key's name.
    pub key: Option<Arc<str>>,
    /// Its index in the plan.
    pub key_index: Option<usize>,
}

impl Principal {
    /// What it may name; `None` is everything.
    pub fn may<'p>(&self, plan: &'p Plan) -> Option<&'p [Arc<str>]> {
        plan.keys.get(self.key_index?)?.routes.as_deref()
    }

    /// When it is served while not everybody can be.
    pub fn class(&self, plan: &Plan) -> Class {
        let key = self.key_index.and_then(|at| plan.keys.get(at));
        key.map_or(Class::Normal, |key| key.class)
    }
}

/// Hashes of the keys of a plan, keyed by a secret of this process.
pub struct KeyTable {
    secret: [u8; 32],
    keys: Vec<([u8; 32], usize)>,
}

impl KeyTable {
    /// From the keys' values with their index in the plan. A key that is absent or empty does not exist.
    pub fn new(values: impl IntoIterator<Item = (usize, String)>) -> Self {
        let secret = rand::random();
        let keys = values
            .into_iter()
            .map(|(i, value)| (hash(&secret, value.as_bytes()), i))
            .collect();
        Self { secret, keys }
    }

    /// The index of a key. Every entry is compared, and every byte of it.
    fn find(&self, key: &[u8]) -> Option<usize> {
        let asked = hash(&self.secret, key);
        let mut found = None;
        for (known, index) in &self.keys {
            let differs = known.iter().zip(asked).fold(0_u8, |acc, (a, b)| acc | (a ^ b));
            if std::hint::black_box(differs) == 0 {
                found = Some(*index);
            }
        }
        found
    }
}

/// A keyed hash: the secret is of fixed length and never leaves the process.
fn hash(secret: &[u8; 32], key: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(secret)
        .chain_update(key)
        .finalize()
        .into()
}

/// Who is it.
///
/// # Errors
/// 401.
pub fn check(headers: &HeaderMap, plan: &Plan, table: &KeyTable) -> Result<Principal> {
    if plan.server.auth == Auth::None {
        return Ok(Principal {
            tenant: "default".into(),
            key: None,
            key_index: None,
        });
    }
    let Some(key) = presented(headers) else {
        let message = "this gateway asks for a key: send `Authorization: Bearer KEY` (or `x-api-key`)";
        return Err(Error::new(Kind::MissingKey, message));
    };
    let found = table.find(key).and_then(|i| Some((i, plan.keys.get(i)?)));
    let Some((index, config)) = found else {
        return Err(Error::new(
            Kind::BadKey,
            "this key is not known here; keys stand in [[keys]] of the plan",
        ));
    };
    Ok(Principal {
        tenant: config.tenant.clone(),
        key: Some(config.name.clone()),
        key_index: Some(index),
    })
}

fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers
        .get(AUTHORIZATION)
        .map(HeaderValue::as_bytes)
        .and_then(|value| {
            let (scheme, key) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
        });
    bearer
        .or_else(|| Some(headers.get("x-api-key")?.as_bytes()))
        .filter(|key| !key.is_empty())
}

/// May this `Host` and `Origin` talk to us. Answers what to put into `access-control-allow-origin`.
///
/// A page of any site can reach a loopback address: its own (by `Origin`), or one whose name it lets point here (by
/// `Host`). Without keys, both are refused unless the plan names them.
///
/// # Errors
/// 403, naming the key of the plan that would allow it.
pub fn browser(headers: &HeaderMap, uri: &Uri, server: &Server) -> Result<Option<HeaderValue>> {
    if server.auth == Auth::None && is_loopback(&server.listen) {
        let host = uri
            .authority()
            .map(http::uri::Authority::as_str)
            // A name that is not even ASCII is none of ours.
            .or_else(|| Some(headers.get(HOST)?.to_str().unwrap_or("?")));
        let name = host_name(host.unwrap_or_default());
        let allowed = server
            .allowed_hosts
            .iter()
            .any(|h| host_name(h).eq_ignore_ascii_case(name));
        if !name.is_empty() && !is_loopback_name(name) && !allowed {
            let shown: String = name.chars().take(80).collect();
            let message = format!(
                "this gateway listens on loopback without keys and answers only to loopback names; to allow `{shown}`, add it to server.allowed_hosts"
            );
            return Err(Error::new(Kind::HostNotAllowed, message));
        }
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(None);
    };
    let text = origin.to_str().unwrap_or("?");
    if server.cors_origins.iter().any(|o| &**o == text) {
        return Ok(Some(origin.clone()));
    }
    let shown: String = text.chars().take(80).collect();
    let message =
        format!("no page of `{shown}` may call this gateway; to allow it, add it to server.cors_origins");
    Err(Error::new(Kind::OriginNotAllowed, message))
}

/// Without its port and brackets.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The address is on loopback.
pub fn is_loopback(address: &str) -> bool {
    match address.parse::<std::net::SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => is_loopback_name(host_name(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const KEYED: &str = "[server]\nauth = \"keys\"\n[[keys]]\nname = \"a\"\nkey = \"env:A\"\ntenant = \"t\"\nroutes = [\"fast\"]\n[[keys]]\nname = \"b\"\nkey = \"env:B\"\ntenant = \"u\"\n[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n[targets.fast]\nprovider = \"p\"\nmodel = \"m\"\n";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn keys_are_found_by_either_header() {
        let plan = testing::plan(KEYED);
        let table = KeyTable::new([(0, "sk-a".to_owned()), (1, "sk-b".to_owned())]);
        let who = |h: &[(&'static str, &str)]| check(&headers(h), &plan, &table);
        assert_eq!(&*who(&[("authorization", "Bearer sk-a")]).unwrap().tenant, "t");
        assert_eq!(&*who(&[("authorization", "bearer  sk-b ")]).unwrap().tenant, "u");
        assert_eq!(who(&[("x-api-key", "sk-b")]).unwrap().key_index, Some(1));
        assert!(who(&[("x-api-key", "sk-a")]).unwrap().may(&plan).is_some());
        assert_eq!(who(&[]).unwrap_err().kind(), Kind::MissingKey);
        assert_eq!(
            who(&[("authorization", "Basic sk-a")]).unwrap_err().kind(),
            Kind::MissingKey
        );
        assert_eq!(
            who(&[("authorization", "Bearer sk-")]).unwrap_err().kind(),
            Kind::BadKey
        );
    }

    #[test]
    fn without_keys_credentials_are_ignored() {
        let table = KeyTable::new([]);
        let who = check(
            &headers(&[("authorization", "Bearer whatever")]),
            &testing::plan(""),
            &table,
        )
        .unwrap();
        assert_eq!((&*who.tenant, who.key), ("default", None));
    }

    #[test]
    fn hosts_and_origins() {
        let plan = testing::plan(
            "[server]\nallowed_hosts = [\"box.lan\"]\ncors_origins = [\"https://app.example\"]\n",
        );
        let ask =
            |h: &[(&'static str, &str)]| browser(&headers(h), &Uri::from_static("/v1/models"), &plan.server);
        for fine in [
            "localhost:8080",
            "127.0.0.1",
            "[::1]:8080",
            "app.localhost",
            "BOX.lan:1",
            "",
        ] {
            assert_eq!(ask(&[("host", fine)]).unwrap(), None, "{fine}");
        }
        let e = ask(&[("host", "evil.example")]).unwrap_err();
        assert!(e.kind() == Kind::HostNotAllowed && e.message().contains("server.allowed_hosts"));
        let e = ask(&[("host", "b\u{fc}cher.example")]).unwrap_err();
        assert_eq!(e.kind(), Kind::HostNotAllowed);
        let e = ask(&[("host", "localhost"), ("origin", "https://evil.example")]).unwrap_err();
        assert!(e.kind() == Kind::OriginNotAllowed && e.message().contains("server.cors_origins"));
        assert!(ask(&[("host", "localhost"), ("origin", "null")]).is_err());
        let allowed = ask(&[("host", "localhost"), ("origin", "https://app.example")]).unwrap();
        assert_eq!(allowed.unwrap(), "https://app.example");
        let h2 = browser(
            &HeaderMap::new(),
            &Uri::from_static("http://evil.example/v1/models"),
            &plan.server,
        );
        assert!(h2.is_err());
    }
}
