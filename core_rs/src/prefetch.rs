//! A hint to the memory.

/// Asks for the cache line where `value` begins and does not wait for it; `None` asks for nothing.
#[inline]
pub fn prefetch<T>(value: Option<&T>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(value) = value {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint reads nothing and changes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Asks for every cache line of `values`.
#[inline]
pub fn prefetch_all<T>(values: &[T]) {
    const LINE: usize = 64;
    for value in values.iter().step_by((LINE / size_of::<T>()).max(1)) {
        prefetch(Some(value));
    }
    prefetch(values.last());
}
