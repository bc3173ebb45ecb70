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

/// Tokens, comma-separated, each as `TOKEN` or `NAME:TOKEN`. One without a name is called by its place.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let is_name = |text: &str| {
        (1..=MAX_NAME).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    parts(text)
        .enumerate()
        .map(|(place, part)| match part.split_once(':') {
            Some((name, token)) if is_name(name) && !token.trim().is_empty() => {
                Token { name: name.to_owned(), secret: Secret(token.trim().to_owned()) }
            }
            _ => Token { name: format!("token-{}", place + 1), secret: Secret(part.to_owned()) },
        })
        .collect()
}

/// Secrets, comma-separated.
pub(super) fn secrets(text: &str) -> Vec<Secret> {
    parts(text).map(|part| Secret(part.to_owned())).collect()
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
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
        let found: Vec<(String, String)> = tokens("abc, acme:t0k==,a b:c,:d,,acme:")
            .into_iter()
            .map(|token| (token.name, token.secret.expose().to_owned()))
            .collect();
        let expected = [
            ("token-1", "abc"),
            ("acme", "t0k=="),
            // No names: tokens that have a colon.
            ("token-3", "a b:c"),
            ("token-4", ":d"),
            ("token-5", "acme:"),
        ];
        assert_eq!(found, expected.map(|(name, token)| (name.to_owned(), token.to_owned())));
    }
}
