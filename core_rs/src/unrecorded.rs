//! Denials of browsers that bind users and that the log does not say yet: they have to outlive the browsers.

use crate::{
    profile::{BrowserDenial, Stated},
    proto,
    state::State,
};

/// Denials of browsers that bind one user, to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct UnrecordedDenials {
    /// When the log took the first event that showed one, Unix milliseconds; after the erasure of the user, if there was one.
    pub time_ms: i64,
    /// The user and the denials, and nothing else.
    pub stated: proto::Stated,
}

impl UnrecordedDenials {
    fn of(user_id: &str, stated: &Stated, erased_ms: Option<i64>) -> Option<Self> {
        let mut denials: Vec<BrowserDenial> = stated.unrecorded().copied().collect();
        denials.sort_by_key(|denial| denial.purpose);
        let bound_ms = denials.iter().map(|denial| denial.bound_ms).min()?;
        let time_ms = erased_ms.map_or(bound_ms, |erased_ms| bound_ms.max(erased_ms + 1));
        Some(Self { time_ms, stated: Stated { denials, ..Stated::default() }.to_proto(user_id) })
    }
}

impl State {
    /// Denials that are in no record, of up to `count` users.
    pub fn unrecorded_denials(&self, count: usize) -> Vec<UnrecordedDenials> {
        let of = |key: &str| {
            let stated = self.visitors.get(key)?.stated.as_deref()?;
            UnrecordedDenials::of(key, stated, self.erased.get(key).copied())
        };
        self.unrecorded_users.iter().filter_map(|key| of(key)).take(count).collect()
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
