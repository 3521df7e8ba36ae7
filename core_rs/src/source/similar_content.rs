//! What is made like the query's seeds: the nearest content vectors to the mean of theirs.

use super::{Source, Taker, offer_nearest};
use crate::{bundle::ActiveBundle, proto::Reason, query::Query};

pub(super) struct SimilarContent;

impl Source for SimilarContent {
    fn name(&self) -> &'static str {
        "similar_content"
    }

    fn reason(&self) -> Reason {
        Reason::SimilarContent
    }

    fn enable(&self, query: &Query) -> bool {
        query.bundle.is_some_and(ActiveBundle::has_content) && !query.seeds.is_empty()
    }

    fn propose(&self, query: &Query, taker: &mut dyn Taker) {
        let Some(bundle) = query.bundle else { return };
        if let Some((mean, because)) = mean(query, bundle) {
            offer_nearest(|count, among| bundle.nearest_content(&mean, count, among), because, taker);
        }
    }
}

/// Weighted mean of the content vectors of the seeds, and the strongest seed that has one; `None` where none has.
fn mean(query: &Query, bundle: &ActiveBundle) -> Option<(Vec<f32>, u32)> {
    let mut known = query.seeds.iter().filter_map(|seed| Some((seed, bundle.content(seed.item)?))).peekable();
    let (first, vector) = known.peek()?;
    let (because, mut mean) = (first.item, vec![0.0; vector.len()]);
    let mut total = 0.0;
    for (seed, vector) in known {
        total += seed.weight;
        for (sum, value) in mean.iter_mut().zip(vector) {
            *sum += seed.weight * value;
        }
    }
    Some((mean.into_iter().map(|sum: f32| sum / total).collect(), because))
}
