//! Unix milliseconds to and from the contract's Timestamp.

use prost_types::Timestamp;

/// Seconds that a Timestamp may hold: the years 1 to 9999.
const SECONDS: (i64, i64) = (-62_135_596_800, 253_402_300_799);

/// Unix milliseconds of a timestamp, rounded down; one outside the years 1 to 9999 counts as their nearest end.
pub fn millis(timestamp: &Timestamp) -> i64 {
    timestamp.seconds.clamp(SECONDS.0, SECONDS.1) * 1000 + i64::from(timestamp.nanos) / 1_000_000
}

/// Timestamp of Unix milliseconds.
pub fn timestamp(millis: i64) -> Timestamp {
    Timestamp { seconds: millis.div_euclid(1000), nanos: (millis.rem_euclid(1000) * 1_000_000) as i32 }
}
