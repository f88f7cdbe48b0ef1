//! The door: what a caller's bytes, headers and addresses can reach, and what of our secrets can get out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../program/mod.rs"]
mod program;

mod addresses;
mod debug;
mod framing;
mod headers;
mod planted;
mod rekeyed;
mod secrets;
mod upstream;
mod urls;
