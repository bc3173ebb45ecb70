//! Encoding of `body` columns: one byte of version, then postcard.
//!
//! A new version of an encoding comes with a migration. So a version that this program does not know is damage, unless a
//! newer program has migrated the database: see [`super::damaged`].
//!
//! Amounts of one currency name none: column `currency` of the row has it. Amounts of several are followed by a list of
//! their currencies, under a version of its own.

use serde::{Deserialize, Serialize};

use crate::store::error::StoreError;

/// An encoded body, and the column `currency` of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Currency of all amounts; 0 if there are none, or if the body names their currencies.
    pub currency: i16,
    pub body: Vec<u8>,
}

/// Encodes a value under the version for one currency, or for several with their list. `currencies` has that of each
/// amount, in the order in which the value has them.
pub(super) fn encode_amounts<T: Serialize>(
    value: &T,
    currencies: impl Iterator<Item = i16> + Clone,
    (one, several): (u8, u8),
    size: usize,
) -> Result<Encoded, StoreError> {
    let currency = currencies.clone().next().unwrap_or(0);
    if currencies.clone().all(|other| other == currency) {
        return Ok(Encoded { currency, body: encode(value, one, size)? });
    }
    let list: Vec<i16> = currencies.collect();
    let size = size + 2 * list.len();
    Ok(Encoded { currency: 0, body: encode(&(value, list), several, size)? })
}

/// Gives amounts their currencies.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if there is not one for each.
pub(super) fn assign_currencies<'a>(
    amounts: impl Iterator<Item = &'a mut i16>,
    list: Vec<i16>,
) -> Result<(), StoreError> {
    let mut list = list.into_iter();
    for amount in amounts {
        *amount = list.next().ok_or_else(|| StoreError::corrupt("an amount has no currency"))?;
    }
    match list.next() {
        None => Ok(()),
        Some(_) => Err(StoreError::corrupt("it has more currencies than amounts")),
    }
}

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
/// [`StoreError::Corrupt`] if the body cannot be decoded.
pub(super) fn decode<'b, T: Deserialize<'b>>(body: &'b [u8], version: u8) -> Result<T, StoreError> {
    let Some((found, rest)) = body.split_first() else {
        return Err(StoreError::corrupt("its body is empty"));
    };
    if *found != version {
        return Err(StoreError::corrupt(format!("its version is {found}, which this program does not know")));
    }
    match postcard::take_from_bytes(rest) {
        Ok((value, [])) => Ok(value),
        Ok((_, left)) => Err(StoreError::corrupt(format!("{} bytes follow its end", left.len()))),
        Err(error) => Err(StoreError::corrupt(format!("its body cannot be decoded: {error}")).because(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_but_an_encoded_one_of_the_version_is_corrupt() {
        let body = encode(&(7_u64, "text"), 3, 16).unwrap();
        assert_eq!(body, [3, 7, 4, b't', b'e', b'x', b't']);
        assert_eq!(decode::<(u64, &str)>(&body, 3).unwrap(), (7, "text"));
        let versions = (0..=u8::MAX).filter(|version| *version != 3);
        let of_versions = versions.map(|version| [&[version], &body[1..]].concat());
        let cut = (0..body.len()).map(|length| body[..length].to_vec());
        let longer = [body.as_slice(), &[0]].concat();
        let mut tried = 0;
        for corrupt in of_versions.chain(cut).chain([longer]) {
            let found = decode::<(u64, &str)>(&corrupt, 3);
            assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{corrupt:?}: {found:?}");
            tried += 1;
        }
        assert_eq!(tried, 255 + 7 + 1);
    }
}
