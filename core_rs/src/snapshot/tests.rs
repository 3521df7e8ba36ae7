//! A snapshot gives back the state, and a damaged one is refused.

use super::*;
use crate::{
    profile::{Answer, BrowserDenial, Stated},
    proto::{
        Activation, Consent, Context, DocumentChange, Erasure, Event, EventItem, Item, ItemChange, Money, Profile,
        RecordKind, document_change::Document,
    },
    sequence::SequenceVector,
    state::Record,
    time::timestamp,
};
use proptest::prelude::*;

const NOW: i64 = 1_700_000_000_000;

/// One record of a random log.
type Step = (u8, u8, u8, i64);

fn record(state: &mut State, (kind, visitor, item, hours): Step) {
    let (visitor_id, item_id) = (format!("v{}", visitor % 8), format!("i{}", item % 16));
    let time_ms = NOW - hours * 3_600_000;
    let who = if hours % 2 == 0 { visitor_id.clone() } else { format!("u{visitor_id}") };
    let (kind, payload) = match kind % 16 {
        0..10 => (RecordKind::Event, event(visitor_id, item_id, kind, time_ms).encode_to_vec()),
        10..13 => (RecordKind::Item, change(item_id, visitor, kind == 12).encode_to_vec()),
        13 => {
            let consents = vec![Consent { purpose: 1, granted: item % 2 == 0 }];
            (RecordKind::Profile, Profile { visitor_id: who, traits: vec![], consents }.encode_to_vec())
        }
        14 => {
            let placement = Placement { placement_id: item_id, ..Placement::default() };
            let document = Some(Document::Placement(placement));
            (RecordKind::Document, DocumentChange { document, deleted: visitor % 4 == 0 }.encode_to_vec())
        }
        _ if item % 4 == 1 => {
            let found = state.unrecorded_statements(1).pop().map(|one| one.stated);
            (RecordKind::Stated, found.unwrap_or_default().encode_to_vec())
        }
        _ if item % 2 == 0 => (RecordKind::Erasure, Erasure { visitor_id, ..Erasure::default() }.encode_to_vec()),
        _ => (RecordKind::Activation, Activation { version: item_id, ..Activation::default() }.encode_to_vec()),
    };
    let offset = state.offset + 1;
    state.apply(&Record { offset, kind: kind as i32, time_ms, payload: &payload }).expect("a sound record");
    encode(state, &format!("v{}", item % 8), i64::from(visitor));
}

/// Gives a visitor a sequence vector, or lets it wait for one, or neither.
fn encode(state: &mut State, key: &str, number: i64) {
    let Some(visitor) = state.visitors.get_mut(key) else { return };
    if number % 3 == 0 {
        let values = [number as f32, -1.0, 0.5];
        visitor.sequence = SequenceVector::new(number as u64, visitor.ring_lines, &values).map(Box::new);
    }
    if number % 2 == 0 {
        state.waiting.add(key, NOW - number);
    }
}

fn event(visitor_id: String, item_id: String, kind: u8, time_ms: i64) -> Event {
    let user_id = if kind == 9 { format!("u{visitor_id}") } else { String::new() };
    let price = Some(Money { units: i64::from(kind), ..Money::default() });
    Event {
        event_type: i32::from(kind % 10) + 1,
        event_time: Some(timestamp(time_ms)),
        context: Some(Context { visitor_id, user_id, store_id: format!("s{}", time_ms % 3), ..Context::default() }),
        items: vec![EventItem { item_id, price, ..EventItem::default() }],
        ..Event::default()
    }
}

fn change(item_id: String, variant: u8, deleted: bool) -> ItemChange {
    let (category_path, brand) = (vec!["food".into(), format!("c{}", variant % 3)], format!("b{}", variant % 2));
    let item = Item { item_id, category_path, brand, ..Item::default() };
    ItemChange { item: Some(item), deleted, ..ItemChange::default() }
}

fn bytes(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(state, &mut bytes).expect("memory takes it");
    bytes
}

fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((any::<u8>(), any::<u8>(), any::<u8>(), 0..20_000_i64), 0..count)
}

proptest! {
    #[test]
    fn a_loaded_state_is_the_saved_one_and_lives_on_as_it_would(before in steps(150), after in steps(50)) {
        let mut state = State::default();
        for step in before {
            record(&mut state, step);
        }
        let mut loaded = read(&*bytes(&state)).expect("sound");
        prop_assert_eq!((bytes(&loaded), &loaded.unrecorded_users), (bytes(&state), &state.unrecorded_users));
        for step in after {
            record(&mut state, step);
            record(&mut loaded, step);
        }
        prop_assert_eq!((bytes(&loaded), &loaded.unrecorded_users), (bytes(&state), &state.unrecorded_users));
        let popular = |state: &State| state.popularity.most_popular().chain(state.popularity.most_trending()).collect::<Vec<_>>();
        prop_assert_eq!(popular(&loaded), popular(&state));
        for category in 0..state.catalog.categories.len() as u32 {
            prop_assert_eq!(loaded.catalog.in_category(category), state.catalog.in_category(category));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&*bytes).is_err());
    }
}

#[test]
fn a_snapshot_damaged_at_any_byte_is_refused() {
    let mut state = State::default();
    for step in 0..60 {
        record(&mut state, (step, step / 2, step / 3, i64::from(step)));
    }
    let sound = bytes(&state);
    assert!(read(&*sound).is_ok());
    let number = MAGIC.len();
    let older = [&MAGIC[..], &OLDEST.to_le_bytes(), &sound[number + 4..]].concat();
    assert_eq!(bytes(&read(&*older).expect("the format before is read")), sound);
    for place in (0..sound.len()).filter(|&place| place != number) {
        assert!(read(&sound[..place]).is_err(), "cut at {place}");
        let mut damaged = sound.clone();
        damaged[place] ^= 1 << (place % 8);
        assert!(read(&*damaged).is_err(), "flipped at {place}");
    }
    assert!(read(&*[sound, vec![0]].concat()).is_err(), "too long");
}

#[test]
fn answers_of_older_snapshots_have_no_time_and_times_that_do_not_fit_are_refused() {
    let consents = vec![Consent { purpose: 1, granted: false }, Consent { purpose: 2, granted: true }];
    let profile = Some(Profile { visitor_id: "v".into(), consents, ..Profile::default() });
    let times = |answer_times: &[i64]| {
        let row = VisitorRow { profile: profile.clone(), answer_times: answer_times.to_vec(), ..VisitorRow::default() };
        let visitor = row.visitor().ok()?;
        Some(visitor.stated?.answers.iter().map(Answer::time_ms).collect::<Vec<_>>())
    };
    assert_eq!((times(&[]), times(&[7, 9])), (Some(vec![0, 0]), Some(vec![7, 9])));
    assert_eq!((times(&[7]), times(&[7, 9, 9])), (None, None));
}

#[test]
fn answers_of_browsers_are_kept_with_what_is_to_be_recorded_and_columns_that_do_not_fit_are_refused() {
    let denials = [(1, false), (3, true)];
    let denials = denials.map(|(purpose, is_recorded)| BrowserDenial { purpose, time_ms: 7, bound_ms: 9, is_recorded });
    let grant = Answer { unrecorded_ms: Some(9), ..Answer::new(Consent { purpose: 2, granted: true }, 0) };
    let stated = Stated { answers: vec![grant], denials: denials.into(), ..Stated::default() };
    let mut visitor = Visitor::default();
    visitor.stated = Some(Box::new(stated.clone()));
    let row = VisitorRow::new("v", &visitor, None);
    assert_eq!(row.visitor().expect("sound").stated, Some(Box::new(stated)));
    assert!(VisitorRow { recorded: vec![true], ..row.clone() }.visitor().is_err());
    assert!(VisitorRow { unrecorded_times: vec![], ..row.clone() }.visitor().is_err());
    assert!(VisitorRow { unrecorded_purposes: vec![3], ..row }.visitor().is_err());
}
