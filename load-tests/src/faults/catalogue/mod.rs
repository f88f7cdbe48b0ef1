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
