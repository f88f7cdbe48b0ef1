//! Who there is: four scripted providers, their targets, and the names that callers ask for. The plan says the same
//! (`data/chaos-plan.toml`); a test holds the two together.

use std::io;
use std::net::SocketAddr;

use serde_json::json;

use crate::provider::{Behaviour, GoOn, ModelScript, Options, Provider, Rule, Script, State, ToolCall};

use super::schedule::{Place, What, Window};

/// The plan; see its first lines for what is filled in.
const PLAN: &str = include_str!("../../data/chaos-plan.toml");

/// A provider: name, and whether it speaks Anthropic's dialect.
pub const PROVIDERS: [(&str, bool); 4] = [
    ("north", false),
    ("south", false),
    ("east", true),
    ("west", false),
];

/// A target: its name, and which provider it is at.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name in the plan.
    pub name: &'static str,
    /// Index into [`PROVIDERS`].
    pub provider: usize,
}

const fn at(name: &'static str, provider: usize) -> Target {
    Target { name, provider }
}

/// All targets.
pub const TARGETS: [Target; 11] = [
    at("ladder-low", 0),
    at("ladder-high", 2),
    at("pair-a", 1),
    at("pair-b", 2),
    at("floor-weak", 0),
    at("floor-strong", 1),
    at("pinned", 3),
    at("join-a", 3),
    at("join-b", 1),
    at("tools-a", 2),
    at("tools-b", 0),
];

/// What callers name: a route, or a target.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The name.
    pub name: &'static str,
    /// Targets that are asked first when all are well. Indices into [`TARGETS`].
    pub first: &'static [usize],
    /// Those that come after.
    pub then: &'static [usize],
    /// An answer of one of `then` is marked as degraded.
    pub degrades: bool,
    /// A stream that breaks may be gone on with.
    pub goes_on: bool,
    /// What is asked there.
    pub speaks: Speaks,
}

/// What an answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Words.
    Text,
    /// Words, or a JSON value by a schema.
    TextOrJson,
    /// A tool call.
    Tool,
}

/// All names.
pub const ROUTES: [Route; 6] = [
    Route {
        name: "ladder",
        first: &[0],
        then: &[1],
        degrades: false,
        goes_on: true,
        speaks: Speaks::Text,
    },
    Route {
        name: "pair",
        first: &[2, 3],
        then: &[],
        degrades: false,
        goes_on: true,
        speaks: Speaks::Text,
    },
    Route {
        name: "floor",
        first: &[5],
        then: &[4],
        degrades: true,
        goes_on: false,
        speaks: Speaks::Text,
    },
    Route {
        name: "pinned",
        first: &[6],
        then: &[],
        degrades: false,
        goes_on: true,
        speaks: Speaks::Text,
    },
    Route {
        name: "join",
        first: &[7],
        then: &[8],
        degrades: false,
        goes_on: true,
        speaks: Speaks::TextOrJson,
    },
    Route {
        name: "tools",
        first: &[9],
        then: &[10],
        degrades: false,
        goes_on: true,
        speaks: Speaks::Tool,
    },
];

/// Arguments of every tool call, in the order of keys in which a JSON value is printed.
pub const ARGUMENTS: &str = r#"{"level":3,"river":"Weir"}"#;

impl Target {
    /// What its provider calls the model.
    pub fn model(&self) -> String {
        format!("lab-{}", self.name)
    }

    /// By its name.
    pub fn named(name: &str) -> Option<usize> {
        TARGETS.iter().position(|t| t.name == name)
    }
}

impl Route {
    /// All of its targets.
    pub fn targets(&self) -> impl Iterator<Item = usize> + '_ {
        self.first.iter().chain(self.then).copied()
    }
}

/// What reloads change in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// A number in a comment: nothing changes.
    pub note: u32,
    /// Weight of `pair-a`.
    pub weight: u32,
    /// `first_token_ms` of `ladder-low`.
    pub first_token_ms: u32,
    /// There is one more target, before all others: every index moves.
    pub spare: bool,
    /// A mistake: the file must be refused.
    pub mistake: bool,
}

impl Default for Edit {
    fn default() -> Self {
        Self {
            note: 0,
            weight: 1,
            first_token_ms: 1_500,
            spare: false,
            mistake: false,
        }
    }
}

/// The running providers.
pub struct House {
    providers: Vec<Option<Provider>>,
    addresses: Vec<SocketAddr>,
}

impl House {
    /// Starts them, each on a thread of its own.
    ///
    /// # Errors
    /// No socket, or no thread.
    pub fn start() -> io::Result<Self> {
        let new = |_| Provider::start_on_thread(script(), Options::default());
        let providers: Vec<Provider> = PROVIDERS.iter().map(new).collect::<io::Result<_>>()?;
        Ok(Self {
            addresses: providers.iter().map(Provider::address).collect(),
            providers: providers.into_iter().map(Some).collect(),
        })
    }

    /// Ends a provider: its listener is gone, its connections are closed.
    pub async fn kill(&mut self, at: usize) {
        if let Some(provider) = self.providers.get_mut(at).and_then(Option::take) {
            provider.shutdown().await;
        }
    }

    /// Starts it again where it was. It remembers nothing.
    ///
    /// # Errors
    /// Its port is taken, or there is no thread.
    pub fn revive(&mut self, at: usize) -> io::Result<()> {
        if let (Some(place), Some(address)) = (self.providers.get_mut(at), self.addresses.get(at)) {
            let options = Options {
                listen: *address,
                ..Options::default()
            };
            *place = Some(Provider::start_on_thread(script(), options)?);
        }
        Ok(())
    }

    /// The plan as an edit has it; `{listen}` and `{admin}` are left.
    pub fn plan(&self, edit: &Edit) -> String {
        let spare = "\n[targets.spare]\nprovider = \"north\"\nmodel = \"lab-spare\"\nprice = \"unmetered\"\n";
        let mut plan = PLAN.replacen(
            "{note}, {spare}, {weight} and {first_token} are what reloads change",
            "the rest is what reloads change",
            1,
        );
        for ((name, _), address) in PROVIDERS.iter().zip(&self.addresses) {
            plan = plan.replace(&format!("{{{name}}}"), &format!("http://{address}"));
        }
        plan.replace("{note}", &edit.note.to_string())
            .replace("{spare}", if edit.spare { spare } else { "" })
            .replace("{weight}", &edit.weight.to_string())
            .replace(
                "{first_token}",
                // A time is not a word.
                &if edit.mistake {
                    "\"soon\"".to_owned()
                } else {
                    edit.first_token_ms.to_string()
                },
            )
    }

    /// Begins a window.
    pub fn switch_on(&self, window: &Window) {
        match (window.place, window.what) {
            (Place::Provider(at), What::State(state)) => self.state(at, state),
            (Place::Target(at), What::Fault(fault) | What::Habit(fault)) => {
                if let Some((target, provider)) = self.of(at) {
                    let rule = Rule::for_model(&target.model(), Behaviour::of(fault));
                    provider.arm(Rule {
                        share: window.share,
                        ..rule
                    });
                }
            }
            _ => {}
        }
    }

    /// Ends it.
    pub fn switch_off(&self, window: &Window) {
        match window.place {
            Place::Provider(at) => self.state(at, State::Up),
            Place::Target(at) => {
                if let Some((target, provider)) = self.of(at) {
                    provider.disarm(Some(&target.model()));
                }
            }
        }
    }

    /// Everybody is well.
    pub fn heal(&self) {
        for provider in self.providers.iter().flatten() {
            provider.disarm(None);
            provider.set_state(State::Up);
        }
    }

    /// A provider.
    pub fn provider(&self, at: usize) -> Option<&Provider> {
        self.providers.get(at)?.as_ref()
    }

    fn state(&self, at: usize, state: State) {
        if let Some(provider) = self.provider(at) {
            provider.set_state(state);
        }
    }

    fn of(&self, target: usize) -> Option<(&'static Target, &Provider)> {
        let target = TARGETS.get(target)?;
        Some((target, self.provider(target.provider)?))
    }
}

/// What each of them answers.
fn script() -> Script {
    Script {
        default: Behaviour {
            // The answer is the question: what it must be is known of each request, byte by byte.
            echo: Some(true),
            go_on: Some(GoOn::Continue),
            first_token_ms: Some(4),
            token_ms: Some(3),
            ..Behaviour::default()
        },
        models: TARGETS.iter().filter_map(tool_script).collect(),
        log_capacity: 400_000,
        ..Script::default()
    }
}

/// Models that call a tool.
fn tool_script(target: &Target) -> Option<ModelScript> {
    let call = ToolCall {
        name: "look_up".to_owned(),
        arguments: json!(ARGUMENTS),
    };
    target.name.starts_with("tools").then(|| ModelScript {
        name: target.model(),
        behaviour: Behaviour {
            tool_calls: Some(vec![call]),
            ..Behaviour::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_says_the_same() {
        let house = House::start().unwrap();
        let text = house.plan(&Edit {
            spare: true,
            ..Edit::default()
        });
        let plan: toml::Table = toml::from_str(&text).unwrap();
        assert!(!text.contains("{north}") && text.contains("{listen}"), "{text}");
        let targets = plan["targets"].as_table().unwrap();
        assert_eq!(targets.len(), TARGETS.len() + 1);
        for t in &TARGETS {
            assert_eq!(
                targets[t.name]["provider"].as_str(),
                Some(PROVIDERS[t.provider].0)
            );
            assert_eq!(targets[t.name]["model"].as_str(), Some(t.model().as_str()));
        }
        for (name, anthropic) in PROVIDERS {
            let kind = plan["providers"][name]["kind"].as_str();
            assert_eq!(kind, Some(if anthropic { "anthropic" } else { "openai" }));
        }
        let routes = plan["routes"].as_table().unwrap();
        for r in ROUTES.iter().filter(|r| Target::named(r.name).is_none()) {
            let tiers: Vec<&str> = routes[r.name]["tiers"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|tier| tier.as_array().unwrap())
                .map(|name| name.as_str().unwrap())
                .collect();
            let mut ours: Vec<&str> = r.targets().map(|t| TARGETS[t].name).collect();
            if r.degrades {
                ours.reverse();
            }
            assert_eq!(tiers, ours, "{}", r.name);
            let never = routes[r.name]
                .get("continue")
                .is_some_and(|c| c.as_str() == Some("never"));
            assert_eq!(r.goes_on, !never, "{}", r.name);
        }
        let mistaken = house.plan(&Edit {
            mistake: true,
            ..Edit::default()
        });
        assert!(mistaken.contains("first_token_ms = \"soon\""));
    }
}
