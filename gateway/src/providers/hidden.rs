//! Secrets that a provider was given, taken out of what it says: some quote the key that they refuse, and an error goes to
//! a caller who must not learn it.
//!
//! Errors and headers only: what stands in an answer is the provider's own text, and passes as it came.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::failure::AttemptError;
use super::http::{ExtraHeader, ProviderKey};
use super::pool::Endpoint;

/// Shorter ones are no secrets, and stand in ordinary words.
const LEAST: usize = 8;
/// What stands in their place.
const INSTEAD: &str = "***";

/// What one provider was given.
pub(super) struct Hidden {
    key: Arc<ProviderKey>,
    /// Values of headers, and of the proxy's.
    others: Vec<String>,
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hidden({:?}, {} more)", self.key, self.others.len())
    }
}

impl Hidden {
    pub(super) fn new(key: Arc<ProviderKey>, headers: &[ExtraHeader], endpoint: &Endpoint) -> Self {
        let secret = headers.iter().filter(|h| h.secret).map(|h| &*h.value);
        // `Bearer KEY`: the key alone would be quoted just as well.
        let others = secret
            .chain(endpoint.proxy_authorization())
            .flat_map(|value| [Some(value), value.split_once(' ').map(|(_, rest)| rest)])
            .flatten()
            .map(|value| value.trim().to_owned())
            .filter(|value| value.len() >= LEAST);
        Self {
            others: others.collect(),
            key,
        }
    }

    /// The error without them.
    pub(super) fn taken_from(&self, error: AttemptError) -> AttemptError {
        self.with(|all| error.rewritten(|text| clean(text, all)))
    }

    /// Headers of an answer without those that hold one. What goes on to the caller is mostly a figure, and too short.
    pub(super) fn kept(&self, headers: HeaderMap) -> HeaderMap {
        let long = |name: &HeaderName, value: &HeaderValue| {
            value.len() >= LEAST && name.as_str().starts_with("x-ratelimit-")
        };
        if !headers.iter().any(|(name, value)| long(name, value)) {
            return headers;
        }
        self.with(|all| {
            let holds = |value: &HeaderValue| value.to_str().is_ok_and(|text| clean(text, all).is_some());
            let kept = headers.iter().filter(|(_, value)| !holds(value));
            kept.map(|(name, value)| (name.clone(), value.clone())).collect()
        })
    }

    fn with<T>(&self, then: impl FnOnce(&[&str]) -> T) -> T {
        let key = self.key.now();
        let key = key
            .as_deref()
            .map(String::as_str)
            .filter(|key| key.len() >= LEAST);
        let all: Vec<&str> = self.others.iter().map(String::as_str).chain(key).collect();
        then(&all)
    }
}

/// `None`: there is nothing in it to hide.
fn clean(text: &str, secrets: &[&str]) -> Option<String> {
    let mut out = Cow::Borrowed(text);
    for secret in secrets {
        if out.contains(secret) {
            out = Cow::Owned(out.replace(secret, INSTEAD));
        }
    }
    match out {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::{Fault, UpstreamError};
    use super::super::pool::ProxyEnv;
    use super::*;

    #[test]
    fn an_error_never_quotes_what_the_provider_was_given() {
        let proxy = Some("http://me:proxy-secret@127.0.0.1:3128");
        let endpoint = Endpoint::new("http://127.0.0.1:1/v1", None, proxy, &ProxyEnv::default()).unwrap();
        let basic = endpoint.proxy_authorization().unwrap().to_owned();
        let header = |name: &str, value: &str, secret| ExtraHeader {
            name: name.into(),
            value: value.to_owned(),
            secret,
        };
        let headers = [
            header("x-token", "Bearer header-secret", true),
            header("x-beta", "a-public-word", false),
            header("x-pin", "1234", true),
        ];
        let key = ProviderKey::new(Some("key-secret".into()));
        let hidden = Hidden::new(Arc::clone(&key), &headers, &endpoint);
        let mut given = HeaderMap::new();
        for (name, value) in [("x-ratelimit-a", "7"), ("x-ratelimit-b", "key-secret")] {
            given.insert(name, HeaderValue::from_static(value));
        }
        let names = |headers: &HeaderMap| headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&hidden.kept(given.clone())), ["x-ratelimit-a"]);
        let error = AttemptError::new(Fault::Status(400), "key-secret, 1234")
            .with_upstream(UpstreamError {
                message: format!("no: key-secretkey-secret a-public-word header-secret {basic}"),
                kind: Some("key-secret".into()),
                code: Some("x_key-secret".into()),
                param: Some("header-secret".into()),
            })
            .with_headers(given);
        let clean = hidden.taken_from(error);
        let says = clean.upstream().unwrap();
        assert_eq!(clean.detail(), "***, 1234");
        assert_eq!(says.message, "no: ****** a-public-word *** ***");
        assert_eq!(
            (says.kind.as_deref(), says.code.as_deref(), says.param.as_deref()),
            (Some("***"), Some("x_***"), Some("***"))
        );
        assert_eq!(names(clean.headers()), ["x-ratelimit-a"]);
        // A key that was replaced while the process runs is hidden too.
        key.set(Some("another-key\n".into()));
        let clean = hidden.taken_from(AttemptError::new(Fault::Cut, "another-key"));
        assert_eq!(clean.detail(), "***");
    }
}
