//! Measurements: criterion for time, the engine beside llama.cpp, instruction counts for regressions.

pub mod engine;
pub mod mutations;
