//! Dates for people: formatting and reading, nothing here asks what time it is.

/// `2026-01-31T12:34:56Z`. (Civil date from days: Howard Hinnant's algorithm, public domain.)
pub fn rfc3339(unix_seconds: f64) -> String {
    let seconds = unix_seconds as i64;
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Seconds since 1970 of a date as [`rfc3339`] writes it; `None` for any other text.
pub fn unix_seconds(text: &str) -> Option<f64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok().map(i64::from);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let shifted = year - i64::from(month <= 2);
    let era = shifted.div_euclid(400);
    let year_of_era = shifted - era * 400;
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = (days * 86_400 + hour * 3600 + minute * 60 + second) as f64;
    // The way back refuses months of 32 days, other separators and anything behind the Z.
    (rfc3339(seconds) == text).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(rfc3339(0.0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400.9), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_767_225_599.0), "2025-12-31T23:59:59Z");
    }

    #[test]
    fn dates_are_read_back_and_nothing_else_is() {
        for seconds in [0.0, 951_782_400.0, 1_767_225_599.0, 1_709_164_800.0, 4_102_444_799.0] {
            assert_eq!(unix_seconds(&rfc3339(seconds)), Some(seconds));
        }
        for wrong in [
            "",
            "2026-01-31",
            "2026-02-30T00:00:00Z",
            "2026-01-31 12:34:56Z",
            "2026-01-31T12:34:56+01:00",
            "2026-01-31T25:00:00Z",
        ] {
            assert_eq!(unix_seconds(wrong), None, "{wrong}");
        }
    }
}
