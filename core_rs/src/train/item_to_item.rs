//! Nearest items by common visitors or baskets.

use std::str::FromStr;

use rayon::prelude::*;

use super::{Lists, check_positive, check_range, csr::Csr, top::Accumulator, top::Top};
use crate::error::{Error, Result};

/// How alike two items are, from `dot` = sum of products of their weights over common rows, `a` and `b` = the sums of
/// their squared weights (for binary data: common rows, rows of each), `n` rows in all and `shrink` >= 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// `dot / (sqrt(a b) + shrink)`. Sarwar et al. 2001, section 3.1.1.
    Cosine,
    /// `dot / (a^alpha b^(1 - alpha) + shrink)`; cosine at 1/2. Aiolli 2013, equation 1.
    Asymmetric,
    /// Cosine of weights `sqrt(w) ln(1 + items / items of the row)`: rows with few items say more.
    TfIdf,
    /// `dot / (a b / n + shrink)`: how much more often than by chance. Brin et al. 1997 ("interest").
    Lift,
    /// `dot / (a + b - dot + shrink)`.
    Jaccard,
    /// `dot / (a + shrink)`: share of the rows with the first item that have the second; not symmetric.
    /// Deshpande & Karypis 2004, section 4.1.
    Conditional,
}

impl FromStr for Measure {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "cosine" => Ok(Self::Cosine),
            "asymmetric" => Ok(Self::Asymmetric),
            "tf_idf" => Ok(Self::TfIdf),
            "lift" => Ok(Self::Lift),
            "jaccard" => Ok(Self::Jaccard),
            "conditional" => Ok(Self::Conditional),
            _ => Err(Error::out_of_range(
                "measure",
                format!("`measure` is `{name}`; give one of cosine, asymmetric, tf_idf, lift, jaccard, conditional"),
            )),
        }
    }
}

/// Hyper-parameters of [`neighbours`].
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How alike two items are.
    pub measure: Measure,
    /// Neighbours kept of each item, at least 1.
    pub k: usize,
    /// Added to the denominator of the measure, in rows: pairs with little evidence sink. At least 0.
    pub shrink: f32,
    /// Share of the first item in the denominator of [`Measure::Asymmetric`], 0 to 1; others leave it.
    pub alpha: f32,
}

/// Exact top-`k` neighbours of each column of `table` (rows are visitors or baskets, columns items).
///
/// Items are numbered by popularity and divided into classes by powers of four. An item adds up the rows that hold it,
/// its own class first; a class whose popularity alone forbids a better score is left out. Items go in batches, so that
/// the part of the table that a class needs stays in the cache. O(sum over rows of entries²) additions at most; memory
/// O(entries + rows × classes + threads × items).
///
/// # Errors
/// When `k` is 0, `shrink` is negative, or weights come with a measure that counts rows.
pub fn neighbours(table: &Csr, options: &Options) -> Result<Lists> {
    options.check()?;
    if !is_binary(table) && !matches!(options.measure, Measure::Cosine | Measure::Asymmetric | Measure::TfIdf) {
        return Err(Error::out_of_range(
            "weights",
            "this measure counts rows; leave `weights` out or use cosine, asymmetric or tf_idf",
        ));
    }
    let shop = Shop::new(table, options.measure == Measure::TfIdf);
    Ok(by_measure(&shop, options, table.n_rows()))
}

/// What neighbours are searched in.
pub(super) trait Searched {
    /// Neighbour lists of the items, scored by `dot / denominator(dot, a, b)`; the two `norms` make `a` and `b` of the
    /// sums of squares.
    fn search<D>(&self, k: usize, norms: [impl Fn(f32) -> f32; 2], denominator: D) -> Lists
    where
        D: Fn(f32, f32, f32) -> f32 + Sync;
}

/// Neighbour lists by the measure that the options name, of `n_rows` rows.
pub(super) fn by_measure(searched: &impl Searched, options: &Options, n_rows: usize) -> Lists {
    let Options { k, shrink, alpha, .. } = *options;
    let n_rows = n_rows as f32;
    match options.measure {
        Measure::Cosine | Measure::TfIdf => searched.search(k, [f32::sqrt; 2], move |_, a, b| a * b + shrink),
        Measure::Asymmetric => {
            let power = |exponent: f32| move |sum: f32| sum.powf(exponent);
            searched.search(k, [power(alpha), power(1.0 - alpha)], move |_, a, b| a * b + shrink)
        }
        Measure::Lift => searched.search(k, [|a| a; 2], move |_, a, b| a * b / n_rows + shrink),
        Measure::Jaccard => searched.search(k, [|a| a; 2], move |dot, a, b| a + b - dot + shrink),
        Measure::Conditional => searched.search(k, [|a| a; 2], move |_, a, _| a + shrink),
    }
}

impl Options {
    /// Checks the ranges.
    pub(super) fn check(&self) -> Result<()> {
        check_positive("k", self.k)?;
        check_range("shrink", self.shrink, 0.0, f32::MAX)?;
        check_range("alpha", self.alpha, 0.0, 1.0)
    }
}

/// Items whose searches share the cached part of the table.
const BATCH: usize = 64;

/// Item and its neighbours.
type Ranked = (u32, Vec<(f32, u32)>);

/// Both directions of the table, with the items numbered by rank: 0 is the item of most rows.
struct Shop {
    /// Item id of each rank.
    order: Vec<u32>,
    rows_of: Csr,
    items_of: Csr,
    /// Whether every weight is 1: then additions need not read them, and popularity bounds every measure.
    binary: bool,
    /// First rank of each class of items of like popularity, and the number of items.
    classes: Vec<usize>,
    /// Position in `items_of` of the first item of each class in each row, and the end of each row.
    starts: Vec<Vec<usize>>,
}

impl Shop {
    fn new(table: &Csr, weigh: bool) -> Self {
        let by_item = if weigh { tf_idf(table).transposed() } else { table.transposed() };
        let mut order: Vec<u32> = (0..table.n_columns as u32).collect();
        order.sort_by_key(|&item| std::cmp::Reverse(by_item.row_len(item as usize)));
        let rows_of = by_item.reordered(&order);
        let items_of = rows_of.transposed();
        let binary = is_binary(&items_of);
        let class = |rank: usize| rows_of.row_len(rank).checked_ilog2().map(|power| power / 2);
        let n_items = order.len();
        let mut classes: Vec<usize> =
            (0..n_items).filter(|&rank| rank == 0 || binary && class(rank) != class(rank - 1)).collect();
        classes.push(n_items);
        let starts = classes
            .iter()
            .map(|&first| {
                let before = |row| items_of.row(row).0.partition_point(|&item| (item as usize) < first);
                (0..items_of.n_rows()).map(|row| items_of.offsets[row] + before(row)).collect()
            })
            .collect();
        Self { order, rows_of, items_of, binary, classes, starts }
    }

    /// Item and neighbours of each rank of the batch that begins at `first`, class by class from their own outwards.
    fn search_batch<D>(&self, first: usize, k: usize, scale: &Scale<D>, sums: &mut Accumulator) -> Vec<Ranked>
    where
        D: Fn(f32, f32, f32) -> f32,
    {
        let ranks = first..self.order.len().min(first + BATCH);
        let mut tops = vec![Top::new(k); ranks.len()];
        let own = self.classes.partition_point(|&start| start <= first) - 1;
        for class in (own..self.classes.len() - 1).chain((0..own).rev()) {
            for (rank, top) in ranks.clone().zip(&mut tops) {
                let nearest = rank.clamp(self.classes[class], self.classes[class + 1] - 1);
                if self.binary && scale.bound(rank, nearest) < top.floor() {
                    continue;
                }
                self.add_rows(rank, class, sums);
                let denominator = |dot, other| (scale.denominator)(dot, scale.firsts[rank], other);
                sums.end(&scale.seconds, top.floor(), denominator, |score, other| {
                    if other as usize != rank {
                        top.offer(score, self.order[other as usize]);
                    }
                    top.floor()
                });
                top.settle();
            }
        }
        ranks.zip(tops).map(|(rank, mut top)| (self.order[rank], top.take())).collect()
    }

    /// Adds up the items of `class` in every row that holds the item of `rank`.
    fn add_rows(&self, rank: usize, class: usize, sums: &mut Accumulator) {
        let (rows, weights) = self.rows_of.row(rank);
        let (starts, ends) = (&self.starts[class], &self.starts[class + 1]);
        let span = |row: u32| starts[row as usize]..ends[row as usize];
        sums.begin(self.classes[class]..self.classes[class + 1], rows.iter().map(|&row| span(row).len()).sum());
        for (&row, &weight) in rows.iter().zip(weights) {
            let span = span(row);
            let items = &self.items_of.columns[span.clone()];
            if self.binary {
                sums.add(items, std::iter::repeat(1.0));
            } else {
                sums.add(items, self.items_of.values[span].iter().map(|value| weight * value));
            }
        }
    }
}

impl Searched for Shop {
    fn search<D>(&self, k: usize, norms: [impl Fn(f32) -> f32; 2], denominator: D) -> Lists
    where
        D: Fn(f32, f32, f32) -> f32 + Sync,
    {
        let n_items = self.order.len();
        let square = |rank| self.rows_of.row(rank).1.iter().map(|value| value * value).sum();
        let squares: Vec<f32> = (0..n_items).map(square).collect();
        let [firsts, seconds] = norms.map(|norm| squares.iter().map(|&sum| norm(sum)).collect());
        let scale = Scale { squares, firsts, seconds, denominator };
        let batches: Vec<usize> = (0..n_items).step_by(BATCH).collect();
        let mut ranked: Vec<_> = batches
            .into_par_iter()
            .with_max_len(1)
            .map_init(|| Accumulator::new(n_items), |sums, first| self.search_batch(first, k, &scale, sums))
            .flatten()
            .collect();
        ranked.par_sort_unstable_by_key(|&(item, _)| item);
        ranked.into_iter().map(|(_, entries)| entries).collect()
    }
}

/// Sizes of the items, and the measure over them.
struct Scale<D> {
    squares: Vec<f32>,
    firsts: Vec<f32>,
    seconds: Vec<f32>,
    denominator: D,
}

impl<D: Fn(f32, f32, f32) -> f32> Scale<D> {
    /// Highest score that two items of binary data may have, with room for rounding: the rarer one lies in all rows
    /// of the other. It falls as the popularities move apart, whatever the measure.
    fn bound(&self, rank: usize, other: usize) -> f32 {
        let dot = self.squares[rank].min(self.squares[other]);
        dot / (self.denominator)(dot, self.firsts[rank], self.seconds[other]) * (1.0 + 1e-5)
    }
}

fn is_binary(table: &Csr) -> bool {
    table.values.iter().all(|value| value.to_bits() == 1.0_f32.to_bits())
}

fn tf_idf(table: &Csr) -> Csr {
    let mut weighted = table.clone();
    for row in 0..table.n_rows() {
        let idf = (table.n_columns as f32 / table.row_len(row).max(1) as f32).ln_1p();
        for value in &mut weighted.values[table.offsets[row]..table.offsets[row + 1]] {
            *value = value.sqrt() * idf;
        }
    }
    weighted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(measure: Measure) -> Options {
        Options { measure, k: 3, shrink: 0.0, alpha: 0.25 }
    }

    /// Items 0 and 1 share two of four rows, item 2 lies in one row with both, item 3 in none.
    fn table() -> Csr {
        Csr::from_pairs(&[0, 0, 1, 1, 1, 2], &[0, 1, 0, 1, 2, 0], None, (4, 4)).expect("valid")
    }

    #[test]
    fn measures_follow_their_formulas() {
        let second = |measure| neighbours(&table(), &options(measure)).expect("valid").list(0).1[0];
        assert!((second(Measure::Cosine) - 2.0 / 6.0_f32.sqrt()).abs() < 1e-6);
        assert!((second(Measure::Asymmetric) - 2.0 / (3.0_f32.powf(0.25) * 2.0_f32.powf(0.75))).abs() < 1e-6);
        assert!((second(Measure::Jaccard) - 2.0 / 3.0).abs() < 1e-6);
        assert!((second(Measure::Conditional) - 2.0 / 3.0).abs() < 1e-6);
        assert!((second(Measure::Lift) - 4.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn ties_break_by_id_and_unseen_items_have_no_neighbours() {
        let lists = neighbours(&table(), &options(Measure::Lift)).expect("valid");
        assert_eq!(lists.list(0).0, [1, 2]);
        assert!(lists.list(3).0.is_empty());
    }

    #[test]
    fn threads_do_not_show() {
        let pairs: Vec<u32> = (0..4000_u32).map(|n| n.wrapping_mul(2_654_435_761) >> 16).collect();
        let (rows, items): (Vec<u32>, Vec<u32>) = pairs.iter().map(|n| (n % 97, n / 97 % 211)).unzip();
        let weights: Vec<f32> = pairs.iter().map(|n| 0.1 + (n % 7) as f32).collect();
        let table = Csr::from_pairs(&rows, &items, Some(&weights), (97, 211)).expect("valid");
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| neighbours(&table, &options(Measure::TfIdf))).expect("valid")
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn faults_name_the_parameter() {
        let error = neighbours(&table(), &Options { k: 0, ..options(Measure::Cosine) }).expect_err("k");
        assert_eq!(error.field, "k");
        let weighted = Csr::from_pairs(&[0], &[0], Some(&[2.0]), (1, 1)).expect("valid");
        let error = neighbours(&weighted, &options(Measure::Jaccard)).expect_err("weights");
        assert_eq!(error.field, "weights");
        assert!("jacard".parse::<Measure>().is_err());
    }
}
