//! What the limits refuse, and by which field.

use super::*;
use crate::proto::{
    Control, Event, EventItem, EventType, Item, Placement, PlacementRequest, Profile, PromotionInterval,
    RecommendRequest, SourceUse,
    control::{Action, Boost},
};
use proptest::prelude::*;

const NOW: i64 = 1_700_000_000_000;

fn view() -> Event {
    Event {
        event_id: "e".into(),
        event_type: EventType::View as i32,
        context: Some(Context { visitor_id: "v".into(), ..Context::default() }),
        items: vec![EventItem { item_id: "i".into(), ..EventItem::default() }],
        ..Event::default()
    }
}

fn request() -> RecommendRequest {
    let placements = vec![PlacementRequest { placement_id: "home".into(), ..PlacementRequest::default() }];
    RecommendRequest { context: view().context, placements, ..RecommendRequest::default() }
}

fn shelf() -> Placement {
    let sources = vec![SourceUse { source: "popular".into(), ..SourceUse::default() }];
    Placement { placement_id: "home".into(), sources, ..Placement::default() }
}

/// Field at fault of the third event after a change.
fn event_fault(change: impl FnOnce(&mut Event)) -> String {
    let mut changed = view();
    change(&mut changed);
    event(&changed, 3, NOW, false).expect_err("a fault").field
}

fn time_fault(seconds: i64) -> String {
    let changed = Event { event_time: Some(Timestamp { seconds, nanos: 0 }), ..view() };
    event(&changed, 3, NOW, false).expect_err("a fault").message
}

#[test]
fn sound_messages_pass() {
    assert_eq!(event(&view(), 0, NOW, false), Ok(()));
    assert_eq!(recommend(&request()), Ok(()));
    assert_eq!(placement(&shelf()), Ok(()));
    let old = Event { event_time: Some(crate::time::timestamp(NOW - 1_000 * crate::params::DAY_MS)), ..view() };
    assert_eq!(event(&old, 0, NOW, true), Ok(()));
    assert!(event(&old, 0, NOW, false).is_err());
    let year_one = Event { event_time: Some(Timestamp { seconds: -62_135_596_800, nanos: 0 }), ..view() };
    assert!(event(&year_one, 0, NOW, true).expect_err("a fault").message.contains("before 1970"));
}

#[test]
fn faults_of_events_name_their_field() {
    let usd = |units, nanos| Some(Money { currency_code: "USD".into(), units, nanos });
    assert_eq!(event_fault(|event| event.event_id.clear()), "events[3].event_id");
    assert_eq!(event_fault(|event| event.event_id = "e".repeat(65)), "events[3].event_id");
    assert_eq!(event_fault(|event| event.event_type = 0), "events[3].event_type");
    assert_eq!(event_fault(|event| event.event_type = 99), "events[3].event_type");
    assert_eq!(event_fault(|event| event.context = None), "events[3].context");
    assert_eq!(event_fault(|event| event.context = Some(Context::default())), "events[3].context.visitor_id");
    assert_eq!(event_fault(|event| event.items.clear()), "events[3].items");
    assert_eq!(event_fault(|event| event.items[0].quantity = -1), "events[3].items[0].quantity");
    assert_eq!(event_fault(|event| event.items[0].price = usd(-1, 0)), "events[3].items[0].price");
    assert_eq!(event_fault(|event| event.items[0].price = usd(1 << 62, 0)), "events[3].items[0].price.units");
    assert_eq!(event_fault(|event| event.items[0].price = usd(1, -1)), "events[3].items[0].price.nanos");
    assert_eq!(event_fault(|event| event.event_type = EventType::Search as i32), "events[3].context.query");
}

#[test]
fn control_characters_in_ids_are_named_with_their_field() {
    for id in ["a\0", "\n", "a\u{7f}b", &format!("{}\t", "a".repeat(60))] {
        assert_eq!(event_fault(|event| event.event_id = id.into()), "events[3].event_id");
        assert_eq!(event_fault(|event| event.items[0].item_id = id.into()), "events[3].items[0].item_id");
        let context = Context { visitor_id: "v".into(), user_id: id.into(), ..Context::default() };
        assert_eq!(event_fault(|event| event.context = Some(context.clone())), "events[3].context.user_id");
        let asked = RecommendRequest { context: Some(context), ..request() };
        assert_eq!(recommend(&asked).expect_err("a fault").field, "context.user_id");
        let named = Item { item_id: id.into(), ..Item::default() };
        assert!(item(&named, 2).expect_err("a fault").message.contains("`items[2].item_id` has the control"));
        let of_visitor = Profile { visitor_id: id.into(), ..Profile::default() };
        assert_eq!(profile(&of_visitor).expect_err("a fault").field, "profile.visitor_id");
    }
    let spelt = Item { item_id: "Käse 7\u{a0}'".into(), category_path: vec!["a\tb".into()], ..Item::default() };
    assert_eq!(item(&spelt, 0), Ok(()));
}

#[test]
fn the_unit_of_a_wrong_time_is_named() {
    assert!(time_fault(NOW).contains("looks like milliseconds"), "{}", time_fault(NOW));
    assert!(time_fault(NOW * 1_000).contains("looks like microseconds"));
    assert!(time_fault(NOW / 1_000_000).contains("looks like seconds that were taken for milliseconds"));
    assert!(time_fault(NOW / 1_000 - 800 * 86_400).contains("is 800 days before now"));
    assert!(time_fault(NOW / 1_000 + 3 * 86_400).contains("is 3 days after now"));
    assert!(time_fault(i64::MIN).contains("send a number from"));
}

#[test]
fn faults_of_requests_and_documents_name_field_and_choices() {
    let mut bad = request();
    bad.placements[0].page_size = -1;
    assert_eq!(recommend(&bad).expect_err("a fault").field, "placements[0].page_size");
    bad.placements.clear();
    assert_eq!(recommend(&bad).expect_err("a fault").field, "placements");
    let mut bad = shelf();
    bad.sources[0].source = "magic".into();
    let fault = placement(&bad).expect_err("a fault");
    assert_eq!(fault.field, "placement.sources[0].source");
    assert!(fault.message.contains("trending"), "{fault}");
    let fault = placement(&Placement { bought_rule: 9, ..shelf() }).expect_err("a fault");
    assert!(fault.message.contains("BOUGHT_RULE_EXCLUDE"), "{fault}");
    assert!(placement(&Placement { mmr_lambda: f64::NAN, ..shelf() }).is_err());
    assert!(placement(&Placement { placement_id: "Home".into(), ..shelf() }).is_err());
    let boost = |factor| {
        let action = Some(Action::Boost(Boost { factor }));
        control(&Control { control_id: "a-b".into(), action, ..Control::default() })
    };
    assert_eq!(boost(2.0), Ok(()));
    assert_eq!(boost(f64::INFINITY).expect_err("a fault").field, "control.boost.factor");
    let negative = Item { item_id: "i".into(), stock_quantity: Some(-1), ..Item::default() };
    assert_eq!(item(&negative, 2).expect_err("a fault").field, "items[2].stock_quantity");
}

#[test]
fn faults_of_promotions_name_their_field() {
    let second = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let sound = PromotionInterval { kind: 1, start_time: second(200), end_time: second(300), share: Some(0.5) };
    let checked = |interval: PromotionInterval| {
        let promoted = Item { item_id: "i".into(), promotion_intervals: vec![interval], ..Item::default() };
        item(&promoted, 0).map_err(|error| error.field.replace("items[0].promotion_intervals[0].", ""))
    };
    assert_eq!(checked(PromotionInterval { share: None, ..sound }), Ok(()));
    let fault = |interval| checked(interval).expect_err("a fault");
    assert_eq!(fault(PromotionInterval { kind: 0, ..sound }), "kind");
    assert_eq!(fault(PromotionInterval { start_time: None, ..sound }), "start_time");
    assert_eq!(fault(PromotionInterval { end_time: second(200), ..sound }), "end_time");
    assert_eq!(fault(PromotionInterval { end_time: second(NOW), ..sound }), "end_time.seconds");
    for share in [0.0, 1.5, f64::NAN] {
        assert_eq!(fault(PromotionInterval { share: Some(share), ..sound }), "share");
    }
    let many = Item { item_id: "i".into(), promotion_intervals: vec![sound; 401], ..Item::default() };
    assert_eq!(item(&many, 0).expect_err("a fault").field, "items[0].promotion_intervals");
}

proptest! {
    #[test]
    fn every_control_character_is_found(text in r"\PC{0,20}", place: usize, letter in r"[\x00-\x1f\x7f]") {
        prop_assert!(!has_control(text.as_bytes()));
        let letters: Vec<char> = text.chars().collect();
        let (before, after) = letters.split_at(place % (letters.len() + 1));
        let with = [&String::from_iter(before), &*letter, &String::from_iter(after)].concat();
        prop_assert!(has_control(with.as_bytes()));
    }

    #[test]
    fn no_times_panic(seconds: i64, nanos: i32, history: bool) {
        let changed = Event { event_time: Some(Timestamp { seconds, nanos }), ..view() };
        let _ = event(&changed, 0, NOW, history);
    }

    #[test]
    fn no_money_panics_and_none_that_passes_is_negative(code in "[A-Za-z]{0,4}", units: i64, nanos: i32) {
        let amount = Money { currency_code: code, units, nanos };
        if price(&At::top("price"), &amount).is_ok() {
            prop_assert!(crate::catalog::money(&amount) >= 0.0);
        }
    }
}
