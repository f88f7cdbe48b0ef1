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

use crate::civil;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::keys::{self, Live, StoredKey};
use crate::limits::{Limiters, Meter};

/// Who asks.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Who pays.
    pub tenant: Arc<str>,
    /// The key's name.
    pub key: Option<Arc<str>>,
    /// Who is served first when it is tight.
    pub class: Class,
    /// Its index in the plan, where it is one of the plan's.
    pub key_index: Option<usize>,
    /// The key, where it is a stored one.
    pub stored: Option<Arc<StoredKey>>,
}

impl Principal {
    /// What it may name; `None` is everything.
    pub fn may<'p>(&'p self, plan: &'p Plan) -> Option<&'p [Arc<str>]> {
        match &self.stored {
            Some(key) => key.routes.as_deref(),
            None => plan.keys.get(self.key_index?)?.routes.as_deref(),
        }
    }

    /// The meter of its key, when that has a limit.
    pub fn meter(&self, limiters: &Limiters) -> Option<Arc<Meter>> {
        match &self.stored {
            Some(key) => key.meter.clone(),
            None => limiters.of_key(self.key_index?),
        }
    }

    /// Its key has a `usd_per_day` that the plan does not know of.
    pub fn has_own_budget(&self) -> bool {
        let limits = self.stored.as_ref().map(|key| &key.limits);
        limits.is_some_and(|limits| limits.usd_per_day.is_some())
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

/// Who is it. Keys of the plan go before stored ones. `guessed` is told of a key that nobody has, and may have another answer
/// to it; one that has expired is somebody's.
///
/// # Errors
/// 401; 503 when it may be a stored key, and those could not be read since the start.
pub fn check(
    headers: &HeaderMap,
    plan: &Plan,
    table: &KeyTable,
    stored: &Live,
    clock: &Clock,
    guessed: impl FnOnce() -> Result<()>,
) -> Result<Principal> {
    if plan.server.auth == Auth::None {
        return Ok(Principal {
            tenant: "default".into(),
            key: None,
            class: Class::Normal,
            key_index: None,
            stored: None,
        });
    }
    let Some(key) = presented(headers) else {
        let message = "this gateway asks for a key: send `Authorization: Bearer KEY` (or `x-api-key`)";
        return Err(Error::new(Kind::MissingKey, message));
    };
    if let Some((index, config)) = table.find(key).and_then(|i| Some((i, plan.keys.get(i)?))) {
        return Ok(Principal {
            tenant: config.tenant.clone(),
            key: Some(config.name.clone()),
            class: config.class,
            key_index: Some(index),
            stored: None,
        });
    }
    match stored.table().find(key) {
        Some(key) => of_stored(key, clock),
        None => Err(unknown(key, stored, guessed)),
    }
}

fn of_stored(key: &Arc<StoredKey>, clock: &Clock) -> Result<Principal> {
    if let Some(at) = key.expires_ms.filter(|&at| clock.unix_ms() >= at) {
        let message = format!("this key expired at {}; ask for a new one", civil::time(at));
        return Err(Error::new(Kind::BadKey, message));
    }
    Ok(Principal {
        tenant: key.tenant.clone(),
        key: Some(key.name.clone()),
        class: key.class,
        key_index: None,
        stored: Some(Arc::clone(key)),
    })
}

fn unknown(key: &[u8], stored: &Live, guessed: impl FnOnce() -> Result<()>) -> Error {
    // A client that is told 401 gives up for good, and perhaps tells a person that its key is wrong.
    if keys::may_be_stored(key) && stored.unread().is_some() {
        let message = "keys cannot be looked up now: the store of keys could not be read since this gateway was started";
        return Error::new(Kind::KeysUnread, message);
    }
    if let Err(error) = guessed() {
        return error;
    }
    Error::new(
        Kind::BadKey,
        "this key is not known here; keys stand in [[keys]] of the plan, or are made by `weir keys create`",
    )
}

fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers
        .get(AUTHORIZATION)
        .map(HeaderValue::as_bytes)
        .and_then(|value| {
            let (scheme, key) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
        });
    let is_key = |key: &&[u8]| !key.is_empty();
    bearer
        .filter(is_key)
        .or_else(|| Some(headers.get("x-api-key")?.as_bytes().trim_ascii()).filter(is_key))
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
    use std::time::Duration;

    use routing::plan::Limits;
    use routing::units::NanoUsd;

    use super::*;
    use crate::keys::stored::Row;
    use crate::keys::{Fault, FaultKind, Mac, Said};
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
        let (stored, clock) = (Live::default(), Clock::system());
        let who = |h: &[(&'static str, &str)]| check(&headers(h), &plan, &table, &stored, &clock, || Ok(()));
        assert_eq!(&*who(&[("authorization", "Bearer sk-a")]).unwrap().tenant, "t");
        assert_eq!(&*who(&[("authorization", "bearer  sk-b ")]).unwrap().tenant, "u");
        assert_eq!(who(&[("x-api-key", "sk-b")]).unwrap().key_index, Some(1));
        let both = [("authorization", "Bearer "), ("x-api-key", " sk-b")];
        assert_eq!(who(&both).unwrap().key_index, Some(1), "an empty one is none");
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

    #[tokio::test(start_paused = true)]
    async fn a_stored_key_counts_until_it_expires() {
        let plan = testing::plan(KEYED);
        let table = KeyTable::new([(0, "weir_sk_static".to_owned())]);
        let clock = Clock::starting_at(std::time::UNIX_EPOCH + Duration::from_secs(1_000));
        let mac = Mac::new(&[3; 32]);
        let row = |name: &str, expires_ms| Row {
            name: name.into(),
            tenant: "stored".into(),
            class: Class::High,
            routes: Some(Arc::from(["fast".into()])),
            limits: Limits {
                usd_per_day: Some(NanoUsd(1)),
                ..Limits::default()
            },
            created_ms: 1,
            expires_ms,
            revoked_ms: None,
            last_four: "name".into(),
            hash: mac.of(format!("weir_sk_{name}").as_bytes()),
        };
        let rows = vec![
            row("always", None),
            row("today", Some(1_060_000)),
            row("static", None),
        ];
        let said = Said { mac, rows };
        let guesses = std::cell::Cell::new(0);
        let stored = Live::default();
        stored.read(said, &plan, &crate::limits::Local::default(), clock.now());
        let guessed = || {
            guesses.set(guesses.get() + 1);
            Ok(())
        };
        let who = |key: &str| {
            check(
                &headers(&[("x-api-key", key)]),
                &plan,
                &table,
                &stored,
                &clock,
                guessed,
            )
        };
        let today = who("weir_sk_today").unwrap();
        assert_eq!((&*today.tenant, today.class), ("stored", Class::High));
        assert!(today.has_own_budget() && today.meter(&Limiters::default()).is_some());
        assert_eq!(today.may(&plan).map(<[_]>::len), Some(1));
        // The same key in the plan and in the store: the plan's counts.
        let twice = who("weir_sk_static").unwrap();
        assert_eq!((&*twice.tenant, twice.key_index), ("t", Some(0)));
        clock.sleep(Duration::from_millis(59_999)).await;
        assert!(who("weir_sk_today").is_ok());
        clock.sleep(Duration::from_millis(1)).await;
        let expired = who("weir_sk_today").unwrap_err();
        assert_eq!(expired.kind(), Kind::BadKey);
        assert!(
            expired.message().contains("expired at 1970-01-01T00:17:40Z"),
            "{expired}"
        );
        assert!(who("weir_sk_always").is_ok());
        assert_eq!(guesses.get(), 0, "whoever had a key does not guess");
        assert_eq!(who("weir_sk_other").unwrap_err().kind(), Kind::BadKey);
        assert_eq!(guesses.get(), 1);
    }

    #[test]
    fn a_store_that_could_not_be_read_is_not_the_callers_fault() {
        let (plan, table, clock) = (testing::plan(KEYED), KeyTable::new([]), Clock::system());
        let stored = Live::default();
        let fault = Fault {
            kind: FaultKind::Locked,
            text: "locked".to_owned(),
        };
        stored.stands(Some(fault));
        let sent = headers(&[("x-api-key", "weir_sk_a")]);
        let error = check(&sent, &plan, &table, &stored, &clock, || Ok(())).unwrap_err();
        assert_eq!((error.kind(), error.status().as_u16()), (Kind::KeysUnread, 503));
        let never = headers(&[("x-api-key", "sk-a")]);
        let error = check(&never, &plan, &table, &stored, &clock, || Ok(())).unwrap_err();
        assert_eq!(error.kind(), Kind::BadKey, "it looks like none of ours");
    }

    #[test]
    fn without_keys_credentials_are_ignored() {
        let table = KeyTable::new([]);
        let who = check(
            &headers(&[("authorization", "Bearer whatever")]),
            &testing::plan(""),
            &table,
            &Live::default(),
            &Clock::system(),
            || Ok(()),
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
