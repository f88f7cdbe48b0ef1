//! Step 8, `reserve`: how many tokens a request will usually come to, at the dearest of the targets that may be asked.
//!
//! It stands before anything is queued or looked at, so that who is over a limit costs nothing further. Money is not held
//! here but by each try before it starts (`cascade/attempt.rs`): a target that the caller's money does not cover is simply
//! not asked, and a request that none is covered for is told which limit it was.

use routing::facts::Facts;
use routing::resolve::Policy;

use crate::cascade;
use crate::runtime::Runtime;

/// Tokens that are held before anybody is asked.
pub fn tokens(rt: &Runtime, policy: &Policy, facts: &Facts) -> u64 {
    let targets = policy.tiers.iter().flatten();
    targets
        .filter(|id| rt.is_on(id.index()))
        .filter_map(|id| {
            let learned = rt.targets.get(id.index())?.state.learned();
            Some(cascade::expected(facts, rt.plan.target(*id), learned).tokens)
        })
        .max()
        .unwrap_or(0)
}
