//! What users took over from browsers is recorded once, and outlives the browsers.

use super::*;
use crate::{
    proto::{self, stated},
    unrecorded::UnrecordedStatement,
};

/// Applies what the state has to record, at the times at which it became known.
fn record_statements(state: &mut State) -> usize {
    let found = state.unrecorded_statements(9);
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
    assert_eq!(record_statements(&mut state), 0, "nobody took it over");
    for user_id in ["ann", "bob"] {
        view(&mut state, user_id);
        let found = state.unrecorded_statements(9);
        let denials = vec![stated::Denial { purpose: PERSONAL as i32, time_ms: 1, bound_ms: state.offset }];
        let stated = proto::Stated { visitor_id: user_id.into(), denials, is_user: true, ..proto::Stated::default() };
        assert_eq!(found, [UnrecordedStatement { time_ms: state.offset, stated }]);
        view(&mut state, user_id);
        assert_eq!(state.unrecorded_statements(9), found, "the first event counts");
        assert_eq!((record_statements(&mut state), state.unrecorded_statements(9)), (1, vec![]));
        view(&mut state, user_id);
        assert_eq!(state.unrecorded_statements(9), []);
    }
    say(&mut state, PHONE, false);
    view(&mut state, "ann");
    assert_eq!(record_statements(&mut state), 1, "it was said again");
    assert_eq!((elsewhere(&state, "ann"), elsewhere(&state, "bob")), (Some(false), Some(false)));
}

#[test]
fn what_the_user_granted_later_and_what_was_erased_is_not_recorded() {
    let mut state = denied();
    say(&mut state, "ann", true);
    assert_eq!(state.unrecorded_statements(9), []);
    view(&mut state, "bob");
    apply(&mut state, RecordKind::Erasure, &Erasure { visitor_id: "bob".into(), ..Erasure::default() });
    assert_eq!(state.unrecorded_statements(9), []);
}

#[test]
fn what_is_recorded_outlives_the_browser_and_what_it_grants_later() {
    let mut state = denied();
    let records = state.unrecorded_statements(9);
    let mut rebuilt = State::default();
    say(&mut rebuilt, PHONE, true);
    view(&mut rebuilt, "ann");
    apply(&mut rebuilt, RecordKind::Stated, &records[0].stated);
    for state in [&mut state, &mut rebuilt] {
        apply(state, RecordKind::Erasure, &Erasure { visitor_id: PHONE.into(), ..Erasure::default() });
        view(state, "ann");
        assert_eq!(elsewhere(state, "ann"), Some(false));
        say(state, "ann", true);
        assert_eq!((elsewhere(state, "ann"), state.unrecorded_statements(9)), (Some(true), vec![]));
    }
}

#[test]
fn a_record_that_comes_late_or_twice_undoes_no_later_grant() {
    let mut state = denied();
    let record = state.unrecorded_statements(9).remove(0).stated;
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

/// A record that says that `ann` is bound by a denial.
fn bound(time_ms: i64, bound_ms: i64) -> proto::Stated {
    let denials = vec![stated::Denial { purpose: PERSONAL as i32, time_ms, bound_ms }];
    proto::Stated { visitor_id: "ann".into(), denials, is_user: true, ..proto::Stated::default() }
}

#[test]
fn machines_that_take_grants_and_denials_of_browsers_in_any_order_agree() {
    let steps = |grants: &[i64], denials: &[(i64, i64)]| {
        let grants = grants.iter().map(|&time_ms| (Some(time_ms), bound(0, 0)));
        let denials = denials.iter().map(|&(time_ms, bound_ms)| (None, bound(time_ms, bound_ms)));
        grants.chain(denials).collect::<Vec<_>>()
    };
    for (grants, denials, expected) in [
        (&[20][..], &[(5, 9), (30, 33), (5, 12)][..], false),
        (&[40], &[(5, 9), (30, 33), (5, 12)], true),
        (&[1, 10], &[(5, 12)], false),
        (&[1, 10], &[(5, 7), (5, 12)], true),
        (&[1, 10], &[(5, 7), (8, 12)], false),
        (&[1], &[(5, 7), (5, 7)], false),
        (&[6], &[(5, 7)], true),
    ] {
        let steps = steps(grants, denials);
        for start in 0..steps.len() {
            for reversed in [false, true] {
                let mut order: Vec<_> = steps.iter().cycle().skip(start).take(steps.len()).collect();
                if reversed {
                    order.reverse();
                }
                let mut state = State::default();
                for (grant_ms, record) in order {
                    match grant_ms {
                        Some(ms) => apply_at(&mut state, *ms, RecordKind::Profile, &said("ann", &[(PERSONAL, true)])),
                        None => apply(&mut state, RecordKind::Stated, record),
                    }
                }
                assert_eq!(elsewhere(&state, "ann"), Some(expected), "{grants:?} {denials:?} from {start} {reversed}");
            }
        }
    }
}

#[test]
fn a_grant_that_comes_again_after_a_restoration_undoes_no_denial() {
    let mut state = State::default();
    let own =
        stated::Answer { consent: Some(Consent { purpose: PERSONAL as i32, granted: true }), first_ms: 1, last_ms: 10 };
    apply(&mut state, RecordKind::Stated, &proto::Stated { answers: vec![own], ..bound(5, 12) });
    apply_at(&mut state, 10, RecordKind::Profile, &said("ann", &[(PERSONAL, true)]));
    assert_eq!(elsewhere(&state, "ann"), Some(false));
    apply_at(&mut state, 13, RecordKind::Profile, &said("ann", &[(PERSONAL, true)]));
    assert_eq!(elsewhere(&state, "ann"), Some(true));
}

#[test]
fn a_user_may_grant_though_no_time_passes_after_the_login() {
    let mut state = State::default();
    let login = Event { context: Some(context("ann")), ..Event::default() };
    apply_at(&mut state, 9, RecordKind::Profile, &said(PHONE, &[(PERSONAL, false)]));
    apply_at(&mut state, 9, RecordKind::Event, &login);
    apply_at(&mut state, 9, RecordKind::Profile, &said("ann", &[(PERSONAL, true)]));
    apply_at(&mut state, 9, RecordKind::Event, &login);
    assert_eq!((answer(&state, "ann"), state.unrecorded_statements(9)), (Some(true), vec![]));
}

#[test]
fn what_comes_after_an_erasure_is_recorded_as_later_whatever_the_clock_says() {
    let mut state = State::default();
    let login = Event { context: Some(context("ann")), ..Event::default() };
    apply_at(&mut state, 3, RecordKind::Profile, &said(PHONE, &[(PERSONAL, false)]));
    for erased_ms in [20, 15] {
        apply_at(
            &mut state,
            erased_ms,
            RecordKind::Erasure,
            &Erasure { visitor_id: "ann".into(), ..Erasure::default() },
        );
    }
    apply_at(&mut state, 5, RecordKind::Event, &login);
    let found = state.unrecorded_statements(9);
    assert_eq!(found, [UnrecordedStatement { time_ms: 21, stated: bound(3, 5) }]);
}

#[test]
fn an_earlier_login_of_another_machine_is_recorded_too() {
    let mut state = denied();
    let found = state.unrecorded_statements(9).remove(0).stated;
    let mut later = found.clone();
    later.denials[0].bound_ms += 1;
    apply(&mut state, RecordKind::Stated, &later);
    assert_eq!(state.unrecorded_statements(9)[0].stated, found);
    apply(&mut state, RecordKind::Stated, &found);
    assert_eq!(state.unrecorded_statements(9), []);
}

#[test]
fn a_denial_that_is_earlier_than_the_known_one_leaves_that_to_be_recorded() {
    let mut state = denied();
    say(&mut state, PHONE, false);
    view(&mut state, "ann");
    let mut earlier = state.unrecorded_statements(9).remove(0).stated;
    earlier.denials[0].time_ms -= 1;
    apply(&mut state, RecordKind::Stated, &earlier);
    assert_eq!((record_statements(&mut state), record_statements(&mut state)), (1, 0));
}

#[test]
fn who_took_something_over_is_a_user_for_who_knows_no_more_than_the_record() {
    for (mut state, answer) in [(denied(), false), (granted(), true)] {
        let mut other = State::default();
        apply(&mut other, RecordKind::Stated, &state.unrecorded_statements(9).remove(0).stated);
        let login = Event {
            context: Some(Context { visitor_id: "ann".into(), user_id: "bob".into(), ..Context::default() }),
            ..Event::default()
        };
        apply(&mut state, RecordKind::Event, &login);
        apply(&mut other, RecordKind::Event, &login);
        for state in [&state, &other] {
            assert_eq!((elsewhere(state, "ann"), elsewhere(state, "bob")), (Some(answer), None));
        }
        assert_eq!(other.unrecorded_statements(9), []);
    }
}

#[test]
fn what_tables_knew_is_merged_by_time_and_a_denial_wins_where_that_does_not_tell() {
    let after = |answers: [(bool, i64, i64); 2]| {
        let mut known = Stated::default();
        for (granted, first_ms, last_ms) in answers {
            let consent = Some(Consent { purpose: PERSONAL as i32, granted });
            let answers = vec![stated::Answer { consent, first_ms, last_ms }];
            known.merge(proto::Stated { answers, ..proto::Stated::default() });
        }
        (known.answers[0].consent.granted, known.answers[0].first_ms, known.answers[0].last_ms)
    };
    let (grant, denial) = ((true, 5, 7), (false, 9, 9));
    for (one, other, expected) in [
        (grant, denial, denial),
        ((true, 11, 12), denial, (true, 11, 12)),
        ((true, 5, 12), denial, (true, 12, 12)),
        ((true, 5, 9), denial, denial),
        (grant, (false, 0, 0), (false, 0, 0)),
        (grant, (true, 3, 6), (true, 3, 7)),
        (grant, (true, 0, 0), grant),
        (denial, (false, 8, 8), (false, 8, 9)),
    ] {
        assert_eq!((after([one, other]), after([other, one])), (expected, expected));
    }
}

#[test]
fn a_login_of_before_the_denial_binds_nobody_however_late_it_comes() {
    let mut state = State::default();
    let login = Event { context: Some(context("ann")), ..Event::default() };
    for granted_ms in [1, 12] {
        apply_at(&mut state, granted_ms, RecordKind::Profile, &said("ann", &[(PERSONAL, true)]));
    }
    apply_at(&mut state, 20, RecordKind::Profile, &said(PHONE, &[(PERSONAL, false)]));
    apply_at(&mut state, 10, RecordKind::Event, &login);
    assert_eq!((answer(&state, "ann"), elsewhere(&state, "ann")), (Some(false), Some(true)));
    apply_at(&mut state, 25, RecordKind::Event, &login);
    assert_eq!((answer(&state, "ann"), elsewhere(&state, "ann")), (Some(false), Some(false)));
    assert_eq!(state.unrecorded_statements(9), [UnrecordedStatement { time_ms: 25, stated: bound(20, 25) }]);
}

#[test]
fn what_was_granted_or_bound_at_one_time_is_one_record() {
    let mut state = State::default();
    let all = [(ConsentPurpose::Marketing, true), (PERSONAL, false), (ConsentPurpose::Training, true)];
    apply(&mut state, RecordKind::Profile, &said(PHONE, &all));
    view(&mut state, "ann");
    let found = state.unrecorded_statements(9);
    let granted = |purpose| Some(Consent { purpose: purpose as i32, granted: true });
    let answers = [ConsentPurpose::Training, ConsentPurpose::Marketing].map(granted);
    let answers = answers.map(|consent| stated::Answer { consent, first_ms: 0, last_ms: 0 });
    let granted = proto::Stated { answers: answers.into(), denials: vec![], ..bound(1, 2) };
    let statement = |time_ms, stated| UnrecordedStatement { time_ms, stated };
    assert_eq!(found, [statement(1, granted), statement(2, bound(1, 2))]);
    assert_eq!((record_statements(&mut state), record_statements(&mut state)), (2, 0));
}

/// A phone that granted, in which `ann` logged in.
fn granted() -> State {
    let mut state = State::default();
    say(&mut state, PHONE, true);
    view(&mut state, "ann");
    state
}

#[test]
fn a_grant_taken_over_is_recorded_once_and_outlives_the_browser() {
    let mut state = granted();
    let record = state.unrecorded_statements(9).remove(0).stated;
    assert_eq!((record_statements(&mut state), record_statements(&mut state)), (1, 0));
    view(&mut state, "ann");
    assert_eq!(record_statements(&mut state), 0);
    let mut rebuilt = State::default();
    apply(&mut rebuilt, RecordKind::Stated, &record);
    assert_eq!((elsewhere(&rebuilt, "ann"), rebuilt.unrecorded_statements(9)), (Some(true), vec![]));
}

#[test]
fn a_record_of_a_grant_undoes_no_denial_in_any_order() {
    let record = granted().unrecorded_statements(9).remove(0).stated;
    for is_late in [false, true] {
        let mut own = State::default();
        let mut bonds = State::default();
        for part in [is_late, !is_late] {
            if part {
                say(&mut own, "ann", false);
                apply(&mut bonds, RecordKind::Stated, &bound(1, 2));
            } else {
                apply(&mut own, RecordKind::Stated, &record);
                apply(&mut bonds, RecordKind::Stated, &record);
            }
        }
        for mut state in [own, bonds] {
            assert_eq!((elsewhere(&state, "ann"), state.unrecorded_statements(9)), (Some(false), vec![]));
            say(&mut state, "ann", true);
            assert_eq!(elsewhere(&state, "ann"), Some(true));
        }
    }
}

#[test]
fn a_grant_is_not_recorded_of_who_answered_is_denied_or_was_forgotten() {
    for granted_by_user in [false, true] {
        let mut state = granted();
        say(&mut state, "ann", granted_by_user);
        assert_eq!(state.unrecorded_statements(9), []);
    }
    let mut state = granted();
    apply(&mut state, RecordKind::Stated, &bound(1, 2));
    assert_eq!(state.unrecorded_statements(9), []);
    let mut state = granted();
    apply(&mut state, RecordKind::Erasure, &Erasure { visitor_id: "ann".into(), ..Erasure::default() });
    view(&mut state, "ann");
    assert_eq!(
        (state.unrecorded_statements(9), elsewhere(&state, "ann")),
        (vec![], None),
        "the browser is asked again"
    );
}

#[test]
fn a_grant_of_before_an_erasure_is_not_taken_over_after_it() {
    for (granted_ms, counts) in [(20, None), (21, Some(true))] {
        let mut state = State::default();
        let erasure = Erasure { visitor_id: "ann".into(), ..Erasure::default() };
        apply_at(&mut state, 20, RecordKind::Erasure, &erasure);
        apply_at(&mut state, granted_ms, RecordKind::Profile, &said(PHONE, &[(PERSONAL, true)]));
        apply_at(&mut state, 30, RecordKind::Event, &Event { context: Some(context("ann")), ..Event::default() });
        assert_eq!(elsewhere(&state, "ann"), counts);
        let times: Vec<i64> = state.unrecorded_statements(9).iter().map(|one| one.time_ms).collect();
        assert_eq!(times, counts.map_or(vec![], |_| vec![granted_ms]));
    }
}

#[test]
fn a_restored_machine_in_which_answers_come_before_events_says_the_same() {
    let login = Event { context: Some(context("ann")), ..Event::default() };
    let granted = |time_ms| stated::Answer {
        consent: Some(Consent { purpose: PERSONAL as i32, granted: true }),
        first_ms: time_ms,
        last_ms: time_ms,
    };
    let mut state = State::default();
    apply(&mut state, RecordKind::Stated, &proto::Stated { answers: vec![granted(3)], ..bound(4, 5) });
    apply_at(&mut state, 4, RecordKind::Profile, &said(PHONE, &[(PERSONAL, false)]));
    for time_ms in [2, 5] {
        apply_at(&mut state, time_ms, RecordKind::Event, &login);
    }
    assert_eq!(elsewhere(&state, "ann"), Some(false), "denied, logged in, granted, denied again, logged in");

    let mut state = State::default();
    apply_at(&mut state, 4, RecordKind::Profile, &said(PHONE, &[(PERSONAL, true)]));
    apply_at(&mut state, 2, RecordKind::Event, &login);
    assert_eq!(elsewhere(&state, "ann"), None, "logged in before the browser granted");
    apply_at(&mut state, 6, RecordKind::Event, &login);
    assert_eq!(elsewhere(&state, "ann"), Some(true), "what it granted since stayed in it");
}

#[test]
fn a_grant_that_is_said_again_after_the_login_stays_in_the_browser() {
    let login = Event { context: Some(context("ann")), ..Event::default() };
    for (login_ms, stays) in [(10, Some(true)), (20, None)] {
        let mut state = State::default();
        for granted_ms in [1, 20] {
            apply_at(&mut state, granted_ms, RecordKind::Profile, &said(PHONE, &[(PERSONAL, true)]));
        }
        apply_at(&mut state, login_ms, RecordKind::Event, &login);
        assert_eq!((answer(&state, ""), elsewhere(&state, "ann")), (stays, Some(true)));
    }
}

#[test]
fn a_denial_that_is_said_again_after_the_login_was_given_before_it() {
    let mut state = State::default();
    let login = Event { context: Some(context("ann")), ..Event::default() };
    for denied_ms in [1, 20] {
        apply_at(&mut state, denied_ms, RecordKind::Profile, &said(PHONE, &[(PERSONAL, false)]));
    }
    apply_at(&mut state, 10, RecordKind::Event, &login);
    assert_eq!(state.unrecorded_statements(9), [UnrecordedStatement { time_ms: 10, stated: bound(1, 10) }]);
    apply_at(&mut state, 25, RecordKind::Event, &login);
    assert_eq!(state.unrecorded_statements(9), [UnrecordedStatement { time_ms: 25, stated: bound(20, 25) }]);
}
