//! The steps of a request, one file each: three lines that say what it does, why it stands there and what it must never
//! do; one short function that [`crate::request`] calls; tests. A step never imports another step.

pub mod admission;
pub mod auth;
pub mod cache;
pub mod deadline;
pub mod decide;
pub mod decode;
pub mod intake;
pub mod models;
pub mod reserve;
pub mod resolve;
