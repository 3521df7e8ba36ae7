//! Sources to candidates: proposals pass the gate, meet in one candidate an item, and are filled up from the reserve.

use crate::{
    filter::Gate,
    ids::NONE,
    params::{DEFAULT_SOURCE_LIMIT, MAX_CANDIDATES},
    proto::{PlacementRequest, SourceUse, placement::BoughtRule},
    query::{Condition, Query},
    scratch::{self, Places},
    source::{self, COUNT, Proposal, SOURCES, Taker},
    stage::Stage,
};
use std::time::Instant;

/// Item that may fill a place.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Item.
    pub item: u32,
    /// Sources that proposed it, bit `i` for source `i`; 0 for the reserve.
    pub sources: u16,
    /// Score of each source on its own scale; 0 where it did not propose.
    pub source_scores: [f32; COUNT],
    /// Item behind each source's proposal.
    pub because: [u32; COUNT],
}

impl Candidate {
    fn new(item: u32) -> Self {
        Self { item, sources: 0, source_scores: [0.0; COUNT], because: [NONE; COUNT] }
    }

    /// Keeps a proposal of source `number`; of several for one item the first, which is the best.
    fn add(&mut self, number: usize, proposal: &Proposal) {
        if self.sources >> number & 1 == 0 {
            self.sources |= 1 << number;
            self.source_scores[number] = proposal.score;
            self.because[number] = proposal.because;
        }
    }
}

/// Collects proposals of one source after another.
struct Basket<'g, 'q, 's> {
    query: &'q Query<'q>,
    request: &'q PlacementRequest,
    gate: &'g mut Gate<'q>,
    seen_items: &'s mut Places,
    /// Candidate of each seen item; `None` for one that the gate removed.
    admitted: Vec<Option<u32>>,
    candidates: Vec<Candidate>,
    number: usize,
    left: usize,
    seen: usize,
}

impl Taker for Basket<'_, '_, '_> {
    fn offer(&mut self, proposal: Proposal) -> bool {
        self.seen += 1;
        if self.candidates.len() >= MAX_CANDIDATES {
            return false;
        }
        if let Some(candidate) = self.candidate(proposal.item) {
            self.candidates[candidate as usize].add(self.number, &proposal);
            self.left -= 1;
        }
        self.left > 0
    }

    fn wanted(&self) -> usize {
        self.left
    }

    fn open_items(&self) -> Vec<u32> {
        let listed = narrow_reserve(self.query, self.request);
        let mut items = listed.unwrap_or_else(|| (0..self.query.state.catalog.end()).collect());
        items.retain(|&item| self.gate.passes(item));
        items
    }
}

/// Gathers the candidates of one slate; at least `wanted` of them if the catalogue allows.
pub fn gather<'q>(
    query: &'q Query<'q>,
    request: &'q PlacementRequest,
    gate: &mut Gate<'q>,
    wanted: usize,
    stages: &mut Vec<Stage>,
) -> Vec<Candidate> {
    let uses: Vec<(usize, usize)> = uses(query).collect();
    let limits: usize = uses.iter().map(|&(_, limit)| limit).sum();
    let candidates = Vec::with_capacity(limits.max(wanted).min(MAX_CANDIDATES));
    let admitted = Vec::with_capacity(limits);
    scratch::with_places(|seen_items| {
        let mut basket = Basket { query, request, gate, seen_items, admitted, candidates, number: 0, left: 0, seen: 0 };
        for (number, limit) in uses {
            let source = SOURCES[number];
            let (began, before) = (Instant::now(), basket.candidates.len());
            (basket.number, basket.left, basket.seen) = (number, limit, 0);
            source.propose(query, &mut basket);
            stages.push(Stage::new("source", source.name(), basket.seen, basket.candidates.len() - before, began));
        }
        fill(&mut basket, wanted, stages);
        basket.candidates
    })
}

/// Sources of the placement that have something to say, with their limits.
fn uses<'a>(query: &'a Query) -> impl Iterator<Item = (usize, usize)> + 'a {
    let number = |used: &'a SourceUse| source::number(&used.source).map(|number| (number, used));
    query.placement.sources.iter().filter_map(number).filter(|&(number, _)| SOURCES[number].enable(query)).map(
        |(number, used)| {
            let limit = if used.limit == 0 { DEFAULT_SOURCE_LIMIT } else { used.limit as usize };
            (number, limit)
        },
    )
}

/// Adds items from the reserve until `wanted` are there, the popular first.
fn fill(basket: &mut Basket, wanted: usize, stages: &mut Vec<Stage>) {
    let query = basket.query;
    let before = basket.candidates.len();
    if before >= wanted {
        return;
    }
    let began = Instant::now();
    let popularity = &query.state.popularity;
    if let Some(mut list) = narrow_reserve(query, basket.request) {
        list.sort_by(|&a, &b| popularity.counts(b).long.total_cmp(&popularity.counts(a).long).then(a.cmp(&b)));
        basket.top_up(list, wanted);
    } else {
        basket.top_up(popularity.most_popular().chain(0..query.state.catalog.end()), wanted);
    }
    stages.push(Stage::new("fill", "", before, basket.candidates.len(), began));
}

/// Shortest list of items that the placement and the request can pass; `None` where all can.
fn narrow_reserve(query: &Query, request: &PlacementRequest) -> Option<Vec<u32>> {
    let filters = [query.placement.filter.as_ref(), request.filter.as_ref()].into_iter().flatten();
    let listed = filters.filter_map(|filter| Condition::new(filter, query.state).narrow(&query.state.catalog));
    let bought = (query.placement.bought_rule() == BoughtRule::Only).then(|| {
        let bought = query.visitor.map(|visitor| &visitor.bought[..]).unwrap_or_default();
        bought.iter().map(|bought| bought.item).collect::<Vec<u32>>()
    });
    listed.chain(bought).min_by_key(Vec::len)
}

impl Basket<'_, '_, '_> {
    fn top_up(&mut self, items: impl IntoIterator<Item = u32>, wanted: usize) {
        for item in items {
            if self.candidates.len() >= wanted {
                return;
            }
            self.candidate(item);
        }
    }

    /// Candidate of an item, made now if the item is new and passes the gate.
    fn candidate(&mut self, item: u32) -> Option<u32> {
        let (place, is_new) = self.seen_items.of(item);
        if is_new {
            let admitted = self.gate.admit(item);
            self.admitted.push(admitted.then_some(self.candidates.len() as u32));
            if admitted {
                self.candidates.push(Candidate::new(item));
            }
        }
        self.admitted[place]
    }
}
