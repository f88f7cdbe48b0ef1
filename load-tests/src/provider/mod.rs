//! A fake provider: a real HTTP server (HTTP/1.1 and h2c on one port) that speaks OpenAI's chat, completions, embeddings
//! and models, and Anthropic's messages, whole and streamed. What it answers, how fast and how it fails comes from a
//! [`Script`]: by model name, by words in the prompt, or by a directive inside the prompt; and from rules that are armed
//! while it runs. Faults have names ([`Fault`]); those below HTTP are written by hand on the socket ([`Raw`]). The same
//! script and the same request give the same bytes, except for the request counter in `id`.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use load_tests::provider::{Provider, Script};
//! let provider = Provider::start(Script::default()).await.unwrap();
//! assert!(provider.url().starts_with("http://127.0.0.1:"));
//! provider.shutdown().await;
//! # });
//! ```

mod admin;
mod anthropic;
mod behaviour;
mod body;
mod capacity;
mod connection;
mod directive;
mod embeddings;
mod fault;
mod go_on;
mod handle;
mod log;
mod openai;
mod raw;
mod reply;
mod request;
mod respond;
mod rule;
mod script;
mod serve;
mod solve;
mod sse_style;
mod wire;
mod words;

pub use behaviour::{Behaviour, Ending, ErrorBody, ToolCall, UsageScript};
pub use capacity::{Beyond, Capacity};
pub use fault::Fault;
pub use go_on::GoOn;
pub use handle::{Options, Provider, State};
pub use log::{Ended, Entry, Log};
pub use raw::Raw;
pub use rule::Rule;
pub use script::{Answer, ModelScript, Script, ScriptError};
pub use sse_style::{Newline, SseStyle};
pub use wire::{Cut, CutHow, WirePlan};
pub use words::{fnv1a, generate as generate_text};
