//! What a browser denied stays denied in it, and binds each user there whose own answer is not later.

use super::*;
use crate::{
    profile::Stated,
    proto::{Consent, Erasure, Event, EventItem, EventType, Profile, RecordKind, Trait},
    state::Record,
};
use prost::Message;

mod recorded;

const PERSONAL: ConsentPurpose = ConsentPurpose::Personalization;
const PHONE: &str = "phone";

fn apply_at(state: &mut State, time_ms: i64, kind: RecordKind, message: &impl Message) {
    let payload = message.encode_to_vec();
    let record = Record { offset: state.offset + 1, kind: kind as i32, time_ms, payload: &payload };
    state.apply(&record).expect("a sound record");
}

/// Applies a record whose time is its offset.
fn apply(state: &mut State, kind: RecordKind, message: &impl Message) {
    apply_at(state, state.offset + 1, kind, message);
}

fn view(state: &mut State, user_id: &str) {
    let item_id = format!("item{}", state.offset);
    let event = Event {
        event_type: EventType::View as i32,
        context: Some(context(user_id)),
        items: vec![EventItem { item_id, ..EventItem::default() }],
        ..Event::default()
    };
    apply(state, RecordKind::Event, &event);
}

fn said(visitor_id: &str, answers: &[(ConsentPurpose, bool)]) -> Profile {
    let consents = answers.iter().map(|&(purpose, granted)| Consent { purpose: purpose as i32, granted });
    Profile { visitor_id: visitor_id.into(), consents: consents.collect(), ..Profile::default() }
}

fn say(state: &mut State, visitor_id: &str, granted: bool) {
    apply(state, RecordKind::Profile, &said(visitor_id, &[(PERSONAL, granted)]));
}

fn context(user_id: &str) -> Context {
    Context { visitor_id: PHONE.into(), user_id: user_id.into(), ..Context::default() }
}

fn answer(state: &State, user_id: &str) -> Option<bool> {
    state.answer(&context(user_id), PERSONAL)
}

fn elsewhere(state: &State, user_id: &str) -> Option<bool> {
    state.answer(&Context { visitor_id: String::new(), ..context(user_id) }, PERSONAL)
}

/// A phone that denied, in which `ann` logged in.
fn denied() -> State {
    let mut state = State::default();
    view(&mut state, "");
    say(&mut state, PHONE, false);
    view(&mut state, "ann");
    state
}

fn history(state: &State, key: &str) -> usize {
    state.visitors.get(key).map_or(0, |visitor| visitor.recent().count())
}

#[test]
fn a_denial_binds_the_user_and_stays_in_the_browser() {
    let state = denied();
    assert_eq!(
        (answer(&state, "ann"), elsewhere(&state, "ann"), answer(&state, "")),
        (Some(false), Some(false), Some(false))
    );
    assert_eq!((history(&state, "ann"), history(&state, PHONE)), (2, 0));
}

#[test]
fn what_the_user_grants_later_holds_and_the_browser_stays_denied() {
    let mut state = denied();
    say(&mut state, "ann", true);
    for user_id in ["ann", "", "ann"] {
        view(&mut state, user_id);
        assert_eq!((answer(&state, "ann"), answer(&state, "")), (Some(true), Some(false)));
    }
    assert_eq!((history(&state, "ann"), history(&state, PHONE)), (5, 0));
}

#[test]
fn a_denial_counts_in_the_browser_before_an_event_names_the_user() {
    let mut state = State::default();
    say(&mut state, "ann", true);
    say(&mut state, PHONE, false);
    assert_eq!((answer(&state, "ann"), elsewhere(&state, "ann")), (Some(false), Some(true)));
    view(&mut state, "ann");
    assert_eq!((answer(&state, "ann"), elsewhere(&state, "ann")), (Some(false), Some(false)));
}

#[test]
fn a_user_may_grant_though_no_event_names_it_in_the_browser() {
    let mut state = State::default();
    say(&mut state, PHONE, false);
    say(&mut state, "ann", true);
    assert_eq!((answer(&state, "ann"), answer(&state, "")), (Some(true), Some(false)));
    view(&mut state, "ann");
    assert_eq!((answer(&state, "ann"), answer(&state, "")), (Some(true), Some(false)));
}

#[test]
fn a_grant_said_again_is_no_later_one_and_a_denial_said_again_is() {
    let mut state = State::default();
    say(&mut state, "ann", true);
    say(&mut state, PHONE, false);
    say(&mut state, "ann", true);
    assert_eq!(answer(&state, "ann"), Some(false), "somebody sends all answers each night");
    view(&mut state, "ann");
    say(&mut state, "ann", true);
    assert_eq!(answer(&state, "ann"), Some(true));
    say(&mut state, PHONE, false);
    assert_eq!(answer(&state, "ann"), Some(false));
    view(&mut state, "ann");
    assert_eq!(elsewhere(&state, "ann"), Some(false));
}

#[test]
fn what_one_browser_grants_is_no_answer_to_what_another_denied() {
    let login = |state: &mut State, visitor_id: &str| {
        let context = Context { visitor_id: visitor_id.into(), ..context("ann") };
        apply(state, RecordKind::Event, &Event { context: Some(context), ..Event::default() });
    };
    for browsers in [[PHONE, "laptop"], ["laptop", PHONE]] {
        let mut state = State::default();
        say(&mut state, PHONE, false);
        say(&mut state, "laptop", true);
        login(&mut state, browsers[0]);
        assert_eq!(answer(&state, "ann"), Some(false));
        login(&mut state, browsers[1]);
        assert_eq!((answer(&state, "ann"), elsewhere(&state, "ann")), (Some(false), Some(false)));
        say(&mut state, "ann", true);
        login(&mut state, PHONE);
        assert_eq!((answer(&state, "ann"), elsewhere(&state, "ann")), (Some(true), Some(true)));
    }
}

#[test]
fn a_user_who_took_a_grant_over_may_grant_itself() {
    let mut state = State::default();
    say(&mut state, PHONE, true);
    view(&mut state, "ann");
    say(&mut state, PHONE, false);
    assert_eq!(answer(&state, "ann"), Some(false));
    say(&mut state, "ann", true);
    assert_eq!((answer(&state, "ann"), answer(&state, "")), (Some(true), Some(false)));
}

#[test]
fn machines_that_took_the_same_answer_of_one_key_in_another_order_agree() {
    let time_of = |granted: bool, times: [i64; 3]| {
        let mut stated = Stated::default();
        for time_ms in times {
            stated.update(said(PHONE, &[(PERSONAL, granted)]), time_ms);
        }
        stated.answers[0].time_ms()
    };
    assert_eq!((time_of(true, [5, 1, 5]), time_of(true, [1, 5, 5])), (1, 1));
    assert_eq!((time_of(false, [5, 1, 5]), time_of(false, [1, 5, 5])), (5, 5));
}

#[test]
fn everyone_who_logs_in_is_bound_until_it_answers() {
    let mut state = denied();
    say(&mut state, "ann", true);
    assert_eq!(answer(&state, "bob"), Some(false));
    view(&mut state, "bob");
    assert_eq!((answer(&state, "ann"), answer(&state, "bob")), (Some(true), Some(false)));
    say(&mut state, "bob", true);
    view(&mut state, "ann");
    view(&mut state, "bob");
    assert_eq!(
        (answer(&state, "ann"), answer(&state, "bob"), answer(&state, "")),
        (Some(true), Some(true), Some(false))
    );
}

#[test]
fn each_purpose_has_its_own_answers() {
    let mut state = denied();
    say(&mut state, "ann", true);
    apply(&mut state, RecordKind::Profile, &said(PHONE, &[(ConsentPurpose::Marketing, false)]));
    view(&mut state, "ann");
    assert_eq!(answer(&state, "ann"), Some(true));
    assert_eq!(state.answer(&context("ann"), ConsentPurpose::Marketing), Some(false));
    assert_eq!(state.answer(&context("ann"), ConsentPurpose::Training), None);
    apply(&mut state, RecordKind::Profile, &said("ann", &[(PERSONAL, false), (PERSONAL, true)]));
    assert_eq!(answer(&state, "ann"), Some(true), "of two answers at once the last counts");
}

#[test]
fn what_the_browser_grants_later_undoes_its_denial_but_not_that_of_the_user() {
    let mut state = denied();
    say(&mut state, PHONE, true);
    assert_eq!(
        (answer(&state, "ann"), answer(&state, "bob"), answer(&state, "")),
        (Some(false), Some(true), Some(true))
    );
    view(&mut state, "bob");
    assert_eq!(answer(&state, "bob"), Some(true));
    assert!(!state.visitors.contains_key(PHONE), "a browser without denials leaves nothing");
}

#[test]
fn what_a_browser_grants_is_not_the_answer_of_a_user_who_is_known_and_has_none() {
    let mut state = State::default();
    say(&mut state, PHONE, true);
    apply(&mut state, RecordKind::Profile, &said("ann", &[]));
    assert_eq!((answer(&state, "ann"), answer(&state, "bob")), (None, Some(true)));
}

#[test]
fn a_key_that_was_a_users_binds_others_until_they_answer() {
    let mut state = State::default();
    let of = |state: &mut State, visitor_id: &str, user_id: &str| {
        let context = Context { visitor_id: visitor_id.into(), user_id: user_id.into(), ..Context::default() };
        apply(state, RecordKind::Event, &Event { context: Some(context), ..Event::default() });
    };
    of(&mut state, "", PHONE);
    say(&mut state, PHONE, false);
    of(&mut state, PHONE, "bob");
    assert_eq!(answer(&state, "bob"), Some(false));
    say(&mut state, "bob", true);
    assert_eq!((answer(&state, "bob"), answer(&state, "")), (Some(true), Some(false)));
}

#[test]
fn what_is_stated_in_the_browser_after_the_logout_reaches_the_user() {
    let mut state = denied();
    let traits = vec![Trait { name: "size".into(), value: "m".into() }];
    let profile = Profile { visitor_id: PHONE.into(), traits, ..Profile::default() };
    apply(&mut state, RecordKind::Profile, &profile);
    view(&mut state, "ann");
    let stated = |key: &str| state.visitors[key].stated.as_ref().expect("stated").profile(key);
    assert_eq!(stated("ann"), Profile { traits: profile.traits, ..said("ann", &[(PERSONAL, false)]) });
    assert_eq!(stated(PHONE), said(PHONE, &[(PERSONAL, false)]));
}

#[test]
fn an_erased_browser_denies_no_longer() {
    let mut state = denied();
    apply(&mut state, RecordKind::Erasure, &Erasure { visitor_id: PHONE.into(), ..Erasure::default() });
    assert_eq!((answer(&state, ""), answer(&state, "bob"), answer(&state, "ann")), (None, None, Some(false)));
}

#[test]
fn machines_that_saw_answers_in_another_order_agree_from_the_next_event_on() {
    let (denial, grant) = (said(PHONE, &[(PERSONAL, false)]), said("ann", &[(PERSONAL, true)]));
    for (denied_ms, granted_ms, expected) in [(1, 2, true), (2, 1, false)] {
        for denial_first in [true, false] {
            let mut state = State::default();
            let mut answers = [(denied_ms, &denial), (granted_ms, &grant)];
            if !denial_first {
                answers.reverse();
            }
            apply_at(&mut state, answers[0].0, RecordKind::Profile, answers[0].1);
            view(&mut state, "ann");
            apply_at(&mut state, answers[1].0, RecordKind::Profile, answers[1].1);
            assert_eq!(answer(&state, "ann"), Some(expected));
            view(&mut state, "ann");
            assert_eq!((answer(&state, "ann"), elsewhere(&state, "ann")), (Some(expected), Some(expected)));
        }
    }
}

#[test]
fn an_event_of_nobody_changes_nothing() {
    let mut state = State::default();
    apply(&mut state, RecordKind::Event, &Event { context: Some(Context::default()), ..Event::default() });
    assert!(state.visitors.is_empty());
}
