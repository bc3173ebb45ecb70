//! Names of sources and of types, as events may hold them.

/// True for a name of a source: a letter of a-z, then up to 31 of a-z, 0-9 and `_`.
pub(in crate::source) fn is_source_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
    begins && name.len() <= 32 && name.bytes().all(plain)
}

/// True for a name of a type: up to 64 of a-z, 0-9, `.`, `_` and `-`, the first a letter or a digit.
pub(in crate::source) fn is_type_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let begins =
        name.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit());
    begins && name.len() <= 64 && name.bytes().all(plain)
}
