//! Would the tests notice? `tests/mutations.toml` names things that the product promises; each is switched off, alone, in
//! a copy of the source, and the test that is named beside it has to turn red.

pub mod cargo;
pub mod list;
pub mod tree;
