//! The cascade: one pure state machine that tries, verifies, escalates, retries and fails over, under one budget.
//!
//! ```text
//!             Begin                       commit (stream)
//!   Ready ------------> Trying ------------------------------> Committed
//!                       |  ^ |                                  |     |
//!          backoff,     |  | |  whole and judged, best answer,  | Ok  | cut
//!          retry-after  v  | |  refusal passed on, ladder,      |     |
//!                      Waiting  deadline, caller gone           |     |
//!                            |                                  |     v
//!                            |                                  |   Broken --Continue, Adopt--> Committed again
//!                            |                                  v     v nobody goes on
//!                            +--------------------------------> Done: Finish, once
//!
//!   Trying, when a try ends badly:   beside (same tier) -> same target after backoff -> onward (stronger tier)
//!   Trying, when an answer fails:    onward (stronger tier); else the best answer there is
//!   nothing startable:               wait for a held target -> weaker, local -> best answer -> passed-on refusal
//!                                    -> stale, message -> error
//! ```
//!
//! The caller's side of the bargain is small: feed what happens, carry out what is asked in order, keep one timer.
//!
//! ```
//! use routing::cascade::{Action, Event, Finish, Grade, Judged, Machine, Seen, Setup};
//! use routing::decide::{Query, Silent, Step, decide};
//! use routing::facts::{Facts, Known, Source};
//! use routing::outcome::{Graded, Outcome};
//! use routing::resolve::resolve;
//! use routing::signals::Signals;
//! use routing::units::Time;
//!
//! let plan = routing::plan::load(
//!     r#"
//!     version = 1
//!     [targets.small]
//!     provider = "local"
//!     artifact = "smollm2-135m-instruct-q4_1"
//!     [routes.auto]
//!     tiers = [["small"]]
//!     "#,
//! )
//! .unwrap()
//! .plan;
//! let mut facts = Facts { tenant: "default".into(), ..Facts::default() };
//! let signals = Signals::default(); // of every target, taken now
//! let policy = resolve(&plan, "auto", &facts).unwrap();
//!
//! // Step 10. Every `Need` is answered, also when the look failed; so it ends.
//! let setup = loop {
//!     let query = Query {
//!         plan: &plan,
//!         policy: &policy,
//!         facts: &facts,
//!         signals: &signals,
//!         deadline: Time::from_millis(600_000),
//!         seed: 7,
//!     };
//!     match decide(&query, &mut Silent) {
//!         Step::Decided(decision) => break Setup::of(&query, &decision),
//!         Step::Need { .. } => facts.dear.difficulty = Some(Known { value: 0.0, source: Source::Failed }),
//!         Step::Refused(no) => panic!("{no:?}"), // a typed error: 400, 404 or 503
//!     }
//! };
//!
//! // Step 11.
//! let mut machine = Machine::new(setup);
//! let mut timer = Time::NEVER; // the one sleep
//! let mut pending = vec![Event::Begin];
//! let mut now = Time(0);
//! while let Some(event) = pending.pop() {
//!     for action in machine.step(event, now) {
//!         match action {
//!             Action::Start { try_, target, hold, judge, .. } => {
//!                 // permit, breaker, clocks, dialect, client; `hold` frames back; refuse with Event::Refused.
//!                 // Here the answer is simply there, and good:
//!                 let verdict = Judged { grade: Grade::Pass, seen: Seen::Full, p_good: None };
//!                 let end = Graded::plain(Outcome::Ok);
//!                 pending.push(Event::Ended { try_, end, may_repeat: true });
//!                 if judge {
//!                     pending.push(Event::Verdict { try_, verdict });
//!                 }
//!                 let _ = (target, hold);
//!             }
//!             Action::Cancel { .. } => { /* drop the try: dropping is cancelling */ }
//!             Action::Judge { .. } => { /* verify what is there, feed Event::Verdict */ }
//!             Action::Continue { .. } => { /* as Start; hold what it says until it joins: Event::Joined, Event::Unfit */ }
//!             Action::Adopt { .. } => { /* release what it has new */ }
//!             Action::Commit { .. } => { /* headers freeze; release what is held */ }
//!             Action::Forget { .. } => { /* drop the kept answer of an ended try */ }
//!             Action::ArmTimer { at } => timer = at, // when it comes: Event::Timer
//!             Action::Finish(Finish::Answered { verdict, .. }) => assert_eq!(verdict.grade, Grade::Pass),
//!             Action::Finish(other) => panic!("{other:?}"),
//!         }
//!     }
//!     now = Time(now.0 + 1);
//! }
//! assert!(machine.is_done());
//! assert_eq!((machine.attempts(), timer), (1, Time::from_millis(300_000)));
//! ```

mod machine;
#[cfg(test)]
mod props;
mod setup;
pub mod sim;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_gap;
#[cfg(test)]
mod tests_hedge;
#[cfg(test)]
mod tests_late;
mod types;

pub use machine::Machine;
pub use setup::{Setup, Slot, callable};
pub use types::*;
