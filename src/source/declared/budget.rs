//! Bounds of one run of a filter: steps, memory and depth.
//!
//! jaq has no bounds of its own. Each step of its interpreter asks for the program ([`super::filter`]), and each
//! operation on values is one of [`super::value`]: both are counted here, deterministically, so that the same body
//! is refused on every machine. A run that exceeds a bound ends at once: it unwinds to [`run`] without the panic hook,
//! as salsa's cancelled queries do, which frees all that it held. This needs `panic = "unwind"`, the default.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A bound that a filter exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bound {
    /// Steps of the interpreter, and parts of 64 bytes that an operation reads or writes.
    #[error("the filter takes more than {0} steps")]
    Steps(u64),
    /// Bytes of all values that are made.
    #[error("the filter makes more than {0} bytes of values")]
    Memory(u64),
    /// Nested calls, by the bytes of stack that they take.
    #[error("the filter calls deeper than {MAX_STACK} bytes of stack")]
    Calls,
    /// Nested arrays and objects of a value.
    #[error("the filter makes a value that nests deeper than {} levels", MAX_DEPTH)]
    Depth,
    /// Events of a body.
    #[error("the filter makes more than {0} events")]
    Outputs(usize),
}

/// Bounds of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub steps: u64,
    pub bytes: u64,
}

/// Deepest nesting of a value.
pub(super) const MAX_DEPTH: u16 = 128;

/// Steps that every run may take.
const STEPS: u64 = 100_000;

/// Steps for each byte of the body beside these. Filters of real platforms take about one step in five bytes.
const STEPS_PER_BYTE: u64 = 4;

/// Bytes of values that every run may make.
const BYTES: u64 = 8 * 1024 * 1024;

/// Bytes of values for each byte of the body beside these.
const BYTES_PER_BYTE: u64 = 32;

/// Bytes of stack that a run may take; threads have 2 MiB by default.
const MAX_STACK: usize = 384 * 1024;

/// Bytes that an operation reads or writes in one step.
pub(super) const BYTES_PER_STEP: usize = 64;

impl Limits {
    /// Bounds of a run on a body of so many bytes.
    pub fn for_body(bytes: usize) -> Self {
        let bytes = bytes as u64;
        Self { steps: STEPS + STEPS_PER_BYTE * bytes, bytes: BYTES + BYTES_PER_BYTE * bytes }
    }
}

struct Meter {
    limits: Cell<Option<Limits>>,
    steps: Cell<u64>,
    bytes: Cell<u64>,
    /// Address on the stack at the start.
    stack: Cell<usize>,
}

thread_local! {
    /// The meter of the run on this thread; without one nothing is counted.
    static METER: Meter = const {
        Meter { limits: Cell::new(None), steps: Cell::new(0), bytes: Cell::new(0), stack: Cell::new(0) }
    };
}

fn stack_address() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(&here).addr()
}

/// Runs `work` within bounds. The error names the bound that it exceeded.
pub(super) fn run<T>(limits: Limits, work: impl FnOnce() -> T) -> Result<T, Bound> {
    METER.with(|meter| {
        meter.limits.set(Some(limits));
        meter.steps.set(limits.steps);
        meter.bytes.set(limits.bytes);
        meter.stack.set(stack_address());
    });
    let ended = catch_unwind(AssertUnwindSafe(work));
    METER.with(|meter| meter.limits.set(None));
    ended.map_err(|payload| match payload.downcast::<Bound>() {
        Ok(bound) => *bound,
        Err(panic) => resume_unwind(panic),
    })
}

/// Ends the run of this thread, if there is one.
pub(super) fn exceeded(bound: Bound) {
    if METER.with(|meter| meter.limits.get().is_some()) {
        resume_unwind(Box::new(bound));
    }
}

/// Counts one step of the interpreter, and looks at the depth of its calls.
pub(super) fn step() {
    take_steps(1);
    let deep = METER.with(|meter| {
        meter.limits.get().is_some() && meter.stack.get().abs_diff(stack_address()) > MAX_STACK
    });
    if deep {
        exceeded(Bound::Calls);
    }
}

/// Counts an operation that reads so many bytes.
pub(super) fn read(bytes: usize) {
    if bytes >= BYTES_PER_STEP {
        take_steps((bytes / BYTES_PER_STEP) as u64);
    }
}

/// Counts an operation that makes so many bytes, before it makes them.
pub(super) fn make(bytes: usize) {
    read(bytes);
    let out = METER.with(|meter| {
        let limits = meter.limits.get()?;
        match meter.bytes.get().checked_sub(bytes as u64) {
            Some(left) => meter.bytes.set(left),
            None => return Some(limits.bytes),
        }
        None
    });
    if let Some(limit) = out {
        exceeded(Bound::Memory(limit));
    }
}

fn take_steps(steps: u64) {
    let out = METER.with(|meter| {
        let limits = meter.limits.get()?;
        match meter.steps.get().checked_sub(steps) {
            Some(left) => meter.steps.set(left),
            None => return Some(limits.steps),
        }
        None
    });
    if let Some(limit) = out {
        exceeded(Bound::Steps(limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_at_its_bounds_and_the_next_one_begins_anew() {
        let limits = Limits { steps: 10, bytes: 1_000 };
        for _ in 0..2 {
            assert_eq!(run(limits, || (0..10).for_each(|_| step())), Ok(()));
            assert_eq!(run(limits, || (0..11).for_each(|_| step())), Err(Bound::Steps(10)));
            assert_eq!(run(limits, || make(600)), Ok(()), "nine steps");
            assert_eq!(run(limits, || read(64 * 11)), Err(Bound::Steps(10)));
            let more = Limits { steps: 1_000, bytes: 1_000 };
            assert_eq!(run(more, || make(1_001)), Err(Bound::Memory(1_000)));
        }
        (0..1_000).for_each(|_| step());
    }

    #[test]
    fn a_panic_of_another_kind_goes_on() {
        let panicked =
            catch_unwind(|| run(Limits { steps: 1, bytes: 1 }, || resume_unwind(Box::new("other"))));
        assert!(panicked.is_err_and(|payload| payload.downcast_ref::<&str>() == Some(&"other")));
    }
}
