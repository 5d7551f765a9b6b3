//! Sizes, rates and durations as people write them, both ways. Pure.

use std::time::Duration;

/// A count: `1000`, `20k`, `1M`, `2G` (powers of ten).
///
/// # Errors
/// What is wrong with it, for the user.
pub fn count(text: &str) -> Result<u64, String> {
    scaled(text, &[("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)])
}

/// Bytes: `4096`, `64KiB`, `1MiB`, `16GB` (10^9), `16GiB` (2^30).
///
/// # Errors
/// What is wrong with it, for the user.
pub fn bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    scaled(text, &units)
}

/// A duration: `500us`, `10ms`, `30s`, `5min`; a bare number is seconds.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn duration(text: &str) -> Result<Duration, String> {
    let units = [("us", 1), ("µs", 1), ("ms", 1_000), ("min", 60_000_000), ("h", 3_600_000_000), ("s", 1_000_000)];
    let bare = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let text = if bare { format!("{text}s") } else { text.to_owned() };
    scaled(&text, &units).map(Duration::from_micros)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor))).unwrap_or((text, 1));
    let expected = || {
        let names: Vec<_> = units.iter().map(|(unit, _)| *unit).collect();
        format!("{text:?} is not a number, alone or with one of {}", names.join(", "))
    };
    let number = number.trim_end();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(|| format!("{text} is too large"));
    }
    let value: f64 = number.parse().map_err(|_| expected())?;
    let scaled = value * factor as f64;
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || !scaled.is_finite() {
        return Err(expected());
    }
    if scaled >= u64::MAX as f64 {
        return Err(format!("{text} is too large"));
    }
    Ok(scaled.round() as u64)
}

/// Bytes for people: `1.5 GiB`.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value.fract() == 0.0 { format!("{value:.0} {}", units[unit]) } else { format!("{value:.1} {}", units[unit]) }
}

/// Microseconds for people: `850 µs`, `1.25 ms`, `2.10 s`.
#[must_use]
pub fn show_us(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.2} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// A count with thousands apart: `2,024,032`.
#[must_use]
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(bytes("1MiB"), Ok(1 << 20));
        assert_eq!(bytes("1.5 GB"), Ok(1_500_000_000));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(count("20k"), Ok(20_000));
        assert_eq!(duration("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "-1", "1e3", "MiB", "many", "NaN", "inf", "99999999999999999999", "18446744073709551615k", "1.2.3"] {
            assert!(bytes(text).is_err(), "{text}");
            assert!(count(text).is_err(), "{text}");
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn figures_are_shown() {
        assert_eq!(show_count(2_024_032), "2,024,032");
        assert_eq!(show_count(999), "999");
        assert_eq!(show_bytes(1 << 20), "1 MiB");
        assert_eq!(show_bytes(1536), "1.5 KiB");
        assert_eq!(show_us(850), "850 µs");
        assert_eq!(show_us(1250), "1.25 ms");
    }
}
