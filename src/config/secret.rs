//! What no output shows, and what is shown in its place.

use std::fmt;

/// A secret, which no output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A bearer token, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The name in logs and metrics.
    pub name: String,
    /// The token itself.
    pub secret: Secret,
}

/// The longest name of a token, in characters.
const MAX_NAME: usize = 64;

/// Tokens, comma-separated, each as `TOKEN` or `NAME:TOKEN`. One without a name is called by its place. The error
/// says which is empty: an empty one would be asked of nobody.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let is_name = |text: &str| {
        (1..=MAX_NAME).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let named = |name: String, token: &str| match sendable(token) {
        Ok(()) => Ok(Token { name, secret: Secret(token.to_owned()) }),
        Err(why) => Err(format!("{name}: {why}")),
    };
    let token = |(place, part): (usize, &str)| match part.split_once(':') {
        Some((name, token)) if is_name(name) && token.trim().is_empty() => {
            Err(format!("the token of {name} is empty"))
        }
        Some((name, token)) if is_name(name) => named(name.to_owned(), token.trim()),
        _ => named(format!("token-{}", place + 1), part),
    };
    parts(text)?.into_iter().enumerate().map(token).collect()
}

/// A bearer token must be one that a request's header can carry.
pub(super) fn sendable(token: &str) -> Result<(), String> {
    if token.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(());
    }
    Err("a token may hold printable ASCII characters alone: no header carries line breaks or other letters"
        .to_owned())
}

/// Secrets, comma-separated. The error says that one is empty.
pub(super) fn secrets(text: &str) -> Result<Vec<Secret>, String> {
    Ok(parts(text)?.into_iter().map(|part| Secret(part.to_owned())).collect())
}

/// What stands between commas; nothing, if nothing is set.
fn parts(text: &str) -> Result<Vec<&str>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    match parts.iter().position(|part| part.is_empty()) {
        Some(place) => Err(format!("number {} of the list is empty", place + 1)),
        None => Ok(parts),
    }
}

/// URLs, comma-separated, without passwords and tokens: of what stands before the host only a user's name
/// is shown, of what stands behind the path nothing.
pub fn hide_password(urls: &str) -> String {
    let hide = |url: &str| {
        let url = url.split('?').next().unwrap_or_default();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        match rest.rsplit_once('@') {
            Some((user, host)) => {
                let user = user.split_once(':').map_or("", |(user, _)| user);
                format!("{scheme}://{user}:***@{host}")
            }
            None => url.to_owned(),
        }
    };
    // A comma begins another server only if a scheme follows it; else it is part of a password.
    let mut parts: Vec<String> = Vec::new();
    for part in urls.split(',') {
        match parts.last_mut() {
            Some(last) if !part.contains("://") => {
                last.push(',');
                last.push_str(part);
            }
            _ => parts.push(part.to_owned()),
        }
    }
    parts.iter().map(|url| hide(url)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_a_name() {
        let found: Vec<(String, String)> = tokens("abc, acme:t0k==,a b:c,:d")
            .unwrap()
            .into_iter()
            .map(|token| (token.name, token.secret.expose().to_owned()))
            .collect();
        let expected = [
            ("token-1", "abc"),
            ("acme", "t0k=="),
            // No names: tokens that have a colon.
            ("token-3", "a b:c"),
            ("token-4", ":d"),
        ];
        assert_eq!(found, expected.map(|(name, token)| (name.to_owned(), token.to_owned())));
    }

    #[test]
    fn an_empty_one_is_refused() {
        for text in [",", "a,", ",a", "acme:", "a, ,b"] {
            assert!(tokens(text).is_err(), "{text}");
        }
        assert!(secrets("a,,b").is_err());
        assert_eq!((tokens(""), secrets("")), (Ok(vec![]), Ok(vec![])));
    }
}
