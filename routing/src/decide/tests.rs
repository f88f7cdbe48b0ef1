//! One test for each sentence of the drawing that the decision carries.

use std::sync::Arc;

use super::*;
use crate::explain::{FlipKind, compact, explain};
use crate::facts::{Facts, Known, Needs};
use crate::plan::{self, Plan};
use crate::resolve::{ResolveError, resolve};
use crate::signals::{Ability, Hold, Signals, TargetSignal, Usable};

const TARGETS: &str = r#"
version = 1
[providers.p]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
[targets.a]
provider = "local"
artifact = "smollm2-135m-instruct-q4_1"
context = 2048
[targets.b]
provider = "p"
model = "b"
context = 128_000
max_output = 16_384
price = { input = 0.15, output = 0.60 }
capabilities = ["tools", "json_schema", "vision"]
[targets.c]
provider = "p"
model = "c"
context = 128_000
price = { input = 2.50, output = 10.0 }
[targets.d]
provider = "p"
model = "d"
price = { input = 2.50, output = 10.0 }
[targets.nameless]
provider = "p"
model = "n"
[routes.first]
tiers = [["a"], ["b"], ["c"]]
start = "first"
[routes.last]
tiers = [["a"], ["b"], ["c"]]
start = "last"
[routes.cheapest]
tiers = [["a"], ["b"], ["c"]]
uncalibrated = "cheapest"
[routes.pair]
tiers = [["c", "d"]]
[routes.half]
tiers = [["a"], ["b"], ["c"]]
objective = { threshold = 0.5 }
[routes.poor]
tiers = [["a"], ["b"], ["c"]]
objective = { usd_per_1k_requests = 0.10 }
[routes.loose]
tiers = [["b"], ["nameless"]]
start = "last"
[routes.quick]
tiers = [["a"], ["b"]]
max_added_ms = 500
degrade_floor = 0.0
[routes.any]
tiers = [["a"], ["c"]]
degrade_floor = 0.0
start = "last"
[routes.auto]
tiers = [["a"], ["b"], ["c"]]
"#;

struct Case {
    plan: Plan,
    facts: Facts,
    signals: Signals,
    model: &'static str,
    seed: u64,
}

fn case(model: &'static str) -> Case {
    more(model, "")
}

fn more(model: &'static str, text: &str) -> Case {
    let plan = plan::load(&format!("{TARGETS}{text}"))
        .map_err(|p| p.to_string())
        .unwrap()
        .plan;
    let signals = Signals {
        now: Time(1_000_000),
        targets: vec![TargetSignal::default(); plan.targets.len()],
        encoder_us: Some(19_000),
    };
    let facts = Facts {
        tenant: "default".into(),
        prompt_tokens: 100,
        last_turn_bytes: 400,
        ..Facts::default()
    };
    Case {
        plan,
        facts,
        signals,
        model,
        seed: 7,
    }
}

impl Case {
    fn id(&self, name: &str) -> TargetId {
        let at = self.plan.targets.iter().position(|t| t.name.as_ref() == name);
        TargetId(u16::try_from(at.unwrap()).unwrap())
    }
    fn signal(&mut self, name: &str) -> &mut TargetSignal {
        let at = self.id(name).index();
        &mut self.signals.targets[at]
    }
    fn ability(mut self, name: &str, mean: f32) -> Self {
        self.signal(name).ability = Some(Ability {
            mean,
            stderr: 0.1,
            outcomes: 500,
        });
        self
    }
    fn usable(mut self, name: &str, usable: Usable) -> Self {
        self.signal(name).usable = usable;
        self
    }
    fn off(self, name: &str) -> Self {
        self.usable(name, Usable::Off { why: "no key".into() })
    }
    fn difficulty(mut self, value: f32) -> Self {
        self.facts.dear.difficulty = Some(Known {
            value,
            source: Source::Encoder,
        });
        self
    }
    fn query<T>(&self, f: impl FnOnce(&Query<'_>) -> T) -> T {
        let policy = resolve(&self.plan, self.model, &self.facts).unwrap();
        f(&Query {
            plan: &self.plan,
            policy: &policy,
            facts: &self.facts,
            signals: &self.signals,
            deadline: Time(601_000_000),
            seed: self.seed,
        })
    }
    fn step(&self) -> Step {
        self.query(|q| decide(q, &mut Silent))
    }
    fn decision(&self) -> Decision {
        match self.step() {
            Step::Decided(d) => *d,
            other => panic!("{other:?}"),
        }
    }
    fn start(&self) -> Option<Arc<str>> {
        self.decision().start.map(|id| self.plan.target(id).name.clone())
    }
    fn starts(&self, name: &str) {
        assert_eq!(self.start().as_deref(), Some(name), "{:#?}", self.decision());
    }
    fn refused(&self) -> NoWay {
        match self.step() {
            Step::Refused(no) => no,
            other => panic!("{other:?}"),
        }
    }
    fn why(&self, name: &str) -> Why {
        let d = self.decision();
        let found = d.excluded.iter().find(|e| e.target == self.id(name));
        found.unwrap().why.clone()
    }
}

#[test]
fn first_and_last_start_there_whatever_is_known() {
    case("first").starts("a");
    case("last").starts("c");
    assert!(case("first").decision().difficulty.is_none());
}

#[test]
fn uncalibrated_means_careful() {
    let d = case("auto");
    d.starts("c");
    assert!(
        d.decision()
            .reasons
            .contains(&Reason::Uncalibrated { targets: 2 })
    );
    case("cheapest").starts("a");
    // Without the stronger ones it may start.
    case("auto").off("b").off("c").starts("a");
    case("auto").off("c").starts("b");
}

#[test]
fn a_quality_floor_keeps_the_weak_where_it_is_good_enough() {
    let calibrated = || case("auto").ability("a", 1.0).ability("b", 1.2).ability("c", 4.0);
    calibrated().difficulty(-7.0).starts("a");
    calibrated().difficulty(3.0).starts("c");
    let easy = calibrated().difficulty(-7.0).decision();
    let p = |name: &str, d: &Decision, c: &Case| {
        d.ladder
            .iter()
            .find(|r| r.target == c.id(name))
            .unwrap()
            .p_good
            .unwrap()
    };
    let c = calibrated();
    assert!(p("a", &easy, &c) >= 0.95 * p("c", &easy, &c));
}

#[test]
fn the_floor_holds_for_every_difficulty() {
    for i in -80..80 {
        let c = case("auto")
            .ability("a", 1.0)
            .ability("b", 2.0)
            .ability("c", 3.0)
            .difficulty(i as f32 / 8.0);
        let d = c.decision();
        let p = |id| d.ladder.iter().find(|r| r.target == id).unwrap().p_good.unwrap();
        let (chosen, strongest) = (p(d.start.unwrap()), p(c.id("c")));
        assert!(chosen >= 0.95 * strongest - 1e-5, "{chosen} {strongest} at {i}");
    }
}

#[test]
fn other_objectives() {
    let half = || case("half").ability("a", 0.0).ability("b", 2.0).ability("c", 3.0);
    half().difficulty(-2.0).starts("a");
    half().difficulty(1.0).starts("b");
    let none = half().difficulty(9.0);
    none.starts("c");
    assert!(none.decision().reasons.contains(&Reason::ObjectiveUnreachable));
    // 100 prompt and 77 answer tokens: b costs 0.0612 USD a thousand, c 1.02.
    let poor = case("poor").ability("a", 0.0).ability("b", 2.0).ability("c", 3.0);
    poor.difficulty(0.0).starts("b");
}

#[test]
fn the_encoder_is_asked_only_where_it_could_change_the_outcome() {
    // All uncalibrated, or far too hard or easy for the weak: nothing it could say matters.
    assert!(matches!(case("auto").step(), Step::Decided(_)));
    let hopeless = case("auto")
        .ability("a", -9.0)
        .ability("b", -9.0)
        .ability("c", 4.0);
    assert!(matches!(hopeless.step(), Step::Decided(_)));
    assert!(
        hopeless
            .decision()
            .reasons
            .iter()
            .any(|r| matches!(r, Reason::CheapLooks { .. }))
    );
    // About the difficulty that the length alone tells.
    let open = || {
        case("half")
            .ability("a", -2.2)
            .ability("b", 0.0)
            .ability("c", 1.0)
    };
    assert!(matches!(
        open().step(),
        Step::Need {
            fact: DearFact::Difficulty,
            wait: WaitFor::Classify
        }
    ));
    let mut slow = open();
    slow.signals.encoder_us = Some(26_000);
    assert!(slow.decision().reasons.contains(&Reason::EncoderTooSlow));
    let mut failed = open();
    failed.facts.dear.difficulty = Some(Known {
        value: 0.0,
        source: Source::Failed,
    });
    assert!(failed.decision().reasons.contains(&Reason::ClassifierFailed));
}

#[test]
fn what_a_target_cannot_do_makes_it_ineligible() {
    let mut c = case("first");
    c.facts.needs = Needs::TOOLS;
    c.starts("b");
    assert_eq!(c.why("a"), Why::Lacks { needs: Needs::TOOLS });
    assert_eq!(
        c.off("b").off("c").refused(),
        NoWay::Lacks { needs: Needs::TOOLS }
    );
}

#[test]
fn length_counts_the_answer_asked_for() {
    let mut c = case("first");
    c.facts.prompt_tokens = 2_000;
    c.starts("a");
    c.facts.max_output = Some(100);
    c.starts("b");
    assert_eq!(
        c.why("a"),
        Why::Context {
            asked: 2_100,
            has: 2_048
        }
    );
    c.facts.prompt_tokens = 200_000;
    assert_eq!(
        c.refused(),
        NoWay::ContextLength {
            kind: CallKind::Chat,
            asked: 200_100,
            most: 128_000
        }
    );
    c.facts.prompt_tokens = 100;
    c.facts.max_output = Some(20_000);
    assert_eq!(
        c.why("b"),
        Why::MaxOutput {
            asked: 20_000,
            has: 16_384
        }
    );
    // An unknown context is never excluded by length.
    c.model = "pair";
    c.facts.prompt_tokens = 1_000_000;
    c.starts("d");
}

/// Each text of a list has the context for itself; in this process it is counted, not guessed.
#[test]
fn texts_to_embed_fit_one_by_one() {
    let targets = concat!(
        "[targets.here]\nprovider = \"local\"\nartifact = \"all-minilm-l6-v2\"\nserves = [\"embeddings\"]\ncontext = 256\n",
        "[targets.there]\nprovider = \"p\"\nmodel = \"e\"\nserves = [\"embeddings\"]\ncontext = 256\nprice = \"unmetered\"\n",
    );
    let of = |model: &'static str, tokens: u32, texts: u32| {
        let mut c = more(model, targets);
        c.facts.kind = CallKind::Embeddings;
        (c.facts.prompt_tokens, c.facts.turns) = (tokens, texts);
        c
    };
    // Thirty paragraphs of a hundred tokens each.
    of("here", 3_000, 30).starts("here");
    of("there", 3_000, 30).starts("there");
    of("there", 256 * 30, 30).starts("there");
    assert_eq!(
        of("there", 257, 1).refused(),
        NoWay::ContextLength {
            kind: CallKind::Embeddings,
            asked: 257,
            most: 256
        }
    );
    assert!(matches!(
        of("there", 256 * 30 + 1, 30).refused(),
        NoWay::ContextLength { asked: 257, .. }
    ));
    of("here", 300, 1).starts("here");
    of("here", 300, 0).starts("here");
}

#[test]
fn an_unknown_price_is_refused_where_money_is_limited() {
    case("loose").starts("nameless");
    let limited = more("loose", "[limits]\ntotal = { usd_per_day = 5.0 }\n");
    limited.starts("b");
    assert_eq!(limited.why("nameless"), Why::PriceUnknown);
    assert_eq!(limited.off("b").refused(), NoWay::PriceUnknown);
    // A stored key's budget is not in the plan.
    let mut stored = case("loose");
    stored.facts.key_has_budget = true;
    assert_eq!(stored.why("nameless"), Why::PriceUnknown);
}

/// "priority" may cost twice of what the plan says.
#[test]
fn a_service_tier_has_no_price_in_the_plan() {
    let mut limited = more("loose", "[limits]\ntotal = { usd_per_day = 5.0 }\n");
    limited.facts.service_tier = true;
    assert_eq!(limited.refused(), NoWay::PriceUnknown);
    let mut free = case("loose");
    free.facts.service_tier = true;
    free.starts("nameless");
}

#[test]
fn a_local_queue_longer_than_the_time_left_is_not_eligible() {
    let mut c = case("first");
    c.signal("a").predicted_wait_us = Some(900_000_000);
    c.starts("b");
    assert!(matches!(c.why("a"), Why::Wait { wait_ms: 900_000, .. }));
    let mut alone = case("a");
    alone.signal("a").predicted_wait_us = Some(900_000_000);
    assert_eq!(alone.refused(), NoWay::Busy { wait_ms: 900_000 });
}

#[test]
fn a_tier_that_would_add_too_much_is_skipped_but_never_the_last() {
    let mut c = case("quick").ability("a", 9.0).ability("b", 9.0);
    c.starts("a");
    c.signal("a").predicted_wait_us = Some(600_000);
    c.starts("b");
    assert!(c.decision().reasons.contains(&Reason::TooSlow { targets: 1 }));
    c.off("b").starts("a");
}

#[test]
fn what_is_held_is_not_started_and_weaker_is_marked() {
    let held = Usable::Held {
        until: Time(900_000_000),
        why: Hold::Limited,
    };
    let up = case("first").usable("a", held.clone());
    up.starts("b");
    assert_eq!(up.decision().degraded, None, "a stronger one is not degraded");
    // The default floor of 0.5 keeps an uncalibrated weak one out.
    let none = case("last").usable("c", held.clone());
    assert_eq!(none.start(), None);
    assert_eq!(none.decision().retry_at, Some(Time(900_000_000)));
    let any = case("any").usable("c", held);
    any.starts("a");
    let marked = any.decision().degraded.unwrap();
    assert_eq!(
        (marked.step, marked.reason),
        (DegradeStep::Weaker, DegradeReason::Held)
    );
}

#[test]
fn everything_off_says_why() {
    let off = case("auto").off("a").off("b").off("c");
    assert_eq!(off.refused(), NoWay::AllOff { why: "no key".into() });
}

#[test]
fn a_pinned_target_is_a_promise() {
    let d = case("b").decision();
    assert!(d.reasons.contains(&Reason::Pinned));
    assert_eq!(d.ladder.len(), 1);
}

#[test]
fn a_rule_that_waits_for_a_fact_asks_for_it_and_then_denies() {
    let rule =
        "[[rules]]\nname = \"no\"\nwhen = { category = \"health\" }\nthen = { deny = \"Not here.\" }\n";
    let mut c = more("first", rule);
    assert!(matches!(
        c.step(),
        Step::Need {
            fact: DearFact::Category,
            wait: WaitFor::Deadline
        }
    ));
    let known = |value: &str| {
        Some(Known {
            value: value.into(),
            source: Source::Encoder,
        })
    };
    c.facts.dear.category = known("math");
    c.starts("a");
    c.facts.dear.category = None;
    let before = c.query(|q| q.policy.clone());
    c.facts.dear.category = known("health");
    let q = Query {
        plan: &c.plan,
        policy: &before,
        facts: &c.facts,
        signals: &c.signals,
        deadline: Time(601_000_000),
        seed: 1,
    };
    assert!(matches!(
        decide(&q, &mut Silent),
        Step::Refused(NoWay::Rule(ResolveError::Denied { .. }))
    ));
}

#[test]
fn a_rules_start_tier_is_a_floor_too() {
    let rule = "[[rules]]\nname = \"up\"\nwhen = { has_code = true }\nthen = { start_tier = \"b\" }\n";
    let mut c = more("first", rule);
    c.facts.has_code = true;
    c.starts("b");
    assert_eq!(c.why("a"), Why::BelowFloor { floor: 1 });
}

#[test]
fn a_floor_that_nobody_reaches_is_told_as_such() {
    let rule = "[[rules]]\nname = \"up\"\nwhen = { has_code = true }\nthen = { start_tier = \"b\" }\n";
    let mut c = more("first", rule).off("b").off("c");
    c.facts.has_code = true;
    let why = Some("no key".into());
    assert_eq!(c.refused(), NoWay::MinTier { floor: 1, why });
    // Without the floor it is served; with everything off the floor is not to blame.
    c.facts.has_code = false;
    c.starts("a");
    c.facts.has_code = true;
    assert_eq!(c.off("a").refused(), NoWay::AllOff { why: "no key".into() });
}

#[test]
fn embeddings_never_change_model() {
    let mut c = more("vectors", "[routes.vectors]\ntiers = [[\"b\"], [\"c\"]]\n");
    c.facts.kind = CallKind::Embeddings;
    c.starts("b");
    assert_eq!(c.why("c"), Why::OtherSpace);
    // Nor while the one that was wanted is held back: an error is better than vectors of another space.
    let until = Time(900_000_000);
    let held = c.usable(
        "b",
        Usable::Held {
            until,
            why: Hold::Failed,
        },
    );
    assert_eq!(held.start(), None);
    assert_eq!(held.why("c"), Why::OtherSpace);
}

#[test]
fn spaces_that_are_named_are_alike_by_their_names() {
    let target = |name: &str, space: &str| {
        format!(
            "[targets.{name}]\nprovider = \"p\"\nmodel = \"{name}\"\nembedding_space = \"{space}\"\nprice = \"unmetered\"\n"
        )
    };
    let targets = [target("one", "x"), target("same", "x"), target("other", "y")].concat();
    let route = "[routes.vectors]\ntiers = [[\"one\"], [\"same\"], [\"other\"], [\"b\"]]\n";
    let mut c = more("vectors", &format!("{targets}{route}"));
    c.facts.kind = CallKind::Embeddings;
    c.starts("one");
    let excluded: Vec<TargetId> = c.decision().excluded.iter().map(|e| e.target).collect();
    assert_eq!(excluded, [c.id("other"), c.id("b")]);
}

#[test]
fn a_tiers_targets_share_the_load_and_the_propensity_is_told() {
    let mut c = case("pair");
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..400 {
        c.seed = seed;
        let d = c.decision();
        *seen.entry(d.start.unwrap()).or_insert(0) += 1;
        assert!(d.propensity > 0.0 && d.propensity <= 1.0);
    }
    assert!(!seen.is_empty());
    c.signal("c").latency_us = 9_000_000;
    c.signal("d").latency_us = 1_000;
    for seed in 0..50 {
        c.seed = seed;
        c.starts("d");
    }
}

#[test]
fn explain_says_what_the_decision_did_and_what_would_flip_it() {
    let c = case("half")
        .ability("a", 0.0)
        .ability("b", 2.0)
        .ability("c", 3.0)
        .difficulty(1.0);
    let decision = c.decision();
    let told = c.query(|q| explain(q, &decision));
    assert_eq!(told.start.as_deref(), Some("b"));
    let harder = told.flips.iter().find_map(|f| match f.kind {
        FlipKind::Difficulty(x) if x > 1.0 => Some((x, f.start.clone())),
        _ => None,
    });
    let (x, then) = harder.unwrap();
    assert_eq!(then.as_deref(), Some("c"));
    // The told border is the border: just below it nothing changes, at it something does.
    let at = |x| {
        case("half")
            .ability("a", 0.0)
            .ability("b", 2.0)
            .ability("c", 3.0)
            .difficulty(x)
    };
    at(x - 0.01).starts("b");
    at(x + 0.001).starts("c");
    let without = told
        .flips
        .iter()
        .find(|f| f.kind == FlipKind::Without(c.id("b")))
        .unwrap();
    assert_eq!(without.start.as_deref(), Some("c"));
    assert!(
        told.flips
            .iter()
            .any(|f| matches!(f.kind, FlipKind::PromptTokens(n) if n > 100_000))
    );
    let text = told.to_string();
    assert!(
        text.contains("starts: b (tier 1)") && text.contains("what would flip it"),
        "{text}"
    );
    serde_json::to_string(&told).unwrap();
}

#[test]
fn the_header_is_one_short_line_of_ascii() {
    let mut c = case("auto").off("b");
    *c.signal("b") = TargetSignal {
        usable: Usable::Off {
            why: "schl\u{fc}ssel fehlt\n".into(),
        },
        ..TargetSignal::default()
    };
    let decision = c.decision();
    let line = c.query(|q| compact(q, &decision));
    assert!(
        line.is_ascii() && !line.contains('\n') && line.len() < 2_048,
        "{line}"
    );
    let back: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(back["start"], "c");
}

#[test]
fn the_same_query_gives_the_same_decision() {
    for seed in 0..20 {
        let mut c = case("pair");
        c.seed = seed;
        let (one, two) = (c.decision(), c.decision());
        assert_eq!(one.start, two.start);
        assert_eq!(one.reasons, two.reasons);
    }
}
