//! The way of a request, top to bottom: one step a line, each with the reason for its place. The numbers are those of
//! ARCHITECTURE.md, and a test holds them together; gaps are steps that are not built yet.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;

use http::request::Parts;
use http::{HeaderValue, Request, Response};
use routing::decide::Silent;
use routing::resolve::Asked;

use crate::app::App;
use crate::body::Metered;
use crate::cascade;
use crate::classify::Looking;
use crate::error::{Error, Kind};
use crate::leases::{Lease, Place};
use crate::ledger::Ledger;
use crate::limits::{self, Reservation, Standing};
use crate::note;
use crate::question;
use crate::reply::{Cors, Failed, Outcome, Reply, respond};
use crate::runtime::Runtime;
use crate::server::linger;
use crate::steps::decode::Incoming;
use crate::steps::intake::Endpoint;
use crate::steps::{admission, auth, cache, deadline, decide, decode, intake, models, reserve, resolve};
use crate::telemetry::record::Record;

/// Answers one HTTP request, whatever happens: an error becomes a response here and nowhere else, and a bug is one
/// counted 500.
pub async fn handle(app: &App, request: Request<Incoming>) -> Response<Metered> {
    let (head, mut body) = request.into_parts();
    let rt = app.runtime();
    let mut ledger = open(app, &rt);
    // Judged before all steps, so that a page that may call can read every error; refused only at its step.
    let page = auth::browser(&head.headers, &head.uri, &rt.plan.server);
    let cors = Cors {
        allow: page.as_ref().ok().cloned().flatten(),
    };
    let outcome = guarded(answer(app, &rt, &head, page, &mut body, &mut ledger)).await;
    let outcome = outcome.unwrap_or_else(|| {
        ledger.panicked();
        Err(Error::new(
            Kind::Bug,
            "a bug in the gateway ended this request; it was counted",
        )
        .into())
    });
    // A client that waits for `100 Continue` sends nothing when it sees this answer instead.
    let waits = ledger.record.bytes_in == 0 && head.headers.contains_key(http::header::EXPECT);
    if !waits {
        linger::linger(app.clock(), body);
    }
    respond(outcome, &head, cors, app.connection().map(|c| &**c), ledger)
}

/// Once per HTTP request.
async fn answer(
    app: &App,
    rt: &Arc<Runtime>,
    head: &Parts,
    page: Result<Option<HeaderValue>, Error>,
    body: &mut Incoming,
    ledger: &mut Ledger,
) -> Outcome {
    let (plan, clock) = (&rt.plan, app.clock());

    // 1 intake: everything below is told by its record; what is too much, or comes too often, is not looked at.
    intake::room(app, plan)?;
    if let Some(peer) = app.peer() {
        app.addresses()
            .request(peer.address)
            .inspect_err(|_| ledger.handles().over("address", "requests_per_minute"))?;
    }
    let endpoint = intake::endpoint(head)?;
    let asked = intake::asked(&head.headers)?;
    note::asked(&mut ledger.record, &asked);
    let mut bytes = app.bodies().lease();

    // 2 deadline: from here on everything sees time left.
    ledger.step("deadline");
    let deadline = deadline::deadline(&head.headers, &plan.server, ledger.started)?;

    // 3 auth: from headers only, before any body is read.
    ledger.step("auth");
    page?;
    if endpoint == Endpoint::Preflight {
        return Ok(Reply::preflight());
    }
    let guessed = || {
        let over = |_: &Error| ledger.handles().over("address", "wrong_keys_per_minute");
        app.peer().map_or(Ok(()), |peer| {
            app.addresses().wrong_key(peer.address).inspect_err(over)
        })
    };
    let principal = auth::check(&head.headers, plan, &rt.keys, app.stored_keys(), clock, guessed)?;
    note::who(&mut ledger.record, &principal);
    // Without keys everybody is one tenant, whose part is all of it.
    let of_tenant = principal
        .key
        .is_some()
        .then(|| app.tenant_bodies().of(&principal.tenant));
    if let Some(tenant) = &of_tenant
        && !bytes.belong_to(Arc::clone(tenant))
    {
        return Err(decode::share().into());
    }
    let may = principal.may(plan);
    let kind = match endpoint {
        Endpoint::Call(kind) => kind,
        Endpoint::Models => {
            return Ok(Reply::json(models::list(
                plan,
                may,
                &|i| rt.is_on(i),
                app.started_unix(),
            )));
        }
        Endpoint::Model(id) => {
            let found = models::one(plan, may, &|i| rt.is_on(i), app.started_unix(), &id)?;
            return Ok(Reply::json(found));
        }
        Endpoint::Preflight => return Ok(Reply::preflight()),
    };

    // 4 decode: who asks is known, so the body may be read; bytes to a call, once.
    ledger.step("decode");
    decode::check_type(&head.headers)?;
    let read_from = clock.now();
    let raw = decode::read(
        body,
        plan.server.max_body_bytes,
        &mut bytes,
        clock,
        deadline.commit,
        &mut ledger.record.bytes_in,
    )
    .await;
    ledger.waited.body = clock.now().since(read_from);
    ledger.leases.hold(Lease::Bytes(bytes));
    let (call, mut facts) = decode::decode(kind, raw?, app.session_key())?;
    facts.tenant = principal.tenant.clone();
    facts.key = principal.key.clone();
    facts.key_has_budget = principal.has_own_budget();
    facts.tags.clone_from(&asked.tags);
    note::call(&mut ledger.record, &call);

    // 5 resolve: name to route, and rules, as far as cheap facts reach.
    ledger.step("resolve");
    let named = Asked {
        model: &call.model,
        min_tier: asked.min_tier.as_deref(),
        may,
    };
    let policy = match resolve::resolve(plan, named, &facts) {
        Ok(policy) => policy,
        Err(error) => {
            note::facts(&mut ledger.record, facts);
            return Err(error.into());
        }
    };
    ledger.route = policy.route.map(routing::ids::RouteId::index);
    note::policy(&mut ledger.record, plan, &policy);

    // 6 limits: requests of this minute, of key, tenant, route and in total; a hit in the cache costs just this.
    ledger.step("limits");
    let meters = rt
        .limiters
        .of(principal.meter(&rt.limiters), &principal.tenant, policy.route);
    if !meters.is_empty() {
        let taken = limits::take_request(&meters, clock.now());
        ledger.standing = Some(Standing::of(&meters, clock.now()));
        taken.map_err(|over| note::over(ledger, &over))?;
    }

    // 7 cache: somebody has asked the same, or asks it now; who gets that answer goes no further and holds nothing.
    ledger.step("cache");
    let waiting_from = clock.now();
    let classifier = app.classifier();
    let mut sought = None;
    let seat = cache::seat(cache::Ask {
        cache: app.cache(),
        plan,
        call: &call,
        facts: &mut facts,
        policy: &policy,
        no_cache: asked.no_cache,
        name: asked.idempotency_key.as_deref(),
        deadline: deadline.commit,
        clock,
        bodies: app.bodies(),
        of_tenant,
        classifier: &classifier,
        sought: &mut sought,
    });
    let seat = Box::pin(seat).await;
    let read = note::sought(ledger, sought);
    ledger.waited.upstream += clock.now().since(waiting_from).saturating_sub(read);
    let (lead, stale) = match seat? {
        cache::Seat::Answered(served) => {
            note::facts(&mut ledger.record, facts);
            note::served(ledger, &served);
            return Ok(Reply::served(*served, &deadline, plan, clock.now()));
        }
        cache::Seat::Leads(lead, stale) => {
            note::looked(ledger);
            (Some(lead), stale)
        }
        cache::Seat::Alone => (None, None),
    };

    // 8 reserve: a place among those that run, and tokens as they usually come; money is held try by try.
    ledger.step("reserve");
    if !meters.is_empty() {
        let tokens = reserve::tokens(rt, &policy, &facts);
        let taken = Reservation::take(meters.clone(), tokens, clock);
        ledger.standing = Some(Standing::of(&meters, clock.now()));
        ledger.reservation = Some(taken.map_err(|over| note::over(ledger, &over))?);
    }

    // 9 admission: a part of the work in flight; who waits for it does so by class, or is turned away at once.
    ledger.step("admission");
    let asking = admission::Asking {
        gate: app.gate(),
        clock,
        plan,
        targets: &rt.targets,
        policy: &policy,
        class: principal.class,
        stream: facts.stream,
        deadline: deadline.commit,
    };
    let mut turn = admission::enter(asking, || reserve::tokens(rt, &policy, &facts)).await?;

    // 10 decide: who is asked first; the encoder runs only if it can change that. Where all that it wants are taken, admission
    // waits for a place at one of them, and it is decided anew.
    ledger.step("decide");
    let seed = rand::random();
    let (signals, decision) = loop {
        let encoder_us = classifier.predicted_us(&facts);
        let mut signals = rt.signals(clock.now(), encoder_us, facts.prompt_tokens);
        turn.show(&mut signals);
        let question = decide::Asked {
            plan,
            policy: &policy,
            signals: &signals,
            deadline: deadline.commit,
            seed,
            looking: Looking { call: &call },
        };
        let decided = decide::decide(question, &mut facts, &classifier, clock, &mut Silent).await;
        ledger.waited.classify += decided.classified;
        ledger.record.heads.extend(decided.heads);
        note::facts(&mut ledger.record, facts.clone());
        let decision = decided.decision?;
        let seated = turn.seated(&decision).await;
        ledger.waited.queue = turn.waited;
        if seated? {
            break (signals, decision);
        }
    };
    let (permit, seat) = turn.holds();
    ledger.leases.extend(permit.map(Lease::Admitted));
    note::decision(&mut ledger.record, plan, &decision, &signals);
    let debug = asked
        .debug
        .then(|| decide::compact(plan, &policy, &facts, &signals, deadline.commit, &decision))
        .and_then(|json| HeaderValue::from_str(&json).ok());

    // 11 cascade: try, verify, escalate, until there is an answer to commit to.
    ledger.step("cascade");
    let request_id = Arc::from(&*ledger.record.id);
    let (Some(pool), Some(schemas)) = (app.pool(), app.schemas()) else {
        return Err(Error::new(Kind::Bug, "this core has no pool").into());
    };
    let question = question::question(&call, &decision, schemas).await;
    let question = question.map_err(|e| Failed::from(e).with_decision(debug.clone()))?;
    let work = cascade::Work {
        clock: clock.clone(),
        pool: Arc::clone(pool),
        call: Arc::clone(&call),
        plan: Arc::clone(plan),
        targets: Arc::clone(&rt.targets),
        budgets: Arc::clone(&rt.budgets),
        reservation: ledger.reservation.clone(),
        seed: decision.seed,
        question,
        seat,
        signals,
        decision,
        facts: Arc::new(facts),
        deadline: deadline.commit,
        until: deadline.whole,
        silence: deadline.silence,
        resent: asked.resent,
        began: ledger.started,
        request_id,
        traceparent: asked.trace.clone(),
        shared: lead.is_some(),
        stale,
    };
    let tried_from = clock.now();
    // Boxed: most requests end before they come so far, and a connection holds room for the largest future.
    let tried = match lead {
        None => Box::pin(cascade::run(work, |account| note::account(ledger, account))).await,
        Some(lead) => Box::pin(lead.fly(work, ledger)).await,
    };
    ledger.waited.upstream += clock.now().since(tried_from);
    match tried {
        Ok(reply) => Ok(Reply::of_cascade(reply, &deadline, plan, clock.now()).with_decision(debug)),
        Err(failure) => Err(Failed::from(failure).with_decision(debug)),
    }
}

fn open(app: &App, rt: &Runtime) -> Ledger {
    let record = Record::open(&intake::new_id(), app.clock().unix_ms(), rt.plan.fingerprint);
    let (clock, sink) = (app.clock().clone(), app.sink().clone());
    let mut ledger = Ledger::open(
        record,
        clock,
        sink,
        Arc::clone(app.process()),
        Arc::clone(&rt.handles),
    );
    let place = Place::take(app.in_flight(), &app.process().in_flight);
    ledger.leases.hold(Lease::Place(place));
    ledger
}

/// Polls a future behind a guard: `None` when it panicked.
async fn guarded<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(
        |cx| match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(done)) => Poll::Ready(Some(done)),
            Err(_) => Poll::Ready(None),
        },
    )
    .await
}
