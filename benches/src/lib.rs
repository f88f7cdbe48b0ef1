//! Measurements: criterion for time, the engine beside llama.cpp, instruction counts, the semantic cache, mutations.

pub mod cost;
pub mod engine;
pub mod mutations;
pub mod semantic;
