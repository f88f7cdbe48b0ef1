//! Limits of keys, tenants, routes and of everything; what a request holds of them, and what it is told.
//!
//! Each owner has one [`Meter`], kept by its name over reloads. Step 6 takes a request from each; step 8 a
//! [`Reservation`] of concurrency and tokens, which every try draws on before it starts (money included) and which is
//! settled once, when the request's record is closed. What is charged to a day is in the [`Journal`] before it is spent.

mod journal;
mod meter;
mod over;
mod reservation;
mod store;

pub use journal::Journal;
pub use meter::{Meter, Today};
pub use over::{Over, Owner, What};
pub use reservation::{Cover, Estimate, Granted, Reservation};
pub use store::{Limiters, Local, Standing, Store, meter_of, take_request};

/// The meters that a request is counted at.
pub type Meters = smallvec::SmallVec<[std::sync::Arc<Meter>; 4]>;
