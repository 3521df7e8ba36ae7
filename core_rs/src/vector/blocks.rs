//! Item vectors as bytes: one scale a vector, blocks of 16 items whose dimensions are interleaved four by four.
//!
//! Source: scale quantisation of Wu, Judd, Zhang, Isaev & Micikevicius 2020, "Integer quantization for deep learning
//! inference: principles and empirical evaluation", section 3, with a scale for each vector.

/// Items of a block: the 32-bit lanes of the widest register.
pub const LANES: usize = 16;
/// Dimensions that one instruction sums into a lane.
pub const DEPTH: usize = 4;
/// Greatest step of an item's value to either side.
const ITEM_STEPS: f32 = 127.0;
/// Greatest step of a query's value to either side: two products with an item's byte then fit 16 bits.
const QUERY_STEPS: f32 = 64.0;
/// What is added to an item's steps, so that a byte without a sign holds them.
const OFFSET: i32 = 128;

/// Four dimensions of the sixteen items of a block, item after item.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Row(pub [[u8; DEPTH]; LANES]);

/// Scales of the items of a block.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Scales(pub [f32; LANES]);

/// Quantised vectors: item `i` is lane `i % 16` of block `i / 16`; what no item needs holds zeros, whose step is 0.
pub struct Blocks {
    /// `groups` rows a block.
    rows: Vec<Row>,
    scales: Vec<Scales>,
    groups: usize,
    len: usize,
}

/// A quantised query.
pub struct Query {
    /// Signed bytes of four dimensions a value, in the order of memory.
    pub values: Vec<i32>,
    /// What the products of a query with the bytes of an item exceed its products with the steps by.
    pub excess: i32,
    /// Factor of a quantised product with the query.
    pub scale: f32,
}

/// Consecutive blocks with the items to look at.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    /// Rows of the blocks.
    pub rows: &'a [Row],
    /// Scales of the blocks.
    pub scales: &'a [Scales],
    /// Items to look at, one bit an item, one value a block.
    pub allowed: &'a [u16],
    /// Rows a block.
    pub groups: usize,
    /// First item.
    pub start: u32,
}

impl Blocks {
    /// Quantises vectors of `dimensions` values, one after the other.
    pub fn new(vectors: &[f32], dimensions: usize) -> Self {
        let (len, groups) = (vectors.len() / dimensions, dimensions.div_ceil(DEPTH));
        let count = len.div_ceil(LANES);
        let mut blocks = Self {
            rows: vec![Row([[OFFSET as u8; DEPTH]; LANES]); count * groups],
            scales: vec![Scales([0.0; LANES]); count],
            groups,
            len,
        };
        for (item, vector) in vectors.chunks_exact(dimensions).enumerate() {
            let (block, lane) = (item / LANES, item % LANES);
            let scale = greatest(vector) / ITEM_STEPS;
            blocks.scales[block].0[lane] = scale;
            let rows = &mut blocks.rows[block * groups..][..groups];
            for (row, values) in rows.iter_mut().zip(vector.chunks(DEPTH)) {
                row.0[lane] = steps(values, scale, ITEM_STEPS).map(|step| (step + OFFSET) as u8);
            }
        }
        blocks
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no vector.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that a scan reads.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.rows) + size_of_val(&*self.scales)
    }

    /// Blocks `first..first + allowed.len()`, with the items of `allowed`.
    pub fn tile<'a>(&'a self, first: usize, allowed: &'a [u16]) -> Tile<'a> {
        Tile {
            rows: &self.rows[first * self.groups..(first + allowed.len()) * self.groups],
            scales: &self.scales[first..first + allowed.len()],
            allowed,
            groups: self.groups,
            start: (first * LANES) as u32,
        }
    }
}

impl Query {
    /// Quantises a query.
    pub fn new(vector: &[f32]) -> Self {
        let scale = greatest(vector) / QUERY_STEPS;
        let steps: Vec<[i32; DEPTH]> = vector.chunks(DEPTH).map(|values| steps(values, scale, QUERY_STEPS)).collect();
        let packed = |steps: &[i32; DEPTH]| i32::from_le_bytes(steps.map(|step| step as u8));
        Self {
            values: steps.iter().map(packed).collect(),
            excess: OFFSET * steps.as_flattened().iter().sum::<i32>(),
            scale,
        }
    }
}

fn greatest(vector: &[f32]) -> f32 {
    vector.iter().fold(0.0_f32, |greatest, value| greatest.max(value.abs()))
}

/// Nearest steps of up to four values; zeros where there is no value.
fn steps(values: &[f32], scale: f32, limit: f32) -> [i32; DEPTH] {
    let mut steps = [0; DEPTH];
    if scale > 0.0 {
        for (step, value) in steps.iter_mut().zip(values) {
            *step = (value / scale).round().clamp(-limit, limit) as i32;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_interleaves_items_and_keeps_their_scales() {
        let vectors: Vec<f32> = (0..17 * 5).map(|value| value as f32 - 20.0).collect();
        let blocks = Blocks::new(&vectors, 5);
        assert_eq!((blocks.len(), blocks.rows.len(), blocks.scales.len()), (17, 4, 2));
        assert!((blocks.scales[1].0[0] - 64.0 / 127.0).abs() < 1e-6);
        assert_eq!(blocks.rows[2].0[0], [247, 249, 251, 253]);
        assert_eq!(blocks.rows[3].0[0], [255, 128, 128, 128]);
        assert!(blocks.rows[3].0[1..].iter().all(|lane| *lane == [128; DEPTH]));
    }

    #[test]
    fn a_vector_of_zeros_has_no_scale() {
        let query = Query::new(&[0.0; 3]);
        assert_eq!((query.scale, query.excess, query.values), (0.0, 0, vec![0]));
    }
}
