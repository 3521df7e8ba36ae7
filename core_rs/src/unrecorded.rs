//! Denials of browsers that bind users and that the log does not say yet: they have to outlive the browsers.

use crate::{
    profile::{BrowserDenial, Stated},
    proto,
    state::State,
};

/// Denial of a browser that binds a user, to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct UnrecordedDenial {
    /// When it came to bind the user, Unix milliseconds; after the erasure of the user, if there was one.
    pub time_ms: i64,
    /// The user and the denial, and nothing else.
    pub stated: proto::Stated,
}

impl State {
    /// Up to `count` denials that are in no record.
    pub fn unrecorded_denials(&self, count: usize) -> Vec<UnrecordedDenial> {
        let of = |key: &str| self.visitors.get(key).and_then(|visitor| visitor.stated.as_deref());
        let users = self.unrecorded_users.iter().filter_map(|key| Some((&**key, of(key)?)));
        let denials = users.flat_map(|(key, stated)| stated.unrecorded().map(move |denial| (key, *denial)));
        denials.take(count).map(|(key, denial)| self.unrecorded_denial(key, denial)).collect()
    }

    fn unrecorded_denial(&self, key: &str, denial: BrowserDenial) -> UnrecordedDenial {
        let since_ms =
            self.erased.get(key).map_or(denial.bound_ms, |erased_ms| denial.bound_ms.max(erased_ms.saturating_add(1)));
        let stated = Stated { denials: vec![denial], ..Stated::default() };
        UnrecordedDenial { time_ms: since_ms, stated: stated.to_proto(key) }
    }

    /// Keeps account of whether a visitor is bound by what is in no record of its own.
    pub fn update_unrecorded(&mut self, key: &str) {
        if self.visitors.get(key).is_some_and(|visitor| visitor.has_unrecorded()) {
            self.unrecorded_users.insert(key.into());
        } else {
            self.unrecorded_users.remove(key);
        }
    }
}
