//! The golden table: what providers really say, and what it means.

use super::*;

use CallerFault as C;
use Outcome as O;
use TargetFault as T;

struct Row(u16, &'static str, &'static str, &'static str, Outcome);

/// status, code, type, message, meaning.
const TABLE: &[Row] = &[
    // OpenAI
    Row(
        401,
        "invalid_api_key",
        "invalid_request_error",
        "Incorrect API key provided: sk-x. You can find your API key at https://platform.openai.com/account/api-keys.",
        O::TargetFault(T::Auth),
    ),
    Row(
        403,
        "unsupported_country_region_territory",
        "request_forbidden",
        "Country, region, or territory not supported",
        O::TargetFault(T::Auth),
    ),
    Row(
        403,
        "model_not_found",
        "invalid_request_error",
        "Project `proj_x` does not have access to model `gpt-4o`",
        O::TargetFault(T::ModelNotFound),
    ),
    Row(
        404,
        "model_not_found",
        "invalid_request_error",
        "The model `gpt-9` does not exist or you do not have access to it.",
        O::TargetFault(T::ModelNotFound),
    ),
    Row(
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
        O::TargetFault(T::Quota),
    ),
    Row(
        429,
        "billing_hard_limit_reached",
        "invalid_request_error",
        "Billing hard limit has been reached",
        O::TargetFault(T::Quota),
    ),
    Row(
        429,
        "rate_limit_exceeded",
        "tokens",
        "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 41000. The input or output tokens must be reduced in order to run successfully.",
        O::TargetFault(T::RateLimited),
    ),
    Row(
        429,
        "rate_limit_exceeded",
        "requests",
        "Rate limit reached for gpt-4o-mini on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.",
        O::TargetFault(T::RateLimited),
    ),
    Row(
        400,
        "context_length_exceeded",
        "invalid_request_error",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130001 tokens. Please reduce the length of the messages.",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        400,
        "",
        "invalid_request_error",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        400,
        "unsupported_parameter",
        "invalid_request_error",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "unsupported_value",
        "invalid_request_error",
        "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported.",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "",
        "invalid_request_error",
        "Unrecognized request argument supplied: top_k",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "content_policy_violation",
        "image_generation_user_error",
        "Your request was rejected as a result of our safety system.",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        400,
        "invalid_type",
        "invalid_request_error",
        "Invalid type for 'messages[0].content': expected one of a string or array of objects, but got an integer instead.",
        O::CallerFault(C::InvalidRequest),
    ),
    Row(
        400,
        "invalid_value",
        "invalid_request_error",
        "max_tokens is too large: 200000. This model supports at most 16384 completion tokens, whereas you provided 200000.",
        O::CallerFault(C::InvalidRequest),
    ),
    Row(
        404,
        "",
        "invalid_request_error",
        "No such File object: file-abc123",
        O::CallerFault(C::InvalidRequest),
    ),
    Row(
        500,
        "",
        "server_error",
        "The server had an error while processing your request. Sorry about that!",
        O::TargetFault(T::ServerError),
    ),
    Row(
        503,
        "",
        "server_error",
        "The engine is currently overloaded, please try again later",
        O::TargetFault(T::Overloaded),
    ),
    // Azure
    Row(
        400,
        "content_filter",
        "",
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt and retry.",
        O::CallerFault(C::ContentFilter),
    ),
    // Anthropic
    Row(
        400,
        "",
        "invalid_request_error",
        "prompt is too long: 208310 tokens > 200000 maximum",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        400,
        "",
        "invalid_request_error",
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length or `max_tokens` and try again",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        400,
        "",
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.",
        O::TargetFault(T::Quota),
    ),
    Row(
        400,
        "",
        "invalid_request_error",
        "Output blocked by content filtering policy",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        400,
        "",
        "invalid_request_error",
        "metadata.team: Extra inputs are not permitted",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "",
        "invalid_request_error",
        "This model does not support assistant message prefill. The conversation must end with a user message.",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "",
        "invalid_request_error",
        "messages: roles must alternate between \"user\" and \"assistant\"",
        O::CallerFault(C::InvalidRequest),
    ),
    Row(
        401,
        "",
        "authentication_error",
        "invalid x-api-key",
        O::TargetFault(T::Auth),
    ),
    Row(
        402,
        "",
        "billing_error",
        "There is an issue with your billing or payment information.",
        O::TargetFault(T::Quota),
    ),
    Row(
        403,
        "",
        "permission_error",
        "Your API key does not have permission to use the specified resource.",
        O::TargetFault(T::Auth),
    ),
    Row(
        404,
        "",
        "not_found_error",
        "model: claude-9",
        O::TargetFault(T::ModelNotFound),
    ),
    Row(
        413,
        "",
        "request_too_large",
        "Request exceeds the maximum allowed number of bytes.",
        O::CallerFault(C::TooLarge),
    ),
    Row(
        429,
        "",
        "rate_limit_error",
        "This request would exceed your organization's rate limit of 40,000 input tokens per minute.",
        O::TargetFault(T::RateLimited),
    ),
    Row(
        500,
        "",
        "api_error",
        "Internal server error",
        O::TargetFault(T::ServerError),
    ),
    Row(
        529,
        "",
        "overloaded_error",
        "Overloaded",
        O::TargetFault(T::Overloaded),
    ),
    // Self-hosted servers
    Row(
        404,
        "404",
        "NotFoundError",
        "The model `llama` does not exist.",
        O::TargetFault(T::ModelNotFound),
    ),
    Row(
        404,
        "",
        "api_error",
        "model \"llama9\" not found, try pulling it first",
        O::TargetFault(T::ModelNotFound),
    ),
    Row(
        400,
        "400",
        "BadRequestError",
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        400,
        "400",
        "exceed_context_size_error",
        "the request exceeds the available context size, try increasing it",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        500,
        "",
        "",
        "the request exceeds the available context size",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        422,
        "",
        "validation",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 200 `max_new_tokens`",
        O::CallerFault(C::ContextOverflow),
    ),
    // Classes
    // Others, each by one word alone
    Row(
        400,
        "billing_not_active",
        "",
        "Your account is not active.",
        O::TargetFault(T::Quota),
    ),
    Row(
        400,
        "billing_hard_limit_reached",
        "invalid_request_error",
        "Billing hard limit has been reached",
        O::TargetFault(T::Quota),
    ),
    Row(400, "insufficient_quota", "", "", O::TargetFault(T::Quota)),
    Row(500, "", "billing_error", "", O::TargetFault(T::Quota)),
    Row(
        403,
        "",
        "",
        "Your team has either used all available credits or reached its monthly spending limit.",
        O::TargetFault(T::Quota),
    ),
    Row(
        429,
        "",
        "",
        "You exceeded your current quota, please check your plan and billing details.",
        O::TargetFault(T::Quota),
    ),
    Row(
        403,
        "",
        "",
        "Credits: credit balance is too low",
        O::TargetFault(T::Quota),
    ),
    Row(
        429,
        "429",
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota. Please retry in 34.07s.",
        O::TargetFault(T::RateLimited),
    ),
    Row(
        429,
        "429",
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota: requests per minute.",
        O::TargetFault(T::RateLimited),
    ),
    Row(
        429,
        "429",
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota: GenerateRequestsPerMinutePerProject",
        O::TargetFault(T::RateLimited),
    ),
    Row(
        500,
        "",
        "",
        "The model is overloaded.",
        O::TargetFault(T::Overloaded),
    ),
    Row(
        500,
        "",
        "",
        "We are at capacity. Try again soon.",
        O::TargetFault(T::Overloaded),
    ),
    Row(404, "", "", "model not found", O::TargetFault(T::ModelNotFound)),
    Row(
        404,
        "",
        "invalid_request_error",
        "The model `text-old-1` has been deprecated, learn more.",
        O::TargetFault(T::ModelNotFound),
    ),
    Row(
        400,
        "context_length_exceeded",
        "",
        "",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        400,
        "",
        "exceed_context_size_error",
        "",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        400,
        "",
        "",
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        400,
        "",
        "BadRequestError",
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        400,
        "",
        "ValidationException",
        "Input is too long for requested model.",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        400,
        "",
        "",
        "too many tokens: size limit exceeded by 100 tokens",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        400,
        "",
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        422,
        "",
        "validation",
        "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(
        400,
        "",
        "invalid_request_error",
        "Please reduce the length of the messages or completion.",
        O::CallerFault(C::ContextOverflow),
    ),
    Row(400, "content_filter", "", "", O::CallerFault(C::ContentFilter)),
    Row(
        400,
        "content_policy_violation",
        "",
        "",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        400,
        "moderation_blocked",
        "",
        "",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        400,
        "ResponsibleAIPolicyViolation",
        "",
        "",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        400,
        "data_inspection_failed",
        "",
        "Input data may contain inappropriate content.",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        400,
        "",
        "",
        "This triggered the content management policy.",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        400,
        "",
        "",
        "Your request was rejected as a result of our safety system.",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        400,
        "invalid_prompt",
        "invalid_request_error",
        "Your prompt was flagged as potentially violating our usage policy.",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        400,
        "invalid_request_error",
        "",
        "Content Exists Risk",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        403,
        "403",
        "",
        "This model requires moderation.",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        403,
        "403",
        "",
        "Your input was flagged.",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        403,
        "403",
        "",
        "The prompt was flagged.",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        403,
        "403",
        "",
        "Refused by our content policy.",
        O::CallerFault(C::ContentFilter),
    ),
    Row(
        400,
        "unsupported_parameter",
        "",
        "",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "unsupported_value",
        "",
        "",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "unknown_parameter",
        "invalid_request_error",
        "",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "",
        "",
        "Unsupported parameter: 'logprobs'",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "",
        "",
        "Unsupported value: 'temperature' must be 1",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "",
        "",
        "Unknown parameter: 'foo'.",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "",
        "",
        "'stop' is not supported with this model.",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "",
        "",
        "tools are not supported by this model",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "",
        "Client specified an invalid argument",
        "Argument not supported on this model: presencePenalty",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        422,
        "",
        "",
        "extra fields not permitted",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(
        400,
        "",
        "invalid_request_error",
        "property 'foo' is unsupported",
        O::CallerFault(C::UnsupportedParameter),
    ),
    Row(402, "", "", "Payment required", O::TargetFault(T::Quota)),
    Row(408, "", "", "", O::TargetFault(T::ServerError)),
    Row(409, "", "", "", O::TargetFault(T::ServerError)),
    Row(422, "", "", "field required", O::CallerFault(C::InvalidRequest)),
    Row(502, "", "", "", O::TargetFault(T::ServerError)),
    Row(302, "", "", "", O::TargetFault(T::Malformed)),
];

#[test]
fn golden_table() {
    for Row(status, code, kind, message, meaning) in TABLE {
        let wording = Wording {
            code,
            kind,
            message,
            param: "",
        };
        let got = classify(Evidence::Status {
            status: *status,
            wording,
        });
        assert_eq!(got, *meaning, "{status} {code} {kind} {message}");
    }
}

/// Takes a word out of a text, whatever its case.
fn without(text: &str, word: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut out = text.to_owned();
    for (at, found) in lower.rmatch_indices(&word.to_ascii_lowercase()) {
        out.replace_range(at..at + found.len(), "");
    }
    out
}

/// Each word of the lists is what some row stands on: taken out, the row means something else.
#[test]
fn no_word_is_without_a_row_that_needs_it() {
    let lists = [
        words::QUOTA_CODES,
        words::QUOTA,
        words::SOON,
        words::OVERLOADED,
        words::MODEL_NOT_FOUND,
        words::OVERFLOW_CODES,
        words::OVERFLOW,
        words::FILTER_CODES,
        words::FILTER,
        words::MODERATED,
        words::UNSUPPORTED_CODES,
        words::UNSUPPORTED,
    ];
    let needed = |word: &str| {
        TABLE.iter().any(|Row(status, code, kind, message, meaning)| {
            let [code, kind, message] = [code, kind, message].map(|text| without(text, word));
            let wording = Wording {
                code: &code,
                kind: &kind,
                message: &message,
                param: "",
            };
            let got = classify(Evidence::Status {
                status: *status,
                wording,
            });
            got != *meaning
        })
    };
    let idle: Vec<&&str> = lists
        .iter()
        .copied()
        .flatten()
        .filter(|word| !needed(word))
        .collect();
    assert!(idle.is_empty(), "{idle:?}");
}

#[test]
fn plain_text_is_read_for_what_a_status_cannot_say() {
    let of = |status, text| classify(Evidence::NotJson { status, text });
    let long = "This model's maximum context length is 4096 tokens.";
    assert_eq!(of(400, long), O::CallerFault(C::ContextOverflow));
    assert_eq!(of(500, "server overloaded"), O::TargetFault(T::Overloaded));
    // Nothing in plain text switches a target off: it may come from anything in between.
    assert_eq!(
        of(403, "exceeded your current quota"),
        O::TargetFault(T::Malformed)
    );
    assert_eq!(of(404, "model not found"), O::TargetFault(T::Malformed));
}

#[test]
fn an_error_inside_a_200_is_read_like_its_status() {
    let of = |code, kind, message| {
        classify(Evidence::InBand(Wording {
            code,
            kind,
            message,
            param: "",
        }))
    };
    assert_eq!(
        of("", "overloaded_error", "Overloaded"),
        O::TargetFault(T::Overloaded)
    );
    assert_eq!(of("", "rate_limit_error", ""), O::TargetFault(T::RateLimited));
    assert_eq!(of("429", "", ""), O::TargetFault(T::RateLimited));
    assert_eq!(of("", "authentication_error", ""), O::TargetFault(T::Auth));
    assert_eq!(of("invalid_api_key", "", ""), O::TargetFault(T::Auth));
    assert_eq!(of("", "permission_error", ""), O::TargetFault(T::Auth));
    assert_eq!(of("rate_limit_exceeded", "", ""), O::TargetFault(T::RateLimited));
    assert_eq!(
        of("", "not_found_error", "model: claude-9"),
        O::TargetFault(T::ModelNotFound)
    );
    assert_eq!(of("", "request_too_large", ""), O::CallerFault(C::TooLarge));
    assert_eq!(
        of("", "invalid_request_error", "no"),
        O::CallerFault(C::InvalidRequest)
    );
    assert_eq!(of("", "", "something broke"), O::TargetFault(T::ServerError));
    assert_eq!(of("content_filter", "", ""), O::CallerFault(C::ContentFilter));
}

#[test]
fn a_page_instead_of_json_never_switches_a_target_off_unless_it_is_a_401() {
    let of = |status| classify(Evidence::NotJson { status, text: "" });
    assert_eq!(of(200), O::TargetFault(T::Malformed));
    assert_eq!(of(403), O::TargetFault(T::Malformed));
    assert_eq!(of(404), O::TargetFault(T::Malformed));
    assert_eq!(of(401), O::TargetFault(T::Auth));
    assert_eq!(of(402), O::TargetFault(T::Quota));
    assert_eq!(of(413), O::CallerFault(C::TooLarge));
    assert_eq!(of(502), O::TargetFault(T::ServerError));
    assert_eq!(of(503), O::TargetFault(T::Overloaded));
    assert_eq!(of(429), O::TargetFault(T::RateLimited));
    for status in [200, 403, 404] {
        assert!(!of(status).advice().target_off);
    }
}

#[test]
fn advice_follows_the_drawing() {
    // A first-content time-out is never tried again on the same target.
    let slow = classify(Evidence::Transport(Transport::FirstTokenTimeout)).advice();
    assert!(!slow.same_target && slow.elsewhere && slow.breaker);
    // 429 never opens the breaker, and holds the target.
    let limited = O::TargetFault(T::RateLimited).advice();
    assert!(limited.hold && !limited.breaker);
    // Ours: the target goes off.
    for fault in [T::Auth, T::Quota, T::ModelNotFound] {
        let advice = O::TargetFault(fault).advice();
        assert!(
            advice.target_off && !advice.same_target && advice.elsewhere,
            "{fault:?}"
        );
    }
    // A caller's fault is never sent again as it was, and counts against no target.
    for fault in [
        C::ContextOverflow,
        C::ContentFilter,
        C::UnsupportedParameter,
        C::TooLarge,
        C::InvalidRequest,
    ] {
        let advice = O::CallerFault(fault).advice();
        assert!(
            !advice.same_target && !advice.breaker && !advice.target_off,
            "{fault:?}"
        );
    }
    assert!(O::CallerFault(C::ContextOverflow).advice().larger_context);
    assert!(O::CallerFault(C::UnsupportedParameter).advice().only_if_chosen);
    assert_eq!(O::Ok.advice(), Advice::default());
}

#[test]
fn a_429_without_retry_after_holds_for_one_backoff_step() {
    let step = Duration::from_millis(100);
    let mut graded = Graded::plain(O::TargetFault(T::RateLimited));
    assert_eq!(
        (graded.hold(step), graded.hold_why()),
        (Some(step), Hold::Limited)
    );
    graded.retry_after = Some(Duration::from_secs(7));
    assert_eq!(graded.hold(step), Some(Duration::from_secs(7)));
    graded.outcome = O::TargetFault(T::Overloaded);
    assert_eq!(
        (graded.hold(step), graded.hold_why()),
        (Some(Duration::from_secs(7)), Hold::Failed)
    );
    graded.retry_after = None;
    assert_eq!(graded.hold(step), None);
    graded.outcome = O::CallerFault(C::InvalidRequest);
    graded.retry_after = Some(step);
    assert_eq!(graded.hold(step), None);
}

#[test]
fn a_403_about_one_prompt_switches_no_target_off() {
    let of = |code, message| {
        classify(Evidence::Status {
            status: 403,
            wording: Wording {
                code,
                message,
                ..Wording::default()
            },
        })
    };
    let flagged = "Your chosen model requires moderation and your input was flagged for \"violence\".";
    for outcome in [of("403", flagged), of("content_policy_violation", "")] {
        assert_eq!(outcome, O::CallerFault(C::ContentFilter));
        assert!(!outcome.advice().target_off);
    }
    assert!(of("", "Your API key may not do this.").advice().target_off);
}

#[test]
fn what_the_caller_wrote_switches_no_target_off() {
    let quoted = [
        "Invalid value: 'the model does not exist'. Supported values are: 'none', 'auto', and 'required'.",
        "Invalid value: 'you exceeded your current quota'. Supported values are: 'none', 'auto', and 'required'.",
        "Unknown role: 'credit balance is too low'",
    ];
    for message in quoted {
        let wording = Wording {
            message,
            kind: "invalid_request_error",
            param: "tool_choice",
            ..Wording::default()
        };
        let outcome = classify(Evidence::Status { status: 400, wording });
        assert_eq!(outcome, O::CallerFault(C::InvalidRequest), "{message}");
    }
}

/// The fields of an advice that are set.
fn set(advice: Advice) -> String {
    let fields = [
        ("same_target", advice.same_target),
        ("elsewhere", advice.elsewhere),
        ("larger_context", advice.larger_context),
        ("only_if_chosen", advice.only_if_chosen),
        ("target_off", advice.target_off),
        ("hold", advice.hold),
        ("breaker", advice.breaker),
    ];
    let set: Vec<&str> = fields
        .iter()
        .filter(|(_, on)| *on)
        .map(|(name, _)| *name)
        .collect();
    set.join(" ")
}

/// The table, whole: what every outcome is called, and what it allows and asks for.
#[test]
fn advice_of_every_outcome() {
    let mends = "same_target elsewhere breaker";
    let slow = "elsewhere breaker";
    let ours = "elsewhere target_off";
    let other = "elsewhere only_if_chosen";
    let table = [
        (O::Ok, "ok", ""),
        (
            O::TargetFault(T::RateLimited),
            "rate_limited",
            "same_target elsewhere hold",
        ),
        (O::TargetFault(T::Overloaded), "overloaded", mends),
        (O::TargetFault(T::ServerError), "server_error", mends),
        (O::TargetFault(T::ConnectTimeout), "connect_timeout", mends),
        (O::TargetFault(T::Connect), "connect", mends),
        (O::TargetFault(T::FirstTokenTimeout), "first_token_timeout", slow),
        (O::TargetFault(T::AttemptTimeout), "attempt_timeout", slow),
        (O::TargetFault(T::IdleTimeout), "idle_timeout", slow),
        (O::TargetFault(T::Reset), "reset", mends),
        (O::TargetFault(T::Cut), "cut", mends),
        (O::TargetFault(T::Malformed), "malformed", mends),
        (O::TargetFault(T::Auth), "auth", ours),
        (O::TargetFault(T::Quota), "quota", ours),
        (O::TargetFault(T::ModelNotFound), "model_not_found", ours),
        (O::TargetFault(T::TooSlow), "too_slow", "elsewhere"),
        (
            O::CallerFault(C::ContextOverflow),
            "context_overflow",
            "elsewhere larger_context only_if_chosen",
        ),
        (O::CallerFault(C::ContentFilter), "content_filter", ""),
        (
            O::CallerFault(C::UnsupportedParameter),
            "unsupported_parameter",
            other,
        ),
        (O::CallerFault(C::TooLarge), "too_large", other),
        (O::CallerFault(C::InvalidRequest), "invalid_request", ""),
        (O::Neutral(Neutral::Cancelled), "cancelled", ""),
        (O::Neutral(Neutral::Deadline), "deadline", ""),
        (O::Neutral(Neutral::Internal), "internal", "elsewhere"),
    ];
    for (outcome, label, advice) in table {
        assert_eq!(
            (outcome.label(), &*set(outcome.advice())),
            (label, advice),
            "{outcome:?}"
        );
    }
    let unsent = |outcome: &Outcome| matches!(outcome, O::TargetFault(f) if f.unsent());
    let unsent: Vec<&str> = table
        .iter()
        .filter(|(o, ..)| unsent(o))
        .map(|(_, label, _)| *label)
        .collect();
    assert_eq!(unsent, ["connect_timeout", "connect"]);
}

#[test]
fn a_broken_transport_is_what_it_is_called() {
    let table = [
        (Transport::ConnectTimeout, T::ConnectTimeout),
        (Transport::Connect, T::Connect),
        (Transport::Reset, T::Reset),
        (Transport::Cut, T::Cut),
        (Transport::Malformed, T::Malformed),
        (Transport::FirstTokenTimeout, T::FirstTokenTimeout),
        (Transport::AttemptTimeout, T::AttemptTimeout),
        (Transport::IdleTimeout, T::IdleTimeout),
    ];
    for (transport, fault) in table {
        let outcome = classify(Evidence::Transport(transport));
        assert_eq!(outcome, O::TargetFault(fault));
    }
}
