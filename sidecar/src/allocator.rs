//! The allocator: mimalloc, made for what we do, many small allocations on one thread each.

use std::ffi::c_long;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h` (v3), which the bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Freed memory goes back to the operating system after this; mimalloc's own is a second, by which time an idle process has
/// nobody left who would do it.
const PURGE_DELAY_MS: c_long = 100;

/// Sets what cannot be set when building. Call it before the first thread.
#[expect(
    unsafe_code,
    reason = "mimalloc has its options behind C functions; these take and give numbers only"
)]
pub(crate) fn tune() {
    // SAFETY: both functions take an index that mimalloc checks and a number, and touch a table of its own. No other
    // thread of ours runs yet, so nobody reads the option meanwhile.
    unsafe {
        // Another version of mimalloc may have something else at this place: that stays as it is.
        if libmimalloc_sys::mi_option_get(PURGE_DELAY) == 1000 {
            libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "as above")]
    fn the_option_is_where_it_is_expected() {
        tune();
        // SAFETY: as above.
        assert_eq!(unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }, PURGE_DELAY_MS);
    }
}
