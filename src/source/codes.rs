//! Code tables: closed sets of names, each name with one number for ever.
//!
//! Rows keep the number (two bytes), and the table `words` keeps the name, so a value such as `checkout.complete` is
//! stored once. Numbers are unique over all columns and sources: 1 to 9 for sources, 10 to 19 for funnel stages, and a
//! block of a hundred for each source's own tables.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, Visitor};

/// An entry of a code table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The number that rows keep.
    pub number: i16,
    /// The name as publishers send it.
    pub name: &'static str,
}

/// A name with a capital letter at its beginning.
pub(crate) fn capitalized(name: &str) -> String {
    let (first, rest) = name.split_at(name.len().min(1));
    first.to_ascii_uppercase() + rest
}

/// A closed set of names that is read from JSON by exact comparison.
pub(super) trait Named: Copy {
    /// All names, for the error of one that is not allowed.
    fn names() -> Vec<&'static str>;
    /// The member of this name, compared exactly.
    fn parse(name: &str) -> Option<Self>;
    /// The error of a name that is not allowed.
    fn not_allowed(_name: &str) -> String {
        format!("must be one of {}", Self::names().join(", "))
    }
}

/// Reads a member of a closed set; the error lists the allowed names.
pub(super) fn read_named<'de, D: Deserializer<'de>, T: Named>(de: D) -> Result<T, D::Error> {
    struct Visit<T>(PhantomData<T>);
    impl<T: Named> Visitor<'_> for Visit<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "one of {}", T::names().join(", "))
        }
        fn visit_str<E: Error>(self, name: &str) -> Result<T, E> {
            T::parse(name).ok_or_else(|| E::custom(T::not_allowed(name)))
        }
    }
    de.deserialize_str(Visit(PhantomData))
}

/// Declares a code table as an enum: `Name { Variant = number => "name" }`.
macro_rules! code_table {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal => $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum $name { $(#[doc = concat!("`", $text, "`")] $variant),+ }

        impl $name {
            /// The whole table.
            pub const CODES: &'static [$crate::source::Code] =
                &[$($crate::source::Code { number: $number, name: $text }),+];

            /// The number that rows keep.
            pub const fn number(self) -> i16 {
                match self { $(Self::$variant => $number),+ }
            }
        }

        impl $crate::source::codes::Named for $name {
            fn names() -> Vec<&'static str> {
                vec![$($text),+]
            }

            fn parse(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                $crate::source::codes::read_named(de)
            }
        }
    };
}
pub(super) use code_table;
