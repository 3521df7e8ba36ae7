//! What was stated about a visitor: how changes and logins bring statements together, and which answer counts.
//!
//! Own answers follow the order of the log. What browsers denied is kept beside them, the latest of each purpose, so that
//! machines which learn of it sooner or later, once or twice, agree.

use crate::{
    error::{Error, Result},
    proto::{self, Consent, Profile, RecordKind, Trait, stated},
};
use prost::Message;

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

/// Denial of a browser in which the visitor logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Purpose.
    pub purpose: i32,
    /// When the log took it, Unix milliseconds.
    pub time_ms: i64,
    /// When the log took the event that showed it to be the visitor's, Unix milliseconds; `None` once a record says so.
    pub unrecorded_ms: Option<i64>,
}

impl Denial {
    fn answer(&self) -> Answer {
        Answer { consent: Consent { purpose: self.purpose, granted: false }, time_ms: self.time_ms }
    }
}

/// What was stated about a visitor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stated {
    /// Properties, none twice.
    pub traits: Vec<Trait>,
    /// Answers of the visitor, one a purpose; where it gave none, what a browser granted.
    pub answers: Vec<Answer>,
    /// Denials of browsers, the latest of each purpose.
    pub denials: Vec<Denial>,
}

impl Stated {
    /// Answer that counts, if there is one: that of the visitor, unless it is bound by a denial that is no earlier.
    pub fn answer(&self, purpose: i32) -> Option<Answer> {
        let own = self.answers.iter().find(|answer| answer.consent.purpose == purpose);
        let denial = self.denials.iter().find(|denial| denial.purpose == purpose).map(Denial::answer);
        denial.filter(|denial| denial.overrules(own)).or(own.copied())
    }

    /// Sets the traits and consents of `change`; an empty trait is removed.
    pub fn update(&mut self, change: Profile, time_ms: i64) {
        self.set_traits(change.traits);
        for consent in change.consents {
            let old = self.answer(consent.purpose);
            self.set(Answer { consent, time_ms }.after(old));
        }
    }

    /// Takes over traits and grants that are missing here, and is bound by the denials that overrule ours, of the browser
    /// `other`, as an event showed that the log took at `log_ms`.
    pub fn adopt(&mut self, other: &Self, log_ms: i64) {
        for new in &other.traits {
            if self.traits.iter().all(|old| old.name != new.name) {
                self.traits.push(new.clone());
            }
        }
        for new in &other.answers {
            let own = self.answers.iter().find(|old| old.consent.purpose == new.consent.purpose);
            if new.overrules(own) {
                let (purpose, time_ms) = (new.consent.purpose, new.time_ms);
                self.bind(Denial { purpose, time_ms, unrecorded_ms: Some(log_ms) });
            } else if own.is_none() {
                self.answers.push(Answer { time_ms: UNKNOWN, ..*new });
            }
        }
    }

    /// Merges what others know: of two answers the later counts, at one time a denial, and of two grants the first.
    pub fn merge(&mut self, known: proto::Stated) {
        self.set_traits(known.traits);
        for known in known.answers {
            let Some(consent) = known.consent else { continue };
            let new = Answer { consent, time_ms: known.time_ms };
            match self.answers.iter().find(|old| old.consent.purpose == consent.purpose) {
                Some(old) if old.consent.granted == consent.granted => self.set(new.after(Some(*old))),
                Some(old) if new.time_ms < old.time_ms || old.overrules(Some(&new)) => {}
                _ => self.set(new),
            }
        }
        for stated::Denial { purpose, time_ms } in known.denials {
            self.bind(Denial { purpose, time_ms, unrecorded_ms: None });
        }
    }

    /// What was denied, and nothing else; `None` if nothing was.
    pub fn denied(&self) -> Option<Self> {
        let denied = self.answers.iter().filter(|answer| !answer.consent.granted);
        let answers: Vec<Answer> = denied.copied().collect();
        (!answers.is_empty()).then_some(Self { answers, ..Self::default() })
    }

    /// Denials that count and are in no record of the visitor.
    pub fn unrecorded(&self) -> impl Iterator<Item = &Denial> {
        let counts = |denial: &&Denial| self.answer(denial.purpose) == Some(denial.answer());
        self.denials.iter().filter(|denial| denial.unrecorded_ms.is_some()).filter(counts)
    }

    /// The profile as the contract has it, with the answers that count and without their times.
    pub fn profile(&self, visitor_id: &str) -> Profile {
        let bound = self.denials.iter().map(|denial| denial.purpose);
        let bound = bound.filter(|purpose| self.answers.iter().all(|own| own.consent.purpose != *purpose));
        let purposes = self.answers.iter().map(|own| own.consent.purpose).chain(bound);
        let consents = purposes.filter_map(|purpose| self.answer(purpose)).map(|answer| answer.consent).collect();
        Profile { visitor_id: visitor_id.to_owned(), traits: self.traits.clone(), consents }
    }

    /// The message that [`Self::merge`] takes.
    pub fn message(&self, visitor_id: &str) -> proto::Stated {
        let answers = self.answers.iter();
        let denials = self.denials.iter();
        proto::Stated {
            visitor_id: visitor_id.to_owned(),
            traits: self.traits.clone(),
            answers: answers.map(|own| stated::Answer { consent: Some(own.consent), time_ms: own.time_ms }).collect(),
            denials: denials.map(|&Denial { purpose, time_ms, .. }| stated::Denial { purpose, time_ms }).collect(),
        }
    }

    fn set_traits(&mut self, traits: Vec<Trait>) {
        for new in traits {
            self.traits.retain(|old| old.name != new.name);
            if !new.value.is_empty() {
                self.traits.push(new);
            }
        }
    }

    fn set(&mut self, answer: Answer) {
        self.answers.retain(|old| old.consent.purpose != answer.consent.purpose);
        self.answers.push(answer);
    }

    fn bind(&mut self, new: Denial) {
        match self.denials.iter_mut().find(|old| old.purpose == new.purpose) {
            Some(old) if (old.time_ms, old.unrecorded_ms.is_none()) < (new.time_ms, new.unrecorded_ms.is_none()) => {
                *old = new;
            }
            Some(_) => {}
            None => self.denials.push(new),
        }
    }
}

/// What is stated about a visitor after the record of a kind, time and payload, and the profile that the contract shows.
/// `known` is an encoded `Stated`, empty where nothing is; the lists of the results are in order of name and purpose.
///
/// # Errors
/// Malformed where the bytes do not hold the messages, or records of the kind state nothing.
pub fn stated_after(known: &[u8], kind: i32, time_ms: i64, payload: &[u8]) -> Result<(proto::Stated, Profile)> {
    let malformed = |name: &'static str| move |cause| Error::malformed(name, &cause);
    let mut stated = Stated::default();
    stated.merge(proto::Stated::decode(known).map_err(malformed("Stated"))?);
    let visitor_id = match RecordKind::try_from(kind) {
        Ok(RecordKind::Profile) => {
            let change = Profile::decode(payload).map_err(malformed("Profile"))?;
            let visitor_id = change.visitor_id.clone();
            stated.update(change, time_ms);
            visitor_id
        }
        Ok(RecordKind::Stated) => {
            let mut change = proto::Stated::decode(payload).map_err(malformed("Stated"))?;
            let visitor_id = std::mem::take(&mut change.visitor_id);
            stated.merge(change);
            visitor_id
        }
        _ => {
            return Err(Error::out_of_range("kind", format!("records of `kind` {kind} state nothing about a visitor")));
        }
    };
    stated.traits.sort_by(|a, b| a.name.cmp(&b.name));
    stated.answers.sort_by_key(|own| own.consent.purpose);
    stated.denials.sort_by_key(|denial| denial.purpose);
    let mut profile = stated.profile(&visitor_id);
    profile.consents.sort_by_key(|consent| consent.purpose);
    Ok((stated.message(&visitor_id), profile))
}
