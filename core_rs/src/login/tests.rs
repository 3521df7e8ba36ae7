//! What a browser denied stays denied in it, and binds each user who logs in there until that user says otherwise.

use super::*;
use crate::{
    proto::{Erasure, Event, EventItem, EventType, RecordKind, Trait},
    state::Record,
};
use prost::Message;

const BROWSER: &str = "phone";

fn apply(state: &mut State, kind: RecordKind, message: &impl Message) {
    let record =
        Record { offset: state.offset + 1, kind: kind as i32, time_ms: 1_000, payload: &message.encode_to_vec() };
    state.apply(&record).expect("a sound record");
}

fn view(state: &mut State, user_id: &str, item_id: &str) {
    let event = Event {
        event_type: EventType::View as i32,
        context: Some(context(user_id)),
        items: vec![EventItem { item_id: item_id.into(), ..EventItem::default() }],
        ..Event::default()
    };
    apply(state, RecordKind::Event, &event);
}

fn say(state: &mut State, visitor_id: &str, granted: bool) {
    let consents = vec![Consent { purpose: ConsentPurpose::Personalization as i32, granted }];
    let profile = Profile { visitor_id: visitor_id.into(), consents, ..Profile::default() };
    apply(state, RecordKind::Profile, &profile);
}

fn context(user_id: &str) -> Context {
    Context { visitor_id: BROWSER.into(), user_id: user_id.into(), ..Context::default() }
}

fn answer(state: &State, user_id: &str) -> Option<bool> {
    state.answer(&context(user_id), ConsentPurpose::Personalization)
}

/// A browser that denied, in which `ann` logged in.
fn denied() -> State {
    let mut state = State::default();
    view(&mut state, "", "a");
    say(&mut state, BROWSER, false);
    view(&mut state, "ann", "b");
    state
}

fn history(state: &State, key: &str) -> usize {
    state.visitors.get(key).map_or(0, |visitor| visitor.recent().count())
}

#[test]
fn a_denial_binds_the_user_and_stays_in_the_browser() {
    let state = denied();
    assert_eq!((answer(&state, "ann"), answer(&state, "")), (Some(false), Some(false)));
    assert_eq!((history(&state, "ann"), history(&state, BROWSER)), (2, 0));
}

#[test]
fn what_the_user_grants_later_holds_and_the_browser_stays_denied() {
    let mut state = denied();
    say(&mut state, "ann", true);
    assert_eq!(answer(&state, "ann"), Some(true));
    view(&mut state, "ann", "c");
    view(&mut state, "", "d");
    assert_eq!((answer(&state, "ann"), answer(&state, "")), (Some(true), Some(false)));
    view(&mut state, "ann", "e");
    assert_eq!((answer(&state, "ann"), answer(&state, "")), (Some(true), Some(false)));
    assert_eq!((history(&state, "ann"), history(&state, BROWSER)), (5, 0));
}

#[test]
fn a_denial_counts_before_the_first_event_of_the_user_in_that_browser() {
    let mut state = State::default();
    say(&mut state, "ann", true);
    say(&mut state, BROWSER, false);
    assert_eq!(answer(&state, "ann"), Some(false));
    view(&mut state, "ann", "a");
    assert_eq!(answer(&state, "ann"), Some(false));
    let elsewhere = Context { visitor_id: String::new(), ..context("ann") };
    assert_eq!(state.answer(&elsewhere, ConsentPurpose::Personalization), Some(false));
}

#[test]
fn everyone_who_logs_in_takes_the_denial_over_once() {
    let mut state = denied();
    say(&mut state, "ann", true);
    say(&mut state, "bob", true);
    view(&mut state, "bob", "a");
    assert_eq!((answer(&state, "ann"), answer(&state, "bob")), (Some(true), Some(false)));
    say(&mut state, "bob", true);
    view(&mut state, "ann", "b");
    view(&mut state, "bob", "c");
    assert_eq!(
        (answer(&state, "ann"), answer(&state, "bob"), answer(&state, "")),
        (Some(true), Some(true), Some(false))
    );
}

#[test]
fn a_new_denial_in_the_browser_binds_those_who_took_the_old_one_over() {
    let mut state = denied();
    say(&mut state, "ann", true);
    say(&mut state, BROWSER, false);
    assert_eq!(answer(&state, "ann"), Some(false));
    view(&mut state, "ann", "c");
    say(&mut state, "ann", true);
    assert_eq!((answer(&state, "ann"), answer(&state, "")), (Some(true), Some(false)));
}

#[test]
fn what_the_browser_grants_later_undoes_its_denial_but_not_that_of_the_user() {
    let mut state = denied();
    say(&mut state, BROWSER, true);
    assert_eq!(
        (answer(&state, "ann"), answer(&state, "bob"), answer(&state, "")),
        (Some(false), Some(true), Some(true))
    );
    view(&mut state, "bob", "a");
    assert_eq!(answer(&state, "bob"), Some(true));
    assert!(!state.visitors.contains_key(BROWSER), "a browser without denials leaves nothing");
}

#[test]
fn what_is_stated_in_the_browser_after_the_logout_reaches_the_user() {
    let mut state = denied();
    let traits = vec![Trait { name: "size".into(), value: "m".into() }];
    let profile = Profile { visitor_id: BROWSER.into(), traits, ..Profile::default() };
    apply(&mut state, RecordKind::Profile, &profile);
    view(&mut state, "ann", "a");
    let known = state.visitors["ann"].profile.as_ref().expect("stated");
    assert_eq!((known.traits.len(), known.consents.len()), (1, 1));
    let left = state.visitors[BROWSER].profile.as_ref().expect("denied");
    assert_eq!((left.traits.len(), left.consents.len()), (0, 1));
}

#[test]
fn an_erased_browser_denies_no_longer() {
    let mut state = denied();
    apply(&mut state, RecordKind::Erasure, &Erasure { visitor_id: BROWSER.into() });
    assert_eq!((answer(&state, ""), answer(&state, "bob"), answer(&state, "ann")), (None, None, Some(false)));
}
