//! Step 4, `decode`: the body, with a size limit and a progress timeout; its bytes to a [`Call`], once.
//!
//! It stands behind `auth`, so that nobody unknown makes us read. It never keeps a parsed tree: the raw bytes, a few
//! fields, and the spans where they stand. What is wrong is a 400 that names the field.

mod body;
mod facts;
mod scan;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use routing::facts::{CallKind, Facts};

pub use self::body::{Incoming, budget, read, share};
use crate::call::{Call, Parts};
use crate::error::{Error, Kind, Result};

/// `content-type` must be JSON, and nothing may be packed. A browser page can send JSON only after asking first, so this
/// also keeps pages out that never ask.
///
/// # Errors
/// 415.
pub fn check_type(headers: &HeaderMap) -> Result<()> {
    let value = headers
        .get(CONTENT_TYPE)
        .map_or("", |v| v.to_str().unwrap_or("?"));
    let essence = value.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let got = if value.is_empty() {
            "none was sent".to_owned()
        } else {
            format!("got `{}`", cut(value, 80))
        };
        return Err(Error::new(
            Kind::MediaType,
            format!("send `content-type: application/json`; {got}"),
        ));
    }
    match headers
        .get(CONTENT_ENCODING)
        .map(|v| v.to_str().unwrap_or("?").trim())
    {
        None | Some("" | "identity") => Ok(()),
        Some(other) => Err(Error::new(
            Kind::ContentEncoding,
            format!(
                "`content-encoding: {}` is not taken; send the body as it is",
                cut(other, 40)
            ),
        )),
    }
}

/// Bytes to a call and its cheap facts (tenant, key and tags are the caller's to fill in).
///
/// # Errors
/// 400 with the field's name.
pub fn decode(kind: CallKind, raw: Bytes, session_key: u64) -> Result<(Arc<Call>, Facts)> {
    let text = std::str::from_utf8(&raw).map_err(|e| {
        Error::new(
            Kind::BadJson,
            format!(
                "the body is not UTF-8 (byte {}); send JSON as UTF-8",
                e.valid_up_to()
            ),
        )
    })?;
    let scanned = scan::scan(kind, text)?;
    let (facts, last_turn) = facts::facts(kind, text, &scanned, session_key)?;
    let prompts = u16::try_from(facts.prompts()).unwrap_or(u16::MAX);
    let call = Call::new(Parts {
        kind,
        spans: scanned.spans,
        model: scanned.model,
        stream: scanned.stream,
        include_usage: scanned.include_usage,
        choices: scanned.choices.saturating_mul(prompts),
        prompts,
        max_output: scanned.max_output,
        last_turn,
        ignorable: scanned.ignorable,
        raw,
    });
    Ok((Arc::new(call), facts))
}

/// At most `max` bytes of a text, for messages.
pub(super) fn cut(text: &str, max: usize) -> &str {
    text.char_indices()
        .map(|(i, c)| i + c.len_utf8())
        .take_while(|end| *end <= max)
        .last()
        .map_or("", |end| &text[..end])
}

#[cfg(test)]
mod tests;
