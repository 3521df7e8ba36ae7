//! Unix milliseconds to and from the contract's Timestamp.

use prost_types::Timestamp;

/// Unix milliseconds of a timestamp, rounded down.
pub fn millis(timestamp: &Timestamp) -> i64 {
    timestamp.seconds.saturating_mul(1000).saturating_add(i64::from(timestamp.nanos) / 1_000_000)
}

/// Timestamp of Unix milliseconds.
pub fn timestamp(millis: i64) -> Timestamp {
    Timestamp { seconds: millis.div_euclid(1000), nanos: (millis.rem_euclid(1000) * 1_000_000) as i32 }
}
