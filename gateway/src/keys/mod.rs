//! Stored keys: made, listed and revoked by `weir keys`, beside the static `[[keys]]` of the plan.
//!
//! A database holds a keyed hash of each key, and what the key may do. A running gateway has them all in memory, in a
//! [`Table`] that is swapped whole; a thread of its own watches the database. So no request waits for the database, and a
//! database that is locked, broken or gone takes nothing from keys that are known.

mod live;
mod secret;
pub mod store;
pub mod stored;
mod table;
mod watch;

pub use live::{Fault, FaultKind, Live, Said, Shown};
pub use secret::Mac;
pub use table::{StoredKey, Table, may_be_stored};
pub use watch::Watcher;
