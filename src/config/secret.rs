//! Tokens, and lists of tokens and secrets.

use super::error::ListError;
use crate::source::Secret;

/// A bearer token and its owner's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Name in logs and metrics.
    pub name: String,
    /// The token itself.
    pub secret: Secret,
}

/// The longest name of a token, in characters.
const MAX_NAME: usize = 64;

/// Reads comma-separated tokens, each `TOKEN` or `NAME:TOKEN`. A token without a name is named by its position.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ListError> {
    let is_name = |text: &str| {
        (1..=MAX_NAME).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let token = |(index, element): (usize, &str)| {
        let (name, token) = match element.split_once(':') {
            Some((name, token)) if is_name(name) => (name.to_owned(), token.trim()),
            _ => (format!("token-{}", index + 1), element),
        };
        if token.is_empty() {
            return Err(ListError::NoToken(name));
        }
        check_token(&format!("the token {name}"), token)?;
        Ok(Token { name, secret: token.to_owned().into() })
    };
    elements(text)?.into_iter().enumerate().map(token).collect()
}

/// Checks that a request's header can carry a token. `what` names the token in the error.
pub(super) fn check_token(what: &str, token: &str) -> Result<(), ListError> {
    if token.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(());
    }
    Err(ListError::NotAscii(what.to_owned()))
}

/// Reads comma-separated secrets.
pub(super) fn secrets(text: &str) -> Result<Vec<Secret>, ListError> {
    Ok(elements(text)?.into_iter().map(|element| element.to_owned().into()).collect())
}

/// Elements of a comma-separated list; none if the text is empty.
fn elements(text: &str) -> Result<Vec<&str>, ListError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let elements: Vec<&str> = text.split(',').map(str::trim).collect();
    match elements.iter().position(|element| element.is_empty()) {
        Some(index) => Err(ListError::Empty(index + 1)),
        None => Ok(elements),
    }
}

/// Comma-separated URLs without passwords and tokens: the user's name, host and path are left.
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
    // A comma separates two servers only if a scheme follows it; otherwise it is part of a password.
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
    fn a_token_is_named_by_its_prefix_or_its_position() {
        let found: Vec<(String, String)> = tokens("abc, acme:t0k==,a b:c,:d")
            .unwrap()
            .into_iter()
            .map(|token| (token.name, token.secret.expose().to_owned()))
            .collect();
        let expected = [
            ("token-1", "abc"),
            ("acme", "t0k=="),
            // Tokens that contain a colon after something that is no name.
            ("token-3", "a b:c"),
            ("token-4", ":d"),
        ];
        assert_eq!(found, expected.map(|(name, token)| (name.to_owned(), token.to_owned())));
    }

    #[test]
    fn an_empty_element_is_refused() {
        for (text, error) in [
            (",", ListError::Empty(1)),
            ("a,", ListError::Empty(2)),
            (",a", ListError::Empty(1)),
            ("a, ,b", ListError::Empty(2)),
            ("acme:", ListError::NoToken("acme".to_owned())),
        ] {
            assert_eq!(tokens(text), Err(error), "{text}");
        }
        assert_eq!(secrets("a,,b"), Err(ListError::Empty(2)));
        assert_eq!((tokens(""), secrets("")), (Ok(vec![]), Ok(vec![])));
    }

    #[test]
    fn passwords_of_urls_are_hidden_in_lists_too() {
        for (urls, shown) in [
            ("nats://a:4222", "nats://a:4222"),
            ("nats://u:p,w@a,nats://b", "nats://u:***@a,nats://b"),
            ("postgres://u@h/db?password=p", "postgres://:***@h/db"),
        ] {
            assert_eq!(hide_password(urls), shown);
        }
    }
}
