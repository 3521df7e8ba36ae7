//! Whose answer about consent counts where a known visitor uses a browser in which somebody has answered, and what users
//! took over from browsers and the log does not say yet.

use crate::{
    profile::{Denial, Stated},
    proto::{self, ConsentPurpose, Context},
    state::State,
};

/// What a user took over from browsers, to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Unrecorded {
    /// When the log took the event that showed it, Unix milliseconds: the first where there are several.
    pub time_ms: i64,
    /// The denials, and nothing else.
    pub stated: proto::Stated,
}

impl State {
    /// Answer to a purpose that counts for a request, if there is one: that of the known visitor, unless its browser denied
    /// later; that of the browser, as long as no event has named the user.
    pub fn answer(&self, context: &Context, purpose: ConsentPurpose) -> Option<bool> {
        let of = |key: &str| self.visitors.get(key).filter(|_| !key.is_empty());
        let browser = of(&context.visitor_id).and_then(|visitor| visitor.answer(purpose));
        let own = match of(Self::visitor_key(context)) {
            Some(known) => known.answer(purpose),
            None => browser,
        };
        let counting = browser.filter(|answer| answer.overrules(own.as_ref())).or(own);
        counting.map(|answer| answer.consent.granted)
    }

    /// Keeps account of whether a visitor is bound by what is in no record of its own.
    pub fn note_unrecorded(&mut self, key: &str) {
        if self.visitors.get(key).is_some_and(|visitor| visitor.has_unrecorded()) {
            self.unrecorded.insert(key.into());
        } else {
            self.unrecorded.remove(key);
        }
    }

    /// What up to `count` users took over from browsers and no record says: it has to outlive the browsers.
    pub fn unrecorded_denials(&self, count: usize) -> Vec<Unrecorded> {
        let stated = |key: &Box<str>| Some((key.clone(), self.visitors.get(key)?.stated.as_deref()?));
        self.unrecorded
            .iter()
            .filter_map(stated)
            .take(count)
            .map(|(key, stated)| Unrecorded::new(&key, stated))
            .collect()
    }
}

impl Unrecorded {
    fn new(key: &str, stated: &Stated) -> Self {
        let mut denials: Vec<Denial> = stated.unrecorded().copied().collect();
        denials.sort_by_key(|denial| denial.purpose);
        let time_ms = denials.iter().filter_map(|denial| denial.unrecorded_ms).min().unwrap_or_default();
        Self { time_ms, stated: Stated { denials, ..Stated::default() }.message(key) }
    }
}

#[cfg(test)]
mod tests;
