//! What must be equal, byte by byte, before two requests are compared at all.

use std::sync::Arc;

/// Longest canonical form of a partition. A longer conversation is not worth a semantic look-up: hardly anybody has the
/// same one, and its bytes would have to be kept.
pub const MAX_BYTES: usize = 32 * 1024;

/// All of a request but its last user turn, in canonical form. Each part is compared byte by byte: two requests that differ
/// in any of them never share an answer, however alike their questions are.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Who pays.
    pub tenant: &'a str,
    /// The policy's fingerprint: route, tiers, rules, verification.
    pub policy: u64,
    /// Which vectors are alike (`embedding_space`, or the encoder's artifact).
    pub space: &'a str,
    /// System prompt and all turns before the last user turn, with their roles.
    pub context: &'a [u8],
    /// Tools and `tool_choice`.
    pub tools: &'a [u8],
    /// Everything else that the answer may depend on: sampling, `max_tokens`, `response_format`, `seed`, `stop`, ...
    pub parameters: &'a [u8],
    /// ISO 639-1 code of the last user turn where it is known for sure, else zeros. Short questions often leave it open;
    /// the guards compare languages once more.
    pub language: [u8; 2],
}

/// A partition's identity. Equal only when every byte of every part is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    bytes: Arc<[u8]>,
    /// Where tenant and policy end.
    scope: usize,
}

impl Partition {
    /// `None` when it is longer than [`MAX_BYTES`]: such a request is not looked up.
    pub fn of(parts: &Parts<'_>) -> Option<Partition> {
        let policy = parts.policy.to_le_bytes();
        let all: [&[u8]; 7] = [
            parts.tenant.as_bytes(),
            &policy,
            parts.space.as_bytes(),
            parts.context,
            parts.tools,
            parts.parameters,
            &parts.language,
        ];
        let length: usize = all.iter().map(|part| part.len() + 8).sum();
        if length > MAX_BYTES {
            return None;
        }
        let mut bytes = Vec::with_capacity(length);
        let mut scope = 0;
        for (at, part) in all.iter().enumerate() {
            // With its length before it, no part can be taken for the beginning of the next one.
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
            if at == 1 {
                scope = bytes.len();
            }
        }
        Some(Partition {
            bytes: bytes.into(),
            scope,
        })
    }

    /// Tenant and policy: what one error bound is kept over.
    pub fn scope(&self) -> &[u8] {
        self.bytes.get(..self.scope).unwrap_or_default()
    }

    /// Bytes of its canonical form.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// The tenant that stands in a [`Partition::scope`].
pub(super) fn tenant(scope: &[u8]) -> String {
    let Some((length, rest)) = scope.split_first_chunk::<8>() else {
        return String::new();
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    String::from_utf8_lossy(rest.get(..length).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts<'static> {
        Parts {
            tenant: "a",
            policy: 7,
            space: "minilm",
            context: b"system",
            tools: b"[]",
            parameters: b"{}",
            language: *b"en",
        }
    }

    #[test]
    fn every_part_counts() {
        let base = Partition::of(&parts()).unwrap();
        assert_eq!(
            (tenant(base.scope()), tenant(&[1, 2])),
            ("a".to_owned(), String::new())
        );
        let others = [
            Parts {
                tenant: "b",
                ..parts()
            },
            Parts { policy: 8, ..parts() },
            Parts {
                space: "other",
                ..parts()
            },
            Parts {
                context: b"System",
                ..parts()
            },
            Parts {
                tools: b"[ ]",
                ..parts()
            },
            Parts {
                parameters: b"{\"n\":1}",
                ..parts()
            },
            Parts {
                language: *b"de",
                ..parts()
            },
        ];
        assert_eq!(base, Partition::of(&parts()).unwrap());
        for other in &others {
            assert_ne!(base, Partition::of(other).unwrap(), "{other:?}");
        }
    }

    #[test]
    fn no_part_runs_into_the_next() {
        let one = Parts {
            context: b"ab",
            tools: b"c",
            ..parts()
        };
        let two = Parts {
            context: b"a",
            tools: b"bc",
            ..parts()
        };
        assert_ne!(Partition::of(&one), Partition::of(&two));
    }

    #[test]
    fn the_bound_is_kept_over_tenant_and_policy() {
        let scope = |parts: Parts<'_>| Partition::of(&parts).unwrap().scope().to_vec();
        assert_eq!(
            scope(parts()),
            scope(Parts {
                context: b"x",
                ..parts()
            })
        );
        assert_ne!(
            scope(parts()),
            scope(Parts {
                tenant: "b",
                ..parts()
            })
        );
        assert_ne!(scope(parts()), scope(Parts { policy: 9, ..parts() }));
    }

    #[test]
    fn a_long_conversation_is_left_out() {
        let long = vec![b'x'; MAX_BYTES];
        assert_eq!(
            Partition::of(&Parts {
                context: &long,
                ..parts()
            }),
            None
        );
    }
}
