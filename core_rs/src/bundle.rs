//! A trained bundle: neighbour lists and visitor lists, read from a folder and checked against its manifest.

use crate::{
    error::{Error, Result},
    feature,
    ids::{Interner, NONE},
    params::RING,
    sequence::{self, SequenceVector},
    trees::Trees,
    vector::{Instructions, VectorIndex},
};
use hashbrown::HashMap;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs::File, ops::Range, path::Path, sync::Arc};

/// File of the ranker.
const RANKER_FILE: &str = "ranker.onnx";

/// File of the items' content vectors.
const CONTENT_FILE: &str = "content_items.safetensors";

/// Files of the encoder of histories: its graph, the items' vectors, inputs to check it by. They come together.
const SEQUENCE_FILES: [&str; 3] = ["sequence.onnx", "sequence_items.safetensors", "sequence_golden.safetensors"];

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

/// What the engine reads of an encoder of histories; onnxruntime runs its graph.
pub struct Encoder {
    /// Identity, as by [`sequence::identity`].
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
    /// The ranker, where it is made of trees; another one is onnxruntime's.
    pub trees: Option<Trees>,
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
    /// Corrupt where a file is missing, damaged or not the one of the manifest; Bundle where it does not fit this engine.
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
        let ranker = reader.bytes(RANKER_FILE)?;
        let trees = ranker.and_then(|model| Trees::compile(&model, feature::WIDTH));
        Ok(Self {
            content: reader.vectors(CONTENT_FILE, items.len())?,
            sequence: reader.encoder(&manifest.version, items.len())?,
            trees: trees.filter(|trees| trees.columns() == manifest.actions.len()),
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
            + self.trees.as_ref().map_or(0, Trees::bytes)
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

    /// The bundle with every item joined; ids it brings are interned in its order, so that all replicas give the same ones.
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
        let lists = self.bundle.neighbours[relation as usize].as_ref();
        row.zip(lists).into_iter().flat_map(|(row, lists)| self.row(lists, row))
    }

    /// Whether the bundle has lists of a relation.
    pub fn has(&self, relation: Relation) -> bool {
        self.bundle.neighbours[relation as usize].is_some()
    }

    /// Items the bundle keeps for a visitor with their scores, best first.
    pub fn of_visitor(&self, list: VisitorList, visitor: &str) -> impl Iterator<Item = (u32, f32)> {
        let row = self.bundle.visitors.get(visitor).copied();
        row.zip(self.bundle.visitor_lists[list as usize].as_ref())
            .into_iter()
            .flat_map(|(row, lists)| self.row(lists, row))
    }

    /// Whether the bundle has content vectors.
    pub fn has_content(&self) -> bool {
        self.bundle.content.is_some()
    }

    /// Content vector of an item; `None` where the bundle has none for it or only zeros.
    pub fn content(&self, item: u32) -> Option<&[f32]> {
        let row = self.to_bundle.get(item as usize).copied().filter(|&row| row != NONE)?;
        let vector = self.bundle.content.as_ref()?.vector(row);
        vector.iter().any(|&value| value != 0.0).then_some(vector)
    }

    /// The `k` items whose content vectors are nearest to a vector, with their inner products, best first.
    pub fn nearest_content(&self, vector: &[f32], k: usize) -> Vec<(u32, f32)> {
        self.bundle.content.as_ref().map_or_else(Vec::new, |index| self.nearest(index, vector, k, false))
    }

    /// The `k` items whose sequence vectors have the greatest inner products with a vector of the encoder, best first.
    pub fn nearest_next(&self, vector: &[f32], k: usize) -> Vec<(u32, f32)> {
        let encoder = self.bundle.sequence.as_ref();
        encoder.map_or_else(Vec::new, |encoder| self.nearest(&encoder.vectors, vector, k, true))
    }

    /// Number by which the encoder reads an item: its place plus 1, above the last for one that the bundle lacks.
    pub fn item_number(&self, item: u32) -> i64 {
        let row = self.to_bundle.get(item as usize).copied().filter(|&row| row != NONE);
        row.map_or(self.to_engine.len() as i64, i64::from) + 1
    }

    /// Whether the encoder has a vector of any item that `is_sold`.
    pub fn has_next(&self, is_sold: impl Fn(u32) -> bool) -> bool {
        let Some(encoder) = &self.bundle.sequence else { return false };
        let is_known = |row: usize| encoder.vectors.vector(row as u32).iter().any(|&value| value != 0.0);
        self.to_engine.iter().enumerate().any(|(row, &item)| is_sold(item) && is_known(row))
    }

    fn nearest(&self, index: &VectorIndex, vector: &[f32], k: usize, exact: bool) -> Vec<(u32, f32)> {
        let found = index.search(&[vector], k, None, exact).into_iter().flatten();
        found.map(|hit| (self.to_engine[hit.item as usize], hit.score)).collect()
    }

    fn row<'a>(&'a self, lists: &'a Lists, row: u32) -> impl Iterator<Item = (u32, f32)> + 'a {
        let range = lists.offsets[row as usize] as usize..lists.offsets[row as usize + 1] as usize;
        let items = lists.items[range.clone()].iter().map(|&item| self.to_engine[item as usize]);
        items.zip(lists.scores[range].iter().copied())
    }
}

/// Reads the files that the manifest lists, after their hash.
struct Reader<'a> {
    folder: &'a Path,
    files: &'a BTreeMap<String, String>,
}

impl Reader<'_> {
    /// Bytes of a file; `None` if the manifest does not list it.
    fn bytes(&self, name: &str) -> Result<Option<Mmap>> {
        let Some(expected) = self.files.get(name) else { return Ok(None) };
        let fault = |cause: std::io::Error| Error::corrupt(format!("{name} of the bundle cannot be read: {cause}"));
        let file = File::open(self.folder.join(name)).map_err(fault)?;
        // SAFETY: a published bundle is never written again; a new one has another folder.
        let map = unsafe { Mmap::map(&file) }.map_err(fault)?;
        let found = format!("{:x}", Sha256::digest(&map));
        if found != *expected {
            return Err(Error::corrupt(format!("{name} of the bundle has hash {found}, its manifest says {expected}")));
        }
        Ok(Some(map))
    }

    /// Texts kept as joined bytes with offsets.
    fn texts(&self, name: &str) -> Result<Option<Vec<Box<str>>>> {
        let Some(map) = self.bytes(name)? else { return Ok(None) };
        let tensors = parse(name, &map)?;
        let bytes = tensor(name, &tensors, "bytes", Dtype::U8)?;
        let offsets = u32s(tensor(name, &tensors, "offsets", Dtype::U32)?);
        let ends_well = offsets.first() == Some(&0) && offsets.last().is_some_and(|&end| end as usize == bytes.len());
        if !ends_well || offsets.windows(2).any(|pair| pair[0] > pair[1]) {
            return Err(Error::bundle(format!("{name}: `offsets` do not cover `bytes`")));
        }
        let text = |pair: &[u32]| std::str::from_utf8(&bytes[pair[0] as usize..pair[1] as usize]).map(Box::from);
        let texts: std::result::Result<_, _> = offsets.windows(2).map(text).collect();
        texts.map(Some).map_err(|cause| Error::bundle(format!("{name}: an id is not UTF-8: {cause}")))
    }

    /// One vector an item, of shape (`rows`, d); zeros for an item without one.
    fn vectors(&self, name: &str, rows: usize) -> Result<Option<VectorIndex>> {
        let Some(map) = self.bytes(name)? else { return Ok(None) };
        let tensors = parse(name, &map)?;
        let values = u32s(tensor(name, &tensors, "vectors", Dtype::F32)?).into_iter().map(f32::from_bits).collect();
        let shape = tensors.tensor("vectors").map(|view| view.shape().to_vec()).unwrap_or_default();
        let [found, dimensions] = shape[..] else {
            return Err(Error::bundle(format!("{name}: `vectors` has shape {shape:?}, not ({rows}, d)")));
        };
        if found != rows {
            return Err(Error::bundle(format!("{name}: `vectors` has {found} rows for {rows} items")));
        }
        VectorIndex::new(values, dimensions, Instructions::best())
            .map(Some)
            .map_err(|error| Error::bundle(format!("{name}: {}", error.message)))
    }

    /// The encoder of histories, whose files come together or not at all.
    fn encoder(&self, version: &str, rows: usize) -> Result<Option<Encoder>> {
        let [graph, vectors, golden] = SEQUENCE_FILES;
        let is_listed = |name: &&str| self.files.contains_key(*name);
        if !SEQUENCE_FILES.iter().any(is_listed) {
            return Ok(None);
        }
        if let Some(missing) = SEQUENCE_FILES.iter().find(|name| !is_listed(name)) {
            let all = SEQUENCE_FILES.join(", ");
            return Err(Error::bundle(format!(
                "{missing} is not in the manifest; export all of {all}, or none of them"
            )));
        }
        self.bytes(graph)?; // onnxruntime reads it; here its hash is checked, so that a bundle is whole
        let length = self.columns(golden, "items")?.min(RING);
        let vectors = self.vectors(vectors, rows)?;
        Ok(vectors.map(|vectors| Encoder { identity: sequence::identity(version), length, vectors }))
    }

    /// Columns of a tensor of rows; one at least.
    fn columns(&self, name: &str, key: &str) -> Result<usize> {
        let map = self.bytes(name)?;
        let shape = map.as_deref().map(|bytes| parse(name, bytes)).transpose()?;
        let shape = shape.and_then(|tensors| tensors.tensor(key).map(|view| view.shape().to_vec()).ok());
        match shape.as_deref() {
            Some(&[_, columns]) if columns > 0 => Ok(columns),
            _ => Err(Error::bundle(format!("{name}: `{key}` is no table of rows; export it again"))),
        }
    }

    /// Scored lists with `rows` rows of items below `item_count`.
    fn lists(&self, name: &str, column: &str, rows: usize, item_count: usize) -> Result<Option<Lists>> {
        let Some(map) = self.bytes(name)? else { return Ok(None) };
        let tensors = parse(name, &map)?;
        let offsets = match tensors.tensor("offsets").map(|view| view.dtype()) {
            Ok(Dtype::U64) => u64s(tensor(name, &tensors, "offsets", Dtype::U64)?),
            _ => u32s(tensor(name, &tensors, "offsets", Dtype::U32)?).into_iter().map(u64::from).collect(),
        };
        let items = u32s(tensor(name, &tensors, column, Dtype::U32)?);
        let scores: Vec<f32> =
            u32s(tensor(name, &tensors, "scores", Dtype::F32)?).into_iter().map(f32::from_bits).collect();
        let covers = offsets.len() == rows + 1 && offsets[0] == 0 && offsets[rows] as usize == items.len();
        if !covers || items.len() != scores.len() || offsets.windows(2).any(|pair| pair[0] > pair[1]) {
            return Err(Error::bundle(format!("{name}: `offsets`, `{column}` and `scores` do not fit {rows} rows")));
        }
        if items.iter().any(|&item| item as usize >= item_count) || scores.iter().any(|score| !score.is_finite()) {
            return Err(Error::bundle(format!("{name}: an item is out of range or a score is not finite")));
        }
        Ok(Some(Lists { offsets, items, scores }))
    }
}

fn parse<'a>(name: &str, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|cause| Error::corrupt(format!("{name} is not safetensors: {cause}")))
}

fn tensor<'a>(name: &str, tensors: &SafeTensors<'a>, key: &str, dtype: Dtype) -> Result<&'a [u8]> {
    match tensors.tensor(key) {
        Ok(view) if view.dtype() == dtype => Ok(view.data()),
        Ok(view) => Err(Error::bundle(format!("{name}: `{key}` is {:?}, not {dtype:?}", view.dtype()))),
        Err(cause) => Err(Error::bundle(format!("{name}: `{key}`: {cause}"))),
    }
}

fn u32s(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect()
}

fn u64s(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect()
}
