//! Values of the options of `weir keys create`, as they are typed.

use std::sync::Arc;
use std::time::Duration;

use routing::plan::is_label;
use routing::units::NanoUsd;

/// A day's money at most, in dollars: as in the plan.
const MAX_USD: u64 = 1_000_000_000;

/// A name that metrics can bear.
pub fn label(text: &str) -> Result<Arc<str>, String> {
    if text.is_empty() || !is_label(text) {
        return Err("letters, digits and . _ - : / @ + (at most 64): it stands in metric labels".to_owned());
    }
    Ok(text.into())
}

/// How long something is.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a number and one of s, m, h, d, w: 30d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: u32 = number.parse().map_err(|_| wrong())?;
    if number == 0 {
        return Err("a key that expires at once is of no use".to_owned());
    }
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// Dollars with up to nine decimals, exactly.
pub fn usd(text: &str) -> Result<NanoUsd, String> {
    let wrong =
        || format!("dollars, for example 20 or 0.5, with at most nine decimals and at most {MAX_USD}");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 9 {
        return Err(wrong());
    }
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let nano = number(whole)? * 1_000_000_000 + number(&format!("{part:0<9}"))?;
    if nano > MAX_USD * 1_000_000_000 {
        return Err(wrong());
    }
    Ok(NanoUsd(nano))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_exactly() {
        for (text, nano) in [
            ("20", 20_000_000_000),
            ("0", 0),
            ("0.5", 500_000_000),
            ("0.000000001", 1),
            ("1000000000", 1_000_000_000_000_000_000),
        ] {
            assert_eq!(usd(text), Ok(NanoUsd(nano)), "{text}");
        }
        for wrong in [
            "",
            "-1",
            "1e3",
            "1,5",
            ".5",
            "1.",
            "0.0000000001",
            "1000000000.1",
            "99999999999",
            "NaN",
        ] {
            assert!(usd(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_a_unit() {
        let seconds = |text| duration(text).map(|d| d.as_secs());
        assert_eq!(
            (seconds("30d"), seconds("90s"), seconds("2w")),
            (Ok(2_592_000), Ok(90), Ok(1_209_600))
        );
        for wrong in [
            "",
            "30",
            "d",
            "0d",
            "-1d",
            "1.5h",
            "1y",
            "1\u{e4}",
            "99999999999d",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_those_that_a_metric_can_bear() {
        assert!(label("team-a/ci@1").is_ok());
        for wrong in ["", "a b", "a\"b", "a,b", "\u{e4}", &"x".repeat(65)] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
    }
}
