//! What a visitor's state keeps of events, and what merging two makes.

use super::*;
use crate::{params::DAY_MS, profile::Answer, proto::Consent};

const NOW: i64 = 1_700_000_000_000;

fn buy(visitor: &mut Visitor, item: u32, time_ms: i64) {
    visitor.begin_event(EventType::Purchase, time_ms);
    visitor.record(item, EventType::Purchase, time_ms, 7, NONE);
}

#[test]
fn the_ring_keeps_the_latest_even_when_events_come_late() {
    let mut visitor = Visitor::default();
    for index in (0..60_u32).rev() {
        visitor.record(index, EventType::View, NOW + i64::from(index) * 1000, NONE, NONE);
    }
    let items: Vec<u32> = visitor.recent().map(|interaction| interaction.item).collect();
    assert_eq!(items, (60 - RING as u32..60).rev().collect::<Vec<_>>());
}

#[test]
fn what_was_shown_leaves_the_ring_as_it_was() {
    let mut visitor = Visitor::default();
    for item in 0..5 {
        visitor.record(item, EventType::View, NOW, NONE, NONE);
    }
    let before: Vec<Interaction> = visitor.recent().copied().collect();
    for item in 10..30 {
        visitor.record(item, EventType::Impression, NOW + 1000, 7, NONE);
    }
    assert!(visitor.recent().eq(&before) && visitor.categories == [NO_AFFINITY; AFFINITIES]);
    let shown = Interaction { item: 9, time_s: seconds(NOW), kind: EventType::Impression as u8 };
    visitor.restore_recent([shown].into_iter().chain(before.clone()));
    assert!(visitor.recent().eq(&before));
}

#[test]
fn purchases_count_baskets_and_recency() {
    let mut visitor = Visitor::default();
    buy(&mut visitor, 5, NOW);
    buy(&mut visitor, 5, NOW + 7 * DAY_MS);
    let bought = visitor.bought(5).expect("bought");
    assert_eq!((bought.baskets, bought.first_s, bought.last_s), (2, seconds(NOW), seconds(NOW + 7 * DAY_MS)));
    assert_eq!(visitor.categories.iter().filter(|affinity| affinity.key == 7).count(), 1);
    assert!(visitor.bought(6).is_none());
}

#[test]
fn merging_equals_living_as_one() {
    let (mut known, mut anonymous, mut both) = (Visitor::default(), Visitor::default(), Visitor::default());
    for step in 0..10_i64 {
        let visitor = if step < 6 { &mut known } else { &mut anonymous };
        buy(visitor, step as u32 % 4, NOW + step * DAY_MS);
        buy(&mut both, step as u32 % 4, NOW + step * DAY_MS);
    }
    known.merge(&anonymous, 9, i64::MIN);
    assert_eq!(known.recent().collect::<Vec<_>>(), both.recent().collect::<Vec<_>>());
    assert_eq!((known.baskets, known.lines), (both.baskets, both.lines));
    for (a, b) in known.bought.iter().zip(&both.bought) {
        assert_eq!((a.item, a.baskets, a.first_s, a.last_s), (b.item, b.baskets, b.first_s, b.last_s));
        assert_eq!(a.last_basket, b.last_basket);
        let pairs = [(a.weight, b.weight), (a.weight_lately, b.weight_lately), (a.basket_weight, b.basket_weight)];
        assert!(pairs.iter().all(|(a, b)| (a - b).abs() < 1e-4), "{pairs:?}");
    }
}

#[test]
fn two_lines_of_a_late_basket_are_one_purchase() {
    let mut visitor = Visitor::default();
    buy(&mut visitor, 5, NOW);
    visitor.begin_event(EventType::Purchase, NOW - DAY_MS);
    for _ in 0..2 {
        visitor.record(5, EventType::Purchase, NOW - DAY_MS, NONE, NONE);
    }
    assert_eq!(visitor.bought(5).map(|bought| bought.baskets), Some(2));
}

#[test]
fn a_denial_given_before_the_login_still_counts() {
    let consent = |granted| Consent { purpose: ConsentPurpose::Personalization as i32, granted };
    let stated =
        |granted, time_ms| Stated { answers: vec![Answer::new(consent(granted), time_ms)], ..Stated::default() };
    let mut known = Visitor { stated: Some(Box::new(stated(true, 1))), ..Visitor::default() };
    known.merge(&Visitor { stated: Some(Box::new(stated(false, 2))), ..Visitor::default() }, 9, i64::MIN);
    assert_eq!(known.consent(ConsentPurpose::Personalization), Some(false));
}

#[test]
fn the_store_of_most_baskets_wins() {
    let mut visitor = Visitor::default();
    for store in [1, 2, 2, NONE, 3, 2, 2] {
        visitor.shop_at(store);
    }
    assert_eq!((visitor.store, visitor.store_lead), (2, 2));
}

#[test]
fn memory_of_a_light_visitor_is_within_budget() {
    let mut visitor = Visitor::default();
    for item in 0..3 {
        buy(&mut visitor, item, NOW);
    }
    assert!(visitor.bytes() <= 600, "{} bytes", visitor.bytes());
}
