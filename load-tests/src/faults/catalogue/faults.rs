//! Each fault at the first target of a route whose second target is healthy and says the same.

use std::ops::RangeInclusive;

use super::super::case::{Caller, Case, Chapter, Dialect, Expect, Form, Target, Usage};
use super::super::key::Key;
use super::each;
use crate::provider::{Behaviour, Ended, Fault};

/// Once, or once more at the same target.
const TWICE: RangeInclusive<usize> = 1..=2;

pub fn cases() -> Vec<Case> {
    let all = Fault::ALL
        .iter()
        .flat_map(|fault| each().map(|(form, dialect)| (*fault, form, dialect)));
    all.filter_map(|(fault, form, dialect)| {
        let expect = expected(fault, form, dialect)?;
        let mut first = Target::that(Behaviour::of(fault));
        // Where the prompt is too long for the first, the second takes more.
        let overflow = fault == Fault::ContextLength;
        first.context = overflow.then_some(8_000);
        if fault == Fault::PingsBetween {
            // Longer than `idle_ms`, shorter than this.
            first.lines = "timeouts = { first_token_ms = 3_000 }";
        }
        let second = Target {
            context: overflow.then_some(128_000),
            ..Target::healthy()
        };
        let case = Case::route(fault.name(), fault.about(), form, dialect, first, expect);
        Some(
            case.with_second(second)
                .told(Chapter::OneFault, keys(fault, form)),
        )
    })
    .collect()
}

/// `None`: the fault does not exist in this form.
fn expected(fault: Fault, form: Form, dialect: Dialect) -> Option<Expect> {
    let stream = form == Form::Stream;
    let join = |first| Expect::new(Caller::Joined, first, 0..=2);
    Some(match fault {
        // Held back: somebody else can be called, so nobody waits.
        Fault::RateLimited
        | Fault::RateLimitedMs
        | Fault::RateLimitedDate
        | Fault::RateLimitedBare
        | Fault::RateLimitInBand => Expect::second(1..=1),
        // Worth one more try at the same target, then elsewhere.
        Fault::ServerError
        | Fault::Unavailable
        | Fault::Conflict
        | Fault::HtmlError
        | Fault::HtmlAnswer
        | Fault::Redirect
        | Fault::Forbidden
        | Fault::ErrorFirst
        | Fault::EmptyStream
        | Fault::ResetInHead
        | Fault::HugeHeader
        | Fault::ManyHeaders
        | Fault::Goaway
        | Fault::Garbage
        | Fault::Gzip => Expect::second(TWICE),
        // Each of the two tries may have been on a kept connection, and is then dialled once more: how it closed does not
        // tell whether the request was seen.
        Fault::ResetBeforeHead | Fault::CloseBeforeHead => Expect::second(1..=4),
        // Ours to mend: the target goes off, and stays so.
        Fault::Unauthorized | Fault::Quota | Fault::ModelNotFound => Expect {
            then_first: Some(0..=0),
            ..Expect::second(1..=1)
        },
        // Never the same again; one with more context, or one that takes the parameter.
        Fault::ContextLength | Fault::UnsupportedParameter => Expect::second(1..=1),
        Fault::ContentFilter => Expect::new(Caller::PassedOn(400, "filter"), 1..=1, 0..=0),
        Fault::InvalidRequest => Expect::new(Caller::PassedOn(400, "messages"), 1..=1, 0..=0),
        Fault::ContentFilterFinish => Expect::new(Caller::Filtered, 1..=1, 0..=0),
        // The silent route is not tried again, and let go.
        Fault::Hang
        | Fault::SlowHead
        | Fault::SlowFirstToken
        | Fault::RoleOnly
        | Fault::PingsOnly
        | Fault::Drip => Expect {
            first_ends: Some(Ended::ClientLeft),
            ..Expect::second(1..=1)
        },
        Fault::Stall | Fault::PingsMidStream if stream => Expect {
            first_ends: Some(Ended::ClientLeft),
            ..join(1..=1)
        },
        Fault::Stall | Fault::PingsMidStream => Expect {
            first_ends: Some(Ended::ClientLeft),
            ..Expect::second(1..=1)
        },
        Fault::DoneWithoutFinish if !stream => return None,
        Fault::Cut
        | Fault::CleanEnd
        | Fault::DoneWithoutFinish
        | Fault::BadJson
        | Fault::InBandError
        | Fault::ResetInChunkHeader
        | Fault::BadChunkSize
        | Fault::HalfClose
        | Fault::LengthTooShort
            if stream =>
        {
            join(TWICE)
        }
        Fault::Cut
        | Fault::CleanEnd
        | Fault::DoneWithoutFinish
        | Fault::BadJson
        | Fault::InBandError
        | Fault::ResetInChunkHeader
        | Fault::BadChunkSize
        | Fault::HalfClose
        | Fault::LengthTooShort => Expect::second(TWICE),
        // All of the events came before the bytes that did not; of a whole answer nobody knows.
        Fault::LengthTooLong if stream => Expect::first(),
        Fault::LengthTooLong => Expect::second(TWICE),
        Fault::FinishWithoutDone
        | Fault::PingsBetween
        | Fault::Crlf
        | Fault::BareCr
        | Fault::Comments
        | Fault::MultiLine
            if !stream =>
        {
            return None;
        }
        // Anthropic reports usage always.
        Fault::NoUsage if dialect == Dialect::Anthropic => return None,
        Fault::NoUsage => Expect {
            usage: Usage::Untold,
            ..Expect::first()
        },
        // A habit, not a fault.
        Fault::FinishWithoutDone
        | Fault::PingsBetween
        | Fault::Http10
        | Fault::ByteChunks
        | Fault::SplitWrites
        | Fault::Crlf
        | Fault::BareCr
        | Fault::Comments
        | Fault::MultiLine
        | Fault::EarlyHints => Expect::first(),
        // What matters is the next request on that connection.
        Fault::CloseNextRequest | Fault::SecondAnswer => Expect {
            then_first: Some(1..=1),
            ..Expect::first()
        },
    })
}

/// Keys of the plan that change what comes of it, beside the tiers themselves.
fn keys(fault: Fault, form: Form) -> &'static [Key] {
    const AGAIN: &[Key] = &[Key::SameTarget, Key::Budget];
    const CUT: &[Key] = &[Key::Continue, Key::ContinueMs, Key::SameTarget, Key::Budget];
    let stream = form == Form::Stream;
    match fault {
        Fault::RateLimited | Fault::RateLimitedMs | Fault::RateLimitedDate => &[Key::Tiers],
        Fault::RateLimitedBare | Fault::RateLimitInBand => &[Key::Backoff],
        Fault::ServerError
        | Fault::Unavailable
        | Fault::Conflict
        | Fault::HtmlError
        | Fault::HtmlAnswer
        | Fault::Redirect
        | Fault::Forbidden
        | Fault::ErrorFirst
        | Fault::EmptyStream
        | Fault::ResetInHead
        | Fault::HugeHeader
        | Fault::ManyHeaders
        | Fault::Goaway
        | Fault::Garbage
        | Fault::Gzip
        | Fault::ResetBeforeHead
        | Fault::CloseBeforeHead => AGAIN,
        Fault::Unauthorized | Fault::Quota => &[Key::ApiKey],
        Fault::ModelNotFound => &[Key::Model],
        Fault::ContextLength => &[Key::Context],
        Fault::UnsupportedParameter => &[Key::Params],
        Fault::ContentFilter | Fault::ContentFilterFinish => &[Key::ContentFilter],
        Fault::InvalidRequest => &[],
        Fault::Hang
        | Fault::SlowHead
        | Fault::SlowFirstToken
        | Fault::RoleOnly
        | Fault::PingsOnly
        | Fault::Drip => match form {
            Form::Stream => &[Key::FirstToken],
            Form::Whole => &[Key::Attempt],
        },
        Fault::Stall if stream => &[Key::Idle, Key::Continue, Key::ContinueMs],
        Fault::PingsMidStream if stream => &[Key::FirstToken, Key::Idle, Key::Continue, Key::ContinueMs],
        Fault::PingsBetween => &[Key::FirstToken, Key::Idle],
        Fault::Stall | Fault::PingsMidStream => &[Key::Attempt],
        Fault::LengthTooLong if stream => &[],
        Fault::Cut
        | Fault::CleanEnd
        | Fault::DoneWithoutFinish
        | Fault::BadJson
        | Fault::InBandError
        | Fault::ResetInChunkHeader
        | Fault::BadChunkSize
        | Fault::HalfClose
        | Fault::LengthTooShort
        | Fault::LengthTooLong => {
            if stream {
                CUT
            } else {
                AGAIN
            }
        }
        Fault::FinishWithoutDone
        | Fault::NoUsage
        | Fault::Http10
        | Fault::ByteChunks
        | Fault::SplitWrites
        | Fault::Crlf
        | Fault::BareCr
        | Fault::Comments
        | Fault::MultiLine
        | Fault::EarlyHints
        | Fault::CloseNextRequest
        | Fault::SecondAnswer => &[],
    }
}
