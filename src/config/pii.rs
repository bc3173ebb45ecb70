//! Treatment of personal data.

use super::error::ConfigError;
use super::variables::Variables;
use crate::source::Secret;

/// Treatment of personal data before events are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pii {
    /// Personal data is stored as it was sent.
    Keep,
    /// Names, user names and user ids are hashed with this key.
    Hash(Secret),
    /// Names and user names are removed; user ids are hashed with this key.
    Drop(Secret),
}

/// The shortest key under which user ids are hashed, in characters.
const MIN_KEY: usize = 16;

impl Pii {
    pub(super) fn read(variables: &Variables) -> Result<Self, ConfigError> {
        let with_key = variables.parsed("ESS_PII", "keep, hash or drop", |text| match text {
            "keep" => Some(None),
            "hash" => Some(Some(Self::Hash as fn(Secret) -> Self)),
            "drop" => Some(Some(Self::Drop as fn(Secret) -> Self)),
            _ => None,
        })?;
        let Some(with_key) = with_key else { return Ok(Self::Keep) };
        match variables.secret("ESS_PII_KEY") {
            Some(key) if key.expose().chars().count() >= MIN_KEY => Ok(with_key(key)),
            // The configuration is read again when the key's file is there.
            None if variables.missing.iter().any(|error| error.name == "ESS_PII_KEY_FILE") => Ok(Self::Keep),
            _ => {
                let allowed = format!("have at least {MIN_KEY} characters where ESS_PII is hash or drop");
                Err(ConfigError::secret_not_allowed("ESS_PII_KEY", allowed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refused, validate};

    #[test]
    fn personal_data_is_hashed_under_a_key_that_is_long_enough() {
        refused("ESS_PII", "burn");
        for mode in ["hash", "drop"] {
            for key in ["", "fifteen letters"] {
                let error = validate(&[("ESS_PII", mode), ("ESS_PII_KEY", key)]).unwrap_err();
                assert_eq!(error.name, "ESS_PII_KEY");
            }
            assert!(validate(&[("ESS_PII", mode), ("ESS_PII_KEY", "0123456789abcdef")]).is_ok());
        }
    }
}
