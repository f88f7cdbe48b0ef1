//! Step 7, `cache`: has somebody asked the same before, or does somebody ask it now?
//!
//! It stands behind `limits`, so that hits count as requests, and before `reserve`, so that they cost nothing else: who gets a
//! kept answer, or reads along with another's, holds no place, no tokens and no money.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use routing::facts::Facts;
use routing::plan::{DegradeStep, Plan};
use routing::resolve::Policy;
use routing::units::{NanoUsd, Time};
use sha2::{Digest, Sha256};

use crate::body::Source;
use crate::cache::flight::{End, Flight, Reader};
use crate::cache::flights::Boarded;
use crate::cache::key::{Key, is_shareable};
use crate::cache::lead::{Lead, Under};
use crate::cache::semantic::{self, Found, Sought};
use crate::cache::telling::{Replay, Telling};
use crate::cache::{Cache, Entry};
use crate::call::Call;
use crate::cascade::Head;
use crate::classify::{self, Classifier};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::leases::{self, ByteBudget};
use crate::providers::render::Form;
use crate::telemetry::record;

/// What the step looks at.
pub struct Ask<'a> {
    /// Kept answers, and calls that run.
    pub cache: &'a Arc<Cache>,
    /// The plan.
    pub plan: &'a Plan,
    /// The call.
    pub call: &'a Call,
    /// Its facts; the encoder adds to them where it is asked.
    pub facts: &'a mut Facts,
    /// Its policy.
    pub policy: &'a Policy,
    /// `x-weir-no-cache`.
    pub no_cache: bool,
    /// `idempotency-key`.
    pub name: Option<&'a str>,
    /// The caller's patience.
    pub deadline: Time,
    /// The one clock.
    pub clock: &'a Clock,
    /// Bytes that all logs and bodies share.
    pub bodies: &'a Arc<ByteBudget>,
    /// The part of them that the caller's tenant may hold, where tenants are known.
    pub of_tenant: Option<Arc<ByteBudget>>,
    /// Reads what is asked, where the route looks for questions that mean the same.
    pub classifier: &'a Arc<Classifier>,
    /// What such a look came to.
    pub sought: &'a mut Option<Sighting>,
}

/// What there is to tell of a look for questions that mean the same.
#[derive(Default)]
pub struct Sighting {
    /// What it came to; absent where the encoder could not be asked in time.
    pub told: Option<record::Semantic>,
    /// Version of the heads that were read beside it.
    pub heads: Option<Arc<str>>,
    /// How long the encoder took.
    pub took: Duration,
}

/// Where a request goes on.
pub enum Seat {
    /// It has its answer.
    Answered(Box<Served>),
    /// It makes a call that others may read, and whose answer may be kept.
    Leads(Lead, Option<Arc<Entry>>),
    /// It makes a call for itself.
    Alone,
}

/// An answer that this request did not pay for.
pub struct Served {
    /// What the head says.
    pub head: Head,
    /// The author's name.
    pub target: Arc<str>,
    /// What is sent.
    pub body: Told,
    /// `hit`, `semantic` or `coalesced`.
    pub how: &'static str,
    /// Its figures, where they are known by now.
    pub usage: Option<record::Usage>,
}

/// An answer in the caller's form.
pub enum Told {
    /// All of it.
    Whole(Bytes),
    /// As events.
    Stream(Box<dyn Source>),
}

/// A flight that failed is tried again once, together with whoever else waited for it.
const OWN_FLIGHTS: u32 = 2;

/// Finds the seat of a request; waits while somebody else asks the same.
///
/// # Errors
/// The same name (`idempotency-key`) with another body; the deadline; what the call of another came to, where that would come
/// to the same for everyone.
pub async fn seat(mut ask: Ask<'_>) -> Result<Seat> {
    let shareable = !ask.no_cache && is_shareable(ask.call, ask.facts, ask.policy);
    let (ttl, coalesce) = (ask.policy.cache.exact_ttl, ask.plan.cache.coalesce);
    let name = ask.name;
    if name.is_none() && !(shareable && (coalesce || !ttl.is_zero())) {
        return Ok(Seat::Alone);
    }
    let tenant = Arc::clone(&ask.facts.tenant);
    let exact = shareable.then(|| Key::of(ask.call, &tenant, ask.policy));
    let named = name.map(|name| (Key::named(&tenant, name), Sha256::digest(&ask.call.raw).into()));
    let lives = ttl.saturating_add(ask.plan.cache.stale_ttl);
    let kept_under = exact.clone().filter(|_| !ttl.is_zero());
    let under = Under {
        exact: kept_under.map(|key| (key, lives)),
        named: named.clone(),
    };
    let listed = match &named {
        Some((key, _)) => Some(key.clone()),
        None => exact.filter(|_| coalesce),
    };
    // Who names a request is to have the answer to that, and no other.
    let mut seeks = ask.policy.cache.semantic && shareable && name.is_none();
    let mut sought = None;
    let mut failed = 0;
    loop {
        let stale = match look(&ask, &under, ttl)? {
            Looked::Hit(served) => return Ok(Seat::Answered(served)),
            Looked::Miss(stale) => stale,
        };
        if seeks && !listed.as_ref().is_some_and(|key| ask.cache.flights().has(key)) {
            // Once, and never again for this request: another coin might fall otherwise.
            seeks = false;
            match alike(&mut ask).await {
                Some(Found::Hit(entry)) => {
                    let served = replayed(&ask, &entry, "semantic");
                    return Ok(Seat::Answered(served));
                }
                Some(Found::Repeat(entry)) => return Ok(Seat::Answered(replayed(&ask, &entry, "hit"))),
                Some(Found::Ask(question)) => sought = Some(question),
                None => {}
            }
            // Meanwhile somebody may have had the answer, or be about to.
            continue;
        }
        let begin = || {
            let body = named.as_ref().map(|(_, body)| *body);
            Flight::led(Form::of(ask.call), log_bytes(&ask), body)
        };
        let boarded = match &listed {
            Some(key) => ask.cache.flights().board(key, begin),
            None => Boarded::Leads(begin()),
        };
        let (reader, leads) = match boarded {
            Boarded::Leads(reader) => (reader, true),
            Boarded::Joined(reader) => (reader, false),
        };
        if let Some(question) = sought.take() {
            reader.flight().seek(*question);
        }
        if leads {
            let classifier = Arc::clone(ask.classifier);
            let lead = Lead::new(Arc::clone(ask.cache), reader, listed, under, classifier);
            return Ok(Seat::Leads(lead, stale));
        }
        if let Some((_, body)) = &named
            && reader.flight().body != Some(*body)
        {
            return Err(conflict());
        }
        match along(&ask, reader).await? {
            Ok(served) => return Ok(Seat::Answered(served)),
            Err(End::Failed(error)) if is_everyones(&error) => return Err(error),
            Err(End::Failed(error)) => {
                failed += u32::from(!is_the_leaders(&error));
                if failed >= OWN_FLIGHTS {
                    return Err(error);
                }
            }
            Err(_) => {}
        }
    }
}

/// What a flight's log takes is its leader's tenant's, like the body that it answers.
fn log_bytes(ask: &Ask<'_>) -> Option<leases::Bytes> {
    let mut bytes = ask.bodies.take(0)?;
    match &ask.of_tenant {
        Some(tenant) if !bytes.belong_to(Arc::clone(tenant)) => None,
        _ => Some(bytes),
    }
}

/// Looks for a question that means the same. `None`: there is none to look for, or the encoder has no time for it.
async fn alike(ask: &mut Ask<'_>) -> Option<Found> {
    let turn = semantic::turn(ask.call)?;
    let most = ask.plan.classify.max;
    if Duration::from_micros(ask.classifier.predicted_us(ask.facts)?) > most {
        return None;
    }
    let from = ask.clock.now();
    let until = (from + most).min(ask.deadline);
    let text = turn.text.to_string();
    let reading = ask.classifier.read(text, ask.facts, ask.clock, until).await;
    let sighting = ask.sought.insert(Sighting {
        took: ask.clock.now().since(from),
        ..Sighting::default()
    });
    // One run of the encoder for this and for step 10.
    let Some(reading) = reading else {
        classify::failed(ask.facts);
        return None;
    };
    reading.note(ask.facts);
    sighting.heads = Some(Arc::clone(&reading.version));
    let sought = Sought::of(ask.call, &turn, ask.facts, ask.policy, &reading)?;
    let memory = ask.cache.semantic();
    let (found, told) = memory.look(sought, ask.clock.now(), rand::random());
    sighting.told = Some(told);
    Some(found)
}

enum Looked {
    Hit(Box<Served>),
    /// With an older answer, where there is one and the route would take it.
    Miss(Option<Arc<Entry>>),
}

fn look(ask: &Ask<'_>, under: &Under, ttl: Duration) -> Result<Looked> {
    let (stores, now) = (ask.cache.stores(), ask.clock.now());
    if let Some((key, body)) = &under.named
        && let Some(entry) = stores.named.get(key).filter(|e| e.age(now) < e.lives)
    {
        if entry.body != *body {
            return Err(conflict());
        }
        return Ok(Looked::Hit(replayed(ask, &entry, "hit")));
    }
    let entry = under.exact.as_ref().and_then(|(key, _)| stores.exact.get(key));
    let Some(entry) = entry else {
        return Ok(Looked::Miss(None));
    };
    let age = entry.age(now);
    if age < ttl {
        return Ok(Looked::Hit(replayed(ask, &entry, "hit")));
    }
    let wanted = ask.policy.degrade.contains(&DegradeStep::StaleCache) && age < entry.lives;
    Ok(Looked::Miss(wanted.then_some(entry)))
}

/// A kept answer for this caller.
fn replayed(ask: &Ask<'_>, entry: &Entry, how: &'static str) -> Box<Served> {
    let form = Form::of(ask.call);
    let told = entry.kept.told(form);
    let target = ask.plan.targets.iter().position(|t| t.name == entry.target);
    let head = Head {
        target: target
            .and_then(|at| u16::try_from(at).ok())
            .map(routing::ids::TargetId),
        tier: entry.tier,
        verified: entry.verified.to_string(),
        verdict: entry.verdict.to_string(),
        cost: (!form.stream).then_some(NanoUsd(0)),
        ..Head::default()
    };
    Box::new(Served {
        head,
        target: Arc::clone(&entry.target),
        body: if form.stream {
            Told::Stream(Box::new(Replay::new(told)))
        } else {
            Told::Whole(told)
        },
        how,
        usage: entry.usage,
    })
}

/// Reads along with another's call.
async fn along(ask: &Ask<'_>, reader: Reader) -> Result<std::result::Result<Box<Served>, End>> {
    let mut telling = Telling::new(reader, Form::of(ask.call), ask.call.choices, true);
    let committed = ask.clock.within(ask.deadline, telling.committed()).await;
    let Some(committed) = committed else {
        let message = "the deadline passed while another request that asks the same was waited for";
        return Err(Error::new(Kind::Deadline, message));
    };
    let (head, body) = match committed {
        Ok(committed) => committed,
        Err((end, _)) => return Ok(Err(end)),
    };
    let target = head.target.and_then(|id| ask.plan.targets.get(id.index()));
    let served = Served {
        target: target.map(|t| t.name.clone()).unwrap_or_default(),
        head: Head {
            attempts: 0,
            cost: body.as_ref().map(|_| NanoUsd(0)),
            upstream: http::HeaderMap::new(),
            ..head
        },
        usage: telling.usage(),
        body: match body {
            Some(body) => Told::Whole(body),
            None => Told::Stream(Box::new(telling)),
        },
        how: "coalesced",
    };
    Ok(Ok(Box::new(served)))
}

/// The request itself is at fault: asking again, as anybody, comes to the same.
fn is_everyones(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::UpstreamCaller | Kind::ContextLength | Kind::Capability | Kind::Denied | Kind::PinRefused
    )
}

/// It was the leader's own patience, limit or leave that ended it: another one may have more of it.
fn is_the_leaders(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::Deadline | Kind::OverLimit | Kind::OverBudget | Kind::ClientGone
    )
}

fn conflict() -> Error {
    let message = "this idempotency-key was used within 24 hours for a request with another body; use a new key for a new request";
    Error::new(Kind::KeyReused, message).param("idempotency-key")
}
