//! When an item is advertised: spans of time with how widely, ready for a look at any moment.

use crate::{
    proto::{PromotionInterval, promotion_interval::Kind},
    time::millis,
    visitor::seconds,
};

/// Ways to advertise that features tell apart, in the order of [`Promotions::at`].
pub const KINDS: [Kind; 2] = [Kind::Mailer, Kind::Display];

/// Advertising of one item, planned and past.
#[derive(Default)]
pub struct Promotions {
    /// Spans of each kind, in order of time, none over another.
    spans: [Box<[Span]>; KINDS.len()],
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    start_s: u32,
    end_s: u32,
    share: f32,
}

impl Promotions {
    /// Spans of an item; where two of a kind meet, the wider one counts. O(n²), for n is limited.
    pub fn new(intervals: &[PromotionInterval]) -> Self {
        let spans = |kind| {
            let of_kind = intervals.iter().filter(|interval| interval.kind() == kind);
            disjoint(&of_kind.map(Span::new).collect::<Vec<_>>())
        };
        Self { spans: KINDS.map(spans) }
    }

    /// Share of the shop that advertises the item by mailer and by display at a time, Unix seconds.
    pub fn at(&self, now_s: u32) -> [f32; KINDS.len()] {
        [running(&self.spans[0], now_s), running(&self.spans[1], now_s)]
    }

    /// Bytes held, without the allocator's overhead.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.spans.iter().map(|spans| size_of_val(&**spans)).sum::<usize>()
    }
}

impl Span {
    fn new(interval: &PromotionInterval) -> Self {
        let second = |time: &Option<_>| time.as_ref().map_or(0, |time| seconds(millis(time)));
        let share = interval.share.unwrap_or(1.0) as f32;
        Self { start_s: second(&interval.start_time), end_s: second(&interval.end_time), share }
    }
}

fn running(spans: &[Span], now_s: u32) -> f32 {
    let after = spans.partition_point(|span| span.start_s <= now_s);
    let last = after.checked_sub(1).map(|last| spans[last]);
    last.filter(|span| now_s < span.end_s).map_or(0.0, |span| span.share)
}

/// The same spans cut at every end, the widest of each piece.
fn disjoint(spans: &[Span]) -> Box<[Span]> {
    let mut ends: Vec<u32> = spans.iter().flat_map(|span| [span.start_s, span.end_s]).collect();
    ends.sort_unstable();
    ends.dedup();
    let piece = |ends: &[u32]| {
        let over = spans.iter().filter(|span| span.start_s <= ends[0] && ends[1] <= span.end_s);
        let share = over.map(|span| span.share).fold(0.0, f32::max);
        Span { start_s: ends[0], end_s: ends[1], share }
    };
    ends.windows(2).map(piece).filter(|span| span.share > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Timestamp;

    fn interval(kind: Kind, start: i64, end: i64, share: Option<f64>) -> PromotionInterval {
        let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
        PromotionInterval { kind: kind as i32, start_time: time(start), end_time: time(end), share }
    }

    #[test]
    fn what_runs_is_found_at_any_moment_and_the_wider_span_counts() {
        let promotions = Promotions::new(&[
            interval(Kind::Display, 15, 25, Some(0.25)),
            interval(Kind::Mailer, 30, 40, None),
            interval(Kind::Mailer, 10, 20, Some(0.5)),
            interval(Kind::Mailer, 12, 14, Some(0.75)),
        ]);
        let percent = |now_s: u32| promotions.at(now_s).map(|share| (100.0 * share) as u32);
        let mailer = [9, 10, 12, 14, 19, 20, 30, 39, 40].map(|now_s| percent(now_s)[0]);
        assert_eq!(mailer, [0, 50, 75, 50, 50, 0, 100, 100, 0]);
        assert_eq!([14, 15, 24, 25].map(|now_s| percent(now_s)[1]), [0, 25, 25, 0]);
    }
}
