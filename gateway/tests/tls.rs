//! The data plane behind TLS, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod harness;
mod program;

use std::io::BufReader;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::providers::fake::Script;
use gateway::server::tls::Loaded;
use harness::{Gateway, HELLO, HELLO_STREAM, PLAN, request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use routing::plan::TlsConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

macro_rules! testdata {
    ($file:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/src/providers/pool/testdata/", $file)
    };
}

macro_rules! other_testdata {
    ($file:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testdata/tls/", $file)
    };
}

fn files(client_ca: bool) -> TlsConfig {
    TlsConfig {
        cert_file: testdata!("test-leaf.pem").into(),
        key_file: testdata!("test-leaf.key.pem").into(),
        client_ca_file: client_ca.then(|| testdata!("test-ca.pem").into()),
    }
}

async fn started(client_ca: bool) -> Gateway {
    let gateway = Gateway::start(Script::answer("ok")).await;
    gateway.app.set_tls(Some(Loaded::new(&files(client_ca)).unwrap()));
    gateway
}

async fn connect(gateway: &Gateway, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
    shake(gateway.address, alpn, rustls::DEFAULT_VERSIONS).await
}

/// A handshake of a client that trusts both authorities.
async fn shake(
    at: SocketAddr,
    alpn: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for file in [testdata!("test-ca.pem"), other_testdata!("other-ca.pem")] {
        for cert in CertificateDer::pem_file_iter(file).unwrap() {
            roots.add(cert.unwrap()).unwrap();
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let tcp = TcpStream::connect(at).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// One request on a connection that ends with its answer, and the whole answer.
async fn ask(io: &mut TlsStream<TcpStream>, method: &str, path: &str, body: &str) -> String {
    let text = request(method, path, &JSON, body);
    io.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // An end of file without close_notify would be an error here.
    io.read_to_string(&mut answer).await.unwrap();
    answer
}

const JSON: [(&str, &str); 2] = [("content-type", "application/json"), ("connection", "close")];

#[tokio::test]
async fn http1_is_served_and_closes_in_order() {
    let gateway = started(false).await;
    for (alpn, body) in [(&[b"http/1.1" as &[u8]] as &[_], HELLO), (&[], HELLO_STREAM)] {
        let mut io = connect(&gateway, alpn).await.unwrap();
        let answer = ask(&mut io, "POST", "/v1/chat/completions", body).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("ok"), "{answer}");
    }
}

#[tokio::test]
async fn http2_is_agreed_on_in_the_handshake() {
    let gateway = started(false).await;
    let io = connect(&gateway, &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(io.get_ref().1.alpn_protocol(), Some(b"h2" as &[u8]));
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
    tokio::spawn(connection);
    for body in [HELLO, HELLO_STREAM] {
        let request = http::Request::post("https://localhost/v1/chat/completions")
            .header("content-type", "application/json")
            .body(Full::from(body))
            .unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("ok"));
    }
}

#[tokio::test]
async fn plain_http_is_told_where_it_is() {
    let gateway = started(false).await;
    let answer = gateway.chat(HELLO).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("https://"), "{answer:?}");
    assert_eq!(gateway.fake.seen().len(), 0);
    let text = gateway.app.telemetry().render();
    assert!(text.contains("weir_tls_handshakes_failed_total 1"));
}

#[tokio::test]
async fn without_the_certificate_that_is_asked_for_nobody_comes_in() {
    let gateway = started(true).await;
    // TLS 1.3: the client learns of it with its first read.
    if let Ok(mut io) = connect(&gateway, &[]).await {
        let text = request("POST", "/v1/chat/completions", &JSON, HELLO);
        let _ = io.write_all(text.as_bytes()).await;
        let mut answer = Vec::new();
        assert!(io.read_to_end(&mut answer).await.is_err(), "{answer:?}");
    }
    assert_eq!(gateway.fake.seen().len(), 0);
}

#[tokio::test]
async fn a_client_of_tls_1_2_alone_is_served_and_others_get_1_3() {
    let gateway = started(false).await;
    for (versions, agreed) in [
        (&[&rustls::version::TLS12][..], ProtocolVersion::TLSv1_2),
        (rustls::DEFAULT_VERSIONS, ProtocolVersion::TLSv1_3),
    ] {
        let mut io = shake(gateway.address, &[], versions).await.unwrap();
        assert_eq!(io.get_ref().1.protocol_version(), Some(agreed));
        let answer = ask(&mut io, "POST", "/v1/chat/completions", HELLO).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}

/// The first message of a client that speaks at most this version (`3, 3` is TLS 1.2), and could be served in all else: it can do
/// ECDHE with ECDSA, on P-256.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let suites: &[u8] = &[0, 4, 0xc0, 0x2b, 0xc0, 0x09];
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, // groups: P-256
        0, 11, 0, 2, 1, 0, // points: uncompressed
        0, 13, 0, 4, 0, 2, 4, 3, // signatures: ECDSA with P-256 and SHA-256
    ];
    let mut hello = version.to_vec();
    hello.extend([7; 32]); // random
    hello.push(0); // no session
    hello.extend(suites);
    hello.extend([1, 0]); // no compression
    hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

#[tokio::test]
async fn tls_1_1_is_refused_by_name() {
    let gateway = started(false).await;
    let mut said = Vec::new();
    for version in [[3, 3], [3, 2]] {
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        tcp.write_all(&client_hello(version)).await.unwrap();
        let mut head = [0_u8; 7];
        tcp.read_exact(&mut head).await.unwrap();
        said.push(head);
    }
    // 1.2: a handshake goes on. 1.1: a fatal alert, protocol_version.
    assert_eq!(said[0][0], 22, "{said:?}");
    assert_eq!((said[1][0], &said[1][5..]), (21, &[2_u8, 70][..]), "{said:?}");
}

/// The program itself behind TLS.
struct Served {
    child: Child,
    address: SocketAddr,
}

impl Served {
    /// With `cert.pem` and `key.pem` in `home`.
    fn start(home: &Path) -> Self {
        let at = home.display();
        let tls =
            format!("[server]\ntls = {{ cert_file = \"{at}/cert.pem\", key_file = \"{at}/key.pem\" }}\n");
        let plan = home.join("plan.toml");
        std::fs::write(&plan, PLAN.replacen("[server]\n", &tls, 1)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--config")
            .arg(&plan)
            .env("WEIR_HOME", home)
            .env_remove("WEIR_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let ready = program::until(&mut said, "weir is ready: https://");
        let address = ready.split("https://").nth(1).unwrap();
        Self {
            child,
            address: address.split('/').next().unwrap().parse().unwrap(),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate and its key.
type Pair = (&'static str, &'static str);

const FIRST: Pair = (testdata!("test-leaf.pem"), testdata!("test-leaf.key.pem"));
const OTHER: Pair = (
    other_testdata!("other-leaf.pem"),
    other_testdata!("other-leaf.key.pem"),
);

/// Lays a pair where the program looks for it.
fn put(home: &Path, (cert, key): Pair) {
    std::fs::copy(cert, home.join("cert.pem")).unwrap();
    std::fs::copy(key, home.join("key.pem")).unwrap();
}

/// Is this the certificate that the connection began with?
fn shows(io: &TlsStream<TcpStream>, (cert, _): Pair) -> bool {
    let shown = io.get_ref().1.peer_certificates().unwrap();
    shown.first() == Some(&CertificateDer::from_pem_file(cert).unwrap())
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_live_on() {
    let home = tempfile::tempdir().unwrap();
    put(home.path(), FIRST);
    let served = Served::start(home.path());
    let connect = || shake(served.address, &[], rustls::DEFAULT_VERSIONS);
    let mut old = connect().await.unwrap();
    assert!(shows(&old, FIRST) && !shows(&old, OTHER));
    put(home.path(), OTHER);
    // The program looks at the files every two seconds.
    let renewed = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        loop {
            look.tick().await;
            let io = connect().await.unwrap();
            if shows(&io, OTHER) {
                return io;
            }
        }
    };
    let mut new = tokio::time::timeout(Duration::from_secs(20), renewed)
        .await
        .expect("the new certificate is shown within seconds");
    for io in [&mut old, &mut new] {
        let answer = ask(io, "GET", "/v1/models", "").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}
