//! The keys of `routing.toml` that change what comes of a fault: their names, and what each does, in a sentence. A key is
//! either turned by a case of the wall, which then must go otherwise, or the page says that it is not.

/// The enum, its list, the names, the cases and the sentences, from one table.
macro_rules! keys {
    ($($variant:ident $name:literal $turned:expr, $about:literal;)*) => {
        /// A key of the plan.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Key {
            $(#[doc = $about] $variant,)*
        }

        impl Key {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As it stands in the plan; `NAME` is the name of a route, target or provider.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it does.
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }

            /// The case in which it is turned, and things go otherwise than with the wall's usual plan.
            pub fn turned_by(self) -> Option<&'static str> {
                match self { $(Self::$variant => $turned,)* }
            }
        }
    };
}

keys! {
    Tiers "routes.NAME.tiers" Some("named_503"),
        "who may answer in its place: the targets beside it and the tiers behind it. Without them there is only the error";
    Continue "routes.NAME.continue" Some("turned_continue"),
        "`\"never\"`: a stream that breaks after its first words is not gone on with, and ends in an error event";
    ContentFilter "routes.NAME.content_filter" Some("turned_content_filter"),
        "`\"escalate\"`: what a provider's filter refuses goes to the next tier";
    Message "routes.NAME.message" Some("turned_message"),
        "the status and the words when nobody is left (with `\"message\"` in `degrade`)";
    Context "targets.NAME.context" Some("turned_context"),
        "a prompt that is known to be too long for a target is not sent there in the first place";
    Params "targets.NAME.params" None,
        "`drop` and `rename` keep a parameter away from a target that does not take it";
    Capabilities "targets.NAME.capabilities" Some("join_prefill"),
        "with `\"prefill\"` a target is given the text that was cut as the beginning of its own turn";
    Model "targets.NAME.model" None,
        "what the provider calls the model: mend it, and load the plan again";
    ApiKey "providers.NAME.api_key" None,
        "the key that the provider refuses: mend it, and load the plan again";
    FirstToken "timeouts.first_token_ms" Some("turned_first_token"),
        "how long the first words of a stream may take; later, how long it may say nothing but that it lives";
    Idle "timeouts.idle_ms" Some("turned_idle"),
        "how long a stream may be silent after its first words";
    Attempt "timeouts.attempt_ms" Some("turned_attempt"),
        "how long a whole answer may take before another target is asked beside it";
    ContinueMs "timeouts.continue_ms" Some("turned_continue_ms"),
        "how long the search for somebody who goes on with a broken stream may take";
    MaxAttempts "retry.max_attempts" Some("turned_max_attempts"),
        "tries for one request, over all targets";
    SameTarget "retry.same_target" Some("turned_same_target"),
        "how often one target is tried again; 0: never";
    Backoff "retry.backoff" Some("turned_backoff"),
        "the pause before a target is tried again, and how long a 429 holds a target that does not say when to come back: longer each time";
    Budget "retry.budget" Some("turned_budget"),
        "second tries at one target, as a share of first tries: an outage is not multiplied";
    HonorRetryAfter "retry.honor_retry_after_ms" Some("turned_honor_retry_after"),
        "how long a provider's own `retry-after` is waited for when nobody else can be called";
    Row "breaker.consecutive_failures" Some("turned_breaker"),
        "so many failures in a row, and the target is left alone for a while";
    Open "breaker.open_ms" None,
        "for how long, the first time; then longer, up to `max_open_ms`";
}
