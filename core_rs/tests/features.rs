//! What the context of a decision does to the feature table.

use chrono_tz::Tz;
use core_rs::{
    feature::{self, Shared},
    gather::Candidate,
    ids::NONE,
    proto::{
        Context, Event, EventItem, EventType, Item, ItemChange, Money, Placement, PromotionInterval, RecordKind,
        promotion_interval::Kind,
    },
    query::Query,
    source::COUNT,
    state::{Record, State},
    time::{timestamp, wall_millis},
};
use prost::Message;

const NOW: i64 = 1_512_363_600_000;
const DAY: i64 = 86_400_000;

fn put(state: &mut State, kind: RecordKind, message: &impl Message) {
    let payload = message.encode_to_vec();
    let record = Record { offset: state.offset + 1, kind: kind as i32, time_ms: NOW - DAY, payload: &payload };
    state.apply(&record).expect("a sound record");
}

fn buy(state: &mut State, visitor_id: &str, store_id: &str, item_id: &str) {
    let context = Context { visitor_id: visitor_id.into(), store_id: store_id.into(), ..Context::default() };
    let items = vec![EventItem { item_id: item_id.into(), ..EventItem::default() }];
    let event_type = EventType::Purchase as i32;
    put(state, RecordKind::Event, &Event { event_type, context: Some(context), items, ..Event::default() });
}

/// Value of a column for an item, for a visitor in a context at a time.
fn value(state: &State, column: &str, item_id: &str, context: &Context, now_ms: i64) -> f32 {
    let placement = Placement::default();
    let query = Query {
        state,
        now_ms,
        wall_ms: wall_millis(now_ms, Tz::America__New_York),
        context,
        key: "",
        visitor: state.visitors.get(State::visitor_key(context)).map(|visitor| &**visitor),
        placement: &placement,
        anchors: vec![],
        cart: vec![],
        seeds: vec![],
        bundle: None,
    };
    let item = state.items.get(item_id).expect("a known item");
    let candidate = Candidate { item, sources: 0, source_scores: [0.0; COUNT], because: [NONE; COUNT] };
    let mut row = Vec::new();
    Shared::new(&query).push_rows(&[candidate], &mut row);
    row[feature::names().iter().position(|name| name == column).expect("a column")]
}

fn percent(value: f32) -> i32 {
    (100.0 * value).round() as i32
}

#[test]
fn an_item_is_promoted_in_its_intervals_and_only_by_its_kind() {
    let mut state = State::default();
    let week = PromotionInterval {
        kind: Kind::Mailer as i32,
        start_time: Some(timestamp(NOW)),
        end_time: Some(timestamp(NOW + 7 * DAY)),
        share: Some(0.25),
    };
    let item = Item { item_id: "a".into(), promotion_intervals: vec![week], ..Item::default() };
    put(&mut state, RecordKind::Item, &ItemChange { item: Some(item.clone()), ..ItemChange::default() });
    let promoted =
        |state: &State, column: &str, now_ms| percent(value(state, column, "a", &Context::default(), now_ms));
    let mailer = |state: &State, now_ms| promoted(state, "promoted_by_mailer", now_ms);
    assert_eq!([NOW - 1_000, NOW, NOW + 7 * DAY].map(|now_ms| mailer(&state, now_ms)), [0, 25, 0]);
    assert_eq!(promoted(&state, "promoted_by_display", NOW), 0);
    let ended = Item { promotion_intervals: vec![], ..item };
    let update_paths = vec!["promotion_intervals".to_owned()];
    put(&mut state, RecordKind::Item, &ItemChange { item: Some(ended), update_paths, ..ItemChange::default() });
    assert_eq!(mailer(&state, NOW), 0);
}

#[test]
fn columns_hold_what_their_names_and_units_say() {
    let mut state = State::default();
    let euros = |units| Some(Money { currency_code: "EUR".into(), units, nanos: 0 });
    let item = Item { item_id: "a".into(), price: euros(4), sale_price: euros(3), ..Item::default() };
    put(&mut state, RecordKind::Item, &ItemChange { item: Some(item), ..ItemChange::default() });
    for item_id in ["a", "b", "a"] {
        buy(&mut state, "v", "north", item_id);
    }
    let context = Context { visitor_id: "v".into(), ..Context::default() };
    let later = NOW + 29 * DAY; // the purchases were a day before
    let near = |column: &str, expected: f32| {
        let found = value(&state, column, "a", &context, later);
        assert!((found - expected).abs() < 1e-4, "{column} is {found}, not {expected}");
    };
    near("bought_weight", 2.0 * (-30.0_f32 / 60.0).exp2());
    near("bought_lately", 2.0 * (-30.0_f32 / 15.0).exp2());
    near("bought_by_basket", (1.0 + 0.95 * 0.95) / 3.0);
    near("bought_baskets_ln", 3.0_f32.ln());
    near("bought_share", 2.0 / 3.0);
    near("bought_recency", (-1.0_f32).exp());
    near("bought_basket_recency", 1.0);
    near("bought_last_time", 1.0);
    near("bought_first_days_ln", 31.0_f32.ln());
    near("popular_log2", (2.0 * (-30.0_f32 / 28.0).exp2()).log2());
    near("recent_log2", -8.0);
    near("trend_log2", -8.0 - (2.0 * (-30.0_f32 / 28.0).exp2()).log2());
    near("purchases_ln", 3.0_f32.ln());
    near("repeat_rate", 1.0 / 6.0);
    near("price_ln", 3.0_f32.ln());
    near("discount", 0.25);
    near("catalog_price_known", 1.0);
    near("baskets_ln", 4.0_f32.ln());
    near("repeat_share", 1.0 / 3.0);
    near("basket_lines_ln", 2.0_f32.ln());
    near("days_since_purchase_ln", 31.0_f32.ln());
    near("known", 1.0);
    near("store_sales_ln", 3.0_f32.ln());
    near("store_lift_ln", 0.0);
}

#[test]
fn hours_and_weekdays_are_those_of_the_shop() {
    let mut state = State::default();
    buy(&mut state, "v", "", "a");
    let at = |column| percent(value(&state, column, "a", &Context::default(), NOW));
    // Midnight of a Monday, four days after the first Thursday of 1970.
    assert_eq!((at("hour_sin"), at("hour_cos")), (0, 100));
    let angle = 4.0 / 7.0 * std::f32::consts::TAU;
    assert_eq!((at("weekday_sin"), at("weekday_cos")), (percent(angle.sin()), percent(angle.cos())));
}

#[test]
fn a_place_is_that_of_the_request_before_that_of_the_visitor() {
    let mut state = State::default();
    for number in 0..20 {
        buy(&mut state, "v", "north", if number % 2 == 0 { "a" } else { "b" });
        buy(&mut state, "w", "south", "b");
    }
    let lift = |visitor_id: &str, store_id: &str| {
        let context = Context { visitor_id: visitor_id.into(), store_id: store_id.into(), ..Context::default() };
        value(&state, "store_lift_ln", "a", &context, NOW)
    };
    assert!(lift("v", "") > 0.2 && lift("w", "") < -0.2);
    assert_eq!(percent(lift("w", "north")), percent(lift("v", "")));
    assert_eq!(percent(lift("nobody", "")), 0);
}
