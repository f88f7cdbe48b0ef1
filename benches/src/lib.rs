//! Measurements: criterion for time, the engine beside llama.cpp, instruction counts for regressions.

pub mod cost;
pub mod engine;
pub mod mutations;
