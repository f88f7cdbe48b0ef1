//! Where a request ends: whatever two readers could see differently is refused, or ends its connection, so that nothing
//! can be hidden behind it. What hyper does by itself is held here too: an upgrade of it must not change it unseen.

use gateway::providers::fake::Script;
use tokio::io::AsyncReadExt;

use crate::harness::{Gateway, HELLO};

/// What a hidden request would look like; it is answered only by who takes it for one.
const HIDDEN: &str = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Statuses of all answers until the connection closes.
async fn answers(gateway: &Gateway, bytes: &str) -> (Vec<u16>, String) {
    let mut wire = gateway.connect().await;
    wire.raw(bytes.as_bytes()).await;
    let mut all = Vec::new();
    let within = std::time::Duration::from_secs(20);
    let read = tokio::time::timeout(within, wire.stream.read_to_end(&mut all)).await;
    // A reset behind the last answer is an end, too.
    let _ = read.unwrap_or_else(|_| panic!("not closed: {}", String::from_utf8_lossy(&all)));
    let text = String::from_utf8_lossy(&all).into_owned();
    let status = |at: usize| text[at + 9..at + 12].parse().unwrap();
    (
        text.match_indices("HTTP/1.1 ")
            .map(|(at, _)| status(at))
            .collect(),
        text,
    )
}

fn post(headers: &str, body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n{body}"
    )
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

#[tokio::test]
async fn a_request_with_an_unsure_end_is_refused() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let (n, pieces) = (HELLO.len(), chunked(HELLO));
    let cases = [
        // hyper's own: two lengths, or one that is none.
        (
            "CL.CL that differ",
            post(
                &format!("content-length: {n}\r\ncontent-length: {}\r\n", n + 1),
                HELLO,
            ),
        ),
        (
            "CL.CL in one line",
            post(&format!("content-length: {n}, {n}\r\n"), HELLO),
        ),
        (
            "CL with a sign",
            post(&format!("content-length: +{n}\r\n"), HELLO),
        ),
        ("CL in hex", post(&format!("content-length: 0x{n:x}\r\n"), HELLO)),
        (
            "CL beyond all numbers",
            post("content-length: 99999999999999999999\r\n", HELLO),
        ),
        ("CL empty", post("content-length: \r\n", HELLO)),
        // hyper's own: a coding that is not chunked at its end.
        ("TE unknown", post("transfer-encoding: xchunked\r\n", &pieces)),
        ("TE identity", post("transfer-encoding: identity\r\n", &pieces)),
        (
            "TE behind chunked",
            post("transfer-encoding: chunked, gzip\r\n", &pieces),
        ),
        (
            "TE with a parameter",
            post("transfer-encoding: chunked;q=1\r\n", &pieces),
        ),
        ("TE quoted", post("transfer-encoding: \"chunked\"\r\n", &pieces)),
        (
            "TE with a vertical tab",
            post("transfer-encoding: \x0bchunked\r\n", &pieces),
        ),
        (
            "TE with a space in front of its colon",
            post("transfer-encoding : chunked\r\n", &pieces),
        ),
        ("TE folded", post("transfer-encoding:\r\n chunked\r\n", &pieces)),
        (
            "TE under HTTP/1.0",
            post("transfer-encoding: chunked\r\n", &pieces).replacen("HTTP/1.1", "HTTP/1.0", 1),
        ),
        // Ours: chunked at its end, and more.
        (
            "TE twice",
            post(
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                &pieces,
            ),
        ),
        (
            "TE twice in one line",
            post("transfer-encoding: chunked, chunked\r\n", &pieces),
        ),
        ("TE packed", post("transfer-encoding: gzip, chunked\r\n", &pieces)),
        (
            "TE in two lines",
            post(
                "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n",
                &pieces,
            ),
        ),
        // hyper's own: heads that are none.
        (
            "a folded line",
            post(&format!("x-a: b\r\n c: d\r\ncontent-length: {n}\r\n"), HELLO),
        ),
        (
            "a bare CR",
            post(&format!("x-a: b\rx-c: d\r\ncontent-length: {n}\r\n"), HELLO),
        ),
        (
            "a NUL",
            post(&format!("x-a: \0\r\ncontent-length: {n}\r\n"), HELLO),
        ),
        (
            "a name with a space",
            post(&format!("x a: b\r\ncontent-length: {n}\r\n"), HELLO),
        ),
        // hyper's own: pieces that are none.
        (
            "a piece's size behind a bare LF",
            post(
                "transfer-encoding: chunked\r\n",
                &pieces.replacen("\r\n", "\n", 1),
            ),
        ),
        (
            "a piece's size beyond all numbers",
            post("transfer-encoding: chunked\r\n", "fffffffffffffffff\r\nx"),
        ),
        (
            "a piece's size with a sign",
            post("transfer-encoding: chunked\r\n", "+5\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "a piece longer than it says",
            post("transfer-encoding: chunked\r\n", "2\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "a piece's extension with a bare LF",
            post("transfer-encoding: chunked\r\n", "2;a\nb\r\n{}\r\n0\r\n\r\n"),
        ),
    ];
    for (name, bytes) in cases {
        let (statuses, text) = answers(&gateway, &format!("{bytes}{HIDDEN}")).await;
        assert_eq!(statuses, [400], "{name}: {text}");
    }
    assert!(gateway.fake.seen().is_empty(), "no model was asked");
}

/// What may stand in two places is read in one, and nothing behind it is taken for a request.
#[tokio::test]
async fn a_length_beside_pieces_counts_for_nothing_and_ends_the_connection() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let pieces = chunked(HELLO);
    let length = pieces.len() + HIDDEN.len();
    for (name, headers) in [
        (
            "CL.TE",
            format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        ),
        (
            "TE.CL",
            format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n"),
        ),
        (
            "TE.CL that is no number",
            "transfer-encoding: chunked\r\ncontent-length: x\r\n".to_owned(),
        ),
    ] {
        let (statuses, text) = answers(&gateway, &format!("{}{HIDDEN}", post(&headers, &pieces))).await;
        assert_eq!(statuses, [200], "{name}: {text}");
    }
    assert_eq!(gateway.fake.seen().len(), 3);
}

/// What every reader sees alike is taken: the same length twice, lines that end in a bare LF, spaces around a value.
#[tokio::test]
async fn what_has_one_meaning_is_taken() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let n = HELLO.len();
    let closing = HIDDEN.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    for (name, bytes) in [
        (
            "CL.CL that agree",
            post(&format!("content-length: {n}\r\ncontent-length: {n}\r\n"), HELLO),
        ),
        (
            "bare LFs",
            post(&format!("content-length: {n}\r\n"), "").replace("\r\n", "\n") + HELLO,
        ),
        (
            "pieces",
            post("Transfer-Encoding: \tChunked \r\n", &chunked(HELLO)),
        ),
    ] {
        let (statuses, text) = answers(&gateway, &format!("{bytes}{closing}")).await;
        assert_eq!(statuses, [200, 200], "{name}: {text}");
    }
    assert_eq!(gateway.fake.seen().len(), 3);
}

/// What we refuse ourselves is told as every error is.
#[tokio::test]
async fn our_own_refusal_says_why_and_is_recorded() {
    let gateway = Gateway::start(Script::answer("ok")).await;
    let bytes = post("transfer-encoding: chunked, chunked\r\n", &chunked(HELLO));
    let (_, text) = answers(&gateway, &bytes).await;
    assert!(
        text.contains("\"code\":\"invalid_header\"") && text.contains("\"param\":\"transfer-encoding\""),
        "{text}"
    );
    assert!(text.contains("connection: close"), "{text}");
    let records = gateway.end().await;
    assert_eq!(records.len(), 1);
    assert_eq!(
        (&records[0]["status"], &records[0]["error"]),
        (&400.into(), &"invalid_header".into())
    );
}
