//! Reads the values of limits: durations with a unit, byte sizes, counts.

use std::time::Duration;

/// A type that a limit may have.
pub(super) trait Quantity: Sized {
    /// Reads the text, or says what was expected.
    fn read(text: &str) -> Result<Self, String>;
}

impl Quantity for Duration {
    fn read(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is not a duration such as 250ms, 10s, 5m, 1h");
        let unit_at = text.find(|each: char| !each.is_ascii_digit()).ok_or_else(expected)?;
        let (number, unit) = text.split_at(unit_at);
        let number: u64 = number.parse().map_err(|_| expected())?;
        let milliseconds = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1_000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            _ => None,
        };
        milliseconds.map(Duration::from_millis).ok_or_else(expected)
    }
}

impl Quantity for usize {
    fn read(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is not a number such as 100, 64KiB, 4MiB, 1GiB");
        let unit_at = text.find(|each: char| !each.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let number: usize = number.parse().map_err(|_| expected())?;
        let factor = match unit {
            "" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(expected()),
        };
        number.checked_mul(factor).ok_or_else(expected)
    }
}

impl Quantity for u32 {
    fn read(text: &str) -> Result<Self, String> {
        usize::read(text)?.try_into().map_err(|_| format!("{text:?} is more than {}", u32::MAX))
    }
}
