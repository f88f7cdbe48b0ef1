//! Limits: what somebody may use in a minute, and in a day. Pure values that are handed the time; who they belong to, and
//! what a request holds of them, is the gateway's.

mod bucket;
mod day;

pub use bucket::{Bucket, Level, Wait};
pub use day::{Charge, Day};
