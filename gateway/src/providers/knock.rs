//! One free question to a provider: is it there, does it take our key, and does it know the models that the plan names?

use ::http::Method;
use ::http::header::{ACCEPT, HeaderValue};
use bytes::Bytes;
use serde_json::Value;

use super::CallContext;
use super::failure::AttemptError;
use super::http::{Dialect, HttpTarget};
use super::pool::{Exchange, PooledBody};

/// Bytes of a list of models that are read.
const MAX_LIST: usize = 4 << 20;

/// What a provider said to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knocked {
    /// It lists its models.
    Lists(Vec<String>),
    /// It is there, and says no to the list itself, which says nothing of the models.
    NoList(u16),
    /// Something is wrong: a sentence with what to do next.
    Wrong(String),
}

impl HttpTarget {
    /// Asks the provider of this target for its list of models, which costs nothing anywhere.
    pub async fn knock(&self, ctx: &CallContext<'_>) -> Knocked {
        let list = match self.dialect() {
            Dialect::Openai => "/models",
            Dialect::Anthropic if self.endpoint().path().ends_with("/v1") => "/models",
            Dialect::Anthropic => "/v1/models",
        };
        let found = match self.get(list, ctx).await {
            Err(error) => return Knocked::Wrong(error.detail().to_owned()),
            Ok(found) => found,
        };
        match found {
            (200..=299, body) => match models(&body) {
                Some(models) => Knocked::Lists(models),
                None => Knocked::Wrong(format!(
                    "{} answered, but not with a list of models: {}",
                    self.endpoint().base(),
                    self.hint(ctx).await
                )),
            },
            // Its own words may quote the key.
            (status @ (401 | 403), _) => Knocked::Wrong(format!(
                "{} refuses the key with status {status}; check api_key",
                self.endpoint().base()
            )),
            (404, _) => match self.hint(ctx).await {
                hint if hint.is_empty() => Knocked::NoList(404),
                hint => Knocked::Wrong(format!("{} answered 404: {hint}", self.endpoint().base())),
            },
            (status @ 300..=399, _) => Knocked::Wrong(format!(
                "{} redirects with status {status}; redirects are not followed, correct base_url",
                self.endpoint().base()
            )),
            (status, _) => Knocked::NoList(status),
        }
    }

    /// Would it have been right with /v1, or without?
    async fn hint(&self, ctx: &CallContext<'_>) -> String {
        if self.endpoint().path().ends_with("/v1") {
            return String::new();
        }
        match self.get("/v1/models", ctx).await {
            Ok((status, body))
                if (200..=299).contains(&status) && models(&body).is_some() || status == 401 =>
            {
                "its API begins at /v1, so base_url should end in /v1".to_owned()
            }
            _ => String::new(),
        }
    }

    async fn get(&self, suffix: &str, ctx: &CallContext<'_>) -> Result<(u16, Bytes), AttemptError> {
        let target = self
            .endpoint()
            .target(suffix)
            .map_err(|e| AttemptError::new(super::failure::Fault::Off, e))?;
        let mut headers = self.plain_headers(ctx)?;
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let exchange = Exchange {
            endpoint: self.endpoint(),
            target,
            method: Method::GET,
            headers,
            body: Bytes::new(),
            connect: ctx.connect,
            may_resend: true,
        };
        let answer = exchange.send(ctx.pool).await?;
        Ok((answer.head.status.as_u16(), read(answer.body).await))
    }
}

async fn read(mut body: PooledBody) -> Bytes {
    let mut out = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        out.extend_from_slice(&data);
        if out.len() > MAX_LIST {
            break;
        }
    }
    out.into()
}

/// Names in `data[].id`, as OpenAI and Anthropic list them.
fn models(body: &[u8]) -> Option<Vec<String>> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let data = value.get("data")?.as_array()?;
    Some(
        data.iter()
            .filter_map(|m| m.get("id")?.as_str())
            .map(str::to_owned)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_other_things_are_none() {
        let list = br#"{"object":"list","data":[{"id":"a","object":"model"},{"id":"b"},{"name":"c"}]}"#;
        assert_eq!(models(list), Some(vec!["a".to_owned(), "b".to_owned()]));
        for other in [&b"<html>"[..], b"{}", b"{\"data\":{}}", b""] {
            assert_eq!(models(other), None);
        }
    }
}
