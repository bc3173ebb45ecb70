//! Stages of the funnel.

use std::fmt;

use serde::de::{Deserialize, Deserializer};

use super::codes::{Code, Named, read_named};

/// All stages; a [`FunnelStage`] is a position in here.
const STAGES: [Code; 2] = [Code { number: 10, name: "top" }, Code { number: 11, name: "bottom" }];

/// A stage of the funnel in which an event lies: a handle to an entry of the code table of stages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunnelStage(u8);

impl FunnelStage {
    /// The top: views, likes, shares.
    pub const TOP: Self = Self(0);
    /// The bottom: clicks, forms, purchases.
    pub const BOTTOM: Self = Self(1);

    /// Every stage, the top first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        [Self::TOP, Self::BOTTOM].into_iter()
    }

    /// The stage and its number.
    pub const fn entry(self) -> Code {
        STAGES[self.0 as usize]
    }

    /// The name as publishers send it.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// The number that rows keep.
    pub const fn code(self) -> i16 {
        self.entry().number
    }

    /// The stage of this number.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::all().find(|stage| stage.code() == code)
    }

    /// The stage of this name, compared exactly.
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().find(|stage| stage.name() == name)
    }
}

impl Named for FunnelStage {
    fn names() -> Vec<&'static str> {
        Self::all().map(Self::name).collect()
    }

    fn parse(name: &str) -> Option<Self> {
        Self::parse(name)
    }
}

impl<'de> Deserialize<'de> for FunnelStage {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        read_named(de)
    }
}

impl fmt::Display for FunnelStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for FunnelStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
