//! `--for 2h`.

use std::str::FromStr;

/// Longer is "for ever", which is to be said as such.
const MAX_SECONDS: i64 = 366 * 24 * 3600;

/// How long something stays open, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFor(pub i64);

/// A text that is no duration to stay open for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not numbers with units.
    #[error("{0:?} is no duration such as 30m, 2h, 1h30m or 7d")]
    Shape(String),
    /// None at all.
    #[error("it has to be longer than nothing")]
    Zero,
    /// More than a year.
    #[error("it is longer than a year: say --forever if that is what you mean")]
    TooLong,
}

impl FromStr for OpenFor {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let shape = || DurationError::Shape(text.to_owned());
        let mut rest = text;
        let mut seconds: i64 = 0;
        let mut before = i64::MAX;
        if rest.is_empty() {
            return Err(shape());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: i64 = rest[..digits].parse().map_err(|_| shape())?;
            let unit = match rest[digits..].chars().next() {
                Some('s') => 1,
                Some('m') => 60,
                Some('h') => 3600,
                Some('d') => 24 * 3600,
                _ => return Err(shape()),
            };
            // 30m1h is a slip of the pen more often than it is meant.
            if unit >= before {
                return Err(shape());
            }
            before = unit;
            let more = number.checked_mul(unit).ok_or(DurationError::TooLong)?;
            seconds = seconds.checked_add(more).ok_or(DurationError::TooLong)?;
            rest = &rest[digits + 1..];
        }
        match seconds {
            0 => Err(DurationError::Zero),
            1..=MAX_SECONDS => Ok(Self(seconds)),
            _ => Err(DurationError::TooLong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "2", "h", "2 h", "-2h", "2w", "1.5h", "30m1h", "1h1h", "99999999999999999999s", "2hé"]
        {
            assert!(matches!(text.parse::<OpenFor>(), Err(DurationError::Shape(_))), "{text:?}");
        }
        assert_eq!("0h0m".parse::<OpenFor>(), Err(DurationError::Zero));
        for text in ["367d", "9000000000000000000d", "9000000000000000000s"] {
            assert_eq!(text.parse::<OpenFor>(), Err(DurationError::TooLong), "{text:?}");
        }
    }

    #[test]
    fn durations_are_numbers_with_units_from_large_to_small() {
        for (text, seconds) in
            [("2s", 2), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("7d", 604_800), ("1d1h1m1s", 90_061)]
        {
            assert_eq!(text.parse(), Ok(OpenFor(seconds)), "{text:?}");
        }
    }
}
