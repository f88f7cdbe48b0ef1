//! Language models on this machine's CPU: GGUF file in, tokens out.
//!
//! One supervised thread owns each model (nice 15) and computes all running answers together, step by step; answers
//! join and leave at every step. Callers talk to it through [`LlmHandle`] and get a [`Generation`], whose events come
//! over a bounded channel. Every row of a batch is reduced in an order of its own that does not depend on the other
//! rows, so an answer is the same alone and in company.

pub mod ability;
mod answer;
mod api;
mod blocks;
mod config;
mod engine;
mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gguf;
mod handle;
mod kernel;
mod kv;
mod load;
mod model;
mod prefix;
mod sampling;
mod schedule;
mod template;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod text;
mod tokenizer;

pub use api::{
    ChatMessage, FinishReason, GenError, GenEvent, GenerateRequest, Generation, Likelihood, LlmStats, Prompt,
    Refused, Sampling, TokenLogprob, TokenSignal,
};
pub use handle::{LlmConfig, LlmHandle, Prepared, Stop};
pub use load::LoadError;
pub use model::{LocalModel, Session};
