//! Plans: a text either loads, or has problems that stand inside it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use routing::plan;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let lines: Vec<&str> = text.split('\n').collect();
    let line = |number: u32| {
        let index = usize::try_from(number)
            .expect("a line")
            .checked_sub(1)
            .expect("lines begin at 1");
        *lines
            .get(index)
            .unwrap_or_else(|| panic!("line {number} of {}", lines.len()))
    };
    match plan::load(text) {
        Ok(compiled) => {
            for note in &compiled.notes {
                line(note.line);
                assert!(!note.text.is_empty());
            }
            let plan = compiled.plan;
            let again = plan::load(text).expect("it has loaded before").plan;
            assert_eq!(
                (plan.fingerprint, plan.canonical()),
                (again.fingerprint, again.canonical())
            );
            // Indices lead to something.
            for route in &plan.routes {
                for id in route.tiers.iter().flatten() {
                    assert!(plan.provider_of(*id).name.len() + plan.target(*id).name.len() > 0);
                }
            }
            let _ = plan.server.exposed();
        }
        Err(problems) => {
            assert!(!problems.0.is_empty());
            for problem in &problems.0 {
                let there = line(problem.line).chars().count();
                let column = usize::try_from(problem.column).expect("a column");
                assert!((1..=there + 1).contains(&column), "{problem:?}");
                let width = usize::try_from(problem.width).expect("a width");
                assert!(
                    width >= 1 && column + width <= there + 2,
                    "{problem:?} in {there}"
                );
                assert!(problem.source.chars().count() <= 160 && problem.to_string().len() < 20_000);
                assert!(!problem.what.is_empty());
            }
        }
    }
});
