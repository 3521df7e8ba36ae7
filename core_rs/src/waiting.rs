//! Visitors whose sequence vector is missing or behind, first come, first served.
//!
//! Requests are read while nothing else changes, and still put visitors in: the set has a lock of its own, which is
//! taken after that of the state and held for a few instructions.

use crate::params::MAX_WAITING;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Visitors that are looked at for each that may be taken, so that who is left or dropped holds nobody up for long.
const LOOKS: usize = 8;

/// The set of visitors that wait, by key.
#[derive(Default)]
pub struct Waiting(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    /// Keys of those that were not taken, by their place in the order of coming.
    keys: BTreeMap<u64, Box<str>>,
    waits: HashMap<Box<str>, Wait>,
    /// Places and tickets given so far.
    given: u64,
}

struct Wait {
    /// Time of the first event that the vector lacks, Unix milliseconds.
    since_ms: i64,
    /// Time of the first event that came after the visitor was taken.
    again_ms: Option<i64>,
    stand: Stand,
}

/// Where a visitor stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// In the row, at this place.
    Place(u64),
    /// Taken under this ticket.
    Ticket(u64),
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
    /// Puts in a visitor of whom an event came at `time_ms`; beyond [`MAX_WAITING`] a new one is left out until the
    /// next.
    pub fn add(&self, key: &str, time_ms: i64) {
        let mut queue = self.0.lock();
        match queue.waits.get_mut(key) {
            Some(Wait { stand: Stand::Ticket(_), again_ms, .. }) => _ = again_ms.get_or_insert(time_ms),
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
        self.0.lock().remove(key);
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
        let (ticket, mut taken) = (queue.next(), Vec::new());
        for _ in 0..queue.keys.len().min(LOOKS * count) {
            if taken.len() == count {
                break;
            }
            let Some((_, key)) = queue.keys.pop_first() else { break };
            match turn(&key) {
                Turn::Take => {
                    queue.stand(&key, Stand::Ticket(ticket));
                    taken.push(key);
                }
                Turn::Leave => queue.line_up(key),
                Turn::Drop => _ = queue.waits.remove(&key),
            }
        }
        (ticket, taken)
    }

    /// Ends the wait of a visitor taken under `ticket`; returns false where it was let go of meanwhile.
    pub fn end(&self, key: &str, ticket: u64) -> bool {
        let mut queue = self.0.lock();
        let Some(wait) = queue.waits.get(key).filter(|wait| wait.stand == Stand::Ticket(ticket)) else { return false };
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
        if let Some(wait) = queue.waits.get_mut(key).filter(|wait| wait.stand == Stand::Ticket(ticket)) {
            wait.again_ms = None;
            queue.line_up(key.into());
        }
    }
}

impl Queue {
    fn push(&mut self, key: &str, since_ms: i64) -> bool {
        if self.waits.len() >= MAX_WAITING {
            return false;
        }
        self.waits.insert(key.into(), Wait { since_ms, again_ms: None, stand: Stand::Place(0) });
        self.line_up(key.into());
        true
    }

    /// Gives a visitor that waits the last place of the row.
    fn line_up(&mut self, key: Box<str>) {
        let place = self.next();
        self.stand(&key, Stand::Place(place));
        self.keys.insert(place, key);
    }

    fn stand(&mut self, key: &str, stand: Stand) {
        if let Some(wait) = self.waits.get_mut(key) {
            wait.stand = stand;
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some(Wait { stand: Stand::Place(place), .. }) = self.waits.remove(key) {
            self.keys.remove(&place);
        }
    }

    fn next(&mut self) -> u64 {
        self.given += 1;
        self.given
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
    fn a_visitor_that_was_let_go_leaves_nothing_behind() {
        let waiting = Waiting::default();
        for _ in 0..3 {
            waiting.add("a", 1);
            waiting.remove("a");
        }
        assert!(waiting.0.lock().keys.is_empty());
        waiting.add("b", 1);
        waiting.add("a", 2);
        assert_eq!(all(&waiting, 9).1, ["b", "a"]);
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
