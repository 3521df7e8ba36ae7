//! Histories on their way to the encoder of a bundle, and the vectors that come back.

use crate::{
    bundle::{ActiveBundle, Encoder},
    proto::ConsentPurpose,
    sequence::SequenceVector,
    state::State,
    visitor::{Interaction, Visitor},
    waiting::Turn,
};
use std::sync::Arc;

/// Histories of visitors who were taken from those that wait, all for one encoder.
///
/// A row is a history in order of time, its newest `length` events, then zeros: every row has all columns, so that what
/// an encoder makes of one does not depend on the others.
#[derive(Default)]
pub struct Histories {
    /// Bundle whose encoder is asked; empty where nobody waits.
    pub version: String,
    /// Columns of a row.
    pub length: usize,
    /// Values of a vector.
    pub width: usize,
    /// Place of each item in the bundle's table, plus 1; an item that it lacks has the number above the last.
    pub items: Vec<i64>,
    /// Numbers of the event types.
    pub actions: Vec<i64>,
    /// Milliseconds since the event before; 0 for the first of a row. The state keeps times by the second.
    pub gaps: Vec<i64>,
    encoder: u64,
    ticket: u64,
    keys: Vec<Box<str>>,
    /// [`Visitor::ring_lines`] of each.
    ring_lines: Vec<u32>,
}

impl Histories {
    /// Number of histories.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Vectors of all histories from `values`, one after the other; `None` where one has a value that is not finite.
    pub fn vectors(&self, values: &[f32]) -> Vec<Option<SequenceVector>> {
        let rows = values.chunks_exact(self.width.max(1)).zip(&self.ring_lines);
        rows.map(|(values, &lines)| SequenceVector::new(self.encoder, lines, values)).collect()
    }

    /// Takes the shape that the encoder of `bundle` reads and answers.
    fn start(&mut self, bundle: &ActiveBundle) {
        let Some(encoder) = &bundle.bundle.sequence else { return };
        self.version.clone_from(&bundle.bundle.version);
        (self.encoder, self.length, self.width) = (encoder.identity, encoder.length, encoder.vectors.dimensions());
    }

    fn push(&mut self, visitor: &Visitor, bundle: &ActiveBundle) {
        let newest: Vec<&Interaction> = visitor.recent().take(self.length).collect();
        let end = self.items.len() + self.length;
        let mut before = newest.last().map_or(0, |oldest| oldest.time_s);
        for event in newest.into_iter().rev() {
            self.items.push(bundle.item_number(event.item));
            self.actions.push(i64::from(event.kind));
            self.gaps.push(i64::from(event.time_s - before) * 1000);
            before = event.time_s;
        }
        self.items.resize(end, 0);
        self.actions.resize(end, 0);
        self.gaps.resize(end, 0);
        self.ring_lines.push(visitor.ring_lines);
    }
}

/// Whether a visitor has a history that no vector of `encoder` reflects.
pub fn is_behind(visitor: &Visitor, encoder: &Encoder) -> bool {
    let vector = visitor.sequence.as_ref().filter(|vector| encoder.fits(vector));
    visitor.recent().next().is_some() && vector.is_none_or(|vector| vector.ring_lines != visitor.ring_lines)
}

/// Takes up to `count` visitors who wait, all of one bundle: that of the first.
///
/// Who does not consent to personalisation, has no history or is served by a bundle without an encoder waits no longer.
pub fn take(state: &State, count: usize, consent_default: bool) -> Histories {
    let mut histories = Histories::default();
    let mut chosen: Option<&Arc<ActiveBundle>> = None;
    let (ticket, keys) = state.waiting.take(count, |key| {
        let Some((bundle, visitor)) = encoded(state, key, consent_default) else { return Turn::Drop };
        if chosen.is_some_and(|chosen| chosen.bundle.version != bundle.bundle.version) {
            return Turn::Leave;
        }
        if chosen.replace(bundle).is_none() {
            histories.start(bundle);
        }
        histories.push(visitor, bundle);
        Turn::Take
    });
    (histories.ticket, histories.keys) = (ticket, keys);
    histories
}

/// Gives visitors their vectors; returns how many got one. Who got none waits on.
pub fn set(state: &mut State, histories: &Histories, vectors: Vec<Option<SequenceVector>>) -> usize {
    let mut count = 0;
    let answers = vectors.into_iter().chain(std::iter::repeat(None));
    for (key, vector) in histories.keys.iter().zip(answers) {
        let Some(vector) = vector else {
            state.waiting.put_back(key, histories.ticket);
            continue;
        };
        if state.waiting.end(key, histories.ticket)
            && let Some(visitor) = state.visitors.get_mut(key)
        {
            visitor.sequence = Some(Box::new(vector));
            count += 1;
        }
    }
    count
}

/// Visitor with the bundle that encodes it; `None` where none does or may.
fn encoded<'a>(state: &'a State, key: &str, consent_default: bool) -> Option<(&'a Arc<ActiveBundle>, &'a Visitor)> {
    let visitor = state.visitors.get(key)?;
    let bundle = state.bundle_of(key).filter(|bundle| bundle.bundle.sequence.is_some())?;
    let consented = visitor.consent(ConsentPurpose::Personalization).unwrap_or(consent_default);
    (consented && visitor.recent().next().is_some()).then_some((bundle, visitor))
}
