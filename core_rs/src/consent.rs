//! Whose answer about consent counts where a known visitor uses a browser in which somebody has answered.

use crate::{
    proto::{ConsentPurpose, Context},
    state::State,
};

impl State {
    /// Answer to a purpose that counts for a request, if there is one: that of the known visitor, unless its browser
    /// denied later; that of the browser, as long as no event has named the user.
    pub fn answer(&self, context: &Context, purpose: ConsentPurpose) -> Option<bool> {
        let of = |key: &str| self.visitors.get(key).filter(|_| !key.is_empty());
        let browser = of(&context.visitor_id);
        let Some(known) = of(Self::visitor_key(context)) else { return browser?.consent(purpose) };
        let denied_ms = browser.and_then(|browser| browser.stated.as_ref()?.denied_ms(purpose as i32));
        let is_bound = |denied_ms| match &known.stated {
            Some(stated) => stated.is_bound_by(purpose as i32, denied_ms),
            None => true,
        };
        if denied_ms.is_some_and(is_bound) { Some(false) } else { known.consent(purpose) }
    }
}

#[cfg(test)]
mod tests;
