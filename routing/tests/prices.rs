//! What a plan says of prices.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use routing::plan::{Price, load};
use routing::units::PricePerToken;

fn plan(price: &str) -> String {
    format!(
        "version = 1\n[providers.p]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n[targets.t]\nprovider = \"p\"\n\
         model = \"m\"\nprice = {price}\n"
    )
}

/// Output and reasoning of a target with this price.
fn output_and_reasoning(price: &str) -> [PricePerToken; 2] {
    let compiled = load(&plan(price)).unwrap_or_else(|problems| panic!("{problems}"));
    let plan = compiled.plan;
    let target = plan.targets.iter().find(|t| &*t.name == "t").unwrap();
    let Price::PerToken {
        output, reasoning, ..
    } = target.price
    else {
        panic!("{:?}", target.price)
    };
    [output, reasoning]
}

#[test]
fn reasoning_costs_what_output_does_unless_the_plan_says_otherwise() {
    let usd = PricePerToken::from_usd_per_million;
    assert_eq!(
        output_and_reasoning("{ input = 1.0, output = 2.0 }"),
        [usd(2.0), usd(2.0)]
    );
    assert_eq!(
        output_and_reasoning("{ input = 1.0, output = 2.0, reasoning = 3.5 }"),
        [usd(2.0), usd(3.5)]
    );
    let wrong = load(&plan("{ input = 1.0, output = 2.0, reasoning = -1.0 }"));
    let told = wrong.err().unwrap().to_string();
    assert!(
        told.contains("targets.t.price.reasoning: this number is out of range"),
        "{told}"
    );
}
