//! Every set of instructions against a plain reading of the vectors.

use core_rs::vector::{Allowed, Hit, Instructions, VectorIndex, dot};
use proptest::{collection::vec, prelude::*};

struct Shop {
    vectors: Vec<f32>,
    dimensions: usize,
    queries: Vec<Vec<f32>>,
    allowed: Vec<bool>,
    k: usize,
}

impl std::fmt::Debug for Shop {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.allowed.iter().filter(|&&allowed| allowed).count();
        let shape = (self.vectors.len() / self.dimensions, self.dimensions, self.queries.len());
        write!(formatter, "shape {shape:?}, {count} allowed, k {}", self.k)
    }
}

/// Few different values make ties; a block has 16 items, a row 4 dimensions, a pass 8 queries.
fn shops() -> impl Strategy<Value = Shop> {
    (0..120_usize, 1..40_usize, 1..11_usize, 0..3_u8, prop::bool::ANY).prop_flat_map(|(n, d, q, filter, coarse)| {
        let value = move || {
            if coarse {
                prop_oneof![Just(-1.0_f32), Just(0.0), Just(0.5), Just(1.0)].boxed()
            } else {
                (-3.0..3.0_f32).boxed()
            }
        };
        let allowed = match filter {
            0 => Just(vec![false; n]).boxed(),
            1 => Just(vec![true; n]).boxed(),
            _ => vec(prop::bool::ANY, n).boxed(),
        };
        (vec(value(), n * d), vec(vec(value(), d), q), allowed, 0..n + 9)
            .prop_map(move |(vectors, queries, allowed, k)| Shop { vectors, dimensions: d, queries, allowed, k })
    })
}

fn steps(vector: &[f32], limit: f32) -> (Vec<i32>, f32) {
    let scale = vector.iter().map(|value| value.abs()).fold(0.0, f32::max) / limit;
    let step = |value: &f32| if scale > 0.0 { (value / scale).round() as i32 } else { 0 };
    (vector.iter().map(step).collect(), scale)
}

/// Best `k` allowed items by the products of the bytes.
fn by_bytes(shop: &Shop, query: &[f32], k: usize) -> Vec<Hit> {
    let (query, query_scale) = steps(query, 64.0);
    let mut scored: Vec<(f32, u32)> = Vec::new();
    for (id, vector) in shop.vectors.chunks(shop.dimensions).enumerate().filter(|&(id, _)| shop.allowed[id]) {
        let (item, item_scale) = steps(vector, 127.0);
        let product: i32 = item.iter().zip(&query).map(|(a, b)| a * b).sum();
        scored.push((product as f32 * item_scale, id as u32));
    }
    scored.sort_by(|a, b| b.0.total_cmp(&(a.0 + 0.0)).then(a.1.cmp(&b.1)));
    scored.truncate(k);
    scored.into_iter().map(|(score, item)| Hit { item, score: score * query_scale }).collect()
}

fn by_vectors(shop: &Shop, query: &[f32], k: usize) -> Vec<Hit> {
    let candidates = by_bytes(shop, query, k + k.div_ceil(2)).into_iter();
    let vector = |item: u32| &shop.vectors[item as usize * shop.dimensions..][..shop.dimensions];
    let mut hits: Vec<Hit> = candidates.map(|hit| Hit { score: dot(query, vector(hit.item)) + 0.0, ..hit }).collect();
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
    hits.truncate(k);
    hits
}

fn allowed(shop: &Shop) -> Allowed {
    let mut allowed = Allowed::none(shop.allowed.len());
    let items = (0..shop.allowed.len() as u32).filter(|&item| shop.allowed[item as usize]);
    items.for_each(|item| allowed.insert(item));
    allowed
}

fn check(shop: &Shop) {
    let queries: Vec<&[f32]> = shop.queries.iter().map(Vec::as_slice).collect();
    for instructions in Instructions::available() {
        let index = VectorIndex::new(shop.vectors.clone(), shop.dimensions, instructions).expect("an index");
        for exact in [false, true] {
            let found = index.search(&queries, shop.k, Some(&allowed(shop)), exact);
            assert_eq!(found.len(), queries.len());
            for (query, found) in queries.iter().zip(found) {
                let expected = if exact { by_vectors(shop, query, shop.k) } else { by_bytes(shop, query, shop.k) };
                assert_eq!(found, expected, "{} exact {exact}: {shop:?}", instructions.name());
            }
        }
    }
}

proptest! {
    #[test]
    fn every_set_of_instructions_gives_the_plain_answer(shop in shops()) {
        check(&shop);
    }
}

/// Items in three clusters by their number; the centre of the last is farthest for every query.
fn clustered(shop: &Shop, instructions: Instructions) -> VectorIndex {
    let index = VectorIndex::new(shop.vectors.clone(), shop.dimensions, instructions).expect("an index");
    let centres = noise(3 * shop.dimensions, 5);
    let cluster_of: Vec<u32> = (0..shop.allowed.len() as u32).map(|item| item % 3).collect();
    index.clustered(centres, &cluster_of).expect("clusters")
}

proptest! {
    #[test]
    fn near_ones_are_right_and_all_of_them_where_all_are_wanted(shop in shops()) {
        for instructions in Instructions::available() {
            let index = clustered(&shop, instructions);
            for (query, exact) in shop.queries.iter().flat_map(|query| [(query, false), (query, true)]) {
                let mut all = index.search(&[query], shop.allowed.len(), None, exact).remove(0);
                all.retain(|hit| index.vector(hit.item).iter().any(|&value| value != 0.0));
                prop_assert_eq!(&index.search_near(query, shop.allowed.len(), exact), &all);
                let near = index.search_near(query, shop.k, exact);
                prop_assert_eq!(near.len(), shop.k.min(all.len()));
                prop_assert!(near.windows(2).all(|pair| pair[0].score >= pair[1].score));
                prop_assert!(near.iter().all(|hit| all.contains(hit)));
            }
        }
    }
}

#[test]
fn only_the_nearest_clusters_are_looked_at() {
    let shop = large(|_| 0.0);
    let index = VectorIndex::new(shop.vectors.clone(), shop.dimensions, Instructions::best()).expect("an index");
    let cluster_of: Vec<u32> = shop.vectors.chunks(shop.dimensions).map(|vector| u32::from(vector[0] < 0.3)).collect();
    let mut centres = vec![0.0; 2 * shop.dimensions];
    (centres[0], centres[shop.dimensions]) = (0.4, -0.1);
    let index = index.clustered(centres, &cluster_of).expect("clusters");
    let near = index.search_near(&shop.queries[0], 100, true);
    assert!(near.len() == 100 && near.iter().all(|hit| cluster_of[hit.item as usize] == 0));
}

/// Values that look random, the same each time.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn large(lift: impl Fn(usize) -> f32) -> Shop {
    let (n, dimensions) = (10_250, 12);
    let mut vectors = noise(n * dimensions, 7);
    for (item, vector) in vectors.chunks_mut(dimensions).enumerate() {
        vector[0] += lift(item);
    }
    let mut query = noise(dimensions, 8);
    query[0] = 1.0;
    Shop { vectors, dimensions, queries: vec![query; 2], allowed: vec![true; n], k: 500 }
}

#[test]
fn a_cut_learnt_from_a_sample_loses_nothing() {
    check(&large(|_| 0.0));
}

#[test]
fn a_sample_that_misleads_loses_nothing() {
    check(&large(|item| if (item / 16).is_multiple_of(16) { 5.0 } else { 0.0 }));
}

#[test]
fn vectors_that_are_none_are_refused() {
    let refused = |vectors: &[f32], dimensions| {
        VectorIndex::new(vectors.to_vec(), dimensions, Instructions::best()).err().map(|error| error.message)
    };
    assert!(refused(&[1.0; 7], 2).is_some_and(|text| text.contains("7 values")));
    assert!(refused(&[], 0).is_some());
    assert!(refused(&[0.0, 1.0, f32::NAN], 1).is_some_and(|text| text.contains("vector 2")));
    assert!(refused(&[], 3).is_none());
}
