//! Files of a bundle folder: each is read after its hash, and what it holds is checked to fit.

use super::{Encoder, Lists};
use crate::{
    error::{Error, Result},
    params::RING,
    sequence,
    vector::{Instructions, VectorIndex},
};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs::File, path::Path};

/// Files of the encoder of histories: its graph, the items' vectors, inputs to check it by. They come together.
const SEQUENCE_FILES: [&str; 3] = ["sequence.onnx", "sequence_items.safetensors", "sequence_golden.safetensors"];

/// Reads the files that the manifest lists, after their hash.
pub(super) struct Reader<'a> {
    pub(super) folder: &'a Path,
    pub(super) files: &'a BTreeMap<String, String>,
}

impl Reader<'_> {
    /// Bytes of a file; `None` if the manifest does not list it.
    pub(super) fn bytes(&self, name: &str) -> Result<Option<Mmap>> {
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
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<Box<str>>>> {
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

    /// One vector an item, of shape (`rows`, d); zeros for an item without one. Very many come in clusters: `centres`
    /// of shape (c, d) and the number of each item's, `clusters`.
    pub(super) fn vectors(&self, name: &str, rows: usize) -> Result<Option<VectorIndex>> {
        let Some(map) = self.bytes(name)? else { return Ok(None) };
        let tensors = parse(name, &map)?;
        let values = f32s(tensor(name, &tensors, "vectors", Dtype::F32)?);
        let shape = tensors.tensor("vectors").map(|view| view.shape().to_vec()).unwrap_or_default();
        let [found, dimensions] = shape[..] else {
            return Err(Error::bundle(format!("{name}: `vectors` has shape {shape:?}, not ({rows}, d)")));
        };
        if found != rows {
            return Err(Error::bundle(format!("{name}: `vectors` has {found} rows for {rows} items")));
        }
        let mut index = VectorIndex::new(values, dimensions, Instructions::best());
        if tensors.tensor("centres").is_ok() {
            let centres = f32s(tensor(name, &tensors, "centres", Dtype::F32)?);
            let clusters = u32s(tensor(name, &tensors, "clusters", Dtype::U32)?);
            index = index.and_then(|index| index.clustered(centres, &clusters));
        }
        index.map(Some).map_err(|error| Error::bundle(format!("{name}: {}", error.message)))
    }

    /// The encoder of histories, whose files come together or not at all.
    pub(super) fn encoder(&self, version: &str, rows: usize) -> Result<Option<Encoder>> {
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
    pub(super) fn lists(&self, name: &str, column: &str, rows: usize, item_count: usize) -> Result<Option<Lists>> {
        let Some(map) = self.bytes(name)? else { return Ok(None) };
        let tensors = parse(name, &map)?;
        let offsets = match tensors.tensor("offsets").map(|view| view.dtype()) {
            Ok(Dtype::U64) => u64s(tensor(name, &tensors, "offsets", Dtype::U64)?),
            _ => u32s(tensor(name, &tensors, "offsets", Dtype::U32)?).into_iter().map(u64::from).collect(),
        };
        let items = u32s(tensor(name, &tensors, column, Dtype::U32)?);
        let scores = f32s(tensor(name, &tensors, "scores", Dtype::F32)?);
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

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

fn u64s(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect()
}
