//! `Debug` of what holds a secret, or what somebody said: names and sizes, and nothing of it.

use std::sync::Arc;

use bytes::Bytes;
use gateway::call::CallKind;
use gateway::providers::Client;
use gateway::providers::failure::{AttemptError, Fault, UpstreamError};
use gateway::providers::http::{ExtraHeader, HttpTarget, ProviderKey};
use gateway::providers::pool::{Endpoint, Exchange, Proxy, ProxyEnv};
use gateway::runtime::secrets::Secrets;

const MARK: &str = "sk-planted-4f7Q1z9X";

#[test]
fn nothing_prints_what_it_must_not_tell() {
    let with_password = format!("http://me:{MARK}@127.0.0.1:3128");
    let env = ProxyEnv::read(|name| (!name.eq_ignore_ascii_case("no_proxy")).then(|| with_password.clone()));
    let endpoint = Endpoint::new("http://api.example/v1", None, Some(&with_password), &env).unwrap();
    let key = ProviderKey::new(Some(MARK.to_owned()));
    let header = ExtraHeader {
        name: "x-token".into(),
        value: MARK.to_owned(),
        secret: true,
    };
    let plan = routing::plan::load(
        "version = 1\n[providers.p]\nkind = \"openai\"\nbase_url = \"http://api.example/v1\"\napi_key = \"env:KEY\"\n\
         [targets.t]\nprovider = \"p\"\nmodel = \"m\"\n[routes.auto]\ntiers = [[\"t\"]]\n",
    )
    .unwrap()
    .plan;
    let target = HttpTarget::new(
        &plan.targets[0],
        endpoint.clone(),
        Arc::clone(&key),
        std::slice::from_ref(&header),
    );
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", MARK.parse().unwrap());
    let body = format!(
        r#"{{"model":"auto","messages":[{{"role":"user","content":"{MARK}"}}],"metadata":{{"a":"{MARK}"}}}}"#
    );
    let (call, facts) = gateway::steps::decode::decode(CallKind::Chat, Bytes::from(body), 1).unwrap();
    let error = AttemptError::new(Fault::Status(400), "t answered 400").with_upstream(UpstreamError {
        message: MARK.to_owned(),
        ..UpstreamError::default()
    });
    let mut store = models::store::Settings::from_env();
    store.hub_token = Some(MARK.to_owned());
    let secrets = Secrets::new(Arc::new(|_| Some(MARK.to_owned())));
    let exchange = Exchange {
        endpoint: &endpoint,
        target: endpoint.target("/chat/completions").unwrap(),
        method: http::Method::POST,
        headers,
        body: call.raw.clone(),
        connect: std::time::Duration::from_secs(1),
        may_resend: true,
    };
    let printed = [
        ("proxies of the environment", format!("{env:?}")),
        ("a proxy", format!("{:?}", Proxy::parse(&with_password))),
        ("an endpoint", format!("{endpoint:?}")),
        ("a key", format!("{key:?}")),
        ("a header", format!("{header:?}")),
        (
            "a target",
            format!("{:?}", target.map(|t| Client::Http(Arc::new(t)))),
        ),
        ("an exchange", format!("{exchange:?}")),
        ("a call", format!("{call:?}")),
        ("its facts", format!("{facts:?}")),
        ("a failed try", format!("{error:?} {error}")),
        ("a plan", format!("{plan:?}")),
        (
            "secrets",
            format!("{secrets:?} {:?}", secrets.var("KEY").is_some()),
        ),
        ("the store's settings", format!("{store:?}")),
    ];
    let basic = "bWU6c2stcGxhbnRlZC00ZjdRMXo5WA==";
    for (what, text) in printed {
        assert!(!text.contains(MARK) && !text.contains(basic), "{what}: {text}");
        assert!(!text.is_empty(), "{what}");
    }
}
