//! The row against a model of it; the limit of a target against providers that are played.

mod limit;
mod row;
