//! What is planted, where it is planted, and a provider that quotes all of it.

use std::path::Path;

use base64::Engine as _;

use crate::upstream::{Asked, fine, response};

/// Names of what is planted. Nobody but who is meant may learn any of it.
pub const SECRETS: &[&str] = &[
    "provider-key",
    "provider-file-key",
    "provider-proxied-key",
    "provider-unsendable-key",
    "provider-tls-key",
    "provider-replaced-key",
    "header-token",
    "proxy-password",
    "odd-proxy-password",
    "env-proxy-password",
    "caller-key",
    "caller-file-key",
    "admin-token",
    "wrong-caller-key",
    "wrong-admin-token",
    "caller-cookie",
    "caller-query",
    "caller-idempotency",
    "typed-into-the-plan",
];
/// What a caller says: its own answer may quote it, and nothing else.
pub const PROMPTS: &[&str] = &["key-in-a-prompt", "key-in-a-tool", "key-in-metadata"];

/// The planted value.
pub fn mark(name: &str) -> String {
    format!("sk-Planted-{name}-4f7Q1z9X")
}

/// Which of them stand in a text, in whatever letters, or as the credentials of a proxy.
pub fn found(text: &str, names: &[&'static str]) -> Vec<&'static str> {
    let lower = text.to_lowercase();
    let basic = |name: &str| base64::engine::general_purpose::STANDARD.encode(format!("me:{}", mark(name)));
    let stands =
        |name: &&&'static str| lower.contains(&mark(name).to_lowercase()) || text.contains(&basic(name));
    names.iter().filter(stands).copied().collect()
}

/// A provider that quotes everything that it was sent: in all the ways in which providers say no.
pub fn quoting(asked: &Asked) -> String {
    let headers: Vec<String> = asked.headers.iter().map(|(n, v)| format!("{n}: {v}")).collect();
    let text = format!("you sent {} and {}", headers.join(", "), asked.body);
    let key = asked
        .header("authorization")
        .or(asked.header("x-api-key"))
        .unwrap_or_default();
    let key = key.trim_start_matches("Bearer ");
    let error = serde_json::json!({"type": "error", "error": {"message": text, "type": key, "code": key, "param": key}});
    let error = error.to_string();
    let json = "application/json";
    let more = format!("x-ratelimit-limit-requests: {key}\r\nx-request-id: {key}\r\n");
    let says = |what: &str| asked.body.contains(&format!("\"model\":\"{what}\""));
    match () {
        () if says("m-400") => response("400 Bad Request", &more, json, &error),
        () if says("m-401") => response("401 Unauthorized", &more, json, &error),
        () if says("m-429") => response("429 Too Many Requests", &more, json, &error),
        () if says("m-500") => response("500 Internal Server Error", &more, json, &error),
        () if says("m-text") => response("400 Bad Request", &more, "text/plain", &text),
        () if says("m-page") => response("200 OK", &more, "text/html", &text),
        () if says("m-type") => response("200 OK", &more, &format!("{key}/x"), "{}"),
        () if says("m-packed") => response(
            "200 OK",
            &format!("{more}content-encoding: {key}\r\n"),
            json,
            "{}",
        ),
        () if says("m-shape") => {
            let body = format!(r#"{{"id":"c","content":[],"usage":{{"input_tokens":"{key}"}}}}"#);
            response("200 OK", &more, json, &body)
        }
        () if says("m-inband") => response("200 OK", &more, json, &error),
        () if says("m-event") => response(
            "200 OK",
            &more,
            "text/event-stream",
            &format!("event: error\ndata: {error}\n\n"),
        ),
        () if says("m-late") => {
            let first = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"so \"}}]}\n\n";
            response(
                "200 OK",
                &more,
                "text/event-stream",
                &format!("{first}data: {error}\n\n"),
            )
        }
        () => fine(asked, ""),
    }
}

/// Models that the provider answers with a quoting refusal.
pub const REFUSING: &[&str] = &[
    "400", "401", "429", "500", "text", "page", "type", "packed", "inband", "event", "late", "shape",
];

pub fn plan(home: &Path, at: &str, tls: &str) -> String {
    let home = home.display();
    let mut text = format!(
        r#"version = 1
[server]
auth = "keys"
admin_token = "env:P_ADMIN"
drain_delay_ms = 0
[telemetry]
log = "trace"
[retry]
same_target = 0
[[keys]]
name = "team"
key = "env:P_CALLER"
tenant = "blue"
[[keys]]
name = "filed"
key = "file:{home}/caller.key"
tenant = "green"
[providers.open]
kind = "openai"
base_url = "http://{at}/v1"
api_key = "env:P_OPEN"
headers = {{ "x-org-token" = "env:P_HEADER", "x-team" = "blue" }}
[providers.claude]
kind = "anthropic"
base_url = "http://{at}"
api_key = "file:{home}/claude.key"
[providers.proxied]
kind = "openai"
base_url = "http://upstream.invalid/v1"
api_key = "env:P_PROXIED"
proxy = "env:P_PROXY"
[providers.odd-proxy]
kind = "openai"
base_url = "http://upstream.invalid/v1"
proxy = "env:P_ODD_PROXY"
[providers.env-proxied]
kind = "openai"
base_url = "http://elsewhere.invalid/v1"
[providers.unsendable]
kind = "openai"
base_url = "http://{at}/v1"
api_key = "env:P_UNSENDABLE"
[providers.tls]
kind = "openai"
base_url = "https://{tls}/v1"
api_key = "env:P_TLS"
[targets.fine]
provider = "open"
model = "fine"
price = "unmetered"
[routes.auto]
tiers = [["fine"]]
"#
    );
    let others = [
        "claude",
        "proxied",
        "odd-proxy",
        "env-proxied",
        "unsendable",
        "tls",
    ];
    let mut target = |name: String, provider: &str, model: &str| {
        text += &format!(
            "[targets.{name}]\nprovider = \"{provider}\"\nmodel = \"{model}\"\nprice = \"unmetered\"\n"
        );
    };
    for refusing in REFUSING {
        let provider = if *refusing == "shape" { "claude" } else { "open" };
        target(format!("m-{refusing}"), provider, &format!("m-{refusing}"));
    }
    target("claude-400".to_owned(), "claude", "m-400");
    target("proxied-400".to_owned(), "proxied", "m-400");
    for provider in others {
        target(format!("t-{provider}"), provider, "fine");
    }
    text
}
