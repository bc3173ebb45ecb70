//! Panics of redb as errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// redb panicked on a file, as it does on some damaged ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its structure is damaged")]
pub struct StructureDamaged;

/// Runs work of redb, which panics on some damaged files; the panic becomes an error and is not printed.
pub(super) fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, StructureDamaged> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    result.map_err(|_| StructureDamaged)
}
