//! What the shop states about a visitor: how changes and logins bring statements together.

use crate::proto::Profile;

impl Profile {
    /// Sets the traits and consents of `change`; an empty trait is removed.
    pub fn update(&mut self, change: Self) {
        self.visitor_id = change.visitor_id;
        for new in change.traits {
            self.traits.retain(|old| old.name != new.name);
            if !new.value.is_empty() {
                self.traits.push(new);
            }
        }
        for new in change.consents {
            self.consents.retain(|old| old.purpose != new.purpose);
            self.consents.push(new);
        }
    }

    /// Takes over the traits that are missing here, and the consents; of two answers the denial counts.
    pub fn adopt(&mut self, other: &Self) {
        for new in &other.traits {
            if self.traits.iter().all(|old| old.name != new.name) {
                self.traits.push(new.clone());
            }
        }
        for new in &other.consents {
            match self.consents.iter_mut().find(|old| old.purpose == new.purpose) {
                Some(old) => old.granted &= new.granted,
                None => self.consents.push(*new),
            }
        }
    }
}
