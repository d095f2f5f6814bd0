//! Byte counts as people write and read them.
//!
//! Suffixes are binary: `1K` = 1024. Not here: which setting takes which form
//! (see `config`).

/// A size as a setting may give it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    Bytes(u64),
    /// Of a whole that the user of the setting names; 0 < x ≤ 100.
    Percent(f64),
}

/// Parses `8G`, `512M`, `1.5GiB`, `64k`, `4096`, `75%`.
///
/// No sign, no exponent; one optional `B`, `iB` after the letter; a bare
/// number is bytes. The error is a clause that can follow "AUTOOFFLOAD_X=y: ".
pub fn parse_size(text: &str) -> Result<Size, String> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let value: f64 =
        digits.parse().map_err(|_| "not a size such as 8G, 512M or 75%".to_string())?;
    let suffix = suffix.trim().to_ascii_lowercase();
    if suffix == "%" {
        return if value > 0.0 && value <= 100.0 {
            Ok(Size::Percent(value))
        } else {
            Err("a percentage must be above 0 and at most 100".to_string())
        };
    }
    let shift = match suffix.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("unknown unit \"{suffix}\" (use K, M, G, T or %)")),
    };
    let bytes = value * (1u64 << shift) as f64;
    if bytes >= (1u64 << 60) as f64 {
        return Err("larger than any memory".to_string());
    }
    Ok(Size::Bytes(bytes as u64))
}

/// `bytes` with a binary unit and at most two decimals: `1.50 GiB`, `37 B`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}

/// A duration, as people read it: `0.49 s`, `12.3 ms`, `870 µs`.
pub fn format_ns(ns: f64) -> String {
    match ns {
        ns if ns >= 100e9 => format!("{:.0} s", ns / 1e9),
        ns if ns >= 10e9 => format!("{:.1} s", ns / 1e9),
        ns if ns >= 0.1e9 => format!("{:.2} s", ns / 1e9),
        ns if ns >= 10e6 => format!("{:.1} ms", ns / 1e6),
        ns if ns >= 1e6 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.0} µs", ns / 1e3),
    }
}

/// `bytes` so that [`parse_size`] reads it back exactly: `8G`, `1536M`, `1000`.
pub fn format_size(bytes: u64) -> String {
    for (shift, letter) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        let unit = 1u64 << shift;
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{letter}", bytes / unit);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_every_accepted_form() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64k", 64 << 10),
            ("512M", 512 << 20),
            ("8G", 8 << 30),
            (" 8 GiB ", 8 << 30),
            ("1.5g", 3 << 29),
            ("2TB", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(Size::Bytes(bytes)), "{text}");
        }
        assert_eq!(parse_size("75%"), Ok(Size::Percent(75.0)));
        assert_eq!(parse_size("12.5 %"), Ok(Size::Percent(12.5)));
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "G", "-1G", "8X", "0%", "101%", "1e9", "1.2.3G", "99999999T", "8 G 9"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn formatting_reads_back() {
        for bytes in [0, 1, 1023, 1024, 3 << 29, 8 << 30, (8 << 30) + 1] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(Size::Bytes(bytes)));
        }
        assert_eq!(format_bytes(37), "37 B");
        assert_eq!(format_bytes(3 << 29), "1.50 GiB");
    }
}
