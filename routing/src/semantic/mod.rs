//! The semantic cache's decision: may the answer to one question be given to another one that means the same?
//!
//! Pure: no clock, no encoder, no randomness that is not handed in. The gateway brings the last user turn's embedding, the
//! time, fresh bits for the coin, and, after an exploration, the fresh answer.
//!
//! 1. [`Partition`]: everything but the last user turn must be equal, byte by byte.
//! 2. [`Vector`]: within a partition every entry is compared, in a byte a dimension. Below [`store::FLOOR`] nothing is alike.
//! 3. [`guards`]: pairs that look alike and differ in a number, a name, a "not", a unit, ... are refused, each by the guard
//!    that says so.
//! 4. [`entry`]: each entry keeps what comparisons have shown, and ventures a hit as far as its own evidence allows.
//! 5. [`governor`]: the bound. Wrong answers stay, with probability 95%, below `max_error_rate` times all look-ups, at
//!    all times and whatever the world does; the proof stands there.
//! 6. [`evidence`]: were cached and fresh answer the same?
//!
//! A look-up comes to a [`Look`]: a repeat (the same text: no question of meaning, not counted), a hit, an exploration (the
//! model is asked, and the answers compared), or a miss. The bound holds per tenant and policy, so that nobody's questions
//! use up what is allowed to others.

pub mod entry;
pub mod evidence;
pub mod governor;
pub mod guards;
pub mod partition;
#[cfg(test)]
mod props;
pub mod store;
pub mod text;
pub mod vector;

pub use evidence::{Evidence, Verdict, judge};
pub use guards::Guard;
pub use partition::{MAX_BYTES, Partition, Parts};
pub use store::{Bound, Figures, Limits, Look, Question, Semantic, Trial};
pub use vector::Vector;
