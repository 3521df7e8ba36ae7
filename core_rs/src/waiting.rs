//! Visitors whose sequence vector is missing or behind, first come, first served.
//!
//! Requests are read while nothing else changes, and still put visitors in: the set has a lock of its own, which is
//! taken after that of the state and held for a few instructions.

use crate::params::MAX_WAITING;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Visitors that are looked at for each that may be taken, so that who is left or dropped holds nobody up for long.
const LOOKS: usize = 8;

/// The set of visitors that wait, by key.
#[derive(Default)]
pub struct Waiting(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    /// Keys in order of coming; one that was removed, or taken meanwhile, is passed over.
    keys: VecDeque<Box<str>>,
    waits: HashMap<Box<str>, Wait>,
    tickets: u64,
}

struct Wait {
    /// Time of the first event that the vector lacks, Unix milliseconds.
    since_ms: i64,
    /// Time of the first event that came after the visitor was taken.
    again_ms: Option<i64>,
    /// Number under which the visitor was taken; 0 while it was not.
    ticket: u64,
}

/// What becomes of a visitor whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is taken.
    Take,
    /// It goes on waiting.
    Leave,
    /// It waits no longer.
    Drop,
}

impl Waiting {
    /// Puts in a visitor of whom an event came at `time_ms`; beyond [`MAX_WAITING`] a new one is left out until the next.
    pub fn add(&self, key: &str, time_ms: i64) {
        let mut queue = self.0.lock();
        match queue.waits.get_mut(key) {
            Some(wait) if wait.ticket > 0 => _ = wait.again_ms.get_or_insert(time_ms),
            Some(_) => {}
            None => _ = queue.push(key, time_ms),
        }
    }

    /// Puts in a visitor that is asked about now; returns since when it waits, long ago where there was no place.
    pub fn ask(&self, key: &str, now_ms: i64) -> i64 {
        let mut queue = self.0.lock();
        let since_ms = queue.waits.get(key).map(|wait| wait.since_ms);
        since_ms.unwrap_or_else(|| if queue.push(key, now_ms) { now_ms } else { i64::MIN })
    }

    /// Lets go of a visitor; what is being made for it is not taken either.
    pub fn remove(&self, key: &str) {
        self.0.lock().waits.remove(key);
    }

    /// Since when a visitor waits, Unix milliseconds.
    pub fn since(&self, key: &str) -> Option<i64> {
        self.0.lock().waits.get(key).map(|wait| wait.since_ms)
    }

    /// Visitors that wait, those taken among them.
    pub fn len(&self) -> usize {
        self.0.lock().waits.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes up to `count` visitors under one ticket, as `turn` says; some times as many are looked at, each once.
    pub fn take(&self, count: usize, mut turn: impl FnMut(&str) -> Turn) -> (u64, Vec<Box<str>>) {
        let mut queue = self.0.lock();
        queue.tickets += 1;
        let (ticket, mut taken) = (queue.tickets, Vec::new());
        for _ in 0..queue.keys.len().min(LOOKS * count) {
            if taken.len() == count {
                break;
            }
            let Some(key) = queue.keys.pop_front() else { break };
            let Some(wait) = queue.waits.get_mut(&key).filter(|wait| wait.ticket == 0) else { continue };
            match turn(&key) {
                Turn::Take => {
                    wait.ticket = ticket;
                    taken.push(key);
                }
                Turn::Leave => queue.keys.push_back(key),
                Turn::Drop => _ = queue.waits.remove(&key),
            }
        }
        (ticket, taken)
    }

    /// Ends the wait of a visitor taken under `ticket`; returns false where it was let go of meanwhile.
    pub fn end(&self, key: &str, ticket: u64) -> bool {
        let mut queue = self.0.lock();
        let Some(wait) = queue.waits.get(key).filter(|wait| wait.ticket == ticket) else { return false };
        let again_ms = wait.again_ms;
        queue.waits.remove(key);
        if let Some(time_ms) = again_ms {
            queue.push(key, time_ms);
        }
        true
    }

    /// Lets a visitor taken under `ticket` wait on, since it got no vector.
    pub fn put_back(&self, key: &str, ticket: u64) {
        let mut queue = self.0.lock();
        if let Some(wait) = queue.waits.get_mut(key).filter(|wait| wait.ticket == ticket) {
            (wait.ticket, wait.again_ms) = (0, None);
            queue.keys.push_back(key.into());
        }
    }
}

impl Queue {
    fn push(&mut self, key: &str, since_ms: i64) -> bool {
        if self.waits.len() >= MAX_WAITING {
            return false;
        }
        self.waits.insert(key.into(), Wait { since_ms, again_ms: None, ticket: 0 });
        self.keys.push_back(key.into());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(waiting: &Waiting, count: usize) -> (u64, Vec<String>) {
        let (ticket, keys) = waiting.take(count, |_| Turn::Take);
        (ticket, keys.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_first_comes_first_and_waits_since_its_first_event() {
        let waiting = Waiting::default();
        for (key, time_ms) in [("b", 1), ("a", 2), ("b", 3)] {
            waiting.add(key, time_ms);
        }
        assert_eq!((waiting.since("b"), waiting.ask("a", 9), waiting.ask("c", 9)), (Some(1), 2, 9));
        assert_eq!(all(&waiting, 2).1, ["b", "a"]);
        assert_eq!(all(&waiting, 2).1, ["c"]);
        assert!(all(&waiting, 2).1.is_empty());
        assert_eq!(waiting.len(), 3);
    }

    #[test]
    fn an_event_that_came_meanwhile_makes_it_wait_again() {
        let waiting = Waiting::default();
        waiting.add("a", 1);
        waiting.add("b", 1);
        let (ticket, _) = all(&waiting, 2);
        waiting.add("a", 5);
        waiting.add("a", 6);
        assert!(waiting.end("a", ticket) && waiting.end("b", ticket));
        assert_eq!((waiting.since("a"), waiting.since("b")), (Some(5), None));
        assert_eq!(all(&waiting, 2).1, ["a"]);
    }

    #[test]
    fn what_failed_waits_on_as_long_as_it_did() {
        let waiting = Waiting::default();
        waiting.add("a", 1);
        let (ticket, _) = all(&waiting, 1);
        waiting.put_back("a", ticket);
        assert_eq!((waiting.since("a"), all(&waiting, 1).1), (Some(1), vec!["a".to_owned()]));
    }

    #[test]
    fn what_is_made_for_a_visitor_that_was_let_go_is_refused() {
        let waiting = Waiting::default();
        waiting.add("a", 1);
        let (ticket, _) = all(&waiting, 1);
        waiting.remove("a");
        waiting.add("a", 7);
        assert!(!waiting.end("a", ticket));
        waiting.put_back("a", ticket);
        assert_eq!((all(&waiting, 3).1, waiting.since("a")), (vec!["a".to_owned()], Some(7)));
    }

    #[test]
    fn some_are_left_and_some_dropped() {
        let waiting = Waiting::default();
        for key in ["a", "b", "c"] {
            waiting.add(key, 1);
        }
        let turns = |key: &str| [Turn::Leave, Turn::Drop, Turn::Take][usize::from(key.as_bytes()[0] - b'a')];
        assert_eq!(waiting.take(9, turns).1, ["c".into()]);
        assert_eq!((waiting.len(), all(&waiting, 9).1), (2, vec!["a".to_owned()]));
    }

    #[test]
    fn the_set_has_an_end_and_who_finds_no_place_is_late_at_once() {
        let waiting = Waiting::default();
        (0..=MAX_WAITING).for_each(|number| waiting.add(&number.to_string(), 1));
        assert_eq!((waiting.len(), waiting.ask("one more", 5)), (MAX_WAITING, i64::MIN));
        assert_eq!(waiting.ask("0", 5), 1);
    }
}
