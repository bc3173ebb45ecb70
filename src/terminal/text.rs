//! Text and figures as a terminal shows them.

use std::fmt::Write;

/// Environment variable that turns colours off, whatever its value (<https://no-color.org>).
pub const NO_COLOR: &str = "NO_COLOR";

/// True if a terminal would obey this character, or show text around it in another order.
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Somebody else's text with control characters escaped, which a terminal would obey.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_active(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// JSON on one line, equal in value, without characters that a terminal would obey.
pub fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            // White space between tokens: within a string JSON allows no control character below U+0020.
            '\n' | '\r' | '\t' => shown.push(' '),
            character if is_active(character) => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    let _ = write!(shown, "\\u{unit:04x}");
                }
            }
            character => shown.push(character),
        }
    }
    shown
}

/// A whole number with separators: `1,234,567`.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A whole number in at most `width` characters: `1,234,567`, or shorter with a unit, `1.23M`.
pub fn number_within(value: u64, width: usize) -> String {
    let whole = number(value);
    if whole.len() <= width {
        return whole;
    }
    let mut scaled = value as f64;
    let mut unit = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        if scaled < 999.95 {
            break;
        }
        scaled /= 1_000.0;
        unit = next;
    }
    format!("{scaled:.1}{unit}")
}

/// A rate: one decimal below ten, so that a slow source does not read as none.
pub fn rate(value: f64) -> String {
    if value > 0.0 && value < 9.95 { format!("{value:.1}") } else { number(value.max(0.0).round() as u64) }
}

/// A duration of seconds, with its unit.
pub fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.000_999_5 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 0.099_5 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 0.999_5 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 119.95 => format!("{seconds:.1} s"),
        seconds if seconds < 7_170.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_000.0 => format!("{:.0} h", seconds / 3_600.0),
        seconds => format!("{:.0} d", seconds / 86_400.0),
    }
}

/// A number of bytes, in units of 1,000 as the console shows them.
pub fn bytes(value: u64) -> String {
    let mut scaled = value as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if scaled < 999.5 {
            break;
        }
        scaled /= 1_000.0;
        unit = next;
    }
    if unit == "B" || scaled >= 9.95 { format!("{scaled:.0} {unit}") } else { format!("{scaled:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_no_character_of_printable_text() {
        let hostile: String = (0..=0x2100).filter_map(char::from_u32).chain(['\u{feff}', '\u{e9}']).collect();
        let shown = printable(&hostile);
        assert!(!shown.chars().any(is_active));
        assert!(shown.contains("\\u{1b}") && shown.contains("\\u{9b}") && shown.contains("\\u{202e}"));
        assert!(shown.ends_with("\u{e9}"), "letters stay as they are");
    }

    #[test]
    fn printable_json_is_one_line_of_the_same_value() {
        let json = "{\n\t\"a\": [1,\r\n 2],\"b\":\"\u{9b}2J\u{7f}\u{202e}\u{feff}x\u{e9}\"}";
        let shown = printable_json(json);
        assert!(!shown.chars().any(is_active), "{shown}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&shown), value(json));
    }

    #[test]
    fn figures_carry_separators_and_units() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 0.04, 9.94, 9.96, 50_000.4].map(rate), ["0", "0.0", "9.9", "10", "50,000"]);
        let seconds = [0.000_2, 0.012, 0.25, 1.0, 60.0, 600.0, 10_000.0, 1e6];
        assert_eq!(
            seconds.map(duration),
            ["200 µs", "12.0 ms", "250 ms", "1.0 s", "60.0 s", "10 min", "3 h", "12 d"]
        );
        assert_eq!([17, 1_500, 34_000_000, 2_000_000_000].map(bytes), ["17 B", "1.5 kB", "34 MB", "2.0 GB"]);
        assert_eq!(number_within(1_234_567, 9), "1,234,567");
        assert_eq!(number_within(1_234_567, 8), "1.2M");
        for value in [u64::MAX, 999_999, 1_000_000, 99_999_999_999] {
            assert!(number_within(value, 6).len() <= 6, "{}", number_within(value, 6));
        }
    }
}
