use super::*;
use crate::proto::{Consent, ConsentPurpose, Context, Erasure, Event, EventItem, EventType, Profile, RecordKind};

fn purchase(visitor_id: &str, user_id: &str, items: &[&str]) -> Vec<u8> {
    let line = |item: &&str| EventItem { item_id: (*item).to_owned(), ..EventItem::default() };
    let context = Context { visitor_id: visitor_id.into(), user_id: user_id.into(), ..Context::default() };
    Event {
        event_type: EventType::Purchase as i32,
        context: Some(context),
        items: items.iter().map(line).collect(),
        ..Event::default()
    }
    .encode_to_vec()
}

fn record(offset: i64, payload: &[u8]) -> Record<'_> {
    Record { offset, kind: RecordKind::Event as i32, time_ms: 1_700_000_000_000, payload }
}

#[test]
fn a_record_that_cannot_be_read_stops_nothing_and_a_repeat_changes_nothing() {
    let engine = Engine::new(&[], true, 1.0, "UTC").expect("an engine");
    let payload = purchase("v", "", &["a"]);
    let records = || [record(1, &payload), record(2, &[0xff]), record(3, &payload)];
    assert_eq!((engine.apply(records()), engine.offset()), (2, 3));
    assert_eq!(engine.apply(records()), 0);
    let stats: std::collections::BTreeMap<_, _> = engine.stats().into_iter().collect();
    assert_eq!((stats["events"], stats["skipped_records"], stats["visitors"]), (2, 1, 1));
}

#[test]
fn the_profile_shows_what_was_done_newest_first() {
    let engine = Engine::new(&[], true, 1.0, "UTC").expect("an engine");
    let (first, second) = (purchase("v", "", &["a"]), purchase("v", "u", &["b", "c"]));
    engine.apply([record(1, &first), record(2, &second)]);
    assert!(engine.profile("v").is_err());
    let reply = GetProfileResponse::decode(&*engine.profile("u").expect("known")).expect("decodes");
    let live = reply.live_state.expect("set");
    assert_eq!((live.event_count, live.purchase_count, live.recent.len()), (2, 2, 3));
    assert_eq!(reply.profile.expect("set").visitor_id, "u");
}

fn denial(visitor_id: &str) -> Vec<u8> {
    let consent = Consent { purpose: ConsentPurpose::Personalization as i32, granted: false };
    Profile { visitor_id: visitor_id.into(), consents: vec![consent], ..Profile::default() }.encode_to_vec()
}

fn erasure(visitor_id: &str) -> Vec<u8> {
    Erasure { visitor_id: visitor_id.into() }.encode_to_vec()
}

/// Record that the log took at ten times its offset.
fn timed(offset: i64, kind: RecordKind, payload: &[u8]) -> Record<'_> {
    Record { offset, kind: kind as i32, time_ms: 10 * offset, payload }
}

#[test]
fn a_late_erasure_leaves_what_came_after_it_and_counts_nothing_twice() {
    let (old, new, login) = (purchase("", "u", &["old"]), purchase("", "u", &["new"]), purchase("b", "u", &["a"]));
    let (denied, erased) = (denial("u"), erasure("u"));
    let record = |offset, payload| timed(offset, RecordKind::Event, payload);
    let since = || [record(3, &new), timed(4, RecordKind::Profile, &denied), record(5, &login), record(6, &[0xff])];
    let late = Record { time_ms: 25, ..timed(7, RecordKind::Erasure, &erased) };

    let engine = Engine::new(&[], true, 1.0, "UTC").expect("an engine");
    engine.apply([record(1, &old), record(2, &old)].into_iter().chain(since()));
    assert!(engine.apply_late_erasure(&late, &[&[record(2, &old)], &since()[..]].concat()));
    assert!(!engine.apply_late_erasure(&late, &since()));

    let anew = Engine::new(&[], true, 1.0, "UTC").expect("an engine");
    anew.apply(since());
    assert!(anew.apply_late_erasure(&late, &since()));
    assert_eq!(engine.profile("u"), anew.profile("u"));
    let state = engine.read();
    let (visitor, context) = (&state.visitors["u"], Context { user_id: "u".into(), ..Context::default() });
    assert_eq!((visitor.events, visitor.baskets, visitor.lines), (2, 2, 2));
    assert_eq!(state.answer(&context, ConsentPurpose::Personalization), Some(false));
    let bought = |item_id| state.popularity.counts(state.items.get(item_id).expect("known")).purchases;
    assert_eq!((state.events, bought("old"), bought("new"), bought("a")), (4, 2, 1, 1));
}

#[test]
fn an_older_erasure_that_comes_late_brings_nothing_back() {
    let (event, erased) = (purchase("", "u", &["a"]), erasure("u"));
    let record = timed(3, RecordKind::Event, &event);
    let engine = Engine::new(&[], true, 1.0, "UTC").expect("an engine");
    engine.apply([timed(3, RecordKind::Event, &event), timed(4, RecordKind::Erasure, &erased)]);
    let late = Record { time_ms: 25, ..timed(5, RecordKind::Erasure, &erased) };
    assert!(engine.apply_late_erasure(&late, &[record]));
    assert!(engine.profile("u").is_err());
}
