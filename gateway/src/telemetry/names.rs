//! Every metric: its name, its labels, what it counts. The one list of the code and of `/metrics`; a test below holds the page for
//! people, `docs/metrics.md`, to it.

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds, in these buckets.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Its name at `/metrics`.
    pub name: &'static str,
    /// Kind and buckets.
    pub shape: Shape,
    /// Label names in order. All of them are bounded by the plan or by a table of ours.
    pub labels: &'static [&'static str],
    /// One line for people.
    pub help: &'static str,
}

/// Bucket bounds of whole answers: 1 ms to 10 minutes.
const LONG: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
    600.0,
];
/// Bucket bounds of our own work: 10 us to 1 s.
const SHORT: &[f64] = &[
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0,
];

macro_rules! metrics_table {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $shape:expr, [$($label:literal),*], $help:literal;)*) => {
        /// A metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Name { $(#[doc = $help] $variant,)* }
        impl Name {
            /// Every metric, in the order of the table.
            pub const ALL: &'static [Name] = &[$(Name::$variant,)*];
            /// What it is.
            pub const fn spec(self) -> Spec {
                match self {
                    $(Name::$variant => Spec { name: $name, shape: $shape, labels: &[$($label),*], help: $help },)*
                }
            }
        }
    };
}

metrics_table! {
    Requests = "weir_requests_total", Shape::Counter, ["route", "tier", "target", "status"], "Requests by route, tier and target that answered, and class of status.";
    Errors = "weir_errors_total", Shape::Counter, ["code"], "Requests that ended in an error, by its code.";
    Duration = "weir_request_duration_seconds", Shape::Histogram(LONG), ["route"], "From the request's head to the end of its body.";
    Ttft = "weir_time_to_first_content_seconds", Shape::Histogram(LONG), ["route"], "Streams: from the request's head to the first content sent.";
    Overhead = "weir_overhead_seconds", Shape::Histogram(SHORT), ["route"], "Time that was our own: neither upstream, nor a queue, nor the caller's body.";
    Attempts = "weir_attempts_total", Shape::Counter, ["target", "outcome"], "Tries by target and outcome.";
    Continuations = "weir_continuations_total", Shape::Counter, ["way", "result"], "Streams that broke after the commit and were gone on with: how the rest was asked for, and what came of it.";
    Starts = "weir_starts_total", Shape::Counter, ["target", "kind"], "Tries by target and why they were started: first, retry, failover, escalate, degrade, again, continue, hedge.";
    RetryBudget = "weir_retry_budget_left", Shape::Gauge, [], "Repeats that the ratio budget covers now.";
    Heap = "weir_heap_bytes", Shape::Gauge, ["state"], "Memory of the allocator: allocated (in use), active (pages with something in use), resident (with what it has not given back yet).";
    OverLimit = "weir_over_limit_total", Shape::Counter, ["owner", "limit"], "Requests refused by a limit: whose (key, tenant, route, total, address) and which.";
    CacheLookups = "weir_cache_lookups_total", Shape::Counter, ["route", "found"], "Requests whose answer may be shared, by what was found: hit (a kept answer), semantic (that to a question that means the same), coalesced (read along with another's call), miss.";
    SemanticLookups = "weir_semantic_lookups_total", Shape::Counter, ["route", "came_to"], "Questions that were looked for by their meaning, by what it came to: repeat (the very text), hit, explore (the model was asked, to compare), refused (by a guard), miss.";
    SemanticEvidence = "weir_semantic_evidence_total", Shape::Counter, ["verdict"], "Kept answers that a fresh one was asked for, to compare: same, different, unsure, uncompared (the encoder was not there, or an answer is longer than it reads whole).";
    CacheBytes = "weir_cache_bytes", Shape::Gauge, ["store"], "Weight of the answers that are kept: exact (by question), named (by idempotency-key), semantic (by what the question means; its part is there twice where it is exact too).";
    CacheEntries = "weir_cache_entries", Shape::Gauge, ["store"], "Answers that are kept.";
    Flights = "weir_flights", Shape::Gauge, [], "Calls that run and can be joined by who asks the same.";
    AdmissionInFlight = "weir_admission_in_flight", Shape::Gauge, [], "Requests that were admitted and whose body has not ended.";
    AdmissionQueued = "weir_admission_queued", Shape::Gauge, ["class"], "Requests that wait to be admitted, by class.";
    AdmissionWaited = "weir_admission_waited_seconds", Shape::Histogram(LONG), ["class"], "How long those who had to wait and were then admitted have waited.";
    AdmissionShed = "weir_admission_shed_total", Shape::Counter, ["reason", "class"], "Requests turned away: queue_full, wait (it would have been in vain), waited (its time was up), pushed_out (by a higher class).";
    TargetLimit = "weir_target_limit", Shape::Gauge, ["target"], "Tries at once that the target takes, as learned from its refusals and its first words; at most its limits.concurrency.";
    Hedges = "weir_hedges_total", Shape::Counter, ["target", "result"], "Second tries beside a slow one, by the slow one's rival and what came of it: won (its answer was taken), lost.";
    HedgeBudget = "weir_hedge_budget_left", Shape::Gauge, [], "Hedges that their budget covers now.";
    Breaker = "weir_breaker_state", Shape::Gauge, ["target"], "The target's breaker: 0 closed, 1 probing, 2 open.";
    BreakerOpened = "weir_breaker_opened_total", Shape::Counter, ["target", "why"], "Openings of the breaker: row, ratio, cuts, probe.";
    RouteUsable = "weir_route_usable_targets", Shape::Gauge, ["route"], "Targets of the route that can be called now.";
    Degraded = "weir_degraded_total", Shape::Counter, ["step", "reason"], "Degraded answers by step of the ladder and reason.";
    DeadlineDrops = "weir_deadline_drops_total", Shape::Counter, ["step"], "Requests whose deadline passed, by the step in which they were dropped.";
    Verdicts = "weir_verdicts_total", Shape::Counter, ["target", "verdict"], "Verdicts over answers by target.";
    Tokens = "weir_tokens_total", Shape::Counter, ["target", "kind"], "Tokens: input, cached, output, reasoning.";
    Cost = "weir_cost_nano_usd_total", Shape::Counter, ["target"], "Cost in 10^-9 US dollars.";
    InFlight = "weir_requests_in_flight", Shape::Gauge, [], "Requests whose body has not ended.";
    Connections = "weir_connections", Shape::Gauge, [], "Open data plane connections.";
    ConnectionsRefused = "weir_connections_refused_total", Shape::Counter, [], "Connections turned away: server.max_connections was reached, or what one address may have (server.per_address connections).";
    ClientGone = "weir_clients_gone_total", Shape::Counter, [], "Requests whose caller left before the end.";
    ClientStalled = "weir_clients_stalled_total", Shape::Counter, [], "Connections (HTTP/2: streams) dropped because the caller read nothing for client_write_ms, or took a whole answer too slowly.";
    LetGo = "weir_connections_let_go_total", Shape::Counter, ["why"], "Connections let go: talk (HTTP/2 frames that ask nothing), resets (they ask and leave before the answer), protocol (HTTP/2 itself ended it: too many resets, an endless head, broken frames), slow_head (HTTP/1: a head that did not come in its time).";
    HandshakesFailed = "weir_tls_handshakes_failed_total", Shape::Counter, [], "Connections that did not come through their TLS handshake.";
    Panics = "weir_panics_total", Shape::Counter, [], "Bugs that were caught while a request was served.";
    BodyBytes = "weir_body_bytes_in_flight", Shape::Gauge, [], "Bytes of request bodies being read or held.";
    LocalQueue = "weir_local_queue_depth", Shape::Gauge, ["target"], "Requests waiting for a local model.";
    LocalRunning = "weir_local_batch_size", Shape::Gauge, ["target"], "Sequences a local model is working on.";
    LocalWait = "weir_local_predicted_wait_seconds", Shape::Gauge, ["target"], "Predicted wait of a new request at a local model.";
    LocalSpeed = "weir_local_tokens_per_second", Shape::Gauge, ["target"], "Tokens a second that a local model generates, all its answers together: smoothed over its recent steps, and its last value while it generates nothing.";
    LocalTokens = "weir_local_tokens_total", Shape::Counter, ["target"], "Tokens that a local model generated, for callers that stayed and callers that left.";
    Tasks = "weir_tasks", Shape::Gauge, [], "Live tasks of all runtimes that serve: one for each connection, each open request on HTTP/2 and each shared call, bodies that are read to their end and thrown away, and a few a core that are always there.";
    LoopLag = "weir_loop_lag_seconds", Shape::Histogram(SHORT), ["core"], "How late a timer of this loop fired.";
    Artifacts = "weir_artifact_ready", Shape::Gauge, ["artifact"], "1: the artifact is there and verified.";
    TargetOn = "weir_target_on", Shape::Gauge, ["target"], "1: the target is part of its cascades.";
    Records = "weir_records_total", Shape::Counter, ["result"], "Records by what became of them: written, dropped (queue full), failed (disk).";
    RecordFaults = "weir_record_faults_total", Shape::Counter, ["fault"], "Faults of the records' files: torn, write, open, rotate, prune.";
    Reloads = "weir_plan_reloads_total", Shape::Counter, ["result"], "Plan swaps by result.";
    StoredKeys = "weir_stored_keys", Shape::Gauge, [], "Stored keys that may be sent (expired ones included).";
    KeyStoreOk = "weir_key_store_ok", Shape::Gauge, [], "1: the store of keys can be read. 0: it cannot; keys that are known go on.";
    KeyStoreFaults = "weir_key_store_faults_total", Shape::Counter, ["fault"], "Times that the store of keys could not be read any more: locked, gone, broken, secret.";
    UsageLost = "weir_usage_lost_total", Shape::Counter, [], "Requests that /admin/usage does not count: the usage of too many kinds waited to be written.";
    UsageFaults = "weir_usage_faults_total", Shape::Counter, ["fault"], "Faults of the usage database: open, write, prune.";
    Uptime = "weir_start_time_seconds", Shape::Gauge, [], "When this process started, Unix seconds.";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> impl Iterator<Item = Spec> {
        Name::ALL.iter().map(|n| n.spec())
    }

    /// A page of the repository, for people.
    fn page(path: &str) -> String {
        let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// How a metric's row begins in `docs/metrics.md`.
    fn row(spec: &Spec) -> String {
        let kind = match spec.shape {
            Shape::Counter => "counter",
            Shape::Gauge => "gauge",
            Shape::Histogram(_) => "histogram",
        };
        let labels: Vec<String> = spec.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() {
            "-".to_owned()
        } else {
            labels.join(", ")
        };
        format!("| `{}` | {kind} | {labels} | ", spec.name)
    }

    /// Every name of a metric that stands in a text.
    fn named(text: &str) -> Vec<&str> {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
        let ours = words.filter(|word| word.starts_with("weir_"));
        ours.map(|word| word.strip_suffix("_bucket").unwrap_or(word))
            .collect()
    }

    #[test]
    fn names_differ_and_follow_the_conventions() {
        let mut names: Vec<_> = specs().map(|spec| spec.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Name::ALL.len());
        for spec in specs() {
            assert!(spec.name.starts_with("weir_"), "{}", spec.name);
            assert_eq!(
                spec.shape == Shape::Counter,
                spec.name.ends_with("_total"),
                "{}",
                spec.name
            );
        }
    }

    #[test]
    fn the_page_has_a_row_for_every_metric() {
        let page = page("docs/metrics.md");
        for spec in specs() {
            let begins = row(&spec);
            let rows = page.lines().filter(|line| line.starts_with(&begins)).count();
            assert_eq!(rows, 1, "docs/metrics.md must have one row that begins: {begins}");
        }
    }

    #[test]
    fn the_pages_name_no_metric_that_is_not_there() {
        for path in ["docs/metrics.md", "docs/soak.md", "README.md", "ARCHITECTURE.md"] {
            let page = page(path);
            for name in named(&page) {
                assert!(
                    specs().any(|spec| spec.name == name),
                    "{path} names {name}, and there is no such metric"
                );
            }
        }
        assert_eq!(
            named("`weir_a_total{x=\"y\"}`, rate(weir_b_bucket[5m]) weird"),
            ["weir_a_total", "weir_b"]
        );
    }

    #[test]
    fn what_a_soak_compares_at_rest_is_a_gauge_here() {
        for held in load_tests::soak::HELD {
            assert!(
                specs().any(|spec| spec.name == held && spec.shape == Shape::Gauge),
                "load_tests::soak::HELD names {held}, and there is no such gauge"
            );
        }
    }
}
