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
    said(visitor_id, false)
}

fn said(visitor_id: &str, granted: bool) -> Vec<u8> {
    let consent = Consent { purpose: ConsentPurpose::Personalization as i32, granted };
    Profile { visitor_id: visitor_id.into(), consents: vec![consent], ..Profile::default() }.encode_to_vec()
}

fn erasure(visitor_id: &str) -> Vec<u8> {
    Erasure { visitor_id: visitor_id.into(), ..Erasure::default() }.encode_to_vec()
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
    assert!(engine.apply_late_erasure(&late, &[&[record(2, &old)], &since()[..]].concat(), &[]));
    assert!(!engine.apply_late_erasure(&late, &since(), &[]));

    let anew = Engine::new(&[], true, 1.0, "UTC").expect("an engine");
    anew.apply(since());
    assert!(anew.apply_late_erasure(&late, &since(), &[]));
    assert_eq!(engine.profile("u"), anew.profile("u"));
    let state = engine.read();
    let (visitor, context) = (&state.visitors["u"], Context { user_id: "u".into(), ..Context::default() });
    assert_eq!((visitor.events, visitor.baskets, visitor.lines), (2, 2, 2));
    assert_eq!(state.answer(&context, ConsentPurpose::Personalization), Some(false));
    let bought = |item_id| state.popularity.counts(state.items.get(item_id).expect("known")).purchases;
    assert_eq!((state.events, bought("old"), bought("new"), bought("a")), (4, 2, 1, 1));
}

fn login(item_id: &str) -> Vec<u8> {
    purchase("phone", "w", &[item_id])
}

#[test]
fn what_went_over_at_a_login_is_not_brought_back_by_a_late_erasure_of_the_browser() {
    let visit = |item_id: &'static str| purchase("phone", "", &[item_id]);
    let (first, second, third, erased) = (visit("a"), visit("b"), visit("c"), erasure("phone"));
    let (granted, denied, logged_in) = (said("phone", true), denial("phone"), login("d"));
    let event = |offset, payload| timed(offset, RecordKind::Event, payload);
    let stated = |offset, payload| timed(offset, RecordKind::Profile, payload);
    for (before, left) in [(&granted, None), (&denied, Some(false))] {
        let engine = Engine::new(&[], true, 1.0, "UTC").expect("an engine");
        let of_phone = [event(1, &first), event(2, &second), stated(3, before), event(5, &third)];
        engine.apply([of_phone[0], of_phone[1], of_phone[2], event(4, &logged_in), of_phone[3]]);
        let late = Record { time_ms: 15, ..timed(6, RecordKind::Erasure, &erased) };
        assert!(engine.apply_late_erasure(&late, &of_phone, &[]));
        engine.apply([event(7, &logged_in)]);
        let state = engine.read();
        let items = state.visitors["w"].recent().map(|seen| state.items.name(seen.item)).collect::<Vec<_>>();
        assert_eq!((items.len(), state.visitors["w"].events), (5, 5), "{items:?}: each once, and d twice");
        let context = Context { visitor_id: "phone".into(), ..Context::default() };
        assert_eq!(state.answer(&context, ConsentPurpose::Personalization), left);
    }
}

#[test]
fn a_login_that_is_applied_anew_takes_over_what_the_browser_denied_and_nothing_that_came_since() {
    let (denied, logged_in, since) = (denial("phone"), login("a"), purchase("phone", "", &["b"]));
    let engine = Engine::new(&[], true, 1.0, "UTC").expect("an engine");
    let record = timed(3, RecordKind::Event, &logged_in);
    engine.apply([timed(2, RecordKind::Profile, &denied), record, timed(4, RecordKind::Event, &since)]);
    let erased = erasure("w");
    assert!(engine.apply_late_erasure(
        &Record { time_ms: 15, ..timed(5, RecordKind::Erasure, &erased) },
        &[record],
        &[]
    ));
    let state = engine.read();
    assert_eq!((state.visitors["w"].events, state.visitors["phone"].events), (1, 1));
    assert!(state.visitors["w"].is_denied() && state.visitors["phone"].is_denied());
}

#[test]
fn what_a_user_took_over_from_a_browser_goes_with_the_erasure_of_both_but_for_what_it_denied_since() {
    let (old, back, later) = (purchase("phone", "", &["old"]), login("back"), purchase("", "w", &["later"]));
    let (denied, of_w) = (denial("phone"), erasure("w"));
    let of_both = Erasure { visitor_id: "phone".into(), user_id: "w".into() }.encode_to_vec();
    let events = [(2, &old), (5, &back), (6, &later)].map(|(offset, one)| timed(offset, RecordKind::Event, one));
    let late = |offset, payload| Record { time_ms: 25, ..timed(offset, RecordKind::Erasure, payload) };
    let engine = Engine::new(&[], true, 1.0, "UTC").expect("an engine");
    engine.apply([events[0], late(3, &of_w), timed(4, RecordKind::Profile, &denied), events[1], events[2]]);
    let of_phone = [timed(4, RecordKind::Profile, &denied)];
    let known = || engine.read().visitors.get("w").map(|visitor| (visitor.events, visitor.is_denied()));
    assert_eq!(known(), Some((3, true)));
    assert!(engine.apply_late_erasure(&late(7, &of_both), &of_phone, &[]));
    assert!(!engine.apply_late_erasure(&late(8, &of_both), &[], &events[2..]));
    assert_eq!(known(), Some((3, true)), "its own records do not show the browser");
    for offset in 9..11 {
        assert!(engine.apply_late_erasure(&late(offset, &of_both), &[], &events));
        assert_eq!(known(), Some((2, true)));
    }
    engine.apply([Record { time_ms: 55, ..late(11, &of_w) }, timed(12, RecordKind::Event, &later)]);
    assert!(!engine.apply_late_erasure(&late(13, &of_both), &[], &events));
    assert_eq!(known(), Some((1, false)), "what shows the browser was forgotten");
}

#[test]
fn an_erasure_that_is_no_newer_changes_nothing() {
    let (event, erased) = (purchase("", "u", &["a"]), erasure("u"));
    let engine = Engine::new(&[], true, 1.0, "UTC").expect("an engine");
    let erasure = |offset, time_ms| Record { time_ms, ..timed(offset, RecordKind::Erasure, &erased) };
    engine.apply([timed(3, RecordKind::Event, &event), erasure(4, 40), timed(5, RecordKind::Event, &event)]);
    assert!(!engine.apply_late_erasure(&erasure(6, 25), &[timed(3, RecordKind::Event, &event)], &[]));
    engine.apply([erasure(7, 40)]);
    assert_eq!(engine.read().visitors["u"].events, 1);
}
