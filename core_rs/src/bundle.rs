//! A trained bundle: neighbour lists and visitor lists, read from a folder and checked against its manifest.

mod reader;

use crate::{
    error::{Error, Result},
    feature,
    ids::{Interner, NONE},
    prefetch::prefetch_all,
    ranker::Ranker,
    sequence::SequenceVector,
    vector::{Allowed, VectorIndex},
};
use hashbrown::HashMap;
use reader::Reader;
use serde::Deserialize;
use std::{collections::BTreeMap, ops::Range, path::Path, sync::Arc};

/// File of the ranker.
const RANKER_FILE: &str = "ranker.onnx";

/// File of the items' content vectors.
const CONTENT_FILE: &str = "content_items.safetensors";

/// Files of neighbour lists, in the order of [`Relation`].
const NEIGHBOUR_FILES: [&str; 3] =
    ["also_viewed.safetensors", "also_bought.safetensors", "bought_together.safetensors"];

/// Kind of neighbour list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Visitors who viewed one viewed the other.
    AlsoViewed = 0,
    /// Visitors who bought one bought the other.
    AlsoBought = 1,
    /// Both are in one basket.
    BoughtTogether = 2,
}

/// Files of visitor lists, in the order of [`VisitorList`].
const VISITOR_FILES: [&str; 2] = ["next_basket.safetensors", "user_to_user.safetensors"];

/// Kind of list that a bundle keeps for each visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisitorList {
    /// What the next basket will hold.
    NextBasket = 0,
    /// What similar visitors buy.
    UserToUser = 1,
}

#[derive(Deserialize)]
struct Manifest {
    version: String,
    schema_hash: String,
    #[serde(default)]
    actions: Vec<String>,
    create_ms: i64,
    #[serde(default = "utc")]
    time_zone: String,
    files: BTreeMap<String, String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// Lists of scored items, one a row: row `i` is entries `offsets[i]..offsets[i + 1]`.
struct Lists {
    offsets: Vec<u64>,
    items: Vec<u32>,
    scores: Vec<f32>,
}

impl Lists {
    /// Items of a row and their scores.
    fn row(&self, row: u32) -> (&[u32], &[f32]) {
        let range = self.offsets[row as usize] as usize..self.offsets[row as usize + 1] as usize;
        (&self.items[range.clone()], &self.scores[range])
    }
}

/// What the engine reads of an encoder of histories; onnxruntime runs its graph.
pub struct Encoder {
    /// Identity, as by [`identity`](crate::sequence::identity).
    pub identity: u64,
    /// Newest events of a visitor that it is shown.
    pub length: usize,
    /// Vectors of the items, zeros for an item without one.
    pub vectors: VectorIndex,
}

impl Encoder {
    /// Whether a visitor's vector is of this encoder; the width tells apart what was given one version twice.
    pub fn fits(&self, vector: &SequenceVector) -> bool {
        vector.encoder == self.identity && vector.steps.len() == self.vectors.dimensions()
    }
}

/// What a bundle folder holds, in the bundle's own numbers.
pub struct Bundle {
    /// Name of the bundle.
    pub version: String,
    /// Hash of the feature table it was trained with.
    pub schema_hash: String,
    /// Columns that the ranker answers.
    pub actions: Vec<String>,
    /// When it was made, Unix milliseconds.
    pub create_ms: i64,
    /// Zone whose hours and weekdays its ranker learnt from.
    pub time_zone: String,
    /// Whether the bundle has a ranker.
    pub has_ranker: bool,
    /// The ranker, where the engine can evaluate it; another one is onnxruntime's.
    pub ranker: Option<Ranker>,
    /// The encoder of histories, if the bundle has one.
    pub sequence: Option<Encoder>,
    items: Vec<Box<str>>,
    visitors: HashMap<Box<str>, u32>,
    neighbours: [Option<Lists>; 3],
    visitor_lists: [Option<Lists>; 2],
    content: Option<VectorIndex>,
}

impl Bundle {
    /// Reads a bundle.
    ///
    /// # Errors
    /// Corrupt where a file is missing, damaged or not the one of the manifest; Bundle where it does not fit this
    /// engine.
    pub fn load(folder: &Path) -> Result<Self> {
        let manifest = manifest(folder)?;
        let reader = Reader { folder, files: &manifest.files };
        let items = reader.texts("items.safetensors")?.unwrap_or_default();
        let visitors = reader.texts("visitors.safetensors")?.unwrap_or_default();
        let mut neighbours = [None, None, None];
        for (slot, name) in neighbours.iter_mut().zip(NEIGHBOUR_FILES) {
            *slot = reader.lists(name, "neighbours", items.len(), items.len())?;
        }
        let mut visitor_lists = [None, None];
        for (slot, name) in visitor_lists.iter_mut().zip(VISITOR_FILES) {
            *slot = reader.lists(name, "items", visitors.len(), items.len())?;
        }
        let ranker = reader.bytes(RANKER_FILE)?.and_then(|model| Ranker::compile(&model, feature::WIDTH));
        Ok(Self {
            content: reader.vectors(CONTENT_FILE, items.len())?,
            sequence: reader.encoder(&manifest.version, items.len())?,
            ranker: ranker.filter(|ranker| ranker.columns() == manifest.actions.len()),
            has_ranker: manifest.files.contains_key(RANKER_FILE),
            version: manifest.version,
            schema_hash: manifest.schema_hash,
            actions: manifest.actions,
            create_ms: manifest.create_ms,
            time_zone: manifest.time_zone,
            items,
            visitors: visitors.into_iter().enumerate().map(|(row, name)| (name, row as u32)).collect(),
            neighbours,
            visitor_lists,
        })
    }

    /// Bytes held, without the allocator's overhead.
    pub fn bytes(&self) -> usize {
        let lists = self.neighbours.iter().chain(&self.visitor_lists).flatten();
        let entries: usize = lists.map(|lists| lists.offsets.len() * 8 + lists.items.len() * 8).sum();
        let texts: usize = self.items.iter().chain(self.visitors.keys()).map(|name| name.len() + 16).sum();
        entries
            + texts
            + self.ranker.as_ref().map_or(0, Ranker::bytes)
            + self.content.as_ref().map_or(0, VectorIndex::bytes)
            + self.sequence.as_ref().map_or(0, |encoder| encoder.vectors.bytes())
    }
}

/// Manifest of a bundle that fits this engine.
fn manifest(folder: &Path) -> Result<Manifest> {
    let text = std::fs::read(folder.join("manifest.json"))
        .map_err(|cause| Error::corrupt(format!("manifest.json of the bundle cannot be read: {cause}")))?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|cause| Error::bundle(format!("manifest.json is not a manifest: {cause}")))?;
    if manifest.schema_hash != feature::schema_hash() {
        return Err(Error::bundle(format!(
            "bundle `{}` was trained with feature table {}, this engine has {}; train it again",
            manifest.version,
            manifest.schema_hash,
            feature::schema_hash()
        )));
    }
    if manifest.files.contains_key(RANKER_FILE) && manifest.actions.is_empty() {
        return Err(Error::bundle("`actions` of the manifest names no column of the ranker; list what it predicts"));
    }
    Ok(manifest)
}

/// A bundle joined to the engine's item ids.
#[derive(Clone)]
pub struct ActiveBundle {
    /// The bundle.
    pub bundle: Arc<Bundle>,
    /// Number in the engine of each item of the bundle, [`NONE`] until it is known.
    to_engine: Vec<u32>,
    /// Number in the bundle of each item of the engine; those beyond the end are none of the bundle's.
    to_bundle: Vec<u32>,
}

impl ActiveBundle {
    /// A bundle of which no item is looked up yet.
    pub fn new(bundle: Arc<Bundle>) -> Self {
        Self { to_engine: vec![NONE; bundle.items.len()], to_bundle: Vec::new(), bundle }
    }

    /// Number of items of the bundle.
    pub fn len(&self) -> usize {
        self.to_engine.len()
    }

    /// Whether the bundle has no item.
    pub fn is_empty(&self) -> bool {
        self.to_engine.is_empty()
    }

    /// Looks up some items of the bundle, so that [`Self::join`] finds nearly all of them done.
    pub fn look_up(&mut self, rows: Range<usize>, items: &Interner) {
        for row in rows {
            if let Some(item) = items.get(&self.bundle.items[row]) {
                self.set(row, item);
            }
        }
    }

    /// The bundle with every item joined; ids it brings are interned in its order, so that all replicas give the same
    /// ones.
    pub fn join(self: &Arc<Self>, items: &mut Interner) -> Arc<Self> {
        if !self.to_engine.contains(&NONE) {
            return Arc::clone(self);
        }
        let mut joined = Self::clone(self);
        for row in 0..joined.len() {
            if joined.to_engine[row] == NONE {
                joined.set(row, items.intern(&self.bundle.items[row]));
            }
        }
        Arc::new(joined)
    }

    fn set(&mut self, row: usize, item: u32) {
        let end = item as usize + 1;
        if self.to_bundle.len() < end {
            self.to_bundle.resize(end, NONE);
        }
        self.to_engine[row] = item;
        self.to_bundle[item as usize] = row as u32;
    }

    /// Neighbours of an item with their scores, best first; empty where there are none.
    pub fn neighbours(&self, relation: Relation, item: u32) -> impl Iterator<Item = (u32, f32)> {
        let row = self.to_bundle.get(item as usize).copied().filter(|&row| row != NONE);
        self.row(row.zip(self.bundle.neighbours[relation as usize].as_ref()))
    }

    /// Fetches what [`Self::neighbours`] will read of an item.
    pub fn prefetch_neighbours(&self, relation: Relation, item: u32) {
        let row = self.to_bundle.get(item as usize).copied().filter(|&row| row != NONE);
        let Some((row, lists)) = row.zip(self.bundle.neighbours[relation as usize].as_ref()) else { return };
        let (items, scores) = lists.row(row);
        prefetch_all(items);
        prefetch_all(scores);
    }

    /// Whether the bundle has lists of a relation.
    pub fn has(&self, relation: Relation) -> bool {
        self.bundle.neighbours[relation as usize].is_some()
    }

    /// Items the bundle keeps for a visitor with their scores, best first.
    pub fn of_visitor(&self, list: VisitorList, visitor: &str) -> impl Iterator<Item = (u32, f32)> {
        let row = self.bundle.visitors.get(visitor).copied();
        self.row(row.zip(self.bundle.visitor_lists[list as usize].as_ref()))
    }

    /// Whether the bundle has content vectors.
    pub fn has_content(&self) -> bool {
        self.bundle.content.is_some()
    }

    /// Content vector of an item; `None` where the bundle has none for it or only zeros.
    pub fn content(&self, item: u32) -> Option<&[f32]> {
        let row = self.row_of(item)?;
        let vector = self.bundle.content.as_ref()?.vector(row);
        vector.iter().any(|&value| value != 0.0).then_some(vector)
    }

    /// The `k` items, of all or of some, whose content vectors are nearest to a vector, with their inner products, best
    /// first.
    pub fn nearest_content(&self, vector: &[f32], k: usize, among: Option<&[u32]>) -> Vec<(u32, f32)> {
        self.bundle.content.as_ref().map_or_else(Vec::new, |index| self.nearest(index, vector, k, among, false))
    }

    /// The `k` items, of all or of some, whose sequence vectors have the greatest inner products with a vector of the
    /// encoder, best first.
    pub fn nearest_next(&self, vector: &[f32], k: usize, among: Option<&[u32]>) -> Vec<(u32, f32)> {
        let encoder = self.bundle.sequence.as_ref();
        encoder.map_or_else(Vec::new, |encoder| self.nearest(&encoder.vectors, vector, k, among, true))
    }

    /// Number by which the encoder reads an item: its place plus 1, above the last for one that the bundle lacks.
    pub fn item_number(&self, item: u32) -> i64 {
        self.row_of(item).map_or(self.to_engine.len() as i64, i64::from) + 1
    }

    /// Whether the encoder has a vector of any item that `is_sold`.
    pub fn has_next(&self, is_sold: impl Fn(u32) -> bool) -> bool {
        let Some(encoder) = &self.bundle.sequence else { return false };
        let is_known = |row: usize| encoder.vectors.vector(row as u32).iter().any(|&value| value != 0.0);
        self.to_engine.iter().enumerate().any(|(row, &item)| is_sold(item) && is_known(row))
    }

    fn nearest(
        &self,
        index: &VectorIndex,
        vector: &[f32],
        k: usize,
        among: Option<&[u32]>,
        exact: bool,
    ) -> Vec<(u32, f32)> {
        let found = match among {
            None => index.search_near(vector, k, exact),
            Some(items) => {
                let mut allowed = Allowed::none(self.to_engine.len());
                items.iter().filter_map(|&item| self.row_of(item)).for_each(|row| allowed.insert(row));
                index.search(&[vector], k, Some(&allowed), exact).pop().unwrap_or_default()
            }
        };
        found.into_iter().map(|hit| (self.to_engine[hit.item as usize], hit.score)).collect()
    }

    /// Place of an item in the bundle; `None` where the bundle lacks it.
    fn row_of(&self, item: u32) -> Option<u32> {
        self.to_bundle.get(item as usize).copied().filter(|&row| row != NONE)
    }

    /// Entries of a row of lists in the engine's numbers; none without a row.
    fn row<'a>(&'a self, row: Option<(u32, &'a Lists)>) -> impl Iterator<Item = (u32, f32)> + 'a {
        let (items, scores) = row.map_or((&[][..], &[][..]), |(row, lists)| lists.row(row));
        items.iter().map(|&item| self.to_engine[item as usize]).zip(scores.iter().copied())
    }
}
