//! Items in clusters, so that a query over very many looks at those of the nearest clusters only.
//!
//! Source: Jégou, Douze & Schmid 2011, Product quantization for nearest neighbor search, section IV.A (inverted file).

use super::{
    Allowed, Instructions, TILE,
    blocks::{Blocks, LANES, Query},
    dot, keys,
};
use crate::{
    error::{Error, Result},
    ids::NONE,
};

/// One item in so many is looked at, or more where those are too few.
const SHARE: usize = 16;
/// The cut rises when so many times the wanted items are above it.
const SPARE: usize = 4;

/// Vectors as bytes, cluster after cluster; each begins a block.
pub struct Clusters {
    centres: Vec<f32>,
    dimensions: usize,
    /// First block of each cluster, and the end.
    starts: Vec<usize>,
    /// Item of each lane, [`NONE`] where a cluster fills its last block no further.
    lanes: Vec<u32>,
    held: Allowed,
    blocks: Blocks,
    len: usize,
}

impl Clusters {
    /// Puts vectors of `dimensions` values into the clusters that `cluster_of` names by the place of their centre; one
    /// of zeros, of which nothing is known, into none.
    ///
    /// # Errors
    /// Out of range where centres or clusters do not fit the vectors, or a centre is not finite.
    pub fn new(vectors: &[f32], dimensions: usize, centres: Vec<f32>, cluster_of: &[u32]) -> Result<Self> {
        let (rows, count) = (vectors.len() / dimensions, centres.len() / dimensions);
        let fits = centres.len().is_multiple_of(dimensions) && cluster_of.len() == rows;
        if !fits || cluster_of.iter().any(|&cluster| cluster as usize >= count) {
            let text = format!("`clusters` has {} numbers below {count} for {rows} items", cluster_of.len());
            return Err(Error::out_of_range("clusters", format!("{text}; name the centre of each item")));
        }
        if centres.iter().any(|value| !value.is_finite()) {
            return Err(Error::out_of_range("centres", "a centre has a value that is not finite".to_owned()));
        }
        let is_known =
            |item: u32| vectors[item as usize * dimensions..][..dimensions].iter().any(|&value| value != 0.0);
        let known: Vec<(u32, u32)> = cluster_of.iter().copied().zip(0..).filter(|&(_, item)| is_known(item)).collect();
        let (starts, lanes) = lay_out(&known, count);
        let mut laid = vec![0.0; lanes.len() * dimensions];
        let mut held = Allowed::none(lanes.len());
        for (lane, &item) in lanes.iter().enumerate().filter(|&(_, &item)| item != NONE) {
            let vector = &vectors[item as usize * dimensions..][..dimensions];
            laid[lane * dimensions..][..dimensions].copy_from_slice(vector);
            held.insert(lane as u32);
        }
        Ok(Self { centres, dimensions, starts, lanes, held, blocks: Blocks::new(&laid, dimensions), len: known.len() })
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let tables = size_of_val(&*self.centres) + size_of_val(&*self.starts) + size_of_val(&*self.lanes);
        tables + size_of_val(&*self.held.bits) + self.blocks.bytes()
    }

    /// Keys of the best `k` items of the nearest clusters by the products of the bytes, in no order.
    pub fn scan(&self, vector: &[f32], query: &Query, k: usize, instructions: Instructions) -> Vec<u64> {
        let (mut found, mut threshold, mut looked) = (Vec::new(), f32::NEG_INFINITY, 0);
        for cluster in self.nearest(vector) {
            if looked * LANES * SHARE >= self.len && found.len() >= k {
                break;
            }
            let (first, end) = (self.starts[cluster], self.starts[cluster + 1]);
            for (tile, held) in self.held.bits[first..end].chunks(TILE).enumerate() {
                let tile = self.blocks.tile(first + tile * TILE, held);
                instructions.scan(&tile, query, threshold, &mut found);
            }
            looked += end - first;
            if found.len() > SPARE * k {
                threshold = cut(&mut found, k);
            }
        }
        keys::keep_best(&mut found, k);
        let of_item = |key| {
            let (score, lane) = keys::parts(key);
            keys::key(score, self.lanes[lane as usize])
        };
        found.into_iter().map(of_item).collect()
    }

    /// Clusters by the product of their centre with a vector, greatest first.
    fn nearest(&self, vector: &[f32]) -> impl Iterator<Item = usize> {
        let centres = self.centres.chunks_exact(self.dimensions).zip(0..);
        let mut ordered: Vec<u64> = centres.map(|(centre, number)| keys::key(dot(vector, centre), number)).collect();
        ordered.sort_unstable();
        ordered.into_iter().map(|key| keys::parts(key).1 as usize)
    }
}

/// Keeps the best `k` keys, and returns the score of the last.
fn cut(found: &mut Vec<u64>, k: usize) -> f32 {
    keys::keep_best(found, k);
    found.iter().max().map_or(f32::NEG_INFINITY, |&key| keys::parts(key).0)
}

/// First block of each cluster with the end, and the item of each lane, of pairs of cluster and item.
fn lay_out(pairs: &[(u32, u32)], count: usize) -> (Vec<usize>, Vec<u32>) {
    let mut sizes = vec![0_usize; count];
    for &(cluster, _) in pairs {
        sizes[cluster as usize] += 1;
    }
    let mut starts = vec![0];
    starts.extend(sizes.iter().scan(0, |end, size| {
        *end += size.div_ceil(LANES);
        Some(*end)
    }));
    let mut next: Vec<usize> = starts.iter().map(|start| start * LANES).collect();
    let mut lanes = vec![NONE; next[count]];
    for &(cluster, item) in pairs {
        lanes[next[cluster as usize]] = item;
        next[cluster as usize] += 1;
    }
    (starts, lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cluster_begins_a_block_and_holds_its_items_in_order() {
        let pairs: Vec<(u32, u32)> = (0..40).map(|item| (if item % 20 == 0 { 2 } else { 0 }, item)).collect();
        let (starts, lanes) = lay_out(&pairs, 3);
        assert_eq!(starts, [0, 3, 3, 4]);
        assert_eq!((lanes.len(), lanes[0], lanes[37], lanes[38]), (64, 1, 39, NONE));
        assert_eq!(lanes[48..51], [0, 20, NONE]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused =
            |centres: &[f32], clusters: &[u32]| Clusters::new(&[0.0; 4], 2, centres.to_vec(), clusters).is_err();
        assert!(!refused(&[1.0, 0.0], &[0, 0]));
        assert!(refused(&[1.0], &[0, 0]) && refused(&[1.0, 0.0], &[0]) && refused(&[1.0, 0.0], &[0, 1]));
        assert!(refused(&[f32::NAN, 0.0], &[0, 0]));
    }
}
