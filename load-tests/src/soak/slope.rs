//! A straight line through points, and how sure one may be of its slope.

/// Least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// Units a second.
    pub per_second: f64,
    /// Standard error of that.
    pub standard_error: f64,
    /// Points.
    pub n: usize,
}

impl Slope {
    /// Of bytes: in megabytes an hour.
    pub fn mb_per_hour(&self) -> f64 {
        self.per_second * 3600.0 / 1e6
    }

    /// The standard error, likewise.
    pub fn standard_error_mb_per_hour(&self) -> f64 {
        self.standard_error * 3600.0 / 1e6
    }
}

impl Slope {
    /// Of bytes: what is to be said when it is more than `mb_per_hour`, and beyond twice its standard error.
    pub fn grows(&self, mb_per_hour: f64) -> Option<String> {
        let grows = self.mb_per_hour() > mb_per_hour && self.per_second > 2.0 * self.standard_error;
        grows.then(|| {
            format!(
                "memory grows by {:.2} MB an hour (standard error {:.2}), allowed are {mb_per_hour}",
                self.mb_per_hour(),
                self.standard_error_mb_per_hour()
            )
        })
    }
}

/// Fits a line to `(seconds, value)`; `None` below three points or when all are at one time.
pub fn slope(points: &[(f64, f64)]) -> Option<Slope> {
    let n = points.len() as f64;
    if points.len() < 3 {
        return None;
    }
    let mean_t = points.iter().map(|p| p.0).sum::<f64>() / n;
    let mean_y = points.iter().map(|p| p.1).sum::<f64>() / n;
    let stt: f64 = points.iter().map(|p| (p.0 - mean_t).powi(2)).sum();
    if stt <= 0.0 {
        return None;
    }
    let per_second = points
        .iter()
        .map(|p| (p.0 - mean_t) * (p.1 - mean_y))
        .sum::<f64>()
        / stt;
    let residual: f64 = points
        .iter()
        .map(|p| (p.1 - mean_y - per_second * (p.0 - mean_t)).powi(2))
        .sum();
    let standard_error = (residual / (n - 2.0) / stt).sqrt();
    Some(Slope {
        per_second,
        standard_error,
        n: points.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_exactly() {
        let points: Vec<(f64, f64)> = (0..50)
            .map(|t| (f64::from(t), 3.0 * f64::from(t) + 7.0))
            .collect();
        let s = slope(&points).unwrap();
        assert!((s.per_second - 3.0).abs() < 1e-9 && s.standard_error < 1e-6);
        assert!(s.grows(0.001).is_some() && s.grows(1.0).is_none());
    }

    #[test]
    fn noise_alone_is_inside_its_own_error() {
        // A sawtooth without a trend.
        let points: Vec<(f64, f64)> = (0..200)
            .map(|t| (f64::from(t), f64::from(t * 7919 % 101)))
            .collect();
        let s = slope(&points).unwrap();
        assert!(s.per_second.abs() < 3.0 * s.standard_error, "{s:?}");
        assert!(slope(&points[..2]).is_none());
    }
}
