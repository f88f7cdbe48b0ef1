//! The data plane behind TLS, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod harness;

use std::sync::Arc;

use bytes::Bytes;
use gateway::providers::fake::Script;
use gateway::server::tls::Loaded;
use harness::{Gateway, HELLO, HELLO_STREAM, request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use routing::plan::TlsConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

macro_rules! testdata {
    ($file:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/src/providers/pool/testdata/", $file)
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
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(testdata!("test-ca.pem")).unwrap() {
        roots.add(cert.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let tcp = TcpStream::connect(gateway.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

const JSON: [(&str, &str); 2] = [("content-type", "application/json"), ("connection", "close")];

#[tokio::test]
async fn http1_is_served_and_closes_in_order() {
    let gateway = started(false).await;
    for (alpn, body) in [(&[b"http/1.1" as &[u8]] as &[_], HELLO), (&[], HELLO_STREAM)] {
        let mut io = connect(&gateway, alpn).await.unwrap();
        let text = request("POST", "/v1/chat/completions", &JSON, body);
        io.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // An end of file without close_notify would be an error here.
        io.read_to_string(&mut answer).await.unwrap();
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
async fn a_new_certificate_is_for_new_connections() {
    let gateway = started(false).await;
    let mut old = connect(&gateway, &[]).await.unwrap();
    let (again, why) = gateway.app.tls().unwrap().again(&files(false));
    assert!(why.is_none());
    gateway.app.set_tls(Some(again));
    let mut new = connect(&gateway, &[]).await.unwrap();
    for io in [&mut old, &mut new] {
        let text = request("POST", "/v1/chat/completions", &JSON, HELLO);
        io.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}
