//! The sequence vector of a visitor: what a bundle's encoder made of the last events, kept as bytes.

/// Greatest step of a value to either side.
const STEPS: f32 = 127.0;

/// Vector of a visitor in steps of one scale; the difference to what the encoder gave is half a step at most.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceVector {
    /// Encoder that made it, as by [`identity`]; vectors of two encoders have nothing in common.
    pub encoder: u64,
    /// [`Visitor::ring_lines`](crate::visitor::Visitor::ring_lines) that it reflects.
    pub ring_lines: u32,
    /// Length of a step.
    pub scale: f32,
    /// Steps of each dimension.
    pub steps: Box<[i8]>,
}

impl SequenceVector {
    /// Quantises `values`; `None` where one is not finite.
    pub fn new(encoder: u64, ring_lines: u32, values: &[f32]) -> Option<Self> {
        let greatest =
            values.iter().try_fold(0.0_f32, |greatest, value| value.is_finite().then(|| greatest.max(value.abs())))?;
        let scale = greatest / STEPS;
        let step = |value: &f32| if scale > 0.0 { (value / scale).round().clamp(-STEPS, STEPS) as i8 } else { 0 };
        Some(Self { encoder, ring_lines, scale, steps: values.iter().map(step).collect() })
    }

    /// The values that the steps stand for.
    pub fn values(&self) -> Vec<f32> {
        self.steps.iter().map(|&step| f32::from(step) * self.scale).collect()
    }

    /// Bytes held, without the allocator's overhead.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.steps.len()
    }
}

/// Identity of the encoder of a bundle. A version is never given to another bundle.
pub fn identity(version: &str) -> u64 {
    let hash = blake3::hash(version.as_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_within_half_a_step() {
        let values: Vec<f32> = (0..64).map(|place| (place as f32 * 0.7).sin() * 3.0).collect();
        let vector = SequenceVector::new(1, 2, &values).expect("finite");
        let worst = values.iter().zip(vector.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= vector.scale * 0.501, "{worst} of {}", vector.scale);
        assert_eq!(vector.steps.iter().map(|step| step.unsigned_abs()).max(), Some(127));
    }

    #[test]
    fn the_last_bits_do_not_show() {
        let values = [3.0, -1.0, 0.25, 2.0_f32];
        let noisy = values.map(|value| value * (1.0 + f32::EPSILON));
        let steps = |values: &[f32]| SequenceVector::new(1, 2, values).expect("finite").steps;
        assert_eq!(steps(&values), steps(&noisy));
    }

    #[test]
    fn what_is_not_finite_is_refused_and_zeros_stay() {
        assert_eq!(SequenceVector::new(1, 2, &[0.0, f32::NAN]), None);
        assert_eq!(SequenceVector::new(1, 2, &[f32::INFINITY, 0.0]), None);
        assert_eq!(SequenceVector::new(1, 2, &[0.0; 3]).map(|vector| vector.values()), Some(vec![0.0; 3]));
    }

    #[test]
    fn versions_tell_encoders_apart() {
        assert_ne!(identity("a"), identity("b"));
        assert_eq!(identity("a"), identity("a"));
    }
}
