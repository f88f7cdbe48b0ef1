//! The catalogue: every fault, in every form in which it makes sense, with what both sides must see. What is expected
//! follows from the drawing's section on the cascade; nothing here bends to what a gateway happens to do.

mod faults;
mod joins;
mod more;
mod turned;

use super::case::{Case, Dialect, Form};

/// All cases.
pub fn all() -> Vec<Case> {
    let mut cases = faults::cases();
    cases.extend(joins::cases());
    cases.extend(more::cases());
    cases.extend(turned::cases());
    cases
}

/// Both forms in both dialects.
fn each() -> impl Iterator<Item = (Form, Dialect)> {
    [Form::Stream, Form::Whole]
        .into_iter()
        .flat_map(|form| [Dialect::Openai, Dialect::Anthropic].map(|dialect| (form, dialect)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::provider::Fault;

    /// What a gateway must survive, as it is told by people who run one, and where the wall looks at it.
    const MUST: [(&str, &[&str]); 45] = [
        // On the way there.
        ("nobody listens", &["refused", "named_refused"]),
        ("takes connections and never reads", &["deaf", "named_deaf"]),
        (
            "resets every connection",
            &["reset_at_once", "named_reset_at_once"],
        ),
        ("reset before headers", &["reset_before_head", "named_reset_once"]),
        (
            "accepts and never answers: first timeout, then elsewhere, not tried again",
            &["hang", "named_hang", "both_hang"],
        ),
        (
            "headers at once, first token after 20 s",
            &["slow_first_token", "slow_head"],
        ),
        ("a role chunk and then nothing", &["role_only", "pings_only"]),
        ("one byte a second", &["drip"]),
        // Statuses.
        (
            "429 with retry-after: obey, or go elsewhere",
            &["rate_limited", "named_429_once"],
        ),
        (
            "retry-after-ms, and retry-after as a date",
            &[
                "rate_limited_ms",
                "rate_limited_date",
                "named_429_ms_once",
                "named_429_date_once",
            ],
        ),
        (
            "429 for ever: back off, never hammer",
            &[
                "storm_429",
                "storm_429_bare",
                "turned_backoff",
                "named_429",
                "both_429",
            ],
        ),
        ("500 once: one retry", &["named_500_once"]),
        (
            "503 for ever: fail over inside the budget",
            &["unavailable", "both_503", "named_503"],
        ),
        ("repeats stay within the ratio budget", &["turned_budget"]),
        ("401: our key", &["unauthorized", "named_401"]),
        ("no money left, no such model", &["quota", "model_not_found"]),
        (
            "context length exceeded: never the same again, a larger one if there is one",
            &["context_length", "named_overflow"],
        ),
        (
            "content filter: passed on",
            &["content_filter", "content_filter_finish"],
        ),
        (
            "a parameter that this model does not take",
            &["unsupported_parameter"],
        ),
        ("an HTML error page", &["html_error", "html_answer", "forbidden"]),
        // The wire.
        (
            "reset inside a chunk header",
            &["reset_in_chunk_header", "bad_chunk_size", "reset_in_head"],
        ),
        ("half-close", &["half_close"]),
        ("a 1 MB header", &["huge_header", "many_headers"]),
        ("wrong content-length", &["length_too_long", "length_too_short"]),
        ("HTTP/1.0", &["http10"]),
        ("GOAWAY", &["goaway", "garbage"]),
        ("gzip though not asked for", &["gzip"]),
        ("chunks split at every byte", &["byte_chunks", "split_writes"]),
        ("CRLF and LF", &["crlf", "bare_cr"]),
        ("comments and multi-line data in SSE", &["comments", "multi_line"]),
        (
            "signs of life in mid-stream",
            &["pings_between", "pings_mid_stream"],
        ),
        (
            "a pooled connection that closes under the next request",
            &["close_next_request", "second_answer"],
        ),
        // Streams that break.
        ("cut after two thirds", &["cut", "named_cut"]),
        ("goes silent in the middle", &["stall"]),
        ("a clean end without finish or [DONE]", &["clean_end"]),
        ("[DONE] without finish", &["done_without_finish"]),
        ("finish without [DONE]", &["finish_without_done"]),
        ("one chunk is not JSON", &["bad_json"]),
        (
            "an in-band error",
            &["in_band_error", "error_first", "rate_limit_in_band"],
        ),
        // Who goes on.
        (
            "a second with other words and other chunks",
            &[
                "join_other_words",
                "join_other_whole",
                "join_other_unasked",
                "join_other_chunks",
            ],
        ),
        (
            "a prefill ignored, or refused",
            &["join_ignores", "join_refused_prefill"],
        ),
        ("the last words repeated", &["join_repeats", "join_other_repeats"]),
        (
            "\"Sure, continuing:\" in front",
            &["join_announces", "join_other_announces"],
        ),
        // Time, and callers.
        (
            "down for a minute, then healthy (here with clocks of a tenth): opens, probes, closes, back within seconds",
            &["outage_503", "outage_refused", "outage_silent"],
        ),
        (
            "the caller leaves",
            &["caller_leaves", "caller_leaves_silence", "caller_leaves_early"],
        ),
    ];

    #[test]
    fn what_a_gateway_must_survive_has_its_cases() {
        let names: HashSet<String> = all().into_iter().map(|c| c.name).collect();
        for (what, cases) in MUST {
            for case in cases {
                assert!(names.contains(*case), "{what}: there is no case {case}");
            }
        }
    }

    #[test]
    fn every_fault_has_its_cases_and_every_case_its_own_name() {
        let cases = all();
        let ids: HashSet<String> = cases.iter().map(Case::id).collect();
        assert_eq!(ids.len(), cases.len(), "two cases of one name");
        for fault in Fault::ALL {
            let name = fault.name();
            assert!(cases.iter().any(|c| c.name == name), "{name} has no case");
        }
    }
}
