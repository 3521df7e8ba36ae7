//! Whose answer about consent counts where a known visitor uses a browser in which somebody has answered.

use crate::{
    proto::{ConsentPurpose, Context},
    state::State,
    visitor::Visitor,
};

impl State {
    /// Answer to a purpose that counts for a request, if there is one: that of the known visitor, unless its browser denied
    /// later; that of the browser, as long as no event has named the user.
    pub fn answer(&self, context: &Context, purpose: ConsentPurpose) -> Option<bool> {
        let browser = self.visitors.get(&*context.visitor_id).and_then(|visitor| visitor.answer(purpose));
        let own = match self.visitors.get(Self::visitor_key(context)) {
            Some(known) => known.answer(purpose),
            None => browser,
        };
        let counting = browser.filter(|answer| answer.overrules(own)).or(own);
        counting.map(|answer| answer.consent.granted)
    }
}

/// Whether a visitor itself said no to personalisation.
pub fn is_denied(visitor: &Visitor) -> bool {
    visitor.consent(ConsentPurpose::Personalization) == Some(false)
}

/// Drops what was learnt of the events of a visitor that said no; returns whether it did.
pub fn forget_if_denied(visitor: &mut Visitor) -> bool {
    let denied = is_denied(visitor);
    if denied {
        visitor.sequence = None;
    }
    denied
}

#[cfg(test)]
mod tests;
