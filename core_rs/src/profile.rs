//! What was stated about a visitor: how changes and logins bring statements together, and which answer counts.
//!
//! Own answers follow the order of the log. What browsers denied is kept beside them with the time at which it came to
//! bind the visitor, so that machines which learn of denials and grants sooner or later, once or twice, agree.

use crate::{
    error::{Error, Result, decode},
    proto::{self, Consent, Profile, RecordKind, Trait, stated},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// Time of a grant that outdoes no denial: a browser gave it, or it is not known when it was given.
const UNKNOWN: i64 = 0;

/// Answer of a visitor to one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Purpose, and whether it is allowed.
    pub consent: Consent,
    /// When the log took it first, Unix milliseconds; 0 of a grant that a browser gave, and where it is not known.
    pub first_ms: i64,
    /// When the log took it last, Unix milliseconds; 0 as above.
    pub last_ms: i64,
    /// When a browser gave the grant that became the visitor's, Unix milliseconds, as long as no record of the visitor
    /// says so; when it became the visitor's, where that is not known.
    pub unrecorded_ms: Option<i64>,
}

impl Answer {
    /// Answer that the log took at a time.
    pub fn new(consent: Consent, time_ms: i64) -> Self {
        Self { consent, first_ms: time_ms, last_ms: time_ms, unrecorded_ms: None }
    }

    /// When it was given, Unix milliseconds: a grant that is said again is no later one, a denial is.
    pub fn time_ms(&self) -> i64 {
        if self.consent.granted { self.first_ms } else { self.last_ms }
    }

    /// This answer in the place of `old`; another one is later, also while the clock stands still.
    fn after(self, old: Option<&Self>) -> Self {
        let Some(old) = old else { return self };
        if old.consent.granted != self.consent.granted {
            let tie = i64::from(self.time_ms() == old.time_ms());
            return Self {
                first_ms: self.first_ms.saturating_add(tie),
                last_ms: self.last_ms.saturating_add(tie),
                ..self
            };
        }
        let first_ms = match self.first_ms.min(old.first_ms) {
            UNKNOWN if self.consent.granted => self.first_ms.max(old.first_ms),
            first_ms => first_ms,
        };
        Self { first_ms, last_ms: self.last_ms.max(old.last_ms), ..self }
    }

    /// The one of two answers that counts where their order is not known: the later, at one time the denial, and any
    /// denial of an unknown time.
    fn or(self, other: &Self) -> Self {
        if self.consent.granted == other.consent.granted {
            return self.after(Some(other));
        }
        let (grant, denial) = if self.consent.granted { (self, *other) } else { (*other, self) };
        if denial.last_ms == UNKNOWN || grant.last_ms <= denial.last_ms {
            return denial;
        }
        Self { first_ms: if grant.first_ms > denial.last_ms { grant.first_ms } else { grant.last_ms }, ..grant }
    }
}

/// Denial of a browser in which the visitor logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrowserDenial {
    /// Purpose.
    pub purpose: i32,
    /// When the log took it, Unix milliseconds.
    pub time_ms: i64,
    /// When the log took the first event that showed it to be the visitor's, Unix milliseconds.
    pub bound_ms: i64,
    /// Whether a record of the visitor says so.
    pub is_recorded: bool,
}

impl BrowserDenial {
    fn order(&self) -> (i64, Reverse<i64>, bool) {
        (self.time_ms, Reverse(self.bound_ms), self.is_recorded)
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
    pub denials: Vec<BrowserDenial>,
    /// Whether it took over something of a browser, and so is of a user.
    pub is_user: bool,
}

impl Stated {
    /// Whether a purpose is allowed, if that was answered: by the visitor, unless it is bound by a denial that counts.
    pub fn granted(&self, purpose: i32) -> Option<bool> {
        let denial = self.denial(purpose);
        let is_denied = denial.is_some_and(|denial| self.is_bound_by(purpose, denial.time_ms));
        if is_denied { Some(false) } else { self.own(purpose).map(|own| own.consent.granted) }
    }

    /// Whether what a browser denied at a time counts beside the answer of the visitor: unless it granted later, or
    /// said a grant again after it was bound.
    pub fn is_bound_by(&self, purpose: i32, denied_ms: i64) -> bool {
        let said_since = |own: &Answer| {
            let known = self.denial(purpose).filter(|denial| denial.time_ms >= denied_ms);
            known.is_some_and(|denial| own.last_ms > denial.bound_ms)
        };
        self.own(purpose).is_none_or(|own| own.time_ms() <= denied_ms && !(own.consent.granted && said_since(own)))
    }

    /// Time of what the visitor itself denied, if it did.
    pub fn denied_ms(&self, purpose: i32) -> Option<i64> {
        self.own(purpose).filter(|own| !own.consent.granted).map(Answer::time_ms)
    }

    /// Sets the traits and consents of `change`; an empty trait is removed.
    pub fn update(&mut self, change: Profile, time_ms: i64) {
        self.set_traits(change.traits);
        for consent in change.consents {
            let mut answer = Answer::new(consent, time_ms).after(self.own(consent.purpose));
            let is_tie = self.denial(consent.purpose).is_some_and(|denial| denial.bound_ms == time_ms);
            let tie = i64::from(is_tie && answer.last_ms == time_ms);
            answer.last_ms = answer.last_ms.saturating_add(tie); // the clock stands, and this came later
            self.set(answer);
        }
    }

    /// Takes over the traits of a browser and the answers that it had given by then: grants that are missing here, and
    /// as bonds those of its denials that count. `log_ms` is when the log took the event that linked the two, and
    /// `erased_ms` when the visitor was forgotten last, Unix milliseconds: what was granted until then is not the
    /// visitor's, whoever learns first of the erasure.
    pub fn adopt(&mut self, browser: &Self, log_ms: i64, erased_ms: i64) {
        for new in &browser.traits {
            if self.traits.iter().all(|old| old.name != new.name) {
                self.traits.push(new.clone());
            }
        }
        self.is_user = true;
        // Another answer at one moment has the next millisecond.
        let given = browser.answers.iter().filter(|answer| answer.first_ms <= log_ms.saturating_add(1));
        for &Answer { consent, first_ms, last_ms, .. } in given {
            // Said again since: it had been said first by then.
            let (purpose, time_ms) =
                (consent.purpose, if last_ms <= log_ms.saturating_add(1) { last_ms } else { first_ms });
            if !consent.granted && self.is_bound_by(purpose, time_ms) {
                self.bind(BrowserDenial { purpose, time_ms, bound_ms: log_ms, is_recorded: false });
            } else if consent.granted && time_ms > erased_ms && self.own(purpose).is_none() {
                let given_ms = if time_ms == UNKNOWN { log_ms } else { time_ms };
                self.answers.push(Answer { unrecorded_ms: Some(given_ms), ..Answer::new(consent, UNKNOWN) });
            }
        }
    }

    /// Merges what others know, whose traits replace ours. Denials of browsers and repeated grants merge alike in any
    /// order; where a grant meets a denial of the visitor itself, the later counts.
    pub fn merge(&mut self, known: proto::Stated) {
        self.set_traits(known.traits);
        self.is_user |= known.is_user;
        for stated::Answer { consent, first_ms, last_ms } in known.answers {
            let Some(consent) = consent else { continue };
            let new = Answer { consent, first_ms, last_ms, unrecorded_ms: None };
            self.set(self.own(consent.purpose).map_or(new, |old| new.or(old)));
        }
        for stated::Denial { purpose, time_ms, bound_ms } in known.denials {
            self.bind(BrowserDenial { purpose, time_ms, bound_ms, is_recorded: true });
        }
    }

    /// What stays in a browser after a login that the log took at `log_ms`: its denials, and what it granted since;
    /// `None` if there is neither.
    pub fn left_at_login(&self, log_ms: i64) -> Option<Self> {
        let login_ms = log_ms.saturating_add(1);
        let said = self.answers.iter().map(|&answer| match answer {
            Answer { consent: Consent { granted: true, .. }, first_ms, last_ms, .. } if first_ms <= login_ms => {
                Answer { first_ms: last_ms, ..answer } // said again since, it is a new one
            }
            _ => answer,
        });
        let answers: Vec<Answer> =
            said.filter(|answer| !answer.consent.granted || answer.first_ms > login_ms).collect();
        (!answers.is_empty()).then_some(Self { answers, ..Self::default() })
    }

    /// What of browsers counts and is in no record of the visitor, by when a grant was given and when a denial came to
    /// bind, Unix milliseconds.
    pub fn unrecorded(&self) -> BTreeMap<i64, Self> {
        let mut found = BTreeMap::<i64, Self>::new();
        for own in self.answers.iter().filter(|own| self.granted(own.consent.purpose) == Some(own.consent.granted)) {
            if let Some(given_ms) = own.unrecorded_ms {
                found.entry(given_ms).or_default().answers.push(*own);
            }
        }
        let denials = self.denials.iter().filter(|denial| !denial.is_recorded);
        for denial in denials.filter(|denial| self.is_bound_by(denial.purpose, denial.time_ms)) {
            found.entry(denial.bound_ms).or_default().denials.push(*denial);
        }
        for taken in found.values_mut() {
            taken.is_user = true;
            taken.sort();
        }
        found
    }

    /// Denials of browsers that bound the visitor after a time, Unix milliseconds, and are in no record of it.
    pub fn unrecorded_denials(&self, after_ms: i64) -> Vec<BrowserDenial> {
        self.denials.iter().filter(|denial| !denial.is_recorded && denial.bound_ms > after_ms).copied().collect()
    }

    /// Binds the visitor by denials of browsers.
    pub fn bind_all(&mut self, denials: Vec<BrowserDenial>) {
        self.is_user = true; // nobody else is bound by a browser
        for denial in denials {
            self.bind(denial);
        }
    }

    /// Puts the lists in order of name and purpose.
    fn sort(&mut self) {
        self.traits.sort_by(|a, b| a.name.cmp(&b.name));
        self.answers.sort_by_key(|own| own.consent.purpose);
        self.denials.sort_by_key(|denial| denial.purpose);
    }

    /// The profile as the contract has it, with what counts in order of purpose and without times.
    pub fn profile(&self, visitor_id: &str) -> Profile {
        let own = self.answers.iter().map(|own| own.consent.purpose);
        let purposes: BTreeSet<i32> = own.chain(self.denials.iter().map(|denial| denial.purpose)).collect();
        let consent = |purpose| self.granted(purpose).map(|granted| Consent { purpose, granted });
        let consents = purposes.into_iter().filter_map(consent).collect();
        Profile { visitor_id: visitor_id.to_owned(), traits: self.traits.clone(), consents }
    }

    /// The message that [`Self::merge`] takes.
    pub fn to_proto(&self, visitor_id: &str) -> proto::Stated {
        let answer = |&Answer { consent, first_ms, last_ms, .. }: &Answer| stated::Answer {
            consent: Some(consent),
            first_ms,
            last_ms,
        };
        let denial = |&BrowserDenial { purpose, time_ms, bound_ms, .. }: &BrowserDenial| stated::Denial {
            purpose,
            time_ms,
            bound_ms,
        };
        proto::Stated {
            visitor_id: visitor_id.to_owned(),
            traits: self.traits.clone(),
            answers: self.answers.iter().map(answer).collect(),
            denials: self.denials.iter().map(denial).collect(),
            is_user: self.is_user,
        }
    }

    fn own(&self, purpose: i32) -> Option<&Answer> {
        self.answers.iter().find(|answer| answer.consent.purpose == purpose)
    }

    fn denial(&self, purpose: i32) -> Option<&BrowserDenial> {
        self.denials.iter().find(|denial| denial.purpose == purpose)
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

    fn bind(&mut self, new: BrowserDenial) {
        match self.denials.iter_mut().find(|old| old.purpose == new.purpose) {
            Some(old) if old.order() < new.order() => *old = new,
            Some(_) => {}
            None => self.denials.push(new),
        }
    }
}

/// What is stated about a visitor after the record of a kind, time and payload, and the profile that the contract
/// shows. `known` is an encoded `Stated`, empty where nothing is; the lists of the results are in order of name and
/// purpose.
///
/// # Errors
/// Malformed where the bytes do not hold the messages, or records of the kind state nothing.
pub fn stated_after(known: &[u8], kind: i32, time_ms: i64, payload: &[u8]) -> Result<(proto::Stated, Profile)> {
    let mut stated = Stated::default();
    stated.merge(decode(known, "Stated")?);
    let visitor_id = match RecordKind::try_from(kind) {
        Ok(RecordKind::Profile) => {
            let change = decode::<Profile>(payload, "Profile")?;
            let visitor_id = change.visitor_id.clone();
            stated.update(change, time_ms);
            visitor_id
        }
        Ok(RecordKind::Stated) => {
            let mut change = decode::<proto::Stated>(payload, "Stated")?;
            let visitor_id = std::mem::take(&mut change.visitor_id);
            stated.merge(change);
            visitor_id
        }
        _ => {
            return Err(Error::out_of_range("kind", format!("records of `kind` {kind} state nothing about a visitor")));
        }
    };
    stated.sort();
    Ok((stated.to_proto(&visitor_id), stated.profile(&visitor_id)))
}
