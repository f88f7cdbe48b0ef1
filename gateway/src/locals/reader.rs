//! The encoder with its committed heads, as the classifier asks it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use models::encoder::{EmbedFor, EncoderHandle, ROUTING_TOKENS};
use models::heads::{Heads, features};
use routing::facts::Facts;

use crate::classify::{Reader, Reading};

/// An encoder that reads for routing.
pub struct HeadsReader {
    encoder: EncoderHandle,
    heads: &'static Heads,
    version: Arc<str>,
}

impl HeadsReader {
    /// With the committed heads.
    ///
    /// # Errors
    /// They cannot be read, which a test rules out.
    pub fn new(encoder: EncoderHandle) -> Result<Self, &'static str> {
        let heads = Heads::builtin()?;
        Ok(Self {
            encoder,
            heads,
            version: heads.version.as_str().into(),
        })
    }
}

impl Reader for HeadsReader {
    fn predicted_us(&self, bytes: usize) -> Option<u64> {
        self.encoder.predicted_us(bytes)
    }

    fn read(&self, text: String, _: &Facts) -> Pin<Box<dyn Future<Output = Option<Reading>> + Send>> {
        let (heads, version) = (self.heads, Arc::clone(&self.version));
        let cheap = features::cheap(&text);
        let embedded = self.encoder.embed(vec![text], EmbedFor::Routing);
        Box::pin(async move {
            let embedded = embedded.await.ok()?;
            // One of just so many is taken for a longer one.
            let whole = embedded.tokens.iter().all(|n| (*n as usize) < ROUTING_TOKENS);
            let vector = embedded.vectors.into_iter().next()?;
            let category = heads.category(&vector).label.into();
            Some(Reading {
                category,
                difficulty: heads.difficulty(&vector, &cheap),
                version,
                vector: vector.into(),
                whole,
            })
        })
    }
}
