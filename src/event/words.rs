//! The words of the contract, each with one number for ever.
//!
//! Rows keep the number (two bytes) and the `words` table keeps the word, so a value such as
//! `checkout.complete` is stored once. Numbers are unique over all columns and sources:
//! 1 to 9 sources, 10 to 19 funnel stages, and a block of a hundred for each source's own words.

/// A word of the contract and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// The number that rows keep.
    pub code: i16,
    /// The word as publishers send it.
    pub text: &'static str,
}

/// Declares a closed set of words as an enum: `Name { Variant = code => "word" }`.
///
/// The enum reads from JSON by exact comparison and names what is allowed when it refuses.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal => $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $(#[doc = concat!("`", $text, "`")] $variant),+ }

        impl $name {
            /// Every word of the set.
            #[allow(dead_code, reason = "not every set is listed")]
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// Every word of the set with its number.
            pub const WORDS: &'static [$crate::event::Word] =
                &[$($crate::event::Word { code: $code, text: $text }),+];
            const TEXTS: &'static [&'static str] = &[$($text),+];

            /// The number that rows keep.
            pub const fn code(self) -> i16 {
                match self { $(Self::$variant => $code),+ }
            }

            /// The word as publishers send it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The member of the set that is written so, compared exactly.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                struct Visit;
                impl serde::de::Visitor<'_> for Visit {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        write!(f, "one of {}", $name::TEXTS.join(", "))
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::parse(text).ok_or_else(|| {
                            E::custom(format_args!("must be one of {}", $name::TEXTS.join(", ")))
                        })
                    }
                }
                de.deserialize_str(Visit)
            }
        }
    };
}
pub(crate) use words;
