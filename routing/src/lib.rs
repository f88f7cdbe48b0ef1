//! Pure decisions: plan, rules, prediction, cascade, verification, the semantic cache.
//!
//! Nothing in this crate does I/O: no clock, no files, no network, no randomness that is not handed in. The same code
//! serves production, `weir explain`, replay, tuning and simulation, so what is explained is what was done.

pub mod admission;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod cascade;
pub mod continuation;
pub mod decide;
pub mod explain;
pub mod facts;
pub mod ids;
pub mod latency;
pub mod limit;
pub mod outcome;
pub mod plan;
pub mod predict;
pub mod resolve;
pub mod semantic;
pub mod signals;
pub mod sim;
pub mod units;
pub mod verify;
