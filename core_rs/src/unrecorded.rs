//! What users took over from browsers and the log does not say yet: it has to outlive the browsers.

use crate::{profile::Stated, proto, state::State};

/// Answers of browsers that became a user's at one time, to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct UnrecordedStatement {
    /// When the browser gave the grants, or the denials came to bind the user, Unix milliseconds; after the erasure of
    /// the user, if there was one.
    pub time_ms: i64,
    /// The user, the grants and the denials, and nothing else.
    pub stated: proto::Stated,
}

impl State {
    /// Up to `count` statements that are in no record.
    pub fn unrecorded_statements(&self, count: usize) -> Vec<UnrecordedStatement> {
        let of = |key: &str| self.visitors.get(key).and_then(|visitor| visitor.stated.as_deref());
        let users = self.unrecorded_users.iter().filter_map(|key| Some((&**key, of(key)?)));
        let found = users.flat_map(|(key, stated)| stated.unrecorded().into_iter().map(move |taken| (key, taken)));
        found.take(count).map(|(key, (taken_ms, stated))| self.unrecorded_statement(key, taken_ms, &stated)).collect()
    }

    fn unrecorded_statement(&self, key: &str, taken_ms: i64, stated: &Stated) -> UnrecordedStatement {
        let time_ms = self.erased.get(key).map_or(taken_ms, |erased_ms| taken_ms.max(erased_ms.saturating_add(1)));
        UnrecordedStatement { time_ms, stated: stated.to_proto(key) }
    }

    /// Keeps account of whether a visitor took over what is in no record of its own.
    pub fn update_unrecorded(&mut self, key: &str) {
        if self.visitors.get(key).is_some_and(|visitor| visitor.has_unrecorded()) {
            self.unrecorded_users.insert(key.into());
        } else {
            self.unrecorded_users.remove(key);
        }
    }
}
