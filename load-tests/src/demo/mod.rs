//! The demo: a scripted strong tier, the real gateway with its real small model, and scenes that show what happens. What
//! each scene must show is data; the demo judges itself, so CI can run it.

mod crowd;
mod paint;
mod play;
mod scenes;

pub use paint::Paint;
pub use play::{Outcome, play};
pub use scenes::{Ask, Scene, Scenes};
