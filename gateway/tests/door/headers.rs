//! Headers go by name, both ways: whatever else a caller or a provider sends ends here.

use crate::harness::{Answer, Gateway, HELLO, HELLO_STREAM};
use crate::upstream::{Trap, Upstream, fine, response};

const CHAT: &str = "/v1/chat/completions";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn plan(upstream: &Upstream) -> String {
    let at = upstream.address;
    format!(
        "version = 1\n[server]\ndrain_delay_ms = 0\ncors_origins = [\"https://app.example\"]\n\
         [providers.o]\nkind = \"openai\"\nbase_url = \"http://{at}/v1\"\napi_key = \"env:KEY\"\nheaders = {{ x-team = \"blue\" }}\n\
         [providers.a]\nkind = \"anthropic\"\nbase_url = \"http://{at}\"\napi_key = \"env:KEY\"\n\
         [targets.one]\nprovider = \"o\"\nmodel = \"m\"\nprice = \"unmetered\"\n\
         [targets.claude]\nprovider = \"a\"\nmodel = \"c\"\nprice = \"unmetered\"\n\
         [routes.auto]\ntiers = [[\"one\"]]\n[retry]\nsame_target = 0\n"
    )
}

const ENV: &[(&str, &str)] = &[("KEY", "our-own-key")];

/// What a hostile caller sends beside what belongs there.
const HOSTILE: &[(&str, &str)] = &[
    ("content-type", "application/json"),
    ("authorization", "Bearer the-callers"),
    ("x-api-key", "the-callers"),
    ("api-key", "the-callers"),
    ("proxy-authorization", "Basic the-callers"),
    ("cookie", "session=the-callers"),
    ("forwarded", "for=10.0.0.1"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-forwarded-host", "elsewhere.example"),
    ("x-real-ip", "10.0.0.1"),
    ("x-internal", "1"),
    ("openai-organization", "org-x"),
    ("anthropic-beta", "x"),
    ("x-team", "red"),
    ("x-request-id", "chosen-by-the-caller"),
    ("user-agent", "their own"),
    ("accept", "text/html"),
    ("accept-encoding", "gzip"),
    ("te", "trailers"),
    ("trailer", "x-internal"),
    ("keep-alive", "timeout=5"),
    ("upgrade", "websocket"),
    ("via", "1.1 somewhere"),
    ("expect", "nothing"),
    ("referer", "https://x.example/"),
    ("x-weir-tags", "a=b"),
    ("x-stainless-arch", "x64"),
    ("idempotency-key", "k"),
    ("traceparent", TRACE),
    ("tracestate", "a=b"),
    ("baggage", "a=b"),
    ("x-http-method-override", "DELETE"),
];

/// With an `idempotency-key` of this request's own.
fn named(name: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut headers = HOSTILE.to_vec();
    for header in headers.iter_mut().filter(|(n, _)| *n == "idempotency-key") {
        header.1 = name;
    }
    headers
}

#[tokio::test]
async fn nothing_of_a_callers_headers_goes_upstream_but_the_named() {
    let upstream = Upstream::start(|asked| fine(asked, ""));
    let gateway = Gateway::real(&plan(&upstream), ENV).await;
    for model in ["one", "claude"] {
        let body = HELLO.replace("auto", model);
        let answer = gateway.ask("POST", CHAT, &named(model), &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let dropped = [
        &named("auto")[..],
        &[("connection", "keep-alive, x-internal, traceparent")],
    ]
    .concat();
    assert_eq!(gateway.ask("POST", CHAT, &dropped, HELLO).await.status, 200);
    let seen = upstream.seen();
    let [openai, claude, hop] = seen.as_slice() else {
        panic!("{seen:?}")
    };
    let common = [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-request-id",
    ];
    let with = |more: &[&'static str]| {
        let mut names = [&common[..], more].concat();
        names.sort_unstable();
        names
    };
    assert_eq!(openai.names(), with(&["authorization", "traceparent", "x-team"]));
    assert_eq!(
        claude.names(),
        with(&["anthropic-version", "traceparent", "x-api-key"])
    );
    assert_eq!(
        hop.names(),
        with(&["authorization", "x-team"]),
        "what `connection` names goes no further"
    );
    for (asked, expected) in [
        (
            openai,
            [
                ("authorization", "Bearer our-own-key"),
                ("x-team", "blue"),
                ("accept", "application/json"),
            ],
        ),
        (
            claude,
            [
                ("x-api-key", "our-own-key"),
                ("traceparent", TRACE),
                ("accept-encoding", "identity"),
            ],
        ),
    ] {
        for (name, value) in expected {
            assert_eq!(asked.header(name), Some(value), "{name}");
        }
        assert!(asked.header("x-request-id").unwrap().starts_with("req_"));
        assert!(asked.header("user-agent").unwrap().starts_with("weir/"));
        assert!(!format!("{asked:?}").contains("the-callers"));
    }
}

/// What a hostile provider sends beside what belongs there.
const BACK: &str = "set-cookie: a=planted\r\nserver: planted\r\nx-internal: planted\r\nlocation: http://planted.example/\r\n\
connection: close, x-internal, x-ratelimit-limit-tokens\r\nkeep-alive: timeout=planted\r\nproxy-authenticate: planted\r\n\
www-authenticate: planted\r\nupgrade: planted\r\ntrailer: planted\r\nvia: planted\r\nalt-svc: planted\r\nlink: <planted>\r\n\
refresh: 0; url=planted\r\nstrict-transport-security: planted\r\naccess-control-allow-origin: *\r\nvary: planted\r\n\
cache-control: public, max-age=planted\r\nx-weir-model: planted\r\nx-weir-cost-usd: planted\r\nx-weir-decision: planted\r\n\
server-timing: planted\r\nx-request-id: planted\r\nrequest-id: planted\r\nopenai-organization: planted\r\n\
openai-processing-ms: planted\r\ncontent-disposition: planted\r\nx-accel-redirect: /planted\r\nx-sendfile: /planted\r\n\
x-ratelimit-remaining-requests: 7\r\nx-ratelimit-limit-tokens: planted\r\n";

/// All that may come back.
const MAY: &[&str] = &[
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "retry-after",
    "retry-after-ms",
    "server-timing",
    "transfer-encoding",
    "x-accel-buffering",
    "x-ratelimit-remaining-requests",
    "x-request-id",
    "x-should-retry",
    "x-weir-attempts",
    "x-weir-cache",
    "x-weir-cost-usd",
    "x-weir-model",
    "x-weir-tier",
    "x-weir-verdict",
    "x-weir-verified",
];

fn only_the_named(answer: &Answer) {
    for (name, value) in &answer.headers {
        assert!(MAY.contains(&name.as_str()), "{name}: {value}");
        assert!(!value.contains("planted"), "{name}: {value}");
    }
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("7"));
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
}

#[tokio::test]
async fn nothing_of_a_providers_headers_comes_back_but_the_named() {
    let upstream = Upstream::start(|asked| {
        let error = r#"{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"x"}}"#;
        match asked.body.contains("refuse") {
            true => response("400 Bad Request", BACK, "application/json", error),
            false => fine(asked, BACK),
        }
    });
    let gateway = Gateway::real(&plan(&upstream), ENV).await;
    for body in [
        HELLO,
        HELLO_STREAM,
        &HELLO.replace("auto", "claude"),
        &HELLO.replace("hello", "refuse"),
    ] {
        let answer = gateway.chat(body).await;
        assert_eq!(
            answer.status,
            if body.contains("refuse") { 400 } else { 200 },
            "{answer:?}"
        );
        only_the_named(&answer);
    }
    let limited = Upstream::start(|_| {
        let more = format!("retry-after: 3\r\n{BACK}");
        response(
            "429 Too Many Requests",
            &more,
            "application/json",
            r#"{"error":{"message":"slow down"}}"#,
        )
    });
    let gateway = Gateway::real(&plan(&limited), ENV).await;
    let answer = gateway.chat(&HELLO.replace("auto", "one")).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("3")),
        "{answer:?}"
    );
    only_the_named(&answer);
}

#[tokio::test]
async fn a_redirect_is_a_fault_of_its_target_and_is_not_followed() {
    let trap = Trap::new();
    let to = trap.address();
    for status in [
        "300 Choices",
        "301 Moved",
        "302 Found",
        "303 See Other",
        "307 Temporary",
        "308 Permanent",
    ] {
        let upstream = Upstream::start(move |_| {
            let more = format!("location: http://{to}/v1/chat/completions\r\n");
            response(status, &more, "application/json", "{}")
        });
        let gateway = Gateway::real(&plan(&upstream), ENV).await;
        for body in [HELLO, HELLO_STREAM] {
            let body = &body.replace("auto", "one");
            let answer = gateway.chat(body).await;
            let error = &answer.json()["error"];
            assert_eq!(
                (answer.status, &error["code"]),
                (502, &"upstream_failed".into()),
                "{status}: {answer:?}"
            );
            let message = error["message"].as_str().unwrap();
            assert!(
                message.contains("redirects are not followed") && !message.contains(&to.to_string()),
                "{message}"
            );
        }
        assert_eq!(upstream.seen().len(), 2, "{status}");
        for record in gateway.end().await {
            let tried = &record["attempts"][0];
            assert_eq!(tried["outcome"], "target_fault", "{record}");
        }
    }
    assert!(!trap.was_called());
}
