//! What visitors turn to next: the nearest item vectors to what the encoder made of the visitor's last events.

use super::{Source, Taker, offer_nearest};
use crate::{ids::NONE, proto::Reason, query::Query, sequence::SequenceVector};

pub(super) struct Sequence;

impl Source for Sequence {
    fn name(&self) -> &'static str {
        "sequence"
    }

    fn reason(&self) -> Reason {
        Reason::NextItem
    }

    fn enable(&self, query: &Query) -> bool {
        vector(query).is_some()
    }

    fn propose(&self, query: &Query, taker: &mut dyn Taker) {
        let Some((bundle, vector)) = query.bundle.zip(vector(query)) else { return };
        let vector = vector.values();
        offer_nearest(|count, among| bundle.nearest_next(&vector, count, among), NONE, taker);
    }
}

/// Vector of the visitor that the bundle's own encoder made.
fn vector<'a>(query: &'a Query) -> Option<&'a SequenceVector> {
    let encoder = query.bundle?.bundle.sequence.as_ref()?;
    let fits = |vector: &&SequenceVector| encoder.fits(vector);
    query.visitor?.sequence.as_deref().filter(fits)
}
