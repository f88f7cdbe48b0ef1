use proptest::prelude::*;

use super::*;

/// What a guard says of two questions, asked both ways: it must say the same.
pub(super) fn both_ways(differ: impl Fn(&Ask, &Ask) -> bool, a: &str, b: &str) -> bool {
    let (a, b) = (Ask::of(a), Ask::of(b));
    let refused = differ(&a, &b);
    assert_eq!(refused, differ(&b, &a), "{a:?} {b:?}");
    refused
}

#[test]
fn the_first_guard_that_refuses_is_told() {
    let refuse = |a: &str, b: &str| refuse(&Ask::of(a), &Ask::of(b));
    assert_eq!(
        refuse("pancakes for 4 people", "pancakes for 10 people"),
        Some(Guard::Number)
    );
    assert_eq!(refuse("how far in km", "how far in miles"), Some(Guard::Unit));
    assert_eq!(
        refuse("the bill for March", "the bill for April"),
        Some(Guard::Date)
    );
    assert_eq!(refuse("with eggs", "without eggs"), Some(Guard::Negation));
    assert_eq!(refuse("turn it on", "turn it off"), Some(Guard::Opposite));
    assert_eq!(
        refuse("sort a list in Python", "sort a list in Ruby"),
        Some(Guard::Code)
    );
    assert_eq!(refuse("a trip to Rome", "a trip to Naples"), Some(Guard::Name));
    assert_eq!(
        refuse("from rome to naples", "from naples to rome"),
        Some(Guard::Direction)
    );
    assert_eq!(refuse("delete a user", "delete all users"), Some(Guard::Scope));
    assert_eq!(refuse("summarise it", "explain it"), Some(Guard::Task));
    assert_eq!(refuse("who did it", "when was it done"), Some(Guard::Question));
    assert_eq!(
        refuse("is a cat there now", "is a dog there now"),
        Some(Guard::Swap)
    );
    assert_eq!(
        refuse("Wer ist das und wo?", "What is that and where is it?"),
        Some(Guard::Language)
    );
    assert_eq!(
        refuse("How do I reset my password?", "how to reset the password"),
        None
    );
}

#[test]
fn every_guard_is_asked() {
    let mut names: Vec<&str> = Guard::ALL.iter().map(|guard| guard.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Guard::ALL.len());
}

proptest! {
    /// Guards take any text, say the same of a pair in either order, and never refuse a question as itself.
    #[test]
    fn symmetric_and_reflexive(a in ".{0,60}", b in "[a-zA-Z0-9 .,'\"?$%]{0,60}") {
        let (a, b) = (Ask::of(&a), Ask::of(&b));
        for guard in Guard::ALL {
            prop_assert_eq!(guard.refuses(&a, &b), guard.refuses(&b, &a), "{:?}", guard);
            prop_assert!(guard == Guard::Language || !guard.refuses(&b, &b), "{:?}", guard);
        }
    }
}
