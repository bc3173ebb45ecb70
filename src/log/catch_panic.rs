//! Panics of redb as errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs work of redb, which panics on some damaged files; the panic becomes an error and is not printed.
pub(super) fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    result.map_err(|_| "its structure is damaged".to_owned())
}
