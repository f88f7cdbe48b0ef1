//! The faults by name. A name stands for a behaviour ([`Fault::behaviour`]), and, where a status has words of its own in
//! each dialect, for those. Everything about a fault can be changed by the fields beside it: `fault=cut end_after=3`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::behaviour::{Behaviour, Ending, ErrorBody};
use super::raw::Raw;
use super::sse_style::{Newline, SseStyle};
use super::wire::{Cut, CutHow, WirePlan};

/// The enum, its list, the names and the sentences, from one table.
macro_rules! faults {
    ($($variant:ident $name:literal $about:literal)*) => {
        /// A fault of a provider, or a habit that a gateway must take in its stride.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
        pub enum Fault {
            $(#[doc = $about] #[serde(rename = $name)] $variant,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As it is written in scripts.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it does, in a sentence.
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }
        }
    };
}

faults! {
    RateLimited "rate_limited" "429 with retry-after: 1"
    RateLimitedMs "rate_limited_ms" "429 with retry-after-ms: 300"
    RateLimitedDate "rate_limited_date" "429 with retry-after as a date, a second or two ahead"
    RateLimitedBare "rate_limited_bare" "429 without a word about when to come back"
    ServerError "server_error" "500 with an error body"
    Unavailable "unavailable" "503 (Anthropic: 529) that says overloaded"
    Conflict "conflict" "409, which the official clients try again"
    HtmlError "html_error" "502 with an HTML page"
    HtmlAnswer "html_answer" "200 with an HTML page"
    Redirect "redirect" "302 to another place"
    Unauthorized "unauthorized" "401: the key is wrong"
    Forbidden "forbidden" "403 that is a page of something in front of the provider"
    Quota "quota" "the account has no money left"
    ModelNotFound "model_not_found" "404: no such model"
    ContextLength "context_length" "400: the prompt is longer than the context"
    ContentFilter "content_filter" "400: a content filter refuses the prompt"
    ContentFilterFinish "content_filter_finish" "an answer that ends with finish_reason content_filter"
    UnsupportedParameter "unsupported_parameter" "400: a parameter that this model does not take"
    InvalidRequest "invalid_request" "400: the request is wrong for everybody"
    Hang "hang" "the request is read and never answered"
    SlowHead "slow_head" "the head comes after 20 s"
    SlowFirstToken "slow_first_token" "head (and role) at once, the first token after 20 s"
    RoleOnly "role_only" "a role chunk and then nothing (a whole answer: a head and then nothing)"
    PingsOnly "pings_only" "a role chunk and then nothing but signs of life (a whole answer: as role_only)"
    Stall "stall" "silence after two thirds"
    PingsMidStream "pings_mid_stream" "nothing but signs of life after two thirds (a whole answer: as stall)"
    PingsBetween "pings_between" "a second of nothing but signs of life after two thirds, then the rest"
    Drip "drip" "one byte a second"
    Cut "cut" "the connection breaks after two thirds"
    CleanEnd "clean_end" "the body ends cleanly after two thirds: no finish reason, no `[DONE]`"
    DoneWithoutFinish "done_without_finish" "`[DONE]` without a finish reason"
    FinishWithoutDone "finish_without_done" "a finish reason without `[DONE]`"
    BadJson "bad_json" "one event (or the body) is not JSON"
    InBandError "in_band_error" "an error event after two thirds (a whole answer: an error object under status 200)"
    ErrorFirst "error_first" "an error event in place of the first token"
    RateLimitInBand "rate_limit_in_band" "an error event that says rate_limit_exceeded in place of the first token"
    EmptyStream "empty_stream" "status 200 and not one event (a whole answer: an empty body)"
    NoUsage "no_usage" "no usage at all"
    ResetBeforeHead "reset_before_head" "TCP reset once the request is read"
    CloseBeforeHead "close_before_head" "closed in order once the request is read"
    ResetInHead "reset_in_head" "TCP reset in the middle of the head"
    ResetInChunkHeader "reset_in_chunk_header" "TCP reset inside the line that says how long a chunk is, after two thirds"
    BadChunkSize "bad_chunk_size" "a chunk whose length is no number, after two thirds"
    HalfClose "half_close" "our direction is closed after two thirds, theirs stays open"
    HugeHeader "huge_header" "a header of 1 MB"
    ManyHeaders "many_headers" "1,000 headers"
    LengthTooLong "length_too_long" "content-length promises 1,000 bytes more than come"
    LengthTooShort "length_too_short" "content-length is two thirds of what comes"
    Http10 "http10" "HTTP/1.0: no length, no chunks, the end of the connection is the end"
    Goaway "goaway" "HTTP/2 and a GOAWAY in answer to the request, whatever the request spoke"
    Garbage "garbage" "what comes back is no HTTP"
    Gzip "gzip" "the body is compressed though nobody asked for it"
    ByteChunks "byte_chunks" "every byte is a chunk of its own"
    SplitWrites "split_writes" "every byte is a write of its own"
    Crlf "crlf" "events end their lines with CR LF"
    BareCr "bare_cr" "events end their lines with CR"
    Comments "comments" "comments, empty events, ids and retry fields between the events; a byte order mark before them"
    MultiLine "multi_line" "the data of every event is spread over several data lines"
    CloseNextRequest "close_next_request" "a good answer on a connection that closes under the next request"
    SecondAnswer "second_answer" "a good answer, and behind it on the same connection one that nobody asked for"
    EarlyHints "early_hints" "103 and 100 before a good answer"
}

impl Fault {
    /// By its name; hyphens count as underscores.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.replace('-', "_");
        Self::ALL.iter().copied().find(|f| f.name() == name)
    }

    /// What it sets.
    pub(super) fn behaviour(self) -> Behaviour {
        let none = Behaviour::default;
        let ending = |ending| Behaviour {
            ending: Some(ending),
            ..none()
        };
        let raw = |raw| Behaviour {
            raw: Some(raw),
            ..none()
        };
        // Those that end in the middle by hand need the place where the middle is.
        let raw_cut = |how| Behaviour {
            ending: Some(Ending::Cut),
            ..raw(how)
        };
        let reset = |how, after_bytes| Behaviour {
            wire: Some(WirePlan {
                cut: Some(Cut { after_bytes, how }),
                ..WirePlan::default()
            }),
            ..none()
        };
        let headers = |list: &[(&str, &str)]| {
            let list = list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
            Some(list.collect::<BTreeMap<_, _>>())
        };
        let page = || Behaviour {
            raw_body: Some("<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>".into()),
            content_type: Some("text/html; charset=utf-8".into()),
            ..none()
        };
        let style = |style| Behaviour {
            sse: Some(style),
            ..none()
        };
        match self {
            Self::RateLimited => Behaviour {
                retry_after: Some(1),
                ..none()
            },
            Self::RateLimitedMs => Behaviour {
                headers: headers(&[("retry-after-ms", "300")]),
                ..none()
            },
            Self::RateLimitedDate => Behaviour {
                retry_after_date: Some(1),
                ..none()
            },
            Self::HtmlError | Self::HtmlAnswer | Self::Forbidden => page(),
            Self::Redirect => Behaviour {
                headers: headers(&[("location", "http://127.0.0.1:9/elsewhere")]),
                raw_body: Some(String::new()),
                ..none()
            },
            Self::ContentFilterFinish => Behaviour {
                finish_reason: Some("content_filter".into()),
                ..none()
            },
            Self::Hang => Behaviour {
                hang: Some(true),
                ..none()
            },
            Self::SlowHead => Behaviour {
                headers_ms: Some(20_000),
                ..none()
            },
            Self::SlowFirstToken => Behaviour {
                first_token_ms: Some(20_000),
                ..none()
            },
            Self::RoleOnly => Behaviour {
                end_after: Some(0),
                ..ending(Ending::Stall)
            },
            Self::PingsOnly => Behaviour {
                end_after: Some(0),
                ..ending(Ending::Pings)
            },
            Self::Stall => ending(Ending::Stall),
            Self::PingsMidStream => ending(Ending::Pings),
            Self::PingsBetween => ending(Ending::Pause),
            Self::Drip => raw(Raw::Drip),
            Self::Cut => ending(Ending::Cut),
            Self::CleanEnd => ending(Ending::Clean),
            Self::DoneWithoutFinish => ending(Ending::NoFinish),
            Self::FinishWithoutDone => ending(Ending::NoDone),
            Self::BadJson => ending(Ending::BadJson),
            Self::InBandError => ending(Ending::Error),
            Self::ErrorFirst | Self::RateLimitInBand => Behaviour {
                end_after: Some(0),
                ..ending(Ending::Error)
            },
            Self::EmptyStream => Behaviour {
                raw_body: Some(String::new()),
                ..none()
            },
            Self::NoUsage => Behaviour {
                usage: Some(super::behaviour::UsageScript {
                    none: true,
                    ..super::behaviour::UsageScript::default()
                }),
                ..none()
            },
            Self::ResetBeforeHead => reset(CutHow::Reset, 0),
            Self::CloseBeforeHead => reset(CutHow::Close, 0),
            Self::ResetInHead => reset(CutHow::Reset, 40),
            Self::ResetInChunkHeader => raw_cut(Raw::ResetInChunkHeader),
            Self::BadChunkSize => raw_cut(Raw::BadChunkSize),
            Self::HalfClose => raw_cut(Raw::HalfClose),
            Self::HugeHeader => raw(Raw::HugeHeader),
            Self::ManyHeaders => raw(Raw::ManyHeaders),
            Self::LengthTooLong => raw(Raw::LengthTooLong),
            Self::LengthTooShort => raw(Raw::LengthTooShort),
            Self::Http10 => raw(Raw::Http10),
            Self::Goaway => raw(Raw::Goaway),
            Self::Garbage => raw(Raw::Garbage),
            Self::Gzip => Behaviour {
                gzip: Some(true),
                ..none()
            },
            Self::ByteChunks => raw(Raw::ByteChunks),
            Self::SplitWrites => Behaviour {
                wire: Some(WirePlan {
                    split: Some(1),
                    ..WirePlan::default()
                }),
                ..none()
            },
            Self::Crlf => style(SseStyle {
                newline: Newline::CrLf,
                ..SseStyle::default()
            }),
            Self::BareCr => style(SseStyle {
                newline: Newline::Cr,
                ..SseStyle::default()
            }),
            Self::Comments => style(SseStyle {
                noise: true,
                ..SseStyle::default()
            }),
            Self::MultiLine => style(SseStyle {
                multi_line: true,
                ..SseStyle::default()
            }),
            Self::CloseNextRequest => raw(Raw::CloseNextRequest),
            Self::SecondAnswer => raw(Raw::SecondAnswer),
            Self::EarlyHints => raw(Raw::EarlyHints),
            Self::RateLimitedBare
            | Self::ServerError
            | Self::Unavailable
            | Self::Conflict
            | Self::Unauthorized
            | Self::Quota
            | Self::ModelNotFound
            | Self::ContextLength
            | Self::ContentFilter
            | Self::UnsupportedParameter
            | Self::InvalidRequest => none(),
        }
    }

    /// The status that it stands for.
    pub(super) fn status(self, anthropic: bool) -> Option<u16> {
        Some(match self {
            Self::RateLimited | Self::RateLimitedMs | Self::RateLimitedDate | Self::RateLimitedBare => 429,
            Self::ServerError => 500,
            Self::Unavailable if anthropic => 529,
            Self::Unavailable => 503,
            Self::Conflict => 409,
            Self::HtmlError => 502,
            Self::Redirect => 302,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::Quota if anthropic => 400,
            Self::Quota => 429,
            Self::ModelNotFound => 404,
            Self::ContextLength | Self::ContentFilter | Self::UnsupportedParameter | Self::InvalidRequest => {
                400
            }
            _ => return None,
        })
    }

    /// The words of its error, as each kind of provider has them.
    pub(super) fn words(self, anthropic: bool) -> ErrorBody {
        let (message, code, param) = match (self, anthropic) {
            (Self::Quota, false) => ("You have used up your quota.", "insufficient_quota", None),
            (Self::Quota, true) => (
                "Your credit balance is too low to access the Anthropic API.",
                "",
                None,
            ),
            (Self::ModelNotFound, false) => ("The model does not exist.", "model_not_found", None),
            (Self::ModelNotFound, true) => ("model: scripted", "", None),
            (Self::ContextLength, false) => (
                "This model's maximum context length is 8 tokens. Please reduce the length of the messages.",
                "context_length_exceeded",
                Some("messages"),
            ),
            (Self::ContextLength, true) => ("prompt is too long: 208310 tokens > 200000 maximum", "", None),
            (Self::ContentFilter, false) => (
                "The response was filtered due to the prompt triggering a content management policy.",
                "content_filter",
                Some("prompt"),
            ),
            (Self::ContentFilter, true) => ("Output blocked by content filtering policy", "", None),
            (Self::UnsupportedParameter, false) => (
                "Unsupported parameter: 'seed' is not supported with this model.",
                "unsupported_parameter",
                Some("seed"),
            ),
            (Self::UnsupportedParameter, true) => ("seed: Extra inputs are not permitted", "", None),
            (Self::InvalidRequest, false) => (
                "Invalid type for 'messages[0].content'.",
                "invalid_type",
                Some("messages[0].content"),
            ),
            (Self::InvalidRequest, true) => ("messages.0.content: Input should be a valid list", "", None),
            (Self::RateLimitInBand, false) => ("Rate limit reached.", "rate_limit_exceeded", None),
            (Self::RateLimitInBand, true) => ("Rate limit reached.", "", None),
            _ => return ErrorBody::default(),
        };
        ErrorBody {
            message: Some(message.to_owned()),
            r#type: match (self, anthropic) {
                (Self::RateLimitInBand, true) => Some("rate_limit_error".to_owned()),
                (Self::RateLimitInBand, false) => Some("requests".to_owned()),
                (Self::Quota, false) => Some("insufficient_quota".to_owned()),
                _ => None,
            },
            param: param.map(str::to_owned),
            code: Some(code.to_owned()).filter(|c| !c.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_by_its_name_and_does_something() {
        for fault in Fault::ALL {
            assert_eq!(Fault::named(fault.name()), Some(*fault));
            assert_eq!(Fault::named(&fault.name().replace('_', "-")), Some(*fault));
            let json = serde_json::to_string(fault).unwrap();
            assert_eq!(json, format!("{:?}", fault.name()));
            let set = serde_json::to_value(fault.behaviour()).unwrap();
            let sets = set.as_object().unwrap().values().any(|v| !v.is_null());
            assert!(sets || fault.status(false).is_some(), "{}", fault.name());
        }
        assert_eq!(Fault::named("cu"), None);
    }
}
