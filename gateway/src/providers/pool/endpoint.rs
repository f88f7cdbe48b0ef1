//! Where a provider is: scheme, host, port, path, and the proxy on the way there.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use http::HeaderValue;
use http::uri::{Authority, Uri};
use routing::ids::Fingerprint;
use tokio::io::DuplexStream;

use super::tls::Tls;

/// Makes in-memory connections for tests and embedders: one a dial, the other end being theirs.
pub type MemoryDial = Arc<dyn Fn() -> std::io::Result<DuplexStream> + Send + Sync>;

/// How bytes get there.
#[derive(Clone)]
pub(super) enum Via {
    /// TCP to the host itself, or to the proxy.
    Tcp,
    /// In memory.
    Memory(MemoryDial),
}

/// A provider's address, checked when the plan is compiled.
#[derive(Clone)]
pub struct Endpoint {
    /// Same id, same pool: survives a new plan when nothing changed.
    pub(super) id: u64,
    pub(super) tls: Option<Tls>,
    /// Without brackets.
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    pub(super) authority: Arc<str>,
    pub(super) host_header: HeaderValue,
    /// Begins with a slash unless empty, ends without.
    pub(super) path: Arc<str>,
    pub(super) proxy: Option<Proxy>,
    pub(super) via: Via,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}{})", self.base(), self.path)
    }
}

/// A forward proxy: `CONNECT` for TLS, absolute-form requests otherwise.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    pub(super) authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

/// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (or their lower-case forms), read once by whoever owns the environment.
#[derive(Clone, Default)]
pub struct ProxyEnv {
    /// For `https` endpoints.
    pub https: Option<String>,
    /// For `http` endpoints.
    pub http: Option<String>,
    /// Hosts that are reached directly.
    pub no_proxy: Option<String>,
}

impl fmt::Debug for ProxyEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Proxies' addresses have passwords in them.
        let set = |proxy: &Option<String>| if proxy.is_some() { "set" } else { "none" };
        let (https, http) = (set(&self.https), set(&self.http));
        write!(
            f,
            "ProxyEnv(https {https}, http {http}, but not for {:?})",
            self.no_proxy
        )
    }
}

impl ProxyEnv {
    /// From a look-up of environment variables.
    pub fn read(var: impl Fn(&str) -> Option<String>) -> Self {
        let either =
            |upper: &str, lower: &str| var(upper).or_else(|| var(lower)).filter(|v| !v.trim().is_empty());
        Self {
            https: either("HTTPS_PROXY", "https_proxy"),
            http: either("HTTP_PROXY", "http_proxy"),
            no_proxy: either("NO_PROXY", "no_proxy"),
        }
    }

    fn for_host(&self, https: bool, host: &str, port: u16) -> Option<&str> {
        let proxy = if https {
            self.https.as_deref()
        } else {
            self.http.as_deref()
        }?;
        let direct = is_loopback(host)
            || self
                .no_proxy
                .as_deref()
                .is_some_and(|list| excluded(list, host, port));
        (!direct).then_some(proxy)
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// One entry of `NO_PROXY` matches: `*`, a host, a domain with or without a leading dot, an address, an address range,
/// each but the last with an optional port.
fn excluded(list: &str, host: &str, port: u16) -> bool {
    list.split([',', ' '])
        .map(str::trim)
        .filter(|e| !e.is_empty())
        .any(|entry| {
            if entry == "*" || in_range(entry, host) {
                return true;
            }
            let (name, only_port) = match entry.rsplit_once(':') {
                Some((name, p)) if !name.contains(':') => match p.parse::<u16>() {
                    Ok(p) => (name, Some(p)),
                    Err(_) => (entry, None),
                },
                _ => (entry, None),
            };
            let name = name
                .trim_start_matches("*.")
                .trim_start_matches('.')
                .trim_matches(['[', ']']);
            let matches = host.eq_ignore_ascii_case(name)
                || (host.len() > name.len()
                    && host.as_bytes().get(host.len() - name.len() - 1) == Some(&b'.')
                    && host
                        .get(host.len() - name.len()..)
                        .is_some_and(|tail| tail.eq_ignore_ascii_case(name)));
            matches && only_port.is_none_or(|p| p == port)
        })
}

/// `10.0.0.0/8` and the like.
fn in_range(entry: &str, host: &str) -> bool {
    let Some((net, bits)) = entry.split_once('/') else {
        return false;
    };
    let (Ok(net), Ok(ip), Ok(bits)) = (net.parse::<IpAddr>(), host.parse::<IpAddr>(), bits.parse::<u32>())
    else {
        return false;
    };
    match (net, ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            net.to_bits() & mask == ip.to_bits() & mask
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            net.to_bits() & mask == ip.to_bits() & mask
        }
        _ => false,
    }
}

impl Proxy {
    /// From `http://user:password@host:port`; a scheme may be left out.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let full = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = full
            .parse()
            .map_err(|e| format!("the proxy's address is not a URL: {e}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(other) => {
                return Err(format!(
                    "a proxy reached by `{other}` is not supported; use http://HOST:PORT"
                ));
            }
            None => return Err("the proxy's address has no scheme; use http://HOST:PORT".to_owned()),
        }
        let authority = uri.authority().ok_or("the proxy's address has no host")?;
        Ok(Self {
            host: bare_host(authority).into(),
            port: authority.port_u16().unwrap_or(80),
            authorization: credentials(authority)?,
        })
    }
}

fn bare_host(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

/// `user:password` in front of an `@`, percent-escapes resolved, as a `Basic` header.
fn credentials(authority: &Authority) -> Result<Option<HeaderValue>, String> {
    let Some((user_info, _)) = authority.as_str().rsplit_once('@') else {
        return Ok(None);
    };
    let plain = percent_decode(user_info);
    let basic = format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(plain)
    );
    let mut value = HeaderValue::from_str(&basic).map_err(|_| "the proxy's credentials cannot be sent")?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn percent_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        let hex = tail
            .get(..2)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (b, hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(b);
                rest = tail;
            }
        }
    }
    out
}

impl Endpoint {
    /// From a `base_url` such as `https://host/v1`. `tls` is needed for `https`. `proxy` is the plan's own; without it
    /// the environment's is heard.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the address.
    pub fn new(
        base_url: &str,
        tls: Option<&Tls>,
        proxy: Option<&str>,
        env: &ProxyEnv,
    ) -> Result<Self, String> {
        let uri: Uri = base_url
            .parse()
            .map_err(|e| format!("base_url `{base_url}` is not a URL: {e}"))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => {
                return Err(format!(
                    "base_url `{base_url}` must begin with https:// or http://"
                ));
            }
        };
        let authority = uri
            .authority()
            .ok_or_else(|| format!("base_url `{base_url}` has no host"))?;
        if authority.as_str().contains('@') {
            return Err("base_url must not hold credentials; put the key into api_key".to_owned());
        }
        if uri.query().is_some() {
            return Err(format!(
                "base_url `{base_url}` has a query (`?...`), which would not be sent; leave it out"
            ));
        }
        let host = bare_host(authority);
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let tls = match (https, tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(tls.for_host(host)?),
            (true, None) => return Err(format!("base_url `{base_url}` needs TLS, and none is set up")),
        };
        let proxy = proxy
            .or_else(|| env.for_host(https, host, port))
            .map(Proxy::parse)
            .transpose()?;
        let mut endpoint = Self {
            id: 0,
            tls,
            host: host.into(),
            port,
            authority: authority.as_str().into(),
            host_header: HeaderValue::from_str(authority.as_str()).map_err(|_| "base_url has an odd host")?,
            path: uri.path().trim_end_matches('/').into(),
            proxy,
            via: Via::Tcp,
        };
        endpoint.id = endpoint.fingerprint();
        Ok(endpoint)
    }

    /// Reached over in-memory connections: for tests that own the clock, and for embedders.
    pub fn memory(name: &str, path: &str, dial: MemoryDial) -> Self {
        Self {
            id: Fingerprint::of(format!("memory {name} {:p}", Arc::as_ptr(&dial)).as_bytes()).0,
            tls: None,
            host: name.into(),
            port: 80,
            authority: name.into(),
            host_header: HeaderValue::from_str(name).unwrap_or(HeaderValue::from_static("memory")),
            path: path.trim_end_matches('/').into(),
            proxy: None,
            via: Via::Memory(dial),
        }
    }

    fn fingerprint(&self) -> u64 {
        let proxy = self
            .proxy
            .as_ref()
            .map(|p| format!("{}:{} {:?}", p.host, p.port, p.authorization.is_some()));
        let tls = self.tls.as_ref().map(|t| t.id);
        Fingerprint::of(format!("{} {} {tls:?} {proxy:?}", self.host, self.port).as_bytes()).0
    }

    /// What its proxy is sent, as far as it has credentials.
    pub(in crate::providers) fn proxy_authorization(&self) -> Option<&str> {
        self.proxy.as_ref()?.authorization.as_ref()?.to_str().ok()
    }

    /// The path of `base_url`, without a slash at its end.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `https://host:port` without path, for people.
    pub fn base(&self) -> String {
        format!(
            "{}://{}",
            if self.tls.is_some() { "https" } else { "http" },
            self.authority
        )
    }

    /// The request target for `suffix` (such as `/chat/completions`): a path, or the whole address for a proxy that
    /// forwards plain HTTP.
    pub fn target(&self, suffix: &str) -> Result<Uri, String> {
        let text = match (&self.proxy, &self.tls) {
            (Some(_), None) => format!("{}{}{suffix}", self.base(), self.path),
            _ => format!("{}{suffix}", self.path),
        };
        text.parse()
            .map_err(|e| format!("{} has an odd path: {e}", self.base()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls() -> Tls {
        Tls::with_roots(rustls::RootCertStore::empty(), "none").unwrap()
    }

    fn endpoint(url: &str, proxy: Option<&str>, env: &ProxyEnv) -> Endpoint {
        Endpoint::new(url, Some(&tls()), proxy, env).unwrap()
    }

    #[test]
    fn addresses() {
        let none = ProxyEnv::default();
        let e = endpoint("https://api.example.com/v1/", None, &none);
        assert_eq!((&*e.host, e.port, &*e.path), ("api.example.com", 443, "/v1"));
        assert_eq!(e.target("/chat/completions").unwrap(), "/v1/chat/completions");
        let e = endpoint("http://[::1]:8401/v1", None, &none);
        assert_eq!((&*e.host, e.port), ("::1", 8401));
        for bad in [
            "https://x/v1?api-version=1",
            "api.example.com/v1",
            "ftp://x/",
            "https://k:v@x/v1",
            "",
        ] {
            assert!(Endpoint::new(bad, Some(&tls()), None, &none).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_environments_proxy_and_its_exceptions() {
        let env = ProxyEnv {
            https: Some("http://u:p%40ss@proxy:3128".to_owned()),
            http: Some("plain:8080".to_owned()),
            no_proxy: Some("internal.example, .corp.example,10.0.0.0/8,odd.example:8443".to_owned()),
        };
        let e = endpoint("https://api.example.com/v1", None, &env);
        let proxy = e.proxy.unwrap();
        assert_eq!((&*proxy.host, proxy.port), ("proxy", 3128));
        assert_eq!(proxy.authorization.unwrap(), "Basic dTpwQHNz");
        let e = endpoint("http://api.example.com/v1", None, &env);
        assert_eq!(e.target("/models").unwrap(), "http://api.example.com/v1/models");
        for direct in [
            "https://internal.example/",
            "https://a.internal.example/",
            "https://x.corp.example/",
            "https://10.1.2.3/",
            "https://127.0.0.1/",
            "https://localhost:9/",
            "https://odd.example:8443/",
        ] {
            assert_eq!(endpoint(direct, None, &env).proxy, None, "{direct}");
        }
        for proxied in [
            "https://notinternal.example/",
            "https://11.1.2.3/",
            "https://odd.example/",
        ] {
            assert!(endpoint(proxied, None, &env).proxy.is_some(), "{proxied}");
        }
        assert!(
            endpoint("https://127.0.0.1/", Some("http://own:1"), &env)
                .proxy
                .is_some()
        );
        assert!(Proxy::parse("socks5://x:1").is_err());
    }

    #[test]
    fn the_same_address_shares_a_pool() {
        let none = ProxyEnv::default();
        let a = endpoint("http://x:1/v1", None, &none);
        let b = endpoint("http://x:1/v2", None, &none);
        let c = endpoint("http://x:2/v1", None, &none);
        assert_eq!(a.id, b.id);
        assert_ne!(a.id, c.id);
    }
}
