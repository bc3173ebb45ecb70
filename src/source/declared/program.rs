//! The types of a run, as jaq asks for them.

use jaq_core::data::HasLut;
use jaq_core::{DataT, Lut};

use super::budget;
use super::value::Value;

/// Types of a run: values of ours, and a program whose steps are counted.
pub(super) struct Data;

impl DataT for Data {
    type V<'a> = Value;
    type Data<'a> = Counted<'a>;
}

/// A program. The interpreter asks for it at each step.
#[derive(Clone, Copy)]
pub(super) struct Counted<'a>(pub(super) &'a Lut<Data>);

impl<'a> HasLut<'a, Data> for Counted<'a> {
    fn lut(&self) -> &'a Lut<Data> {
        budget::step();
        self.0
    }
}
