//! Questions about a whole plan.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Condition, Note, Plan, Start, Weight};
use crate::ids::{RouteId, TargetId};

impl Plan {
    /// Artifacts of the manifest that local targets need, each once, in order of name.
    pub fn artifacts(&self) -> Vec<Arc<str>> {
        let named: BTreeSet<_> = self.targets.iter().filter_map(|t| t.artifact.clone()).collect();
        named.into_iter().collect()
    }

    /// Some request of this plan is served better with the encoder: a rule asks for a dear fact, a route with more than one
    /// tier predicts, or a route looks for questions that mean the same.
    pub fn wants_classifier(&self) -> bool {
        let rules = self
            .rules
            .iter()
            .any(|rule| rule.when.iter().any(Condition::is_dear));
        rules
            || self
                .routes
                .iter()
                .any(|r| r.cache.semantic || (r.start == Start::Predicted && r.tiers.len() > 1))
    }

    /// Some limit in dollars covers a call of this target for this tenant, key and route: then a price that is not
    /// known makes it ineligible.
    pub fn counts_money(
        &self,
        target: TargetId,
        tenant: &str,
        key: Option<&str>,
        route: Option<RouteId>,
    ) -> bool {
        let of_key = || {
            self.keys
                .iter()
                .any(|k| Some(k.name.as_ref()) == key && k.limits.usd_per_day.is_some())
        };
        self.total_limits.usd_per_day.is_some()
            || self.target(target).limits.usd_per_day.is_some()
            || self
                .tenants
                .get(tenant)
                .is_some_and(|limits| limits.usd_per_day.is_some())
            || route.is_some_and(|id| self.route(id).limits.usd_per_day.is_some())
            || of_key()
    }

    /// Notes for rules that ask for categories which the classifier does not have: a slip there would let a rule that
    /// denies pass everything.
    pub fn unknown_categories(&self, labels: &[&str]) -> Vec<Note> {
        let mut notes = Vec::new();
        for (i, rule) in self.rules.iter().enumerate() {
            let asked = rule.when.iter().filter_map(|c| match c {
                Condition::Category(names) => Some(names.iter()),
                _ => None,
            });
            for name in asked.flatten().filter(|name| !labels.contains(&name.as_ref())) {
                let help = match super::nearest(name, labels.iter().copied()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("it knows: {}", labels.join(", ")),
                };
                notes.push(Note {
                    line: rule.line,
                    key: format!("rules[{i}].when.category"),
                    text: format!("the classifier has no category \"{name}\": this never holds; {help}"),
                    weight: Weight::Loud,
                });
            }
        }
        notes
    }
}

impl Condition {
    /// Needs a fact that costs something to find out.
    pub fn is_dear(&self) -> bool {
        matches!(
            self,
            Self::Category(_) | Self::Language(_) | Self::Pii(_) | Self::MinDifficulty(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::ids::{RouteId, TargetId};
    use crate::plan::{BUILTIN, Plan, load};

    const BASE: &str = "[targets.a]\nprovider = \"local\"\nartifact = \"x\"\n[targets.b]\nprovider = \"local\"\nartifact = \"x\"\n[routes.r]\ntiers = [[\"a\"], [\"b\"]]\n";

    fn plan(more: &str) -> Plan {
        load(&format!("{BASE}{more}")).unwrap().plan
    }

    #[test]
    fn artifacts_are_told_once() {
        assert_eq!(plan("").artifacts().len(), 1);
        assert_eq!(load(BUILTIN).unwrap().plan.artifacts().len(), 2);
    }

    #[test]
    fn the_classifier_is_wanted_where_it_can_change_something() {
        assert!(plan("").wants_classifier());
        assert!(!plan("start = \"first\"").wants_classifier());
        assert!(
            plan("start = \"first\"\n[[rules]]\nwhen = { language = \"de\" }\nthen = { tag = \"de\" }")
                .wants_classifier()
        );
        assert!(
            !plan("start = \"first\"\n[[rules]]\nwhen = { has_tools = true }\nthen = { tag = \"t\" }")
                .wants_classifier()
        );
    }

    #[test]
    fn a_route_that_looks_by_meaning_wants_the_classifier() {
        let by_meaning = "start = \"first\"\ncache = { exact_ttl_s = 60, semantic = { enabled = true } }";
        assert!(plan(by_meaning).wants_classifier());
        let kept_for_no_time = by_meaning.replace("exact_ttl_s = 60, ", "");
        assert!(load(&format!("{BASE}{kept_for_no_time}")).is_err());
    }

    /// On loopback everybody is one address.
    #[test]
    fn off_loopback_one_address_has_half_of_the_connections() {
        let of = |server: &str| plan(&format!("[server]\n{server}")).server.per_address;
        let local = of("max_connections = 9");
        assert_eq!((local.connections, local.wrong_keys_per_minute), (0, 0));
        let open = "listen = \"0.0.0.0:1\"\nauth = \"keys\"\nmax_connections = 9";
        assert_eq!(of(open).connections, 5);
        let told = of(&format!(
            "{open}\nper_address = {{ connections = 7, requests_per_minute = 3 }}"
        ));
        assert_eq!(
            (
                told.connections,
                told.requests_per_minute,
                told.wrong_keys_per_minute
            ),
            (7, 3, 60)
        );
    }

    #[test]
    fn money_counts_where_a_limit_covers_the_call() {
        let counts = |more: &str| plan(more).counts_money(TargetId(0), "t", Some("k"), Some(RouteId(0)));
        assert!(!counts(""));
        assert!(counts("[limits]\ntotal = { usd_per_day = 1 }"));
        assert!(counts("limits = { usd_per_day = 1 }"), "of the route");
        assert!(
            counts("[tenants.t]\nlimits = { usd_per_day = 1 }")
                && !counts("[tenants.u]\nlimits = { usd_per_day = 1 }")
        );
        let key =
            |name| format!("[[keys]]\nname = \"{name}\"\nkey = \"env:K\"\nlimits = {{ usd_per_day = 1 }}");
        assert!(counts(&key("k")) && !counts(&key("j")));
    }

    #[test]
    fn a_category_that_nobody_knows_is_told() {
        let plan = plan("[[rules]]\nwhen = { category = [\"helth\", \"law\"] }\nthen = { deny = \"no\" }");
        let notes = plan.unknown_categories(&["health", "law"]);
        assert_eq!(notes.len(), 1);
        assert!(
            notes[0].text.contains("did you mean \"health\"") && notes[0].key == "rules[0].when.category"
        );
    }
}
