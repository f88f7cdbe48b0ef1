//! The caller of a case.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::case::{Case, Form};
use crate::caller::{self, Got, Leave};
use crate::client::Client;

/// The caller itself gives up after this.
const PATIENCE: Duration = Duration::from_secs(8);

/// The request of a case.
pub fn body(case: &Case) -> Value {
    let mut body = json!({
        "model": case.asks_for(),
        "max_tokens": 200,
        "messages": [{"role": "user", "content": case.prompt()}],
    });
    if let (Some(into), Some(extra)) = (body.as_object_mut(), case.extra.as_object()) {
        into.extend(extra.clone());
        if case.form == Form::Stream {
            into.insert("stream".into(), json!(true));
            into.insert("stream_options".into(), json!({"include_usage": true}));
        }
    }
    body
}

/// Asks once.
pub async fn ask(client: &Client, case: &Case) -> Got {
    let mut headers = HeaderMap::new();
    if let Some(ms) = case.deadline_ms {
        headers.insert("x-weir-deadline-ms", HeaderValue::from(ms));
    }
    let bytes = body(case).to_string().into();
    caller::ask(client, bytes, &headers, PATIENCE, Leave::Never).await
}
