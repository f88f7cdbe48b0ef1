//! Step 2, `deadline`: the caller's patience, from our header and from what its client announces, else the default.
//!
//! It stands before anything that may wait: every later step sees time left, so limits never add up. It must never
//! lengthen what the plan allows.

use std::time::Duration;

use http::HeaderMap;
use routing::plan::Server;
use routing::units::Time;

use crate::error::{Error, Kind, Result};

/// A caller's patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// To the commit: a stream's first content, a whole answer's end.
    pub commit: Time,
    /// Bounds everything, streams included: set by `x-weir-deadline-ms` only.
    pub whole: Time,
    /// What the client announced as its own time-out, if it did: bounds the silence of a stream, never its length.
    pub silence: Option<Duration>,
}

/// Subtracted from a client's own time-out, so that our answer comes before it hangs up.
const HEAD_START: Duration = Duration::from_millis(100);

/// Reads the patience of a request whose head came at `now`.
///
/// # Errors
/// 400 when `x-weir-deadline-ms` is not a whole number above zero.
pub fn deadline(headers: &HeaderMap, server: &Server, now: Time) -> Result<Deadline> {
    let own = own(headers)?;
    let announced = announced(headers);
    // Whoever gives up first is right: what a client announces is when it hangs up, whatever our header grants it.
    let patience = [own, announced].into_iter().flatten().min();
    let at = |patience: Duration| now + patience.min(server.max_deadline);
    Ok(Deadline {
        commit: at(patience.unwrap_or(server.default_deadline)),
        whole: own.map_or(Time::NEVER, at),
        silence: announced,
    })
}

/// `x-weir-deadline-ms`.
fn own(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get("x-weir-deadline-ms") else {
        return Ok(None);
    };
    let ms = value.to_str().ok().and_then(|v| v.trim().parse::<u64>().ok());
    match ms {
        Some(ms) if ms > 0 => Ok(Some(Duration::from_millis(ms))),
        _ => {
            let message = "x-weir-deadline-ms: write a whole number of milliseconds above 0";
            Err(Error::new(Kind::BadHeader, message).param("x-weir-deadline-ms"))
        }
    }
}

/// `x-stainless-read-timeout`, else `x-stainless-timeout`, in seconds; clients that have none say so in words.
fn announced(headers: &HeaderMap) -> Option<Duration> {
    let seconds = ["x-stainless-read-timeout", "x-stainless-timeout"]
        .into_iter()
        .filter_map(|name| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok())
        .find(|s| s.is_finite() && *s > 0.0)?;
    let own = Duration::try_from_secs_f64(seconds).ok()?;
    Some(own.saturating_sub(HEAD_START).max(own / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn of(pairs: &[(&'static str, &str)]) -> Result<Deadline> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        deadline(&headers, &testing::plan("").server, Time::from_millis(1_000))
    }
    fn at(ms: u64) -> Time {
        Time::from_millis(1_000 + ms)
    }

    #[test]
    fn our_header_bounds_everything() {
        assert_eq!(of(&[("x-weir-deadline-ms", "250")]).unwrap().whole, at(250));
        let capped = of(&[("x-weir-deadline-ms", "99999999999")]).unwrap();
        assert_eq!((capped.commit, capped.whole), (at(3_600_000), at(3_600_000)));
        for bad in ["0", "-1", "soon", "1.5"] {
            assert_eq!(
                of(&[("x-weir-deadline-ms", bad)]).unwrap_err().kind(),
                Kind::BadHeader
            );
        }
    }

    #[test]
    fn what_a_client_announces_never_bounds_a_stream() {
        let d = of(&[("x-stainless-timeout", "20"), ("x-stainless-read-timeout", "10")]).unwrap();
        assert_eq!((d.commit, d.whole), (at(9_900), Time::NEVER));
        assert_eq!(d.silence, Some(Duration::from_millis(9_900)));
        assert_eq!(
            of(&[("x-stainless-timeout", "NOT_GIVEN")]).unwrap().commit,
            at(600_000)
        );
        assert_eq!(of(&[("x-stainless-timeout", "0.1")]).unwrap().commit, at(50));
    }

    #[test]
    fn our_header_and_a_clients_own_time_out_both_count() {
        let both = |ms, s| of(&[("x-weir-deadline-ms", ms), ("x-stainless-read-timeout", s)]).unwrap();
        let d = both("30000", "10");
        assert_eq!((d.commit, d.whole), (at(9_900), at(30_000)));
        assert_eq!(d.silence, Some(Duration::from_millis(9_900)));
        let d = both("5000", "10");
        assert_eq!((d.commit, d.whole), (at(5_000), at(5_000)));
        assert_eq!(d.silence, Some(Duration::from_millis(9_900)));
        assert_eq!(of(&[("x-weir-deadline-ms", "5000")]).unwrap().silence, None);
    }
}
