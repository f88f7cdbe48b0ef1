//! A plan made ready to serve: secrets looked up, ways to targets opened, handles resolved.
//!
//! A [`Runtime`] is immutable; a new plan makes a new one, which is swapped in whole. A request keeps the one it began
//! with. What was learned of a target outlives it, by name and endpoint.

pub mod maker;
pub mod secrets;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use routing::budget::Budgets;
use routing::plan::{Hedge, Note, Plan, Retry, SecretOrText, SecretRef};
use routing::signals::{Ability, Signals, TargetSignal, Usable};
use routing::units::Time;

use self::secrets::{Secrets, Seen};
use crate::admission::{AtTargets, Gate};
use crate::cascade;
use crate::limits::{Limiters, Store};
use crate::providers::Client;
use crate::steps::auth::KeyTable;
use crate::target_state::TargetState;
use crate::telemetry::Telemetry;
use crate::telemetry::handles::PlanHandles;

/// A plan, ready.
pub struct Runtime {
    /// The plan.
    pub plan: Arc<Plan>,
    /// What is worth knowing about it.
    pub notes: Vec<Note>,
    /// Metric handles.
    pub handles: Arc<PlanHandles>,
    /// By target index, as the cascade wants them. Those that are off have a way that always fails.
    pub targets: Arc<[cascade::Target]>,
    /// Bounds repeats on the same target.
    pub budgets: Arc<Budgets>,
    /// Meters of everybody who has a limit.
    pub limiters: Limiters,
    /// By target index.
    pub about: Vec<About>,
    /// Hashed keys.
    pub keys: KeyTable,
    /// Keys that do not exist because their secret is absent: name and reason.
    pub absent_keys: Vec<(Arc<str>, String)>,
    /// The admin plane's token, when the plan names one.
    pub admin_token: Option<Result<String, String>>,
    /// Secret files that were read.
    files: Vec<Seen>,
}

/// What is known of a target beside its state.
pub struct About {
    /// May it be called at all.
    pub standing: Standing,
    /// Its measured ability.
    pub ability: Option<Ability>,
    /// Queue figures of a local model.
    pub local: Option<Arc<dyn LocalSignal>>,
}

/// Queue figures of a local model, now.
pub trait LocalSignal: Send + Sync {
    /// Adds them to a signal, for a prompt of so many tokens.
    fn add(&self, signal: &mut TargetSignal, prompt_tokens: u32);
}

/// May a target be called at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    On,
    /// It cannot serve yet: for people.
    Starting(Arc<str>),
    /// It is off: for people.
    Off(Arc<str>),
}

/// A way to a target, or why there is none.
pub struct Made {
    /// The way.
    pub client: Option<Client>,
    /// May it be called.
    pub standing: Standing,
    /// Its measured ability.
    pub ability: Option<Ability>,
    /// Queue figures.
    pub local: Option<Arc<dyn LocalSignal>>,
}

impl Made {
    /// A way that is open.
    pub fn on(client: Client) -> Self {
        Self {
            client: Some(client),
            standing: Standing::On,
            ability: None,
            local: None,
        }
    }
    /// None, for good.
    pub fn off(why: impl Into<Arc<str>>) -> Self {
        Self {
            client: None,
            standing: Standing::Off(why.into()),
            ability: None,
            local: None,
        }
    }
    /// None yet.
    pub fn starting(why: impl Into<Arc<str>>) -> Self {
        Self {
            client: None,
            standing: Standing::Starting(why.into()),
            ability: None,
            local: None,
        }
    }
}

/// Opens ways to targets.
pub trait Make: Send + Sync {
    /// All targets of a plan, in order.
    fn make(&self, plan: &Plan, secrets: &Secrets) -> Vec<Made>;
}

impl<F: Fn(&Plan, &Secrets) -> Vec<Made> + Send + Sync> Make for F {
    fn make(&self, plan: &Plan, secrets: &Secrets) -> Vec<Made> {
        self(plan, secrets)
    }
}

/// What outlives a plan: the states of targets, by name and endpoint, and the budgets.
#[derive(Default)]
pub struct States {
    targets: Mutex<HashMap<NameAndEndpoint, Arc<TargetState>>>,
    budgets: Mutex<Option<(Retry, Hedge, Arc<Budgets>)>>,
}

type NameAndEndpoint = (Arc<str>, Arc<str>);

impl States {
    /// The state of a target; made when it is new. States of targets that no plan names are kept: a reload that takes a
    /// target out and puts it back keeps what was learned. They are as many as names were ever in a plan.
    fn of(&self, plan: &Plan, index: usize) -> Arc<TargetState> {
        let Some(target) = plan.targets.get(index) else {
            return Arc::default();
        };
        let endpoint = plan
            .providers
            .get(target.provider.index())
            .map_or_else(Arc::default, |p| p.base_url.clone());
        let mut states = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(states.entry((target.name.clone(), endpoint)).or_default())
    }

    /// The budgets of a plan; those of the plan before, unless their settings changed: a reload in an outage must not pay
    /// for more repeats.
    fn budgets(&self, plan: &Plan) -> Arc<Budgets> {
        let mut kept = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((retry, hedge, budgets)) = &*kept
            && (retry, hedge) == (&plan.retry, &plan.hedge)
        {
            return Arc::clone(budgets);
        }
        let budgets = Arc::new(Budgets::new(&plan.retry, &plan.hedge));
        *kept = Some((plan.retry.clone(), plan.hedge.clone(), Arc::clone(&budgets)));
        budgets
    }
}

/// What a plan is made ready with.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// Opens ways to targets.
    pub make: &'a dyn Make,
    /// Looks up secrets.
    pub secrets: &'a Secrets,
    /// What outlives a plan.
    pub states: &'a States,
    /// Meters, likewise.
    pub limits: &'a dyn Store,
    /// Metrics.
    pub telemetry: &'a Telemetry,
    /// Hears of targets that have room again.
    pub gate: &'a Arc<Gate>,
    /// Now.
    pub now: Time,
}

impl Runtime {
    /// Makes a plan ready.
    pub fn new(plan: Arc<Plan>, notes: Vec<Note>, world: World<'_>) -> Self {
        let World {
            make,
            secrets,
            telemetry,
            ..
        } = world;
        let handles = Arc::new(PlanHandles::new(telemetry, &plan));
        // Looked at before they are read: a change in between is seen as one.
        let files = files(&plan).map(|path| Seen::at(&*path)).collect();
        let limiters = Limiters::new(&plan, world.limits, world.now);
        let (mut targets, mut about) = (Vec::new(), Vec::new());
        for (index, made) in make.make(&plan, secrets).into_iter().enumerate() {
            if let Some(handle) = handles.targets.get(index) {
                handle
                    .on
                    .set(if made.standing == Standing::On { 1.0 } else { 0.0 });
            }
            let state = world.states.of(&plan, index);
            if let Some(target) = plan.targets.get(index) {
                // The engine of a local model keeps to its own number of sequences.
                let most = target.limits.concurrency.unwrap_or(plan.admission.max_in_flight);
                state.configure(&plan.breaker, (!target.is_local()).then_some(most));
                state.tells(&|| Arc::new(AtTargets(Arc::clone(world.gate))));
            }
            targets.push(cascade::Target {
                client: made.client,
                state,
                granted: limiters.targets.get(index).cloned().flatten(),
            });
            about.push(About {
                standing: made.standing,
                ability: made.ability,
                local: made.local,
            });
        }
        let (mut found, mut absent_keys) = (Vec::new(), Vec::new());
        for (index, key) in plan.keys.iter().enumerate() {
            match secrets.find(&key.key) {
                Ok(value) => found.push((index, value)),
                Err(why) => absent_keys.push((key.name.clone(), why)),
            }
        }
        let admin_token = plan
            .server
            .admin_token
            .as_ref()
            .map(|secret| secrets.find(secret));
        Self {
            notes,
            budgets: world.states.budgets(&plan),
            limiters,
            handles,
            targets: targets.into(),
            about,
            keys: KeyTable::new(found),
            absent_keys,
            admin_token,
            files,
            plan,
        }
    }

    /// A secret's file has changed since it was read: the same plan should be made ready again.
    pub fn is_stale(&self) -> bool {
        self.files.iter().any(Seen::is_stale)
    }

    /// Is a target on (or about to be).
    pub fn is_on(&self, index: usize) -> bool {
        self.about
            .get(index)
            .is_some_and(|a| !matches!(a.standing, Standing::Off(_)))
    }

    /// What a decision sees of the targets, now.
    pub fn signals(&self, now: Time, encoder_us: Option<u64>, prompt_tokens: u32) -> Signals {
        let targets = self.targets.iter().zip(&self.about).map(|(target, about)| {
            let mut signal = target.state.signal(now, about.ability);
            match &about.standing {
                Standing::On => {}
                Standing::Starting(why) => signal.usable = Usable::Starting { why: why.clone() },
                Standing::Off(why) => signal.usable = Usable::Off { why: why.clone() },
            }
            if let Some(local) = &about.local {
                local.add(&mut signal, prompt_tokens);
            }
            signal
        });
        Signals {
            now,
            targets: targets.collect(),
            encoder_us,
        }
    }
}

/// Every file that holds a secret of the plan.
fn files(plan: &Plan) -> impl Iterator<Item = Arc<str>> + '_ {
    let of = |secret: &SecretRef| match secret {
        SecretRef::File(path) => Some(path.clone()),
        SecretRef::Env(_) => None,
    };
    let keys = plan.keys.iter().filter_map(move |k| of(&k.key));
    let maybe = move |value: &SecretOrText| match value {
        SecretOrText::Secret(secret) => of(secret),
        SecretOrText::Text(_) => None,
    };
    let providers = plan.providers.iter().flat_map(move |p| {
        let headers = p.headers.iter().filter_map(move |(_, value)| maybe(value));
        let key = p.api_key.as_ref().and_then(of);
        headers.chain(key).chain(p.proxy.as_ref().and_then(maybe))
    });
    keys.chain(providers)
        .chain(plan.server.admin_token.as_ref().and_then(of))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_with_a_secret_is_watched() {
        let plan = crate::testing::plan(
            "[server]\nadmin_token = \"file:/s/admin\"\n[[keys]]\nname = \"a\"\nkey = \"file:/s/a\"\ntenant = \"t\"\n\
             [providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key = \"file:/s/key\"\n\
             proxy = \"file:/s/proxy\"\nheaders = { x-a = \"file:/s/header\", x-b = \"plain\" }\n",
        );
        let mut files: Vec<String> = super::files(&plan).map(|path| path.to_string()).collect();
        files.sort();
        assert_eq!(files, ["/s/a", "/s/admin", "/s/header", "/s/key", "/s/proxy"]);
    }
}
