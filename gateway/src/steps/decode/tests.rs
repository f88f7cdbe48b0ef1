use super::*;
use routing::facts::Needs;

fn chat(body: &str) -> Result<(Arc<Call>, Facts)> {
    decode(CallKind::Chat, Bytes::copy_from_slice(body.as_bytes()), 1)
}
fn good(body: &str) -> (Arc<Call>, Facts) {
    chat(body).unwrap()
}
#[track_caller]
fn refused(body: &str, kind: Kind, param: Option<&str>) {
    let e = chat(body).unwrap_err();
    assert_eq!((e.kind(), e.param_name()), (kind, param), "{e:?}");
}

const HI: &str = r#""messages":[{"role":"user","content":"hi"}]"#;

#[test]
fn spans_and_fields() {
    let body = format!(
        r#" {{ "model" : "auto", "stream":true,"stream_options":{{"include_usage":true}},{HI},"user":"me","n":2}}"#
    );
    let (call, facts) = good(&body);
    assert_eq!(&*call.model, "auto");
    assert!(call.stream && call.include_usage && facts.stream);
    assert_eq!(call.value("model"), Some(&b"\"auto\""[..]));
    assert_eq!(call.choices, 2);
    assert_eq!(call.ignorable_names().collect::<Vec<_>>(), ["user"]);
    assert_eq!(call.last_turn_text(), "hi");
    let key = call.spans.get(&call.raw, "stream").unwrap().key;
    assert_eq!(key.of(&call.raw), b"\"stream\"");
    assert_eq!(facts.last_turn_bytes, 2);
}

/// Both are billed by the provider, whatever the caller's limits think of `n`.
#[test]
fn what_multiplies_a_bill_is_a_fact() {
    let of = |more: &str| {
        let body = format!("{{\"model\":\"m\",\"prompt\":\"x\"{more}}}");
        let (_, facts) = decode(CallKind::Completion, Bytes::from(body), 0).unwrap();
        (facts.best_of, facts.service_tier)
    };
    assert_eq!(of(""), (0, false));
    assert_eq!(of(",\"best_of\":8"), (8, false));
    assert_eq!(of(",\"best_of\": 7.2e0 "), (8, false));
    assert_eq!(of(",\"best_of\":null,\"service_tier\":\"auto\""), (0, false));
    assert_eq!(of(",\"service_tier\":\"priority\""), (0, true));
    assert_eq!(
        of(",\"service_tier\":\"pr\\u0069ority\""),
        (0, true),
        "in doubt it is dear"
    );
}

#[test]
fn a_cut_leaves_json() {
    let (call, _) = good(&format!(r#"{{"user":"a", "model":"m" ,{HI} , "n":1}}"#));
    for i in 0..call.spans.fields.len() {
        let cut = call.spans.cut(i).unwrap();
        let mut left = call.raw.to_vec();
        left.drain(cut.start as usize..cut.end as usize);
        let value: serde_json::Value = serde_json::from_slice(&left).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 3);
    }
}

#[test]
fn an_escaped_key_is_the_same_key() {
    let (call, _) = good(&format!(r#"{{"mod\u0065l":"auto",{HI}}}"#));
    assert_eq!(&*call.model, "auto");
    assert_eq!(call.spans.fields[0].name(&call.raw), "model");
    refused(
        &format!(r#"{{"model":"a","mod\u0065l":"b",{HI}}}"#),
        Kind::BadField,
        Some("model"),
    );
}

#[test]
fn not_json() {
    for body in [
        "",
        "nope",
        "[1]",
        "\"x\"",
        r#"{"model":"auto","messages":[{"role":"user","content":"h"#,
        "{}x",
        "{\"a\":NaN}",
    ] {
        let e = chat(body).unwrap_err();
        assert!(matches!(e.kind(), Kind::BadJson), "{body}: {e:?}");
    }
    let e = decode(CallKind::Chat, Bytes::from_static(b"{\"model\":\"\xff\"}"), 1).unwrap_err();
    assert_eq!(e.kind(), Kind::BadJson);
}

#[test]
fn deep_nesting_is_refused_and_many_brackets_are_not() {
    let deep = format!(
        r#"{{"model":"auto",{HI},"x":{}1{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    refused(&deep, Kind::BadJson, None);
    let wide = format!(
        r#"{{"model":"auto",{HI},"x":[{}1],"y":"[[[{{{{\"["}}"#,
        "[],".repeat(10_000)
    );
    good(&wide);
    let quoted = format!(
        r#"{{"model":"auto",{HI},"x":"{}","y":"\\\\"}}"#,
        r#"\"[ \\ ["#.repeat(200)
    );
    good(&quoted);
    // A string's end is found: what stands behind it counts.
    let behind = format!(
        r#"{{"model":"auto",{HI},"x":"\\","y":{}1{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    refused(&behind, Kind::BadJson, None);
}

#[test]
fn values_of_the_wrong_kind_name_their_field() {
    for (field, value) in [
        ("n", "1000"),
        ("n", "0"),
        ("n", "1.5"),
        ("max_tokens", "-1"),
        ("max_tokens", "1e400"),
        ("max_completion_tokens", "\"5\""),
        ("temperature", "1e999"),
        ("temperature", "3"),
        ("temperature", "\"hot\""),
        ("top_p", "-0.1"),
        ("top_p", "1.1"),
        ("max_tokens", "0"),
        ("max_completion_tokens", "0"),
        ("presence_penalty", "2.1"),
        ("frequency_penalty", "-2.1"),
        ("seed", "123456789012345678901234567890"),
        ("stream", "\"yes\""),
        ("stop", "7"),
        ("stop", r#"["a","b","c","d","e"]"#),
        ("stream_options", "[]"),
        ("tools", "{}"),
        ("response_format", "\"json\""),
        ("top_logprobs", "21"),
        ("top_logprobs", "3"),
    ] {
        refused(
            &format!(r#"{{"model":"auto",{HI},"{field}":{value}}}"#),
            Kind::BadField,
            Some(field),
        );
    }
    refused(&format!(r#"{{"model":7,{HI}}}"#), Kind::BadField, Some("model"));
    refused(&format!(r#"{{"model":"",{HI}}}"#), Kind::BadField, Some("model"));
    refused(&format!("{{{HI}}}"), Kind::MissingField, Some("model"));
    refused(r#"{"model":"auto"}"#, Kind::MissingField, Some("messages"));
    good(&format!(
        r#"{{"model":"auto",{HI},"n":null,"max_tokens":null,"tools":null,"stop":null,"stream":null}}"#
    ));
}

#[test]
fn messages_are_looked_at_one_by_one() {
    for (messages, param) in [
        ("[]", "messages"),
        ("{}", "messages"),
        ("[1]", "messages[0]"),
        (
            r#"[{"role":"user","content":"a"},{"role":"robot","content":"b"}]"#,
            "messages[1].role",
        ),
        (r#"[{"content":"a"}]"#, "messages[0].role"),
        (r#"[["user","hi"]]"#, "messages[0]"),
        (
            r#"[{"role":"user","content":[["text","a"]]}]"#,
            "messages[0].content",
        ),
        (r#"[{"role":"user"}]"#, "messages[0].content"),
        (r#"[{"role":"user","content":5}]"#, "messages[0].content"),
        (r#"[{"role":"user","content":[]}]"#, "messages[0].content"),
        (
            r#"[{"role":"user","content":[{"type":"text"}]}]"#,
            "messages[0].content.text",
        ),
        (r#"[{"role":"user","content":"a","content":"b"}]"#, "messages[0]"),
    ] {
        refused(
            &format!(r#"{{"model":"auto","messages":{messages}}}"#),
            Kind::BadField,
            Some(param),
        );
    }
}

#[test]
fn needs() {
    let needs = |rest: &str| good(&format!(r#"{{"model":"auto",{HI},{rest}}}"#)).1.needs;
    assert_eq!(
        needs(r#""tools":[{"type":"function","function":{"name":"f"}}]"#),
        Needs::TOOLS
    );
    assert_eq!(needs(r#""tools":[]"#), Needs::default());
    assert!(needs(r#""tools":[{"type":"web_search"}]"#).contains(Needs::EFFECTS));
    assert_eq!(
        needs(r#""response_format":{"type":"json_schema","json_schema":{}}"#),
        Needs::JSON_SCHEMA
    );
    assert_eq!(needs(r#""response_format":{"type":"text"}"#), Needs::default());
    assert_eq!(needs(r#""logit_bias":{"5":1}"#), Needs::PROVIDER_FIELDS);
    assert_eq!(needs(r#""logit_bias":{}"#), Needs::default());
    assert_eq!(needs(r#""store":true"#), Needs::EFFECTS);
    assert_eq!(
        needs(r#""store":false,"metadata":{},"user":"x""#),
        Needs::default()
    );
    assert_eq!(needs(r#""logprobs":true"#), Needs::LOGPROBS);
    let image = r#"{"model":"auto","messages":[{"role":"user","content":[{"type":"text","text":"what is it"},{"type":"image_url","image_url":{"url":"data:"}}]}]}"#;
    let (call, facts) = good(image);
    assert_eq!(facts.needs, Needs::VISION);
    assert_eq!(call.last_turn_text(), "what is it");
    let prefill =
        r#"{"model":"auto","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
    assert_eq!(good(prefill).1.needs, Needs::PREFILL);
    assert_eq!(good(prefill).0.last_turn_text(), "a");
}

#[test]
fn cheap_looks_at_the_text() {
    let of = |text: &str| {
        let body = serde_json::json!({"model": "auto", "messages": [{"role": "user", "content": text}]});
        good(&body.to_string()).1
    };
    assert!(of("```rust\nfn main() {}\n```").has_code);
    assert!(of("why does this fail?\ndef f(x):\n    return x").has_code);
    assert!(!of("Which class should I import into my life?").has_code);
    assert!(
        of("what is 12 + 30?").has_math && of("17*3=").has_math && of("How many apples are left?").has_math
    );
    assert!(!of("We met on 2024-10-11 in room 4/5.").has_math);
    assert!(of("4 - 1").has_math && of("is 4 / 2 even").has_math && of("2+ 2").has_math);
    for text in ["4  - 1", "a + 1", "1 +", "+ 1", "4 -1", "-", ""] {
        assert!(!of(text).has_math, "{text}");
    }
    for word in facts::SUM_WORDS {
        let word = std::str::from_utf8(word).unwrap();
        let cut = &word[..word.len() - 1];
        assert!(of(&format!("please {word}")).has_math, "{word}");
        assert!(of(&format!("Re{}ing", word.to_uppercase())).has_math, "{word}");
        assert!(
            !of(&format!("please {cut}")).has_math && !of(cut).has_math,
            "{word}"
        );
    }
    let filler = "na\u{ef}ve words ".repeat(1_500);
    for (text, seen) in [
        (format!("{filler} What is 12 + 30?"), true),
        (format!("What is 12 + 30? {filler}"), true),
        (format!("{filler} What is 12 + 30? {filler}"), false),
    ] {
        assert_eq!(of(&text).has_math, seen);
    }
    let long = of(&"word ".repeat(400));
    assert!((450..650).contains(&long.prompt_tokens), "{}", long.prompt_tokens);
}

#[test]
fn a_session_is_the_system_prompt_and_the_first_turn() {
    let of = |body: &str| good(body).1.session;
    let first =
        r#"{"model":"auto","messages":[{"role":"system","content":"s"},{"role":"user","content":"a"}]}"#;
    let later = r#"{"model":"auto","messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}"#;
    assert_eq!(of(first), of(later));
    assert_ne!(of(first), of(&first.replace("\"a\"", "\"z\"")));
    let keyed = |turn: &str| {
        of(&format!(
            r#"{{"model":"auto","prompt_cache_key":"k","messages":[{{"role":"user","content":"{turn}"}}]}}"#
        ))
    };
    assert_eq!(keyed("x"), keyed("y"));
}

#[test]
fn prompts_and_inputs() {
    let of = |kind, body: &str| decode(kind, Bytes::copy_from_slice(body.as_bytes()), 1);
    assert_eq!(
        of(CallKind::Embeddings, r#"{"model":"m","input":["a","b"]}"#)
            .unwrap()
            .1
            .turns,
        2
    );
    assert_eq!(
        of(CallKind::Embeddings, r#"{"model":"m","input":[1,2,3]}"#)
            .unwrap()
            .1
            .prompt_tokens,
        3
    );
    assert_eq!(
        of(CallKind::Embeddings, r#"{"model":"m","input":[[1],[2]]}"#)
            .unwrap()
            .1
            .turns,
        2
    );
    for bad in [r#""""#, "[]", "{}", "7", r#"["a",1]"#] {
        let e = of(CallKind::Embeddings, &format!(r#"{{"model":"m","input":{bad}}}"#)).unwrap_err();
        assert_eq!(e.param_name(), Some("input"), "{bad}");
    }
    let (call, facts) = of(
        CallKind::Completion,
        r#"{"model":"m","prompt":"once upon","logprobs":2}"#,
    )
    .unwrap();
    assert_eq!(call.last_turn_text(), "once upon");
    assert_eq!(facts.needs, Needs::LOGPROBS);
}

#[test]
fn types_of_the_body() {
    let check = |pairs: &[(&str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        check_type(&headers).map_err(|e| e.kind())
    };
    assert_eq!(
        check(&[("content-type", "Application/JSON; charset=utf-8")]),
        Ok(())
    );
    assert_eq!(check(&[]), Err(Kind::MediaType));
    assert_eq!(check(&[("content-type", "text/plain")]), Err(Kind::MediaType));
    let packed = [("content-type", "application/json"), ("content-encoding", "gzip")];
    assert_eq!(check(&packed), Err(Kind::ContentEncoding));
}

proptest::proptest! {
    #[test]
    fn takes_what_serde_takes(text in "[ -~]{0,60}", key in "[a-z]{1,6}", tail in "[\\PC]{0,20}") {
        let body = format!(r#"{{"model":"auto","{key}":{text},{HI},"z":"{tail}"}}"#);
        let ours = chat(&body).map(drop);
        let theirs = serde_json::from_str::<serde_json::Value>(&body);
        if theirs.is_err() {
            proptest::prop_assert!(ours.is_err());
        } else if let Err(e) = ours {
            // Ours refuses more: doubles and wrong kinds, never as "not JSON".
            proptest::prop_assert!(e.kind() != Kind::BadJson, "{e:?}");
        }
    }
}
