//! A straight line through points, and how sure one may be of its slope.

/// Neighbours on either side that a point may be like.
pub const ALIKE: usize = 60;

/// Least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// Units a second.
    pub per_second: f64,
    /// Standard error of that. Points a second apart are alike, so that each says less than one that stands alone: Newey and
    /// West's estimate (Econometrica 55, 1987) with Bartlett's weights over sixty neighbours, or the usual one, if that is larger.
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
    let left = |p: &(f64, f64)| p.1 - mean_y - per_second * (p.0 - mean_t);
    let residual: f64 = points.iter().map(|p| left(p).powi(2)).sum();
    let usual = (residual / (n - 2.0) / stt).sqrt();
    let pulls: Vec<f64> = points.iter().map(|p| left(p) * (p.0 - mean_t)).collect();
    let standard_error = usual.max(together(&pulls).sqrt() / stt);
    Some(Slope {
        per_second,
        standard_error,
        n: points.len(),
    })
}

/// Variance of the sum of a series whose neighbours may be alike.
fn together(series: &[f64]) -> f64 {
    let most = ALIKE.min(series.len() / 4);
    let apart = |by: usize| -> f64 { series.iter().zip(&series[by..]).map(|(a, b)| a * b).sum() };
    let alike: f64 = (1..=most)
        .map(|by| (1.0 - by as f64 / (most as f64 + 1.0)) * apart(by))
        .sum();
    (apart(0) + 2.0 * alike).max(0.0)
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

    /// Memory stays where it is for a while, and then stands elsewhere: that is a few looks, however often it is looked.
    #[test]
    fn what_is_looked_at_often_is_not_known_better() {
        let level = |step: u32| f64::from(step * 7919 % 101);
        let seldom: Vec<(f64, f64)> = (0..30).map(|s| (f64::from(s) * 30.0, level(s))).collect();
        let often: Vec<(f64, f64)> = (0..900).map(|t| (f64::from(t), level(t / 30))).collect();
        let (seldom, often) = (slope(&seldom).unwrap(), slope(&often).unwrap());
        let ratio = often.standard_error / seldom.standard_error;
        assert!((0.6..1.6).contains(&ratio), "{seldom:?} {often:?}");
    }
}
