//! The encoder, each distinct string once.

use std::collections::HashMap;

use models::clock::Clock;
use models::encoder::{EmbedFor, EncoderHandle, LoadError};
use models::store::Store;
use routing::semantic::Vector;

/// Texts of one run.
const BATCH: usize = 16;

/// Vectors by text.
pub struct Vectors(HashMap<String, Vector>);

/// Why there are none.
pub enum Failure {
    /// Artifacts are absent.
    Absent(String),
    /// Something else.
    Broken(String),
}

impl Vectors {
    /// Embeds all texts as the gateway does for routing.
    ///
    /// # Errors
    /// When the encoder is absent or fails.
    pub fn of(
        texts: impl IntoIterator<Item = String>,
        progress: impl Fn(usize, usize),
    ) -> Result<Vectors, Failure> {
        let absent = |error: String| {
            Failure::Absent(format!(
                "{error}. Try: weir models pull all-minilm-l6-v2 onnxruntime"
            ))
        };
        let store = Store::from_env().map_err(|e| absent(e.to_string()))?;
        let encoder = EncoderHandle::load(&store, Clock::system()).map_err(|error| match error {
            LoadError::Store(error) => absent(error.to_string()),
            broken => Failure::Broken(broken.to_string()),
        })?;
        let mut distinct: Vec<String> = texts.into_iter().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let mut all = HashMap::new();
        for batch in distinct.chunks(BATCH) {
            let found = encoder
                .embed_blocking(batch.to_vec(), EmbedFor::Routing)
                .map_err(|e| Failure::Broken(e.to_string()))?;
            for (text, vector) in batch.iter().zip(&found.vectors) {
                let vector =
                    Vector::of(vector).ok_or_else(|| Failure::Broken(format!("no vector for {text:?}")))?;
                all.insert(text.clone(), vector);
            }
            progress(all.len(), distinct.len());
        }
        Ok(Vectors(all))
    }

    /// The vector of a text that was embedded.
    pub fn get(&self, text: &str) -> Option<&Vector> {
        self.0.get(text)
    }

    /// Similarity of two texts that were embedded.
    pub fn similarity(&self, a: &str, b: &str) -> Option<f32> {
        Some(self.get(a)?.similarity(self.get(b)?))
    }
}
