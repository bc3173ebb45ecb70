//! Encoding of `body` columns: one byte of version, then postcard.

use serde::{Deserialize, Serialize};

use crate::store::error::StoreError;

/// Lowest number that no version has: such a first byte means that the body is corrupt.
const VERSIONS_END: u8 = 64;

/// Encodes a value; `size` is its approximate encoded size in bytes.
pub(super) fn encode<T: Serialize>(value: &T, version: u8, size: usize) -> Result<Vec<u8>, StoreError> {
    let mut body = Vec::with_capacity(size);
    body.push(version);
    postcard::to_extend(value, body)
        .map_err(|error| StoreError::internal("encoding a summary failed").because(error))
}

/// Decodes a value of a version.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if the body cannot be decoded, [`StoreError::Schema`] if a newer program wrote it.
pub(super) fn decode<'b, T: Deserialize<'b>>(body: &'b [u8], version: u8) -> Result<T, StoreError> {
    match body.split_first() {
        Some((found, rest)) if *found == version => postcard::from_bytes(rest).map_err(|error| {
            StoreError::corrupt(format!("its body cannot be decoded: {error}")).because(error)
        }),
        Some((0 | VERSIONS_END.., _)) => Err(StoreError::corrupt("its body has no version")),
        Some((version, _)) => Err(StoreError::schema(format!(
            "a summary has version {version}, which this program does not know"
        ))),
        None => Err(StoreError::corrupt("its body is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_told_apart_from_a_corrupt_body() {
        let body = encode(&(7_u64, "text"), 3, 16).unwrap();
        assert_eq!(body, [3, 7, 4, b't', b'e', b'x', b't']);
        assert_eq!(decode::<(u64, &str)>(&body, 3).unwrap(), (7, "text"));
        assert!(matches!(decode::<u64>(&[4, 7], 3), Err(StoreError::Schema { .. })), "a newer version");
        for corrupt in [&[][..], &[0, 7], &[64, 7], &[255, 7], &[3], &[3, 7, 9, b't']] {
            let found = decode::<(u64, &str)>(corrupt, 3);
            assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{corrupt:?}: {found:?}");
        }
    }
}
