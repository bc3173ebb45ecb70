//! Secrets of a source, from the variables that its file names.

use std::collections::HashMap;

use super::reader::{Faults, Fields, text};
use crate::source::Secret;

/// Name of the variable that holds a secret, or several with commas between them while one is rotated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretName(pub(super) String);

impl SecretName {
    /// Reads the name; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let plain =
            text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        match text.strip_prefix("ESS_") {
            Some(rest) if plain && !rest.is_empty() => Ok(Self(text.to_owned())),
            _ => Err(
                "a secret is the name of a variable such as ESS_META_LEADS_SECRET, never the secret itself",
            ),
        }
    }

    /// The variable's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Values of the secrets that a source's file names.
#[derive(Debug, Clone, Default)]
pub struct Secrets(HashMap<SecretName, Vec<Secret>>);

impl Secrets {
    /// Takes the values from `lookup`, which returns a variable's value. The error names the variables that are not
    /// set or hold an empty part.
    pub fn load<'n>(
        names: impl IntoIterator<Item = &'n SecretName>,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<SecretName>> {
        let (mut values, mut missing) = (HashMap::new(), Vec::new());
        for name in names {
            let value = lookup(name.as_str()).unwrap_or_default();
            let parts: Vec<&str> = value.split(',').map(str::trim).collect();
            if parts.iter().any(|part| part.is_empty()) {
                missing.push(name.clone());
                continue;
            }
            values
                .insert(name.clone(), parts.into_iter().map(|part| Secret::from(part.to_owned())).collect());
        }
        if missing.is_empty() { Ok(Self(values)) } else { Err(missing) }
    }

    /// Values of a variable; none if it was not loaded.
    pub(super) fn of(&self, name: &SecretName) -> &[Secret] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

/// Reads the key `secret`.
pub(super) fn secret(fields: &Fields<'_>, faults: &mut Faults<'_>) -> Option<SecretName> {
    let node = fields.required("secret", faults)?;
    match SecretName::parse(text(node, faults)?) {
        Ok(name) => Some(name),
        Err(message) => {
            faults.add(node.place, message);
            None
        }
    }
}
