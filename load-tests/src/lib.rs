//! Everything that looks at the gateway from outside: the scripted fake provider, the open-loop load generator, the soak,
//! the hostile-input cases, the wall of faults, chaos, outage and overload, the routing proof and the demo. Of the gateway it knows
//! only the URL (and, where it starts one itself, the program's command line and its files).

pub mod abuse;
pub mod caller;
pub mod caps;
pub mod chaos;
pub mod cli;
pub mod client;
pub mod clock;
pub mod demo;
pub mod faults;
pub mod gateway;
pub mod guards;
pub mod hostile;
pub mod ladder;
pub mod load;
pub mod outage;
pub mod overload;
pub mod overshoot;
pub mod proof;
pub mod provider;
pub mod records;
pub mod soak;
pub mod sse;
pub mod timeline;
