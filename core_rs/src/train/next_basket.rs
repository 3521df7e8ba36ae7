//! Next basket by personal item frequencies and those of the nearest visitors.
//!
//! Source: Hu, He, Gao & Zhang 2020, "Modeling Personalized Item Frequency Information for Next-basket
//! Recommendation" (TIFU-KNN), sections 4.1 to 4.3; here the nearest are those of the highest cosine.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    Lists, check_ids, check_lengths, check_positive, check_range, check_span, csr::Csr, top::Accumulator, top::Top,
};
use crate::error::{Error, Result};

/// How the baskets of a visitor are weighed.
#[derive(Clone, Copy, Debug)]
pub struct Decay {
    /// Groups that a history is cut into, in order of time; at least 1. A shorter history has a group a basket.
    pub n_groups: usize,
    /// Weight of a basket relative to the next one of its group, in (0, 1].
    pub within: f32,
    /// Weight of a group relative to the next one, in (0, 1].
    pub across: f32,
}

/// Hyper-parameters of [`blend`].
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Nearest visitors that have a say, at least 1.
    pub neighbours: usize,
    /// Share of the visitor's own vector, in `[0, 1]`; the mean of the neighbours has the rest.
    pub alpha: f32,
    /// Items kept for each visitor, at least 1.
    pub length: usize,
    /// Whether to leave out what the visitor has bought, so that the lists hold discoveries alone.
    pub only_new: bool,
}

/// Personal vectors, visitors × items: item frequency over baskets, decayed within and across groups of baskets.
///
/// Rows are sorted by visitor, then time; a basket's rows lie side by side. Baskets are divided into groups as evenly
/// as can be, the larger groups last. O(rows).
///
/// # Errors
/// When lengths differ, rows are not sorted by visitor, an id is outside `shape` or a decay is not in (0, 1].
pub fn vectors(visitor: &[u32], basket: &[u32], item: &[u32], shape: (usize, usize), decay: &Decay) -> Result<Csr> {
    check_lengths(&[("visitor", visitor.len()), ("basket", basket.len()), ("item", item.len())])?;
    check_ids("visitor", visitor, shape.0)?;
    check_positive("n_groups", decay.n_groups)?;
    check_range("within", decay.within, f32::MIN_POSITIVE, 1.0)?;
    check_range("across", decay.across, f32::MIN_POSITIVE, 1.0)?;
    if !visitor.is_sorted() {
        return Err(Error::out_of_range("visitor", "`visitor` is not sorted; sort the rows by visitor, then time"));
    }
    let mut weights = Vec::with_capacity(item.len());
    let mut start = 0;
    for rows in visitor.chunk_by(|a, b| a == b) {
        let baskets: Vec<usize> = basket[start..start + rows.len()].chunk_by(|a, b| a == b).map(<[u32]>::len).collect();
        for (weight, length) in basket_weights(baskets.len(), decay).zip(baskets) {
            weights.extend(std::iter::repeat_n(weight, length));
        }
        start += rows.len();
    }
    Csr::from_pairs(visitor, item, Some(&weights), shape)
}

/// Weight of each of `count` baskets, oldest first.
fn basket_weights(count: usize, decay: &Decay) -> impl Iterator<Item = f32> {
    let Decay { n_groups, within, across } = *decay;
    let n_groups = n_groups.min(count);
    let small = count / n_groups;
    let n_small = n_groups - count % n_groups;
    (0..n_groups).flat_map(move |group| {
        let size = if group < n_small { small } else { small + 1 };
        let weight = across.powi((n_groups - 1 - group) as i32) / (size * n_groups) as f32;
        (0..size).map(move |position| weight * within.powi((size - 1 - position) as i32))
    })
}

/// Items of the next basket of each of `visitors`: `alpha` × own vector + `1 - alpha` × mean vector of the nearest
/// visitors.
///
/// The search is exact: the postings of the visitor's items are added up. O(sum over items of visitors²) for the
/// search and O(visitors × neighbours × items of one) for the blend.
///
/// # Errors
/// When a count is 0, `alpha` is outside `[0, 1]` or `visitors` goes beyond the vectors.
pub fn blend(vectors: &Csr, visitors: Range<usize>, options: &Options) -> Result<Lists> {
    check_positive("neighbours", options.neighbours)?;
    check_positive("length", options.length)?;
    check_range("alpha", options.alpha, 0.0, 1.0)?;
    check_span("visitors", &visitors, vectors.n_rows())?;
    let search = Search::new(vectors);
    let ranked: Vec<_> = visitors
        .into_par_iter()
        .with_max_len(16)
        .map_init(
            || (Accumulator::new(vectors.n_rows()), Accumulator::new(vectors.n_columns)),
            |(dots, sums), visitor| {
                let near = search.nearest(visitor, options, dots);
                let expected = near.iter().map(|&(_, other)| vectors.row_len(other as usize)).sum();
                sums.begin(0..vectors.n_columns, expected);
                let share = (1.0 - options.alpha) / near.len().max(1) as f32;
                let own = vectors.row(visitor);
                for (weight, (items, values)) in std::iter::once((options.alpha, own))
                    .chain(near.iter().map(|&(_, other)| (share, vectors.row(other as usize))))
                    .filter(|&(weight, _)| weight > 0.0)
                {
                    sums.add(items, values.iter().map(|value| weight * value));
                }
                let mut top = Top::new(options.length);
                sums.end(
                    &search.ones,
                    top.floor(),
                    |_, one| one,
                    |score, item| {
                        if !options.only_new || own.0.binary_search(&item).is_err() {
                            top.offer(score, item);
                        }
                        top.floor()
                    },
                );
                top.take()
            },
        )
        .collect();
    Ok(ranked.into_iter().collect())
}

/// Exact nearest visitors by cosine.
struct Search<'a> {
    vectors: &'a Csr,
    visitors_of: Csr,
    norms: Vec<f32>,
    ones: Vec<f32>,
}

impl<'a> Search<'a> {
    fn new(vectors: &'a Csr) -> Self {
        let norm = |row| vectors.row(row).1.iter().map(|value| value * value).sum::<f32>().sqrt();
        Self {
            vectors,
            visitors_of: vectors.transposed(),
            norms: (0..vectors.n_rows()).map(norm).collect(),
            ones: vec![1.0; vectors.n_columns],
        }
    }

    fn nearest(&self, visitor: usize, options: &Options, dots: &mut Accumulator) -> Vec<(f32, u32)> {
        let (items, values) = self.vectors.row(visitor);
        let expected = items.iter().map(|&item| self.visitors_of.row_len(item as usize)).sum();
        dots.begin(0..self.norms.len(), expected);
        for (&item, &value) in items.iter().zip(values) {
            let (visitors, others) = self.visitors_of.row(item as usize);
            dots.add(visitors, others.iter().map(|other| value * other));
        }
        let mut top = Top::new(options.neighbours);
        let own = self.norms[visitor];
        dots.end(
            &self.norms,
            top.floor(),
            |_, other| own * other,
            |score, other| {
                if other as usize != visitor {
                    top.offer(score, other);
                }
                top.floor()
            },
        );
        top.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Decay = Decay { n_groups: 2, within: 0.5, across: 0.25 };

    fn options() -> Options {
        Options { neighbours: 1, alpha: 0.5, length: 10, only_new: false }
    }

    #[test]
    fn a_basket_weighs_by_its_place_in_its_group() {
        let weights: Vec<f32> = basket_weights(3, &DECAY).collect();
        assert_eq!(weights, [0.25 / 2.0, 0.5 / 4.0, 1.0 / 4.0]);
        assert_eq!(basket_weights(1, &DECAY).collect::<Vec<_>>(), [1.0]);
    }

    #[test]
    fn the_nearest_visitor_brings_new_items() {
        let (visitor, basket, item) = ([0, 1, 1, 2], [0, 1, 1, 2], [0, 0, 1, 2]);
        let vectors = vectors(&visitor, &basket, &item, (4, 3), &DECAY).expect("valid");
        let lists = blend(&vectors, 0..4, &options()).expect("valid");
        assert_eq!(lists.list(0), ([0, 1].as_slice(), [1.0, 0.5].as_slice()));
        assert_eq!(lists.list(2), ([2].as_slice(), [0.5].as_slice()));
        assert!(lists.list(3).0.is_empty());
        let lists = blend(&vectors, 0..4, &Options { only_new: true, ..options() }).expect("valid");
        assert_eq!(lists.list(0).0, [1]);
    }

    #[test]
    fn a_span_of_visitors_has_the_lists_of_all() {
        let (visitor, item) = ([0, 0, 1, 2, 2, 3], [0, 1, 1, 0, 2, 2]);
        let vectors = vectors(&visitor, &visitor, &item, (4, 3), &DECAY).expect("valid");
        let all = blend(&vectors, 0..4, &options()).expect("valid");
        let some = blend(&vectors, 1..3, &options()).expect("valid");
        assert_eq!([some.list(0), some.list(1)], [all.list(1), all.list(2)]);
        assert_eq!(some.offsets.len(), 3);
        assert!(blend(&vectors, 1..5, &options()).is_err());
    }

    #[test]
    fn faults_name_the_column() {
        let error = vectors(&[1, 0], &[0, 1], &[0, 0], (2, 1), &DECAY).expect_err("not sorted");
        assert_eq!(error.field, "visitor");
        let matrix = vectors(&[0], &[0], &[0], (1, 1), &DECAY).expect("valid");
        let error = blend(&matrix, 0..1, &Options { alpha: 1.5, ..options() }).expect_err("alpha");
        assert!(error.to_string().contains("`alpha` is 1.5"), "{error}");
    }
}
