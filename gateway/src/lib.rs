//! The gateway: HTTP, steps, providers, telemetry, admin, command line. The binary is called weir.

pub mod addresses;
pub mod admin;
pub mod admission;
pub mod app;
pub mod body;
pub mod cache;
pub mod call;
pub mod cascade;
pub mod civil;
pub mod classify;
pub mod cli;
pub mod clock;
pub mod error;
pub mod keys;
pub mod leases;
pub mod ledger;
pub mod limits;
pub mod locals;
pub mod note;
pub mod pii;
pub mod providers;
pub mod question;
pub mod refusal;
pub mod reply;
pub mod request;

pub mod runtime;
pub mod server;
pub mod sqlite;
pub mod steps;
pub mod target_state;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod usage;
