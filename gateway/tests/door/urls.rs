//! Nothing in a request makes the gateway fetch an address: addresses go to providers as the text that they are.

use gateway::providers::fake::Script;

use crate::harness::Gateway;
use crate::upstream::{Trap, Upstream, fine};

/// A question full of addresses.
fn question(model: &str, to: std::net::SocketAddr) -> String {
    format!(
        r#"{{"model":"{model}","messages":[{{"role":"user","content":[
            {{"type":"text","text":"what is on http://{to}/text ?"}},
            {{"type":"image_url","image_url":{{"url":"http://{to}/image.png"}}}}]}}],
            "user":"http://{to}/user","metadata":{{"callback":"http://{to}/callback"}},"webhook":"http://{to}/hook",
            "tools":[{{"type":"function","function":{{"name":"f","parameters":{{"$ref":"http://{to}/schema"}}}}}}]}}"#
    )
}

#[tokio::test]
async fn addresses_pass_to_providers_as_text() {
    let (trap, upstream) = (Trap::new(), Upstream::start(|asked| fine(asked, "")));
    let at = upstream.address;
    let gateway = Gateway::real(
        &format!(
            "version = 1\n[providers.o]\nkind = \"openai\"\nbase_url = \"http://{at}/v1\"\n\
             [providers.a]\nkind = \"anthropic\"\nbase_url = \"http://{at}\"\n\
             [targets.one]\nprovider = \"o\"\nmodel = \"m\"\nprice = \"unmetered\"\n\
             [targets.claude]\nprovider = \"a\"\nmodel = \"c\"\nprice = \"unmetered\"\n\
             [routes.auto]\ntiers = [[\"one\"]]\n"
        ),
        &[],
    )
    .await;
    for model in ["one", "claude"] {
        let answer = gateway.chat(&question(model, trap.address())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // Headers cannot send us elsewhere either.
    let elsewhere = trap.address().to_string();
    let more = [
        ("content-type", "application/json"),
        ("x-forwarded-host", elsewhere.as_str()),
        ("x-original-url", elsewhere.as_str()),
        ("forwarded", elsewhere.as_str()),
    ];
    let body = question("one", trap.address());
    let answer = gateway.ask("POST", "/v1/chat/completions", &more, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let absolute = format!("http://{elsewhere}/v1/chat/completions");
    let answer = gateway.ask("POST", &absolute, &more[..1], &body).await;
    assert_eq!(
        answer.status, 200,
        "the address of the request's line is ours: {answer:?}"
    );

    let seen = upstream.seen();
    assert_eq!(seen.len(), 4);
    let image = format!("http://{elsewhere}/image.png");
    assert!(seen[0].body.contains(&format!(r#"{{"url":"{image}"}}"#)));
    assert!(
        seen[1]
            .body
            .contains(&format!(r#""source":{{"type":"url","url":"{image}"}}"#)),
        "{}",
        seen[1].body
    );
    assert!(
        seen.iter()
            .all(|asked| asked.header("host") == Some(&at.to_string()))
    );
    assert!(!trap.was_called());
}

#[tokio::test]
async fn a_local_model_refuses_a_picture_by_address() {
    let trap = Trap::new();
    let plan = "version = 1\n[targets.small]\nprovider = \"local\"\nartifact = \"smollm2-135m-instruct-q4_1\"\n\
                [routes.auto]\ntiers = [[\"small\"]]\n";
    let gateway = Gateway::with(plan, Script::answer("never"), &[]).await;
    let body = question("auto", trap.address());
    let answer = gateway.chat(&body).await;
    let error = &answer.json()["error"];
    assert_eq!(
        (answer.status, &error["code"]),
        (400, &"unsupported_capability".into()),
        "{answer:?}"
    );
    assert!(gateway.fake.seen().is_empty() && !trap.was_called());
}
