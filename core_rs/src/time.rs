//! Unix milliseconds to and from the contract's Timestamp, and to the wall clock of the shop.

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;
use prost_types::Timestamp;

/// Seconds that a Timestamp may hold: the years 1 to 9999.
const SECONDS: (i64, i64) = (-62_135_596_800, 253_402_300_799);

/// Unix milliseconds of a timestamp, rounded down; one outside the years 1 to 9999 counts as their nearest end.
pub fn millis(timestamp: &Timestamp) -> i64 {
    timestamp.seconds.clamp(SECONDS.0, SECONDS.1) * 1000 + i64::from(timestamp.nanos) / 1_000_000
}

/// What a clock on the shop's wall shows, as the Unix milliseconds at which one in UTC shows the same.
pub fn wall_millis(millis: i64, zone: Tz) -> i64 {
    let moment = DateTime::from_timestamp_millis(millis).map(|moment| moment.naive_utc()).unwrap_or_default();
    millis + i64::from(zone.offset_from_utc_datetime(&moment).fix().local_minus_utc()) * 1000
}

/// Timestamp of Unix milliseconds.
pub fn timestamp(millis: i64) -> Timestamp {
    Timestamp { seconds: millis.div_euclid(1000), nanos: (millis.rem_euclid(1000) * 1_000_000) as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_follows_summer_time() {
        let hours_behind = |millis| (millis - wall_millis(millis, Tz::America__New_York)) / 3_600_000;
        assert_eq!((hours_behind(1_512_363_600_000), hours_behind(1_498_881_600_000)), (5, 4));
        assert_eq!(wall_millis(i64::MAX / 2, Tz::UTC), i64::MAX / 2);
    }
}
