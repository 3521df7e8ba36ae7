//! What users took over from browsers is recorded once, and outlives the browsers.

use super::*;
use crate::proto::stated;

/// Applies what the state has to record, at the times at which it became known.
fn record_denials(state: &mut State) -> usize {
    let found = state.unrecorded_denials(9);
    for one in &found {
        apply_at(state, one.time_ms, RecordKind::Stated, &one.stated);
    }
    found.len()
}

#[test]
fn a_denial_taken_over_is_to_be_recorded_once_for_each_user() {
    let mut state = State::default();
    say(&mut state, PHONE, false);
    view(&mut state, "");
    assert_eq!(record_denials(&mut state), 0, "nobody took it over");
    for user_id in ["ann", "bob"] {
        view(&mut state, user_id);
        let found = state.unrecorded_denials(9);
        let denials = vec![stated::Denial { purpose: PERSONAL as i32, time_ms: 1 }];
        let stated = proto::Stated { visitor_id: user_id.into(), denials, ..proto::Stated::default() };
        assert_eq!(found, [Unrecorded { time_ms: state.offset, stated }]);
        view(&mut state, user_id);
        assert_eq!(state.unrecorded_denials(9), found, "the first event counts");
        assert_eq!((record_denials(&mut state), state.unrecorded_denials(9)), (1, vec![]));
        view(&mut state, user_id);
        assert_eq!(state.unrecorded_denials(9), []);
    }
    say(&mut state, PHONE, false);
    view(&mut state, "ann");
    assert_eq!(record_denials(&mut state), 1, "it was said again");
    assert_eq!((elsewhere(&state, "ann"), elsewhere(&state, "bob")), (Some(false), Some(false)));
}

#[test]
fn what_the_user_granted_later_and_what_was_erased_is_not_recorded() {
    let mut state = denied();
    say(&mut state, "ann", true);
    assert_eq!(state.unrecorded_denials(9), []);
    view(&mut state, "bob");
    apply(&mut state, RecordKind::Erasure, &Erasure { visitor_id: "bob".into() });
    assert_eq!(state.unrecorded_denials(9), []);
}

#[test]
fn what_is_recorded_outlives_the_browser_and_what_it_grants_later() {
    let mut state = denied();
    let records = state.unrecorded_denials(9);
    let mut rebuilt = State::default();
    say(&mut rebuilt, PHONE, true);
    view(&mut rebuilt, "ann");
    apply(&mut rebuilt, RecordKind::Stated, &records[0].stated);
    for state in [&mut state, &mut rebuilt] {
        apply(state, RecordKind::Erasure, &Erasure { visitor_id: PHONE.into() });
        view(state, "ann");
        assert_eq!(elsewhere(state, "ann"), Some(false));
        say(state, "ann", true);
        assert_eq!((elsewhere(state, "ann"), state.unrecorded_denials(9)), (Some(true), vec![]));
    }
}

#[test]
fn a_record_that_comes_late_or_twice_undoes_no_later_grant() {
    let mut state = denied();
    let record = state.unrecorded_denials(9).remove(0).stated;
    say(&mut state, "ann", true);
    for _ in 0..2 {
        apply(&mut state, RecordKind::Stated, &record);
        view(&mut state, "ann");
        assert_eq!((answer(&state, "ann"), elsewhere(&state, "ann")), (Some(true), Some(true)));
    }
    let mut other = State::default();
    apply_at(&mut other, 9, RecordKind::Profile, &said("ann", &[(PERSONAL, true)]));
    apply(&mut other, RecordKind::Stated, &record);
    assert_eq!(elsewhere(&other, "ann"), Some(true));
    say(&mut other, "ann", false);
    apply(&mut other, RecordKind::Stated, &record);
    assert_eq!(elsewhere(&other, "ann"), Some(false));
}

#[test]
fn machines_that_take_denials_and_their_records_in_any_order_agree() {
    let denial = |time_ms| {
        let denials = vec![stated::Denial { purpose: PERSONAL as i32, time_ms }];
        proto::Stated { visitor_id: "ann".into(), denials, ..proto::Stated::default() }
    };
    let records = [denial(5), denial(30), denial(5)];
    for order in [[0, 1, 2, 3], [3, 0, 1, 2], [1, 3, 2, 0], [2, 3, 0, 1]] {
        let mut state = State::default();
        for place in order {
            match records.get(place) {
                Some(record) => apply(&mut state, RecordKind::Stated, record),
                None => apply_at(&mut state, 20, RecordKind::Profile, &said("ann", &[(PERSONAL, true)])),
            }
        }
        assert_eq!(elsewhere(&state, "ann"), Some(false), "the denial of 30 is later than the grant of 20");
        assert_eq!(state.visitors["ann"].stated.as_ref().expect("stated").denials.len(), 1);
    }
}

#[test]
fn a_denial_that_is_earlier_than_the_known_one_leaves_that_to_be_recorded() {
    let mut state = denied();
    say(&mut state, PHONE, false);
    view(&mut state, "ann");
    let mut earlier = state.unrecorded_denials(9).remove(0).stated;
    earlier.denials[0].time_ms -= 1;
    apply(&mut state, RecordKind::Stated, &earlier);
    assert_eq!((record_denials(&mut state), record_denials(&mut state)), (1, 0));
}

#[test]
fn who_is_named_by_a_record_of_denials_is_a_user() {
    let mut state = denied();
    let mut other = State::default();
    apply(&mut other, RecordKind::Stated, &state.unrecorded_denials(9).remove(0).stated);
    let login = Event {
        context: Some(Context { visitor_id: "ann".into(), user_id: "bob".into(), ..Context::default() }),
        ..Event::default()
    };
    apply(&mut state, RecordKind::Event, &login);
    apply(&mut other, RecordKind::Event, &login);
    for state in [&state, &other] {
        assert_eq!((elsewhere(state, "ann"), elsewhere(state, "bob")), (Some(false), None));
    }
}

#[test]
fn what_tables_knew_is_merged_by_time_and_a_denial_wins_a_tie() {
    let own =
        |granted, time_ms| stated::Answer { consent: Some(Consent { purpose: PERSONAL as i32, granted }), time_ms };
    let after = |answers: &[(bool, i64)]| {
        let mut known = Stated::default();
        for &(granted, time_ms) in answers {
            known.merge(proto::Stated { answers: vec![own(granted, time_ms)], ..proto::Stated::default() });
        }
        (known.answers[0].consent.granted, known.answers[0].time_ms)
    };
    assert_eq!((after(&[(true, 5), (false, 9)]), after(&[(false, 9), (true, 5)])), ((false, 9), (false, 9)));
    assert_eq!((after(&[(true, 9), (false, 5)]), after(&[(false, 5), (true, 9)])), ((true, 9), (true, 9)));
    assert_eq!((after(&[(true, 5), (false, 5)]), after(&[(false, 5), (true, 5)])), ((false, 5), (false, 5)));
    assert_eq!((after(&[(true, 5), (true, 9)]), after(&[(true, 0), (true, 9)])), ((true, 5), (true, 9)));
    assert_eq!(after(&[(false, 5), (false, 9), (false, 7)]), (false, 9));
}
