//! What becomes of an anonymous visitor when an event shows who it is: its history moves, its denials count for both.
//!
//! Who uses the browser after a logout need not deny again, so the browser keeps its denials. Each user takes them over
//! once; what that user grants later holds.

use crate::{
    proto::{Consent, ConsentPurpose, Context, Profile},
    state::State,
    visitor::Visitor,
};

impl State {
    /// Answer to a purpose of the known visitor and of its browser, if there is one; of two the denial counts.
    pub fn answer(&self, context: &Context, purpose: ConsentPurpose) -> Option<bool> {
        let own = self.visitors.get(Self::visitor_key(context)).and_then(|visitor| visitor.consent(purpose));
        let browser = self.visitors.get(&*context.visitor_id);
        let browser = browser.filter(|browser| !browser.denials_taken_by.contains(&*context.user_id));
        match (own, browser.and_then(|browser| browser.consent(purpose))) {
            (Some(own), Some(browser)) => Some(own && browser),
            (own, browser) => own.or(browser),
        }
    }

    /// Takes from the anonymous visitor what an event shows to be a known one's, and has not been taken by that one; a key
    /// that ever was a user's is not anonymous.
    pub(crate) fn take_anonymous(&mut self, context: &Context) -> Option<Box<Visitor>> {
        let (key, user_id) = (&*context.visitor_id, &*context.user_id);
        if user_id.is_empty() || user_id == key {
            return None;
        }
        let anonymous = self.visitors.get(key)?;
        if anonymous.is_user || anonymous.has_only_taken(user_id) {
            return None;
        }
        self.waiting.remove(key);
        let mut anonymous = self.visitors.remove(key)?;
        if let Some(left) = anonymous.leave_denials(user_id) {
            self.visitors.insert(key.into(), Box::new(left));
        }
        Some(anonymous)
    }
}

impl Visitor {
    /// Whether all there is are denials that the user took over.
    fn has_only_taken(&self, user_id: &str) -> bool {
        let has_more = |profile: &Profile| !profile.traits.is_empty() || profile.consents.iter().any(|one| one.granted);
        self.events == 0
            && self.denials_taken_by.contains(user_id)
            && !self.profile.as_ref().is_some_and(|profile| has_more(profile))
    }

    /// The visitor that stays in the browser when the user takes this one over, `None` if it denied nothing; denials that
    /// the user took over before are no longer in this one.
    fn leave_denials(&mut self, user_id: &str) -> Option<Self> {
        let profile = self.profile.as_mut()?;
        let denials: Vec<Consent> = profile.consents.iter().filter(|consent| !consent.granted).copied().collect();
        if denials.is_empty() {
            return None;
        }
        let mut denials_taken_by = std::mem::take(&mut self.denials_taken_by);
        if !denials_taken_by.insert(user_id.into()) {
            profile.consents.retain(|consent| consent.granted);
        }
        let mut left = Self::default();
        let profile = Profile { visitor_id: profile.visitor_id.clone(), consents: denials, traits: Vec::new() };
        left.profile = Some(Box::new(profile));
        left.denials_taken_by = denials_taken_by;
        Some(left)
    }
}

#[cfg(test)]
mod tests;
