//! Which requests are the same: tenant, policy and the body in a canonical form.
//!
//! Canonical is what the caller wrote, its fields in order of their names, without white space between them, and without
//! those that change how an answer is told but not what it says. Nothing is unescaped or reordered inside of a value: two
//! bodies that mean the same but are written differently are two keys, which costs a hit and never a wrong one.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use routing::facts::{CallKind, Facts, Needs};
use routing::resolve::Policy;

use crate::call::Call;

/// Fields that say how an answer is delivered, or for whom, and nothing of what it says.
const NOT_ASKED_FOR: [&str; 4] = ["stream", "stream_options", "user", "metadata"];

/// One question. Compared by its hash first, and then byte by byte.
#[derive(Clone, Debug)]
pub struct Key {
    hash: u128,
    bytes: Arc<[u8]>,
}

impl Key {
    /// Of a request.
    pub fn of(call: &Call, tenant: &str, policy: &Policy) -> Self {
        let mut bytes = Vec::with_capacity(call.raw.len() + tenant.len() + 32);
        bytes.push(match call.kind {
            CallKind::Chat => b'c',
            CallKind::Completion => b'p',
            CallKind::Embeddings => b'e',
        });
        bytes.extend_from_slice(&policy.fingerprint.0.to_le_bytes());
        put(tenant.as_bytes(), &mut bytes);
        canonical(call, |name| !NOT_ASKED_FOR.contains(&name), &mut bytes);
        Self::new(&bytes)
    }

    /// Of a request that its caller has named (`idempotency-key`).
    pub fn named(tenant: &str, name: &str) -> Self {
        let mut bytes = Vec::with_capacity(tenant.len() + name.len() + 16);
        bytes.push(b'i');
        put(tenant.as_bytes(), &mut bytes);
        put(name.as_bytes(), &mut bytes);
        Self::new(&bytes)
    }

    fn new(bytes: &[u8]) -> Self {
        Self {
            hash: xxhash_rust::xxh3::xxh3_128(bytes),
            bytes: bytes.into(),
        }
    }

    /// Bytes that it takes.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }

    /// The upper half of its hash, to choose one of several tables by.
    pub fn shard(&self) -> usize {
        (self.hash >> 64) as usize
    }

    #[cfg(test)]
    pub(super) fn colliding(hash: u128, bytes: &[u8]) -> Self {
        Self {
            hash,
            bytes: bytes.into(),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}
impl Eq for Key {}
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.hash);
    }
}

/// The fields of a body that `wanted` names, but never those that say how the answer is delivered, in order of their names.
pub(super) fn asked_for(call: &Call, wanted: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    canonical(
        call,
        |name| wanted(name) && !NOT_ASKED_FOR.contains(&name),
        &mut bytes,
    );
    bytes
}

fn canonical(call: &Call, wanted: impl Fn(&str) -> bool, bytes: &mut Vec<u8>) {
    let mut fields: Vec<(&str, &[u8])> = call
        .spans
        .fields
        .iter()
        .map(|f| (f.name(&call.raw), f.value.of(&call.raw)))
        .filter(|(name, _)| wanted(name))
        .collect();
    fields.sort_unstable();
    for (name, value) in fields {
        put(name.as_bytes(), bytes);
        let at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        squeeze(value, bytes);
        let len = (bytes.len() - at - 4) as u32;
        if let Some(place) = bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&len.to_le_bytes());
        }
    }
}

/// With its length in front, so that nothing can be read as something else.
fn put(part: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(part.len() as u32).to_le_bytes());
    out.extend_from_slice(part);
}

/// A JSON value without the white space outside of its strings.
pub(super) fn squeeze(value: &[u8], out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(&byte) = rest.first() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => rest = &rest[1..],
            b'"' => {
                let len = string_len(rest);
                let (string, tail) = rest.split_at(len);
                out.extend_from_slice(string);
                rest = tail;
            }
            _ => {
                let plain = |b: &u8| !matches!(b, b' ' | b'\t' | b'\n' | b'\r' | b'"');
                let len = rest.iter().take_while(|b| plain(b)).count();
                let (run, tail) = rest.split_at(len);
                out.extend_from_slice(run);
                rest = tail;
            }
        }
    }
}

/// Bytes of the string that stands at the front, quotes included.
fn string_len(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(next) = memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += next;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

/// May an answer to this be given to somebody else who asks the same?
///
/// It is what the model says whenever it is asked (temperature 0, a seed, an embedding), or the route says that one of its
/// answers is as good as another (`sampled`). Never a request with effects, and none whose answer the neutral events cannot
/// say whole (sound, the older form of tool calls, what a search found today).
pub fn is_shareable(call: &Call, facts: &Facts, policy: &Policy) -> bool {
    let given = |name: &str| call.value(name).is_some_and(|v| v != b"null");
    let same = facts.deterministic || policy.cache.sampled || call.kind == CallKind::Embeddings;
    let barred = [Needs::EFFECTS, Needs::AUDIO];
    same && !policy.pinned
        && !barred.iter().any(|need| facts.needs.contains(*need))
        && !["functions", "web_search_options", "modalities"]
            .into_iter()
            .any(given)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use routing::resolve::resolve;

    use super::*;
    use crate::testing;

    const PLAN: &str = "[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
        [targets.m]\nprovider = \"p\"\nmodel = \"m\"\nprice = \"unmetered\"\n\
        [routes.auto]\ntiers = [[\"m\"]]\n[routes.other]\ntiers = [[\"m\"]]\nverify = []\n";

    fn key(body: &str) -> Key {
        keyed(body, "a", "auto")
    }

    fn keyed(body: &str, tenant: &str, route: &str) -> Key {
        let facts = Facts::default();
        let policy = resolve(&testing::plan(PLAN), route, &facts).unwrap();
        Key::of(&testing::call(body), tenant, &policy)
    }

    const BASE: &str = r#"{"model":"auto","messages":[{"role":"user","content":"a b"}],"temperature":0}"#;

    #[test]
    fn how_it_is_delivered_and_written_is_not_part_of_it() {
        for same in [
            r#"{ "temperature": 0, "model" : "auto",
                "messages": [ {"role": "user", "content": "a b"} ] }"#,
            r#"{"model":"auto","stream":true,"stream_options":{"include_usage":true},"user":"u","metadata":{"a":"b"},"messages":[{"role":"user","content":"a b"}],"temperature":0}"#,
        ] {
            assert_eq!(key(BASE), key(same), "{same}");
        }
    }

    #[test]
    fn everything_else_is() {
        for other in [
            r#"{"model":"auto","messages":[{"role":"user","content":"ab"}],"temperature":0}"#,
            r#"{"model":"auto","messages":[{"role":"user","content":"a  b"}],"temperature":0}"#,
            r#"{"model":"auto","messages":[{"role":"user","content":"a b"}],"temperature":0.1}"#,
            r#"{"model":"auto","messages":[{"role":"user","content":"a b"}],"temperature":0,"seed":1}"#,
            r#"{"model":"auto","messages":[{"role":"user","content":"a b"}],"temperature":0,"max_tokens":9}"#,
        ] {
            assert_ne!(key(BASE), key(other), "{other}");
        }
        assert_ne!(key(BASE), keyed(BASE, "b", "auto"), "another tenant");
        assert_ne!(key(BASE), keyed(BASE, "a", "other"), "another policy");
        assert_ne!(Key::named("a", "bc"), Key::named("ab", "c"));
    }

    #[test]
    fn equal_hashes_of_different_bytes_are_different_keys() {
        let (a, b) = (Key::colliding(1, b"a"), Key::colliding(1, b"b"));
        assert_ne!(a, b);
        let map = std::collections::HashMap::from([(a.clone(), 1)]);
        assert_eq!((map.get(&a), map.get(&b)), (Some(&1), None));
    }

    proptest! {
        /// Squeezed text is the same JSON value, and squeezing again changes nothing.
        #[test]
        fn squeezing_keeps_the_value(text in ".{0,40}", number in any::<i32>()) {
            let value = serde_json::json!({"a b": [text, number, {"c\"": null}], "d": "x\\"});
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            let mut out = Vec::new();
            squeeze(&pretty, &mut out);
            prop_assert_eq!(&out, &serde_json::to_vec(&value).unwrap());
            let mut again = Vec::new();
            squeeze(&out, &mut again);
            prop_assert_eq!(out, again);
        }

        /// Whatever the bytes are, it ends.
        #[test]
        fn squeezing_ends(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            squeeze(&bytes, &mut Vec::new());
        }
    }
}
