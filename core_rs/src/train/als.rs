//! Half a sweep of alternating least squares for implicit feedback: the rows' factors for fixed columns' factors.
//!
//! Source: Rendle, Krichene, Zhang & Koren 2021, "Revisiting the performance of iALS on item recommendation
//! benchmarks", equations 1 to 5; solved by conjugate gradients as in Takács, Pilászy & Tikk 2011.

use rayon::prelude::*;

use super::{check_ids, check_lengths, check_offsets, check_positive, check_range, entries_of};
use crate::{error::Result, vector::dot};

/// Hyper-parameters of [`half_sweep`].
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Width of the factors, at least 1.
    pub width: usize,
    /// α₀: weight of every (row, column), more than 0; an observed one weighs 1 + α₀.
    pub unobserved: f32,
    /// Weight of a row's squared length, times (entries + `unobserved` × columns) to the power `scaling`.
    pub regularisation: f32,
    /// Exponent of a row's size in its regularisation; 0 to 1.
    pub scaling: f32,
    /// Conjugate gradient steps, at least 1.
    pub steps: usize,
}

/// Moves the factors of each row of a binary table towards the minimum of
/// `Σ_observed (x·y − 1)² + unobserved · Σ_all (x·y)² + λ(row) |x|²`.
///
/// Row `r` has the columns `columns[offsets[r]..offsets[r + 1]]`. `rows` and `fixed` are row-major and of
/// `options.width`.
/// O(width² × (columns + rows × steps) + entries × width × steps).
///
/// # Errors
/// When lengths do not fit, a column is outside `fixed` or a hyper-parameter is out of range.
pub fn half_sweep(offsets: &[i64], columns: &[u32], fixed: &[f32], options: &Options, rows: &mut [f32]) -> Result<()> {
    check_positive("width", options.width)?;
    check_positive("steps", options.steps)?;
    check_range("unobserved", options.unobserved, f32::MIN_POSITIVE, f32::MAX)?;
    check_range("regularisation", options.regularisation, 0.0, f32::MAX)?;
    check_range("scaling", options.scaling, 0.0, 1.0)?;
    let width = options.width;
    let n_columns = fixed.len() / width;
    check_lengths(&[("offsets", offsets.len()), ("rows", rows.len() / width + 1)])?;
    check_ids("columns", columns, n_columns)?;
    check_offsets("offsets", offsets, columns.len())?;
    let gram = gram(fixed, options);
    rows.par_chunks_mut(width).enumerate().for_each_init(
        || Solver::new(width),
        |solver, (row, factors)| {
            let observed = &columns[entries_of(offsets, row)];
            let size = observed.len() as f32 + options.unobserved * n_columns as f32;
            let system =
                System { gram: &gram, fixed, observed, ridge: options.regularisation * size.powf(options.scaling) };
            solver.solve(&system, options.steps, factors);
        },
    );
    Ok(())
}

/// `unobserved · Σ y yᵀ`, row-major; rows in parallel, every sum in one order.
fn gram(fixed: &[f32], options: &Options) -> Vec<f32> {
    let width = options.width;
    let mut gram = vec![0.0; width * width];
    gram.par_chunks_mut(width).enumerate().for_each(|(row, sums)| {
        for factors in fixed.chunks_exact(width) {
            add(sums, options.unobserved * factors[row], factors);
        }
    });
    gram
}

/// Normal equations of one row: `(gram + Σ_observed y yᵀ + ridge) x = Σ_observed y`.
struct System<'a> {
    gram: &'a [f32],
    fixed: &'a [f32],
    observed: &'a [u32],
    ridge: f32,
}

impl System<'_> {
    fn factors(&self, column: u32, width: usize) -> &[f32] {
        &self.fixed[column as usize * width..][..width]
    }

    /// Writes the left side times `x` into `out`.
    fn multiply(&self, x: &[f32], out: &mut [f32]) {
        for (out, (row, x_own)) in out.iter_mut().zip(self.gram.chunks_exact(x.len()).zip(x)) {
            *out = dot(row, x) + self.ridge * x_own;
        }
        for &column in self.observed {
            let factors = self.factors(column, x.len());
            add(out, dot(factors, x), factors);
        }
    }
}

/// Room of one thread for its vectors.
struct Solver {
    residual: Vec<f32>,
    direction: Vec<f32>,
    image: Vec<f32>,
}

impl Solver {
    fn new(width: usize) -> Self {
        Self { residual: vec![0.0; width], direction: vec![0.0; width], image: vec![0.0; width] }
    }

    /// Conjugate gradients from `x` on.
    fn solve(&mut self, system: &System, steps: usize, x: &mut [f32]) {
        system.multiply(x, &mut self.image);
        self.residual.fill(0.0);
        for &column in system.observed {
            add(&mut self.residual, 1.0, system.factors(column, x.len()));
        }
        add(&mut self.residual, -1.0, &self.image);
        self.direction.copy_from_slice(&self.residual);
        let mut error = dot(&self.residual, &self.residual);
        for _ in 0..steps {
            system.multiply(&self.direction, &mut self.image);
            let curvature = dot(&self.direction, &self.image);
            if error <= f32::MIN_POSITIVE || curvature <= f32::MIN_POSITIVE {
                return;
            }
            add(x, error / curvature, &self.direction);
            add(&mut self.residual, -error / curvature, &self.image);
            let next = dot(&self.residual, &self.residual);
            for (direction, residual) in self.direction.iter_mut().zip(&self.residual) {
                *direction = residual + next / error * *direction;
            }
            error = next;
        }
    }
}

/// Adds `factor × values` to `sums`.
fn add(sums: &mut [f32], factor: f32, values: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += factor * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options { width: 2, unobserved: 0.5, regularisation: 0.1, scaling: 1.0, steps: 8 };

    #[test]
    fn a_row_solves_its_normal_equations() {
        let fixed = [1.0, 0.0, 0.5, 1.0, -1.0, 2.0];
        let mut rows = [0.3, -0.2, 0.0, 0.0];
        half_sweep(&[0, 2, 2], &[0, 1], &fixed, &OPTIONS, &mut rows).expect("valid");
        let ridge = 0.1 * (2.0 + 0.5 * 3.0);
        let left = [[0.5 * 2.25 + 1.25 + ridge, 0.5 * -1.5 + 0.5], [0.5 * -1.5 + 0.5, 0.5 * 5.0 + 1.0 + ridge]];
        let determinant = left[0][0] * left[1][1] - left[0][1] * left[1][0];
        let expected = [(1.5 * left[1][1] - left[0][1]) / determinant, (left[0][0] - 1.5 * left[1][0]) / determinant];
        assert!((rows[0] - expected[0]).abs() < 1e-5 && (rows[1] - expected[1]).abs() < 1e-5, "{rows:?} {expected:?}");
        assert_eq!(rows[2..], [0.0, 0.0]);
    }

    #[test]
    fn faults_name_the_argument() {
        let error = half_sweep(&[0, 1], &[3], &[1.0; 4], &OPTIONS, &mut [0.0; 2]).expect_err("column 3 of 2");
        assert_eq!(error.field, "columns");
        let options = Options { unobserved: 0.0, ..OPTIONS };
        let error = half_sweep(&[0, 0], &[], &[1.0; 4], &options, &mut [0.0; 2]).expect_err("unobserved");
        assert_eq!(error.field, "unobserved");
    }
}
