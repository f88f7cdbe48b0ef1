//! What one address may do before anybody knows who it is, and what one tenant may hold.

use gateway::providers::fake::Script;

use crate::harness::{Gateway, PLAN, eventually, request};

const BODY: &str = r#"{"model":"auto","messages":[{"role":"user","content":"hi"}]}"#;
const ENV: &[(&str, &str)] = &[("KEY_A", "key-a"), ("KEY_B", "key-b")];
const KEYS: &str = "[[keys]]\nname = \"a\"\nkey = \"env:KEY_A\"\ntenant = \"a\"\n\
    [[keys]]\nname = \"b\"\nkey = \"env:KEY_B\"\ntenant = \"b\"\n";

/// With these lines in `[server]`, and keys for two tenants.
fn plan(server: &str) -> String {
    let server = format!("[server]\nauth = \"keys\"\n{server}\n");
    format!("{}{KEYS}", PLAN.replace("[server]\n", &server))
}

async fn with(server: &str) -> Gateway {
    Gateway::with(&plan(server), Script::answer("hello"), ENV).await
}

fn keyed(key: &str) -> [(&str, &str); 2] {
    [("content-type", "application/json"), ("x-api-key", key)]
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_the_next_is_told() {
    let gateway = with("per_address = { connections = 3 }").await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut wire = gateway.connect().await;
        wire.send("POST", "/v1/chat/completions", &keyed("key-a"), BODY)
            .await;
        assert_eq!(wire.answer().await.status, 200);
        held.push(wire);
    }
    let mut one_more = gateway.connect().await;
    let told = one_more.answer().await;
    assert_eq!(told.status, 503);
    assert!(
        told.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("server.per_address connections")
    );
    drop(held.pop());
    let mut last = None;
    for _ in 0..200 {
        let mut wire = gateway.connect().await;
        wire.send("POST", "/v1/chat/completions", &keyed("key-a"), BODY)
            .await;
        let status = wire.answer().await.status;
        last = Some(status);
        if status == 200 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(last, Some(200), "a place that was given back");
}

#[tokio::test]
async fn wrong_keys_are_counted_by_address_and_right_ones_pass() {
    let gateway = with("per_address = { wrong_keys_per_minute = 5 }").await;
    let ask = |key: &'static str| gateway.ask_keyed(key);
    for _ in 0..5 {
        assert_eq!(ask("guess").await.status, 401);
    }
    let told = ask("guess").await;
    assert_eq!(told.status, 429);
    assert_eq!(told.json()["error"]["code"], "address_wrong_keys");
    let wait: u64 = told.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    assert_eq!(
        told.header("x-should-retry"),
        Some("false"),
        "the key stays wrong"
    );
    assert_eq!(
        ask("key-a").await.status,
        200,
        "who has a key is not locked out by who guesses"
    );
    let page = gateway.app.telemetry().render();
    assert!(
        page.contains(r#"weir_over_limit_total{owner="address",limit="wrong_keys_per_minute"} 1"#),
        "{page}"
    );
}

#[tokio::test]
async fn requests_are_counted_by_address_before_anything_is_looked_at() {
    let gateway = with("per_address = { requests_per_minute = 2 }").await;
    for key in ["key-a", "nobody's"] {
        assert_ne!(gateway.ask_keyed(key).await.status, 429);
    }
    for path in ["/nowhere", "/v1/models"] {
        assert_eq!(gateway.ask("GET", path, &[], "").await.status, 429, "{path}");
    }
    for key in ["key-b", "nobody's"] {
        let told = gateway.ask_keyed(key).await;
        assert_eq!(
            (told.status, &told.json()["error"]["code"]),
            (429, &"address_requests_per_minute".into())
        );
        assert!(told.header("retry-after").is_some());
    }
}

/// Two bodies of `a` wait for their last byte; its share is one and a half of them.
#[tokio::test]
async fn a_tenant_that_holds_its_share_of_bodies_does_not_hold_everybodys() {
    let server = "max_body_bytes = 2_048\nmax_body_bytes_in_flight = 6_000\ntenant_body_share = 0.5";
    let gateway = with(server).await;
    let long = format!(
        r#"{{"model":"auto","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(1_900)
    );
    let open = |key: &'static str| {
        let whole = request("POST", "/v1/chat/completions", &keyed(key), &long);
        whole[..whole.len() - 1].to_owned()
    };
    let mut first = gateway.connect().await;
    first.raw(open("key-a").as_bytes()).await;
    let app = gateway.app.clone();
    eventually("the first body is held", || app.bodies().used() > 1_900).await;
    let refused = gateway
        .ask("POST", "/v1/chat/completions", &keyed("key-a"), &long)
        .await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (503, &"tenant_bytes_in_flight".into())
    );
    let other = gateway
        .ask("POST", "/v1/chat/completions", &keyed("key-b"), &long)
        .await;
    assert_eq!(other.status, 200, "{:?}", other.json());
    first.raw(b"}").await;
    assert_eq!(first.answer().await.status, 200);
    eventually("all is given back", || app.bodies().used() == 0).await;
}

/// Heads announce more than there is room for, and no byte of a body comes: that holds nothing.
#[tokio::test]
async fn what_is_announced_and_not_sent_takes_nobodys_room() {
    let server = "max_body_bytes = 2_048\nmax_body_bytes_in_flight = 6_000\ntenant_body_share = 1.0";
    let gateway = with(server).await;
    let long = format!(
        r#"{{"model":"auto","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(1_900)
    );
    let whole = request("POST", "/v1/chat/completions", &keyed("key-a"), &long);
    let head = &whole[..whole.len() - long.len()];
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut wire = gateway.connect().await;
        wire.raw(head.as_bytes()).await;
        silent.push(wire);
    }
    let app = gateway.app.clone();
    eventually("all of them wait", || {
        app.in_flight().load(std::sync::atomic::Ordering::Relaxed) == 8
    })
    .await;
    assert_eq!(app.bodies().used(), 0);
    let other = gateway
        .ask("POST", "/v1/chat/completions", &keyed("key-a"), &long)
        .await;
    assert_eq!(other.status, 200, "{:?}", other.json());
}

impl Gateway {
    async fn ask_keyed(&self, key: &str) -> crate::harness::Answer {
        self.ask("POST", "/v1/chat/completions", &keyed(key), BODY).await
    }
}
