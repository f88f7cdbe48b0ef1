//! What a plan can take at most, in bytes: every queue and buffer of the gateway is bounded, and these are the bounds.
//! Models bring their own, which depends on their files: weights, and KV memory for every slot of theirs at full context. That
//! is in no line here.

use super::{Admission, DegradeStep, Plan};
use crate::facts::CallKind;

/// Read and write buffer of one connection, each (hyper's `max_buf_size` is set to this).
pub const CONNECTION_BUFFER: u64 = 64 * 1024;
/// The longest head of a request (on HTTP/2 it lies in no buffer of the connection).
const HEAD: u64 = 64 * 1024;
/// What else a request holds: facts, decision, futures; and its share of the connection: the socket.
const PER_REQUEST: u64 = 32 * 1024;
/// A request that was turned away at the door, while its caller takes the answer.
const TURNED_AWAY: u64 = 8 * 1024;
/// Bytes of one answer that wait for their socket (HTTP/2; on HTTP/1 that is the connection's own buffer).
const SEND_BUFFER: u64 = 64 * 1024;
/// Longest answer that is held whole for verification, in bytes a token (long words of UTF-8 in JSON).
const BYTES_PER_TOKEN: u64 = 16;
/// Answer tokens when neither caller, target nor context bounds them.
const UNBOUNDED_TOKENS: u64 = 32 * 1024;
/// Lines of records that wait for their writer, and the longest of them.
const RECORDS_WAITING: u64 = 4_096;
const RECORD_BYTES: u64 = 16 * 1024;
/// Sums of usage that wait for their database, and the longest of their names.
const USAGE_WAITING: u64 = 16_384;
const USAGE_BYTES: u64 = 512;

/// Tries of one request that may run at the same time, each with its own copy of the body as its target wants it.
const TRIES_AT_ONCE: u64 = 2;

/// Of the cache, the part (one in so many) for answers that are kept by their caller's name for them.
pub const NAMED_PART: u64 = 8;
/// The part for questions that mean the same, where a route looks for those.
pub const SEMANTIC_PART: u64 = 4;

impl Plan {
    /// Requests that may be open at once in the whole process, also before they are admitted: a connection can ask for many on
    /// HTTP/2. One for each connection there may be, and as many again as may be admitted or wait for it.
    pub fn most_requests(&self) -> u64 {
        let Admission {
            max_in_flight, queue, ..
        } = self.admission;
        u64::from(self.server.max_connections) + u64::from(max_in_flight) + u64::from(queue)
    }
}

/// The worst case, part by part, in bytes. Sums saturate.
///
/// * connections: `max_connections` x 2 buffers of 64 KiB (4 with TLS)
/// * upstream connections: two tries of each request in flight, x 2 buffers of 64 KiB
/// * requests: [`Plan::most_requests`] x 96 KiB (a head of 64 KiB; facts, decision, futures), and as many that are turned away
///   x 8 KiB
/// * answers on their way: [`Plan::most_requests`] x 64 KiB that wait for their socket
/// * bodies: `max_body_bytes_in_flight`, one budget for all
/// * bodies sent on: as much again for each of two tries at once, which send a copy with another `model`
/// * questions of the cache: as much again, where answers are shared: what is asked is kept beside the body, to find who asks
///   the same
/// * answers held back: two tries of each request in flight x the longest answer that a target of a route with hold-back or
///   verification can give, 16 bytes a token; several choices share it
/// * cache: `cache.max_bytes`, where a route uses it; else the part of it for answers that callers name (`idempotency-key`)
/// * records: 4,096 waiting lines of 16 KiB, unless records are off
/// * usage: 16,384 sums of 512 bytes that wait for their database
/// * queues of local targets: places x 32 KiB; their bodies are in the budget for bodies
pub fn worst_case(plan: &Plan) -> Vec<(String, u64)> {
    let connections = u64::from(plan.server.max_connections);
    let (requests, tries) = (
        plan.most_requests(),
        u64::from(plan.admission.max_in_flight) * TRIES_AT_ONCE,
    );
    let shares = plan.cache.coalesce || caches(plan);
    let buffers = CONNECTION_BUFFER * 2;
    // TLS has two of its own.
    let sealed = if plan.server.tls.is_some() { 2 } else { 1 };
    let mut parts = vec![
        (
            "connections".to_owned(),
            connections.saturating_mul(buffers * sealed),
        ),
        ("upstream connections".to_owned(), tries.saturating_mul(buffers)),
        (
            "requests".to_owned(),
            requests.saturating_mul(HEAD + PER_REQUEST + TURNED_AWAY),
        ),
        (
            "answers on their way".to_owned(),
            requests.saturating_mul(SEND_BUFFER),
        ),
        (
            "bodies in flight".to_owned(),
            plan.server.max_body_bytes_in_flight,
        ),
        (
            "bodies sent on".to_owned(),
            plan.server.max_body_bytes_in_flight.saturating_mul(TRIES_AT_ONCE),
        ),
        (
            "questions of the cache".to_owned(),
            if shares {
                plan.server.max_body_bytes_in_flight
            } else {
                0
            },
        ),
        (
            "answers held back".to_owned(),
            tries.saturating_mul(longest_answer(plan)),
        ),
    ];
    let cache = if caches(plan) {
        plan.cache.max_bytes
    } else {
        plan.cache.max_bytes / NAMED_PART
    };
    parts.push(("cache".to_owned(), cache));
    if !plan.records.path.is_empty() {
        parts.push(("records waiting".to_owned(), RECORDS_WAITING * RECORD_BYTES));
    }
    parts.push(("usage waiting".to_owned(), USAGE_WAITING * USAGE_BYTES));
    let queues = plan
        .targets
        .iter()
        .filter(|t| t.is_local())
        .map(|t| u64::from(t.limits.queue.unwrap_or(0)));
    let queued: u64 = queues.sum();
    if queued > 0 {
        parts.push((
            "queues of local targets".to_owned(),
            queued.saturating_mul(PER_REQUEST),
        ));
    }
    parts
}

/// Bytes of the longest answer that a route may hold.
fn longest_answer(plan: &Plan) -> u64 {
    let tokens = plan
        .routes
        .iter()
        .flat_map(|r| r.tiers.iter().flatten())
        .filter_map(|id| {
            let target = plan
                .targets
                .get(id.index())
                .filter(|t| t.serves.contains(&CallKind::Chat))?;
            Some(
                target
                    .max_output
                    .or(target.context)
                    .map_or(UNBOUNDED_TOKENS, u64::from),
            )
        });
    tokens.max().unwrap_or(0).saturating_mul(BYTES_PER_TOKEN)
}

/// Some route reads from the cache.
fn caches(plan: &Plan) -> bool {
    plan.routes.iter().any(|r| {
        !r.cache.exact_ttl.is_zero() || r.cache.semantic || r.degrade.contains(&DegradeStep::StaleCache)
    })
}

#[cfg(test)]
mod tests {
    use super::worst_case;
    use crate::plan::{BUILTIN, load};

    #[test]
    fn the_worst_case_follows_the_plan() {
        let base =
            "[server]\nmax_connections = 10\nmax_body_bytes_in_flight = 10_000_000\n[records]\npath = \"\"\n";
        let part = |text: &str, name: &str| {
            let plan = load(text).unwrap().plan;
            worst_case(&plan)
                .into_iter()
                .find(|(n, _)| n == name)
                .map(|(_, bytes)| bytes)
        };
        assert_eq!(part(base, "connections"), Some(10 * 2 * 65_536));
        // Many requests may come by one connection, and be open before any is admitted.
        let few = format!("{base}[admission]\nmax_in_flight = 2\nqueue = 3\n");
        assert_eq!(part(&few, "requests"), Some(15 * 104 * 1_024));
        assert_eq!(part(&few, "answers on their way"), Some(15 * 64 * 1_024));
        assert_eq!(part(&few, "upstream connections"), Some(2 * 2 * 2 * 65_536));
        assert_eq!(part(base, "questions of the cache"), Some(10_000_000));
        let alone = format!("{base}[cache]\ncoalesce = false\n");
        assert_eq!(part(&alone, "questions of the cache"), Some(0));
        assert_eq!(part(base, "bodies in flight"), Some(10_000_000));
        assert_eq!(part(base, "bodies sent on"), Some(20_000_000));
        assert_eq!(part(base, "answers held back"), Some(0));
        assert_eq!(part(base, "records waiting"), None);
        assert_eq!(
            part(base, "cache"),
            Some(268_435_456 / 8),
            "answers that callers name"
        );

        let local = format!(
            "{base}[targets.a]\nprovider = \"local\"\nartifact = \"x\"\ncontext = 1_000\nlimits = {{ queue = 5 }}\n\
             [routes.r]\ntiers = [[\"a\"]]\ndegrade = []\n[admission]\nmax_in_flight = 2\n"
        );
        assert_eq!(part(&local, "answers held back"), Some(2 * 2 * 1_000 * 16));
        assert_eq!(part(&local, "queues of local targets"), Some(5 * 32 * 1024));
        let cached = local.replace("degrade = []", "degrade = []\ncache = { exact_ttl_s = 60 }");
        assert_eq!(part(&cached, "cache"), Some(268_435_456));
        assert!(part(BUILTIN, "records waiting") > Some(0));
    }
}
