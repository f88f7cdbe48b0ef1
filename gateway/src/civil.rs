//! Dates of the UTC calendar as people write them. Days are counted from 1970-01-01, as limits count them.

const DAY_MS: u64 = 86_400_000;
/// 9999-12-31: four digits of a year.
const LAST: u32 = 2_932_896;

/// `2026-11-25`.
pub fn date(day: u32) -> String {
    let mut left = day.min(LAST);
    let mut year = 1970;
    while left >= days_of(year) {
        left -= days_of(year);
        year += 1;
    }
    let mut month = 1;
    while left >= month_of(year, month) {
        left -= month_of(year, month);
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", left + 1)
}

/// The day of `2026-11-25`; `None`: this is no date from 1970 on.
pub fn day(text: &str) -> Option<u32> {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
        digits.parse::<u32>().ok()
    };
    let dashes = text.len() == 10 && text.get(4..5) == Some("-") && text.get(7..8) == Some("-");
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let exists =
        dashes && year >= 1970 && (1..=12).contains(&month) && (1..=month_of(year, month)).contains(&day);
    let years: u32 = (1970..year).map(days_of).sum();
    let months: u32 = (1..month).map(|m| month_of(year, m)).sum();
    exists.then_some(years + months + day - 1)
}

/// `2026-11-25T20:15:00Z` of milliseconds since 1970.
pub fn time(unix_ms: u64) -> String {
    let day = u32::try_from(unix_ms / DAY_MS).unwrap_or(LAST);
    let second = unix_ms % DAY_MS / 1_000;
    format!(
        "{}T{:02}:{:02}:{:02}Z",
        date(day),
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u32) -> u32 {
    365 + u32::from(is_leap(year))
}

fn month_of(year: u32, month: u32) -> u32 {
    match month {
        2 => 28 + u32::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_has_one_date_and_comes_back_from_it() {
        for (n, text) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_782, "2026-11-25"),
            (LAST, "9999-12-31"),
        ] {
            assert_eq!((date(n).as_str(), day(text)), (text, Some(n)));
        }
        // Four hundred years: every kind of leap year.
        assert!((0..146_097).all(|n| day(&date(n)) == Some(n)));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "2026-11",
            "2026-11-31",
            "2026-02-29",
            "2026-00-01",
            "2026-13-01",
            "1969-12-31",
            "2026-1-01",
            "26-11-25",
            "2026-11-25T",
            "+026-11-25",
            "2026/11/25",
            "2026-11-0\u{e4}",
        ] {
            assert_eq!(day(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_those_of_utc() {
        assert_eq!(time(951_825_599_999), "2000-02-29T11:59:59Z");
        assert_eq!(time(u64::MAX).get(..10), Some("9999-12-31"));
    }
}
