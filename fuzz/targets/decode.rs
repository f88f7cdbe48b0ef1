//! Request bodies: whatever decodes is valid JSON with spans that stand where they say, and survives its way to a provider
//! with nothing changed but what is meant to be.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use gateway::call::{Call, CallKind, Span};
use gateway::providers::{anthropic, openai};
use gateway::steps::decode::decode;
use libfuzzer_sys::fuzz_target;
use routing::continuation::{Sent, Way};
use routing::plan::Params;
use serde_json::Value;
use serde_json::value::RawValue;

/// A plan that bends what is sent.
static BENT: LazyLock<Params> = LazyLock::new(|| {
    let pair = |a: &str, b: &str| (Arc::from(a), Arc::from(b));
    Params {
        rename: vec![
            pair("max_tokens", "max_completion_tokens"),
            pair("seed", "model_seed"),
        ],
        drop: vec!["user".into(), "stream_options".into()],
        default: vec![pair("top_k", "40"), pair("n", "1")],
    }
});

fuzz_target!(|data: &[u8]| {
    for kind in [CallKind::Chat, CallKind::Completion, CallKind::Embeddings] {
        let raw = Bytes::copy_from_slice(data);
        if let Ok((call, facts)) = decode(kind, raw, 7) {
            assert_eq!((call.kind, &*call.raw), (kind, data));
            assert_eq!((facts.kind, facts.stream), (kind, call.stream));
            assert_eq!(u32::from(call.prompts), facts.prompts().min(u32::from(u16::MAX)));
            assert_eq!(call.choices, facts.choices.saturating_mul(call.prompts));
            spans(&call);
            let whole: Option<Value> = serde_json::from_slice(data).ok();
            if let Some(whole) = &whole {
                fields(&call, whole);
            }
            sent(&call, whole.as_ref());
            gone_on(&call);
        }
    }
});

/// Every field lies inside the body, behind the one before, and is what serde reads there.
fn spans(call: &Call) {
    let raw = &call.raw;
    let inside = |span: Span| {
        assert!(
            span.start <= span.end && span.end as usize <= raw.len(),
            "{span:?}"
        );
        std::str::from_utf8(span.of(raw)).expect("whole characters")
    };
    let theirs: Vec<(String, Box<RawValue>)> = members(raw);
    assert_eq!(theirs.len(), call.spans.fields.len());
    let mut behind = call.spans.open;
    for (field, (name, value)) in call.spans.fields.iter().zip(&theirs) {
        assert!(field.key.start >= behind && field.value.start > field.key.end);
        behind = field.value.end;
        let key: String = serde_json::from_str(inside(field.key)).expect("a key");
        assert_eq!((field.name(raw), &*key), (&**name, &**name));
        assert_eq!(inside(field.value), value.get());
        assert_eq!(call.value(name), Some(value.get().as_bytes()));
    }
    for index in 0..call.spans.fields.len() {
        let cut = call.spans.cut(index).expect("a field that is there");
        let rest = [
            raw.get(..cut.start as usize).expect("inside"),
            raw.get(cut.end as usize..).expect("inside"),
        ]
        .concat();
        let left = members(&rest);
        let others = theirs.iter().enumerate().filter(|(i, _)| *i != index);
        assert!(
            left.iter().map(|(n, _)| n).eq(others.map(|(_, (n, _))| n)),
            "{index}"
        );
    }
    if let Some(last) = call.last_turn {
        let value: &RawValue = serde_json::from_str(inside(last)).expect("a value");
        let text = call.last_turn_text();
        if value.get().starts_with('"')
            && let Ok(plain) = serde_json::from_str::<String>(value.get())
        {
            assert_eq!(text, plain);
        }
    }
    for span in &call.ignorable {
        inside(*span);
    }
    assert_eq!(call.ignorable_names().count(), call.ignorable.len());
}

/// The members of an object in their order.
fn members(raw: &[u8]) -> Vec<(String, Box<RawValue>)> {
    struct Members(Vec<(String, Box<RawValue>)>);
    impl<'de> serde::Deserialize<'de> for Members {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            struct All;
            impl<'de> serde::de::Visitor<'de> for All {
                type Value = Members;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<Members, M::Error> {
                    let mut all = Vec::new();
                    while let Some(member) = map.next_entry()? {
                        all.push(member);
                    }
                    Ok(Members(all))
                }
            }
            d.deserialize_map(All)
        }
    }
    let members: Members = serde_json::from_slice(raw).expect("what decodes is an object");
    members.0
}

/// What was read early is what stands there.
fn fields(call: &Call, whole: &Value) {
    assert_eq!(whole["model"].as_str(), Some(&*call.model));
    assert_eq!(whole["stream"].as_bool().unwrap_or(false), call.stream);
    let asked = whole["stream_options"]["include_usage"]
        .as_bool()
        .unwrap_or(false);
    assert_eq!(asked, call.include_usage);
    if call.kind != CallKind::Embeddings {
        let number = |name: &str| whole[name].as_u64();
        // Each prompt of a completion's list has as many answers as were asked for.
        let prompts = match &whole["prompt"] {
            Value::Array(list) if call.kind == CallKind::Completion && !list.iter().any(Value::is_number) => {
                list.len()
            }
            _ => 1,
        };
        assert_eq!(prompts, usize::from(call.prompts));
        let answers = number("n").unwrap_or(1).saturating_mul(prompts as u64);
        assert_eq!(answers.min(u64::from(u16::MAX)), u64::from(call.choices));
        // Both may stand there: the larger one is what the answer can come to.
        let most = number("max_completion_tokens").max(number("max_tokens"));
        assert_eq!(most, call.max_output.map(u64::from));
    }
    if call.kind == CallKind::Chat
        && let Some(last) = call.last_turn
    {
        let turns = whole["messages"].as_array().expect("messages");
        let user = turns
            .iter()
            .rev()
            .find(|t| t["role"] == "user")
            .expect("a user's turn");
        let content: Value = serde_json::from_slice(last.of(&call.raw)).expect("JSON");
        assert_eq!(content, user["content"]);
    }
}

/// On the way to a provider only the model changes, and what the plan bends.
fn sent(call: &Call, whole: Option<&Value>) {
    let plain = openai::request::body(call, "up \"stream\"", &Params::default());
    let theirs: BTreeMap<String, Box<RawValue>> = members(&call.raw).into_iter().collect();
    let ours = once(&plain);
    for (name, value) in &theirs {
        match name.as_str() {
            "model" => assert_eq!(ours[name].get(), r#""up \"stream\"""#),
            "stream_options" if call.stream && call.kind != CallKind::Embeddings => {}
            _ => assert_eq!(ours[name].get(), value.get(), "{name}"),
        }
    }
    let asks = call.stream && call.kind != CallKind::Embeddings;
    let added = usize::from(asks && !theirs.contains_key("stream_options"));
    assert_eq!(ours.len(), theirs.len() + added);
    if asks {
        let options: Value = serde_json::from_str(ours["stream_options"].get()).unwrap_or_default();
        if whole.is_some() {
            assert_eq!(options["include_usage"], true);
        }
    }
    let bent = once(&openai::request::body(call, "m", &BENT));
    assert!(
        !["user", "max_tokens", "seed"]
            .iter()
            .any(|name| bent.contains_key(*name))
    );
    assert!(bent.contains_key("top_k") && bent.contains_key("n") && bent["model"].get() == "\"m\"");
    // Another dialect's is valid JSON, or the call cannot be said in it.
    if let Ok(other) = anthropic::encode::body(call, "m", Some(64), &Params::default()) {
        let other: Value = serde_json::from_slice(&other).expect("JSON");
        assert_eq!(other["model"], "m");
        assert!(other["messages"].is_array() && other["max_tokens"].as_u64().is_some());
    }
}

/// Members by name, none of them twice.
fn once(body: &[u8]) -> BTreeMap<String, Box<RawValue>> {
    let list = members(body);
    let count = list.len();
    let map: BTreeMap<_, _> = list.into_iter().collect();
    assert_eq!(map.len(), count, "a name stands twice in what is sent");
    map
}

/// A stream that breaks is gone on with by a call that is sound like the first.
fn gone_on(call: &Call) {
    let mut so_far = Sent::default();
    so_far.text("Once \"upon\" a ");
    for way in [Way::Prefill, Way::Whole, Way::Instruct] {
        if let Some(again) = call.to_go_on(way, &so_far, 3) {
            let all = once(&again.raw);
            for field in &again.spans.fields {
                assert_eq!(
                    all[field.name(&again.raw)].get().as_bytes(),
                    field.value.of(&again.raw)
                );
            }
            assert!(again.spans.fields.len() == all.len() && all.contains_key("model"));
        }
    }
}
