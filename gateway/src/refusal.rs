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
        NoWay::ContextLength { kind, asked, most } => too_long(*kind, *asked, *most),
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

/// 400: longer than the longest context, in the words of the endpoint.
fn too_long(kind: CallKind, asked: u32, most: u32) -> Error {
    let (field, what, help) = match kind {
        CallKind::Chat => (
            "messages",
            "this request needs about",
            "(prompt and answer); shorten the messages or lower max_tokens",
        ),
        CallKind::Completion => (
            "prompt",
            "this request needs about",
            "(prompt and answer); shorten the prompt or lower max_tokens",
        ),
        CallKind::Embeddings => (
            "input",
            "a text of `input` has about",
            "for each text; split it into shorter ones",
        ),
    };
    let message = format!("{what} {asked} tokens, and the longest context here is {most} {help}");
    Error::new(Kind::ContextLength, message).param(field)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use routing::decide::{Query, Silent, Step, decide};
    use routing::plan::{self, BUILTIN, Plan};
    use routing::resolve::resolve;
    use routing::signals::Signals;
    use routing::units::Time;

    use super::*;
    use crate::steps::decode;

    /// What becomes of `/v1/embeddings` with this input: the name of who starts.
    fn embedded(plan: &Plan, model: &str, input: &serde_json::Value) -> Result<String, Error> {
        let body = serde_json::json!({"model": model, "input": input}).to_string();
        let (call, mut facts) = decode::decode(CallKind::Embeddings, Bytes::from(body), 0)?;
        facts.tenant = "default".into();
        let policy = resolve(plan, &*call.model, &facts).map_err(|e| of_resolve(&e))?;
        let query = Query {
            plan,
            policy: &policy,
            facts: &facts,
            signals: &Signals {
                now: Time::from_millis(1),
                ..Signals::default()
            },
            deadline: Time::from_millis(60_000),
            seed: 0,
        };
        match decide(&query, &mut Silent) {
            Step::Decided(decision) => Ok(decision
                .start
                .map_or("nobody".into(), |id| plan.target(id).name.to_string())),
            Step::Refused(no_way) => Err(of_decide(&no_way)),
            Step::Need { .. } => panic!("nothing has to be found out"),
        }
    }

    /// About a hundred tokens, most of a page's paragraph.
    const PARAGRAPH: &str = "The river rises in the hills north of the town and falls through seven locks before it reaches \
        the sea. Every lock has a keeper's house, and most of the houses are lived in still. Boats of up to thirty tons \
        go through from April until the first ice; in winter the gates stand open, and what the water carries goes \
        straight down to the weir by the mill, where it is taken out by hand.";

    #[test]
    fn thirty_paragraphs_are_embedded_with_the_plan_as_shipped() {
        let plan = plan::load(BUILTIN).unwrap().plan;
        let list = serde_json::json!(vec![PARAGRAPH; 30]);
        assert_eq!(
            embedded(&plan, "all-minilm-l6-v2", &list).unwrap(),
            "all-minilm-l6-v2"
        );
    }

    #[test]
    fn a_text_that_is_too_long_to_embed_is_told_of_in_words_of_embeddings() {
        let text = "version = 1\n[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n[targets.e]\n\
            provider = \"p\"\nmodel = \"e\"\ncontext = 256\nprice = \"unmetered\"\n";
        let plan = plan::load(text).unwrap().plan;
        let list = serde_json::json!(vec![PARAGRAPH; 30]);
        assert_eq!(embedded(&plan, "e", &list).unwrap(), "e", "each fits by itself");
        let one = serde_json::json!(PARAGRAPH.repeat(30));
        let error = embedded(&plan, "e", &one).unwrap_err();
        assert_eq!(
            (error.status().as_u16(), error.label(), error.param_name()),
            (400, "context_length_exceeded", Some("input"))
        );
        assert!(
            !error.message().contains("messages") && !error.message().contains("max_tokens"),
            "{error}"
        );
    }

    #[test]
    fn every_endpoint_is_told_which_field_is_too_long() {
        for (kind, field) in [
            (CallKind::Chat, "messages"),
            (CallKind::Completion, "prompt"),
            (CallKind::Embeddings, "input"),
        ] {
            let no = NoWay::ContextLength {
                kind,
                asked: 900,
                most: 256,
            };
            let error = of_decide(&no);
            assert_eq!(error.param_name(), Some(field));
            assert!(
                error.message().contains("900") && error.message().contains("256"),
                "{error}"
            );
        }
    }

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
