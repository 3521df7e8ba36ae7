//! What was stated about a visitor: how changes and logins bring statements together, and which answer counts.

use crate::proto::{Consent, Profile, Trait};

/// Time of a grant that outdoes no denial: a browser gave it, or it is not known when it was given.
const UNKNOWN: i64 = 0;

/// Answer of a visitor to one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Purpose, and whether it is allowed.
    pub consent: Consent,
    /// When the log took it, Unix milliseconds: a grant first, a denial last. 0 of a grant that a browser gave.
    pub time_ms: i64,
}

impl Answer {
    /// This answer in the place of `old`; another one is later, also while the clock stands still.
    fn after(self, old: Option<Self>) -> Self {
        let time_ms = match old {
            None => self.time_ms,
            Some(old) if old.consent.granted != self.consent.granted => {
                self.time_ms + i64::from(self.time_ms == old.time_ms)
            }
            Some(old) if self.consent.granted && old.time_ms != UNKNOWN => self.time_ms.min(old.time_ms),
            Some(old) => self.time_ms.max(old.time_ms),
        };
        Self { time_ms, ..self }
    }

    /// Whether this denial counts beside the answer `own`: where `own` is no later, or absent.
    pub fn overrules(&self, own: Option<&Self>) -> bool {
        !self.consent.granted && own.is_none_or(|own| own.time_ms <= self.time_ms)
    }
}

/// What was stated about a visitor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stated {
    /// Properties, none twice.
    pub traits: Vec<Trait>,
    /// Answers, one a purpose.
    pub answers: Vec<Answer>,
}

impl Stated {
    /// Sets the traits and consents of `change`; an empty trait is removed.
    pub fn update(&mut self, change: Profile, time_ms: i64) {
        for new in change.traits {
            self.traits.retain(|old| old.name != new.name);
            if !new.value.is_empty() {
                self.traits.push(new);
            }
        }
        for consent in change.consents {
            let place = self.answers.iter().position(|old| old.consent.purpose == consent.purpose);
            let old = place.map(|place| self.answers.remove(place));
            self.answers.push(Answer { consent, time_ms }.after(old));
        }
    }

    /// Takes over traits and answers that are missing here, and the denials that overrule ours.
    pub fn adopt(&mut self, other: &Self) {
        for new in &other.traits {
            if self.traits.iter().all(|old| old.name != new.name) {
                self.traits.push(new.clone());
            }
        }
        for new in &other.answers {
            match self.answers.iter_mut().find(|old| old.consent.purpose == new.consent.purpose) {
                Some(old) if new.overrules(Some(old)) => *old = *new,
                Some(_) => {}
                None if new.consent.granted => self.answers.push(Answer { time_ms: UNKNOWN, ..*new }),
                None => self.answers.push(*new),
            }
        }
    }

    /// What was denied, and nothing else; `None` if nothing was.
    pub fn denials(&self) -> Option<Self> {
        let denied = self.answers.iter().filter(|answer| !answer.consent.granted);
        let answers: Vec<Answer> = denied.copied().collect();
        (!answers.is_empty()).then_some(Self { traits: Vec::new(), answers })
    }

    /// The profile as the contract has it, without the times.
    pub fn profile(&self, visitor_id: &str) -> Profile {
        let consents = self.answers.iter().map(|answer| answer.consent).collect();
        Profile { visitor_id: visitor_id.to_owned(), traits: self.traits.clone(), consents }
    }
}
