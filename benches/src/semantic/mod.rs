//! What the semantic cache's decision is worth, on written questions with a known truth.

pub mod data;
pub mod embed;
pub mod evidence;
pub mod guards;
pub mod play;
pub mod table;
