//! Whom an anonymous visitor turned out to be, so that what comes late of it finds the user.
//!
//! In Kafka an anonymous visitor and its user lie in different partitions, and a machine may read the login before what
//! came before it. What a log took up to the login is the user's in whichever order it comes.

use crate::params::{LOGIN_GRACE_MS, MAX_LOGINS};
use hashbrown::HashMap;

/// The last login of an anonymous visitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Key of the user.
    pub user: Box<str>,
    /// When a log took it, Unix milliseconds.
    pub time_ms: i64,
}

/// The last logins by the key of the anonymous visitor, the newest [`MAX_LOGINS`] of them or half of those.
#[derive(Default)]
pub struct Logins(HashMap<Box<str>, Login>);

impl Logins {
    /// Keeps a login, unless a later one of the same visitor is known.
    pub fn add(&mut self, visitor: &str, user: &str, time_ms: i64) {
        match self.0.get_mut(visitor) {
            Some(login) if login.time_ms > time_ms => {}
            Some(login) if *login.user == *user => login.time_ms = time_ms,
            Some(login) => *login = Login { user: user.into(), time_ms },
            None => {
                self.0.insert(visitor.into(), Login { user: user.into(), time_ms });
                self.shrink(MAX_LOGINS);
            }
        }
    }

    /// User to whom belongs what a log took of an anonymous visitor at `time_ms`.
    pub fn user_of(&self, visitor: &str, time_ms: i64) -> Option<&str> {
        let login = self.0.get(visitor).filter(|login| time_ms <= login.time_ms + LOGIN_GRACE_MS)?;
        Some(&login.user)
    }

    /// Forgets every login of or to a key.
    pub fn forget(&mut self, key: &str) {
        self.0.retain(|visitor, login| **visitor != *key && *login.user != *key);
    }

    /// Logins in order of the anonymous visitors.
    pub fn rows(&self) -> Vec<(&str, &Login)> {
        let mut rows: Vec<(&str, &Login)> = self.0.iter().map(|(visitor, login)| (&**visitor, login)).collect();
        rows.sort_unstable_by_key(|&(visitor, _)| visitor);
        rows
    }

    /// Drops the older half of more than `most`, those of one time together.
    fn shrink(&mut self, most: usize) {
        if self.0.len() > most {
            let mut times: Vec<i64> = self.0.values().map(|login| login.time_ms).collect();
            let (_, &mut middle, _) = times.select_nth_unstable(most / 2);
            self.0.retain(|_, login| login.time_ms > middle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_up_to_the_last_login_is_the_users() {
        let mut logins = Logins::default();
        logins.add("phone", "ann", 10_000);
        logins.add("phone", "bob", 9_000);
        assert_eq!(logins.user_of("phone", 10_000 + LOGIN_GRACE_MS), Some("ann"));
        assert_eq!(logins.user_of("phone", 10_001 + LOGIN_GRACE_MS), None);
        logins.add("phone", "bob", 20_000);
        assert_eq!((logins.user_of("phone", 5), logins.user_of("tablet", 5)), (Some("bob"), None));
    }

    #[test]
    fn a_forgotten_key_is_in_no_login() {
        let mut logins = Logins::default();
        for (visitor, user) in [("phone", "ann"), ("tablet", "ann"), ("car", "bob")] {
            logins.add(visitor, user, 1);
        }
        logins.forget("ann");
        logins.forget("car");
        assert!(logins.rows().is_empty());
    }

    #[test]
    fn the_newer_half_is_kept() {
        let mut logins = Logins::default();
        for (time_ms, visitor) in (0..).zip(["a", "b", "c", "d", "e"]) {
            logins.add(visitor, "ann", time_ms);
        }
        logins.shrink(4);
        assert_eq!(logins.rows().iter().map(|&(visitor, _)| visitor).collect::<Vec<_>>(), ["d", "e"]);
    }
}
