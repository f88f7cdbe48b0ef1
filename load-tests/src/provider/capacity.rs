//! A provider of a fixed capacity: so many answers at once, and what becomes of further ones.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a provider can do at once, over all its models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Answers, from the request to the last byte.
    pub at_once: u32,
    /// Further ones.
    #[serde(default)]
    pub beyond: Beyond,
}

/// What becomes of a request that is one too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Beyond {
    /// 429, at once, without a word on when to come back.
    #[default]
    Refuse,
    /// It waits for its turn, whatever the time: its first token comes later.
    Queue,
}

/// The places of a running provider.
#[derive(Clone, Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    beyond: Beyond,
}

/// One of them; free again when it is dropped.
pub type Place = OwnedSemaphorePermit;

impl Places {
    pub(super) fn new(capacity: Capacity) -> Self {
        let at_once = usize::try_from(capacity.at_once).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS))),
            beyond: capacity.beyond,
        }
    }

    /// A place; `None`: refused.
    pub(super) async fn take(&self) -> Option<Place> {
        let free = Arc::clone(&self.free);
        match self.beyond {
            Beyond::Refuse => free.try_acquire_owned().ok(),
            Beyond::Queue => free.acquire_owned().await.ok(),
        }
    }
}
