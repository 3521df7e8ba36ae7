//! What the processor can do.

/// Whether it computes with eight numbers of 32 bits at once, as AVX2 and FMA do.
pub fn is_wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether it multiplies and adds in one instruction.
pub fn fuses() -> bool {
    is_wide() || cfg!(target_arch = "aarch64")
}
