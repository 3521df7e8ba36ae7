//! One layer, evaluated for a block of rows at a time, panel by panel of its outputs.

#[cfg(target_arch = "x86_64")]
use super::avx2;

/// Rows that are evaluated together.
pub const ROWS: usize = 8;
/// Outputs of a panel.
pub const LANES: usize = 8;
/// Rows of a tile of two panels, whose sums and weights fit sixteen registers.
const HALF: usize = ROWS / 2;

/// Values of the outputs of a panel.
pub type Lanes = [f32; LANES];

/// Fully connected layer.
pub struct Layer {
    /// Weights of each eight outputs, one line an input.
    panels: Vec<Vec<Lanes>>,
    bias: Vec<Lanes>,
    /// Number of outputs, without those that fill up the last panel.
    pub outputs: usize,
    /// Least value of an output: 0 behind `Relu`, else minus infinity.
    pub floor: f32,
}

/// Inputs of some rows and the panels that they meet.
pub struct Tile<'a, const P: usize> {
    /// Row after row, `stride` values each.
    pub inputs: &'a [f32],
    /// Values of a row.
    pub stride: usize,
    /// Inputs that are not 0 in all rows, ascending; below `stride` and the length of a panel.
    pub columns: &'a [u32],
    /// Weights.
    pub panels: [&'a [Lanes]; P],
    /// What the sums start from.
    pub bias: [Lanes; P],
    /// Least value of a result.
    pub floor: f32,
}

impl Layer {
    /// Layer of `inputs` inputs with `weight(input, output)`.
    pub fn new(inputs: usize, bias: &[f32], weight: impl Fn(usize, usize) -> f32) -> Self {
        let outputs = bias.len();
        let lanes = |panel: usize, value: &dyn Fn(usize) -> f32| {
            let output = |lane: usize| panel * LANES + lane;
            std::array::from_fn(|lane| if output(lane) < outputs { value(output(lane)) } else { 0.0 })
        };
        let panels = 0..outputs.div_ceil(LANES);
        let line = |panel: usize, input: usize| lanes(panel, &|output| weight(input, output));
        Self {
            bias: panels.clone().map(|panel| lanes(panel, &|output| bias[output])).collect(),
            panels: panels.map(|panel| (0..inputs).map(|input| line(panel, input)).collect()).collect(),
            outputs,
            floor: f32::NEG_INFINITY,
        }
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.panels[0].len()
    }

    /// Values of a row of results.
    pub fn stride(&self) -> usize {
        self.panels.len() * LANES
    }

    /// Evaluates a block of [`ROWS`] rows of `stride` values, of which only those in `columns`, ascending, are not 0,
    /// into rows of [`Self::stride`] values; `wide` as [`crate::processor::is_wide`] says.
    pub fn evaluate(&self, inputs: &[f32], stride: usize, columns: &[u32], wide: bool, results: &mut [f32]) {
        let width = self.stride();
        assert!(inputs.len() >= ROWS * stride && results.len() >= ROWS * width);
        assert!(columns.last().is_none_or(|&column| (column as usize) < stride.min(self.inputs())));
        let floor = self.floor;
        let (pairs, rest) = self.panels.as_chunks::<2>();
        for (number, [one, other]) in pairs.iter().enumerate() {
            let bias = [self.bias[2 * number], self.bias[2 * number + 1]];
            for first in [0, HALF] {
                let (inputs, panels) = (&inputs[first * stride..], [&one[..], &other[..]]);
                let tile = Tile { inputs, stride, columns, panels, bias, floor };
                tile.evaluate::<HALF>(wide, &mut results[first * width + 2 * number * LANES..], width);
            }
        }
        for panel in rest {
            let last = self.panels.len() - 1;
            let tile = Tile { inputs, stride, columns, panels: [&panel[..]], bias: [self.bias[last]], floor };
            tile.evaluate::<ROWS>(wide, &mut results[last * LANES..], width);
        }
    }
}

impl<const P: usize> Tile<'_, P> {
    /// Writes the results of `R` rows, whose beginnings lie `width` values apart.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "no other instructions to choose"))]
    fn evaluate<const R: usize>(&self, wide: bool, results: &mut [f32], width: usize) {
        #[cfg(target_arch = "x86_64")]
        if wide {
            // SAFETY: `wide` is set where the processor has AVX2 and FMA.
            unsafe { avx2::evaluate::<R, P>(self, results, width) };
            return;
        }
        self.evaluate_plainly::<R>(results, width);
    }

    /// The same for any processor; the other must give its bits.
    fn evaluate_plainly<const R: usize>(&self, results: &mut [f32], width: usize) {
        for (row, results) in results.chunks_mut(width).take(R).enumerate() {
            let inputs = &self.inputs[row * self.stride..][..self.stride];
            for ((panel, bias), results) in self.panels.iter().zip(&self.bias).zip(results.chunks_exact_mut(LANES)) {
                for (lane, (result, &bias)) in results.iter_mut().zip(bias).enumerate() {
                    let add = |sum, &column: &u32| inputs[column as usize].mul_add(panel[column as usize][lane], sum);
                    let sum = self.columns.iter().fold(bias, add);
                    // What is no number stays so, that it may be seen.
                    *result = if sum < self.floor { self.floor } else { sum };
                }
            }
        }
    }
}
