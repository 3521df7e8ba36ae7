//! Whose answer about consent counts where a known visitor uses a browser in which somebody has answered.

use crate::{
    profile::Stated,
    proto::{ConsentPurpose, Context, Profile},
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

    /// Denials that the user of an event has from browsers and in no record of its own, `None` where there are none; the log
    /// takes them with the event, so that they last when the browser, or what it said, is gone.
    pub fn unrecorded_denials(&self, context: &Context) -> Option<Profile> {
        let (key, user_id) = (&*context.visitor_id, &*context.user_id);
        if user_id.is_empty() {
            return None;
        }
        let browser = self.visitors.get(key).filter(|it| !key.is_empty() && key != user_id && !it.is_user);
        let denials = browser.and_then(|browser| browser.stated.as_ref()?.denials());
        let user = self.visitors.get(user_id).and_then(|user| user.stated.as_ref());
        let mut known =
            Stated { answers: user.map_or_else(Vec::new, |user| user.answers.clone()), ..Stated::default() };
        if let Some(denials) = denials {
            known.adopt(&denials);
        }
        known.answers.retain(|answer| !answer.is_own && !answer.consent.granted);
        (!known.answers.is_empty()).then(|| known.profile(user_id))
    }
}

#[cfg(test)]
mod tests;
