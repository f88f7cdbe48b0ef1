//! Embeddings in a byte a dimension.

/// An embedding of norm 1, quantised: 388 bytes for MiniLM's 384 dimensions, a quarter of the floats.
///
/// The scale makes the quantised vector's own norm 1, so that a vector's similarity with itself is 1, and rounding
/// shows in the third decimal of a similarity only (a test holds it below 0.006).
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    values: Box<[i8]>,
    scale: f32,
}

impl Vector {
    /// From an embedding of any norm. `None` for one that is empty, all zero, or not finite: it says nothing.
    pub fn of(embedding: &[f32]) -> Option<Vector> {
        let most = embedding.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        if !most.is_finite() || most == 0.0 || embedding.iter().any(|v| v.is_nan()) {
            return None;
        }
        let values: Box<[i8]> = embedding
            .iter()
            .map(|v| (v / most * 127.0).round() as i8)
            .collect();
        let square = dot(&values, &values);
        (square > 0).then(|| Vector {
            values,
            scale: 1.0 / (square as f32).sqrt(),
        })
    }

    /// Cosine of the angle between two embeddings; 0 when they are of different lengths (of different models).
    pub fn similarity(&self, other: &Vector) -> f32 {
        if self.values.len() != other.values.len() {
            return 0.0;
        }
        (dot(&self.values, &other.values) as f32 * self.scale * other.scale).clamp(-1.0, 1.0)
    }

    /// Bytes it holds on the heap.
    pub fn bytes(&self) -> usize {
        self.values.len()
    }
}

/// Written so that the compiler makes it a few wide instructions.
fn dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_says_nothing_is_no_vector() {
        assert_eq!(Vector::of(&[]), None);
        assert_eq!(Vector::of(&[0.0, 0.0]), None);
        assert_eq!(Vector::of(&[1.0, f32::NAN]), None);
        assert_eq!(Vector::of(&[1.0, f32::INFINITY]), None);
    }

    #[test]
    fn vectors_of_different_models_are_not_alike() {
        let (a, b) = (
            Vector::of(&[1.0, 0.0]).unwrap(),
            Vector::of(&[1.0, 0.0, 0.0]).unwrap(),
        );
        assert_eq!(a.similarity(&b), 0.0);
    }

    proptest! {
        #[test]
        fn rounding_hardly_shows(pairs in proptest::collection::vec((-1.0_f32..1.0, -1.0_f32..1.0), 384)) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
            let exact = a.iter().zip(&b).map(|(x, y)| x * y).sum::<f32>() / norm(&a) / norm(&b);
            let (a, b) = (Vector::of(&a).unwrap(), Vector::of(&b).unwrap());
            prop_assert!((a.similarity(&b) - exact).abs() < 0.006);
            prop_assert!((a.similarity(&a) - 1.0).abs() < 1e-4);
        }
    }
}
