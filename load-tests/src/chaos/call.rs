//! What is asked: every request follows from the run's seed and its own number, and so does the answer that it must get.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::house::{ARGUMENTS, ROUTES, Route, Speaks};
use crate::caller::Leave;
use crate::provider::generate_text;

/// The caller's deadline where it says one, and the plan's where it does not.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Words.
    Text,
    /// A JSON value.
    Json,
    /// A tool call.
    Tool,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Its number, from 0.
    pub n: u64,
    /// Index into [`ROUTES`].
    pub route: usize,
    /// A stream, or a whole answer.
    pub stream: bool,
    /// What the answer is.
    pub form: Form,
    /// What the caller says, and what it must be answered (a tool call has [`ARGUMENTS`]).
    pub words: String,
    /// The caller goes away before the end.
    pub leave: Leave,
    /// It says how long it waits, in place of the plan.
    pub says_deadline: bool,
    /// Temperature 0.
    pub cold: bool,
    /// It wants usage at a stream's end.
    pub usage: bool,
}

/// How often each route is asked, in ROUTES' order.
const SHARES: [u32; ROUTES.len()] = [25, 20, 15, 10, 20, 10];

impl Call {
    /// Request number `n`: the same for the same seed, whatever else goes on.
    pub fn draw(seed: u64, n: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut at = rng.random_range(0..SHARES.iter().sum());
        let route = SHARES
            .iter()
            .position(|share| {
                let here = at < *share;
                at = at.saturating_sub(*share);
                here
            })
            .unwrap_or(0);
        Self::of(route, n, &mut rng)
    }

    /// Request `n` to that route; it stays to the end.
    pub fn to(route: usize, seed: u64, n: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            leave: Leave::Never,
            ..Self::of(route, n, &mut rng)
        }
    }

    fn of(route: usize, n: u64, rng: &mut StdRng) -> Self {
        let speaks = ROUTES.get(route).map_or(Speaks::Text, |r| r.speaks);
        let form = match speaks {
            Speaks::Text => Form::Text,
            Speaks::TextOrJson if rng.random_range(0..3) > 0 => Form::Text,
            Speaks::TextOrJson => Form::Json,
            Speaks::Tool => Form::Tool,
        };
        let text = generate_text(rng.random_range(0..u64::MAX), rng.random_range(12..48));
        let words = match form {
            Form::Json => json!({"request": n, "words": text}).to_string(),
            Form::Text | Form::Tool => format!("Request {n}. {text}"),
        };
        let leave = match rng.random_range(0..40) {
            0..2 => Leave::AfterPieces(rng.random_range(1..8)),
            2 => Leave::After(Duration::from_millis(rng.random_range(0..120))),
            _ => Leave::Never,
        };
        Self {
            n,
            route,
            stream: rng.random_range(0..10) < 6,
            form,
            words,
            leave,
            says_deadline: rng.random_range(0..2) == 0,
            cold: rng.random_range(0..2) == 0,
            usage: rng.random_range(0..2) == 0,
        }
    }

    /// Whom it names.
    pub fn route(&self) -> &'static Route {
        ROUTES.get(self.route).unwrap_or(&ROUTES[0])
    }

    /// A name for it in `traceparent`: found again in the record and in the providers' logs.
    pub fn trace(&self, seed: u64) -> String {
        // All zeros would be no trace id.
        format!("{seed:016x}{:016x}", self.n + 1)
    }

    /// Its headers.
    pub fn headers(&self, seed: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let trace = format!("00-{}-{:016x}-01", self.trace(seed), self.n + 1);
        headers
            .extend(HeaderValue::from_str(&trace).map(|v| (http::HeaderName::from_static("traceparent"), v)));
        if self.says_deadline {
            let ms = u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX);
            headers.insert("x-weir-deadline-ms", HeaderValue::from(ms));
        }
        headers
    }

    /// Its body.
    pub fn body(&self) -> Bytes {
        let mut body = json!({
            "model": self.route().name,
            "messages": [{"role": "user", "content": self.words}],
            "max_tokens": 400,
        });
        let mut set = |key: &str, value: Value| {
            if let Some(body) = body.as_object_mut() {
                body.insert(key.to_owned(), value);
            }
        };
        if self.cold {
            set("temperature", json!(0));
        }
        if self.stream {
            set("stream", json!(true));
            if self.usage {
                set("stream_options", json!({"include_usage": true}));
            }
        }
        match self.form {
            Form::Text => {}
            Form::Json => {
                let schema = json!({"type": "object", "required": ["request", "words"], "additionalProperties": false,
                    "properties": {"request": {"type": "integer"}, "words": {"type": "string"}}});
                set(
                    "response_format",
                    json!({"type": "json_schema", "json_schema": {"name": "echo", "strict": true, "schema": schema}}),
                );
            }
            Form::Tool => {
                let parameters = json!({"type": "object", "required": ["river"],
                    "properties": {"river": {"type": "string"}, "level": {"type": "integer"}}});
                set(
                    "tools",
                    json!([{"type": "function", "function": {"name": "look_up", "parameters": parameters}}]),
                );
            }
        }
        body.to_string().into()
    }

    /// Its answer: text, and arguments of a tool call.
    pub fn answer(&self) -> (&str, &str) {
        match self.form {
            Form::Text | Form::Json => (&self.words, ""),
            Form::Tool => ("", ARGUMENTS),
        }
    }

    /// The finish reason that it ends with.
    pub fn finish(&self) -> &'static str {
        match self.form {
            Form::Text | Form::Json => "stop",
            Form::Tool => "tool_calls",
        }
    }

    /// For people.
    pub fn about(&self) -> String {
        let kind = if self.stream { "stream" } else { "whole" };
        let leaves = match self.leave {
            Leave::Never => String::new(),
            leave => format!(", leaves: {leave:?}"),
        };
        format!(
            "request {} to {} ({kind}, {:?}{leaves})",
            self.n,
            self.route().name,
            self.form
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_request_follows_from_seed_and_number_and_no_two_are_alike() {
        let draw = |seed| (0..2_000).map(|n| Call::draw(seed, n)).collect::<Vec<_>>();
        let calls = draw(1);
        assert_eq!(calls, draw(1));
        assert_ne!(calls, draw(2));
        let words: HashSet<&str> = calls.iter().map(|c| c.words.as_str()).collect();
        assert_eq!(words.len(), calls.len());
        for (route, meant) in SHARES.iter().enumerate() {
            let of = calls.iter().filter(|c| c.route == route);
            let share = of.count() as f64 / calls.len() as f64;
            assert!(
                (share - f64::from(*meant) / 100.0).abs() < 0.03,
                "{route}: {share}"
            );
        }
        for form in [Form::Text, Form::Json, Form::Tool] {
            assert!(calls.iter().any(|c| c.form == form && c.stream));
            assert!(calls.iter().any(|c| c.form == form && !c.stream));
        }
        let leaving = calls.iter().filter(|c| c.leave != Leave::Never).count();
        assert!((90..220).contains(&leaving), "{leaving}");
    }
}
