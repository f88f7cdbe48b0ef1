//! What `routing` refuses, in the words and statuses of the wire.

use routing::decide::NoWay;
use routing::facts::CallKind;
use routing::resolve::ResolveError;

use crate::error::{Error, Kind};

/// A name or a rule gave no policy: 404, 403, 503, or 400 with the header's name.
pub fn of_resolve(e: &ResolveError) -> Error {
    let text = e.to_string();
    match e {
        ResolveError::UnknownModel { .. } => Error::new(Kind::UnknownModel, text).param("model"),
        ResolveError::NotAllowed { .. } => Error::new(Kind::ModelNotAllowed, text).param("model"),
        ResolveError::Denied { careful: true, .. } => Error::new(Kind::ClassifierFailed, text),
        ResolveError::Denied { .. } => Error::new(Kind::Denied, text),
        ResolveError::RefusedPin { .. } => Error::new(Kind::PinRefused, text).param("model"),
        ResolveError::NoSuchTier { .. } => Error::new(Kind::BadHeader, text).param("x-weir-min-tier"),
    }
}

/// No target can serve the request: 400, 403, 404 or 503.
pub fn of_decide(no_way: &NoWay) -> Error {
    match no_way {
        NoWay::Rule(e) => of_resolve(e),
        NoWay::Lacks { needs } => {
            let names: Vec<&str> = needs.names().collect();
            let message = format!(
                "no model that may answer this can do: {}. Ask for another model, or leave it out; `capabilities` of a target says what it can",
                names.join(", ")
            );
            Error::new(Kind::Capability, message)
        }
        NoWay::ContextLength { asked, most } => {
            let message = format!(
                "this request needs about {asked} tokens (prompt and answer), and the longest context here is {most}; shorten the messages or lower max_tokens"
            );
            Error::new(Kind::ContextLength, message).param("messages")
        }
        NoWay::MaxOutput { asked, most } => {
            let message = format!("max_tokens is {asked}, and the most that a model here may give is {most}");
            Error::new(Kind::BadField, message).param("max_tokens")
        }
        NoWay::DoesNotServe(kind) => {
            let what = match kind {
                CallKind::Chat => "chat",
                CallKind::Completion => "completions",
                CallKind::Embeddings => "embeddings",
            };
            let message = format!("no model behind this name serves {what}; GET /v1/models lists others");
            Error::new(Kind::Capability, message).param("model")
        }
        NoWay::PriceUnknown => Error::new(
            Kind::PriceUnknown,
            "a usd_per_day limit applies, and no model that is left has a price in the plan (a service_tier other than the \
             default has none: leave it out); give it one, or price = \"unmetered\"",
        ),
        NoWay::Busy { wait_ms } => {
            let message = format!(
                "the local model's queue is longer than the time left: about {wait_ms} ms until it could begin; try again later"
            );
            Error::new(Kind::LocalQueueFull, message).retry_after(std::time::Duration::from_millis(*wait_ms))
        }
        NoWay::MinTier { floor, why } => {
            let why = why.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
            let message = format!(
                "no model at tier {floor} or above is on{why}, and a lower one is not allowed here; ask for a lower tier \
                 with x-weir-min-tier, or mend the plan's targets or min_tier"
            );
            Error::new(Kind::MinTier, message)
        }
        NoWay::AllOff { why } => Error::new(
            Kind::NoTarget,
            format!("no model that may answer this is on: {why}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_that_nobody_reaches_has_its_own_code() {
        let why = Some("OPENAI_API_KEY is not set".into());
        let error = of_decide(&NoWay::MinTier { floor: 1, why });
        assert_eq!(
            (error.status().as_u16(), error.label()),
            (503, "min_tier_not_available")
        );
        assert!(error.message().contains("OPENAI_API_KEY"), "{error}");
    }
}
