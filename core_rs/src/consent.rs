//! Whose answer about consent counts where a known visitor uses a browser in which somebody has answered.

use crate::{
    proto::{ConsentPurpose, Context},
    state::State,
};

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
        let counting = browser.filter(|answer| answer.overrules(own)).or(own);
        counting.map(|answer| answer.consent.granted)
    }
}

#[cfg(test)]
mod tests;
