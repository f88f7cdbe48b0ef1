//! Making a connection: name to addresses (asked every time), a race over the addresses, the proxy, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::endpoint::{Endpoint, Proxy, Via};
use super::stream::{Carrier, Stream};
use super::tls::Tls;
use crate::clock::Clock;
use crate::providers::failure::{AttemptError, Fault, TryClock};

/// A second address is tried beside the first after so long (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried at most.
const MAX_ADDRESSES: usize = 8;
/// Longest head of a proxy's answer to `CONNECT`.
const MAX_PROXY_HEAD: usize = 8 * 1024;

/// A connection to `endpoint`, all of it within `limit`.
pub(super) async fn dial(
    clock: &Clock,
    endpoint: &Endpoint,
    limit: Duration,
) -> Result<Stream, AttemptError> {
    match clock.within(clock.now() + limit, connect(clock, endpoint)).await {
        Some(result) => result.map(Stream::new),
        None => Err(AttemptError::new(
            Fault::Timeout(TryClock::Connect),
            format!(
                "no connection to {} within {} ms",
                endpoint.base(),
                limit.as_millis()
            ),
        )),
    }
}

async fn connect(clock: &Clock, endpoint: &Endpoint) -> Result<Carrier, AttemptError> {
    if let Via::Memory(dial) = &endpoint.via {
        return dial()
            .map(Carrier::Memory)
            .map_err(|e| unreachable_host(&endpoint.base(), &e));
    }
    let tcp = match &endpoint.proxy {
        None => connect_host(clock, &endpoint.host, endpoint.port).await?,
        Some(proxy) => {
            let tcp = connect_host(clock, &proxy.host, proxy.port).await?;
            if endpoint.tls.is_some() {
                tunnel(tcp, proxy, endpoint).await?
            } else {
                tcp
            }
        }
    };
    match &endpoint.tls {
        None => Ok(Carrier::Tcp(tcp)),
        Some(tls) => secure(tcp, tls, endpoint).await,
    }
}

fn unreachable_host(what: &str, e: &io::Error) -> AttemptError {
    AttemptError::new(Fault::Connect, format!("{what} cannot be reached: {e}"))
}

async fn connect_host(clock: &Clock, host: &str, port: u16) -> Result<TcpStream, AttemptError> {
    let addresses = resolve(host, port).await?;
    let tcp = race(clock, addresses)
        .await
        .map_err(|e| unreachable_host(&format!("{host}:{port}"), &e))?;
    // Both are about speed and dead peers; a kernel that refuses them still carries bytes.
    let _ = tcp.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    let _ = socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive);
    Ok(tcp)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, AttemptError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let failed =
        |why: String| AttemptError::new(Fault::Resolve, format!("the name {host} does not resolve: {why}"));
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|e| failed(e.to_string()))?;
    let addresses = interleave(found.collect());
    if addresses.is_empty() {
        Err(failed("no address".to_owned()))
    } else {
        Ok(addresses)
    }
}

/// The resolver's order, families taking turns, so that one broken family costs one stagger.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    one.reverse();
    other.reverse();
    let mut out = Vec::new();
    while out.len() < MAX_ADDRESSES && !(one.is_empty() && other.is_empty()) {
        out.extend(one.pop());
        out.extend(other.pop());
    }
    out.truncate(MAX_ADDRESSES);
    out
}

/// The first address that accepts. Losers are dropped.
async fn race(clock: &Clock, addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    if let [only] = addresses.as_slice() {
        return TcpStream::connect(only).await;
    }
    let mut waiting = addresses.into_iter();
    let mut dialling = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    loop {
        if let Some(address) = waiting.next() {
            dialling.spawn(TcpStream::connect(address));
        } else if dialling.is_empty() {
            return Err(last);
        }
        let more = waiting.len() > 0;
        tokio::select! {
            ended = dialling.join_next() => match ended {
                Some(Ok(Ok(tcp))) => return Ok(tcp),
                Some(Ok(Err(e))) => last = e,
                Some(Err(e)) => last = io::Error::other(e),
                None => {}
            },
            () = clock.sleep(STAGGER), if more => {}
        }
    }
}

/// `CONNECT host:port` through the proxy.
async fn tunnel(mut tcp: TcpStream, proxy: &Proxy, endpoint: &Endpoint) -> Result<TcpStream, AttemptError> {
    let at = format!("the proxy {}:{}", proxy.host, proxy.port);
    let host = if endpoint.host.contains(':') {
        format!("[{}]", endpoint.host)
    } else {
        endpoint.host.to_string()
    };
    let mut head = format!(
        "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n",
        port = endpoint.port
    )
    .into_bytes();
    if let Some(value) = &proxy.authorization {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    tcp.write_all(&head)
        .await
        .map_err(|e| unreachable_host(&at, &e))?;
    let answer = read_head(&mut tcp).await.map_err(|e| unreachable_host(&at, &e))?;
    match status_of(&answer) {
        Some(200..=299) => Ok(tcp),
        Some(407) => Err(AttemptError::new(
            Fault::Connect,
            format!(
                "{at} asks for credentials: put them into the proxy's address (http://USER:PASSWORD@HOST:PORT)"
            ),
        )),
        Some(status) => Err(AttemptError::new(
            Fault::Connect,
            format!(
                "{at} refuses a tunnel to {}:{} with status {status}",
                endpoint.host, endpoint.port
            ),
        )),
        None => Err(AttemptError::new(
            Fault::Connect,
            format!("{at} does not answer in HTTP"),
        )),
    }
}

/// Up to the empty line. A tunnel's far end speaks only when spoken to, so nothing may follow it.
async fn read_head(tcp: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_PROXY_HEAD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its answer is too long",
            ));
        }
        let mut chunk = [0u8; 512];
        let n = tcp.read(&mut chunk).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(chunk.get(..n).unwrap_or_default());
        if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n")
            && end + 4 != head.len()
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "bytes follow its answer to CONNECT",
            ));
        }
    }
    Ok(head)
}

fn status_of(head: &[u8]) -> Option<u16> {
    let line = head.split(|&b| b == b'\r').next()?;
    let text = std::str::from_utf8(line).ok()?;
    text.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

async fn secure(tcp: TcpStream, tls: &Tls, endpoint: &Endpoint) -> Result<Carrier, AttemptError> {
    let Some(name) = tls.name.clone() else {
        return Err(AttemptError::new(
            Fault::Tls,
            format!("{} has no name for its certificate", endpoint.base()),
        ));
    };
    match TlsConnector::from(tls.config.clone()).connect(name, tcp).await {
        Ok(stream) => Ok(Carrier::Tls(Box::new(stream))),
        Err(e) => Err(AttemptError::new(
            Fault::Tls,
            format!(
                "TLS with {} failed: {e}; if its certificate is your own, name its CA in ca_file",
                endpoint.base()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let list: Vec<SocketAddr> = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]
            .iter()
            .map(|a| a.parse().unwrap())
            .collect();
        let got: Vec<String> = interleave(list).iter().map(ToString::to_string).collect();
        assert_eq!(got, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]);
    }

    #[test]
    fn status_lines() {
        assert_eq!(
            status_of(b"HTTP/1.1 200 Connection established\r\n\r\n"),
            Some(200)
        );
        assert_eq!(status_of(b"HTTP/1.0 407 x\r\n\r\n"), Some(407));
        assert_eq!(status_of(b"SSH-2.0\r\n\r\n"), None);
    }

    #[tokio::test]
    async fn the_race_ends_with_the_address_that_accepts() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bad = closed.local_addr().unwrap();
        drop(closed);
        let clock = Clock::system();
        let tcp = race(&clock, vec![bad, good]).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), good);
        assert!(race(&clock, vec![bad, bad]).await.is_err());
    }
}
