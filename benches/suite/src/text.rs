//! Numbers as people read them.

/// With commas between groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits, without an exponent.
pub fn short(value: f64) -> String {
    match value {
        v if v >= 99.95 => grouped(v.round() as u64),
        v if v >= 9.995 => format!("{v:.1}"),
        v if v >= 0.9995 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// Seconds in the unit that suits them.
pub fn seconds(value: f64) -> String {
    let (scale, unit) = match value {
        v if v < 999.5e-9 => (1e9, "ns"),
        v if v < 999.5e-6 => (1e6, "µs"),
        v if v < 0.9995 => (1e3, "ms"),
        _ => (1.0, "s"),
    };
    format!("{} {unit}", short(value * scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(short(1234.4), "1,234");
        assert_eq!(short(99.96), "100");
        assert_eq!(short(12.34), "12.3");
        assert_eq!(short(0.0567), "0.057");
        assert_eq!(seconds(2.5e-3), "2.50 ms");
        assert_eq!(seconds(20e-9), "20.0 ns");
    }
}
