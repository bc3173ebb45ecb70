//! Bearer tokens of requests.

use actix_web::HttpRequest;
use actix_web::http::{StatusCode, header};

use super::problem::Problem;
use super::view::ServiceView;
use crate::config::{Secret, Token};

/// The token of a request's `Authorization: Bearer` header.
fn bearer_token(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Index of a request's bearer token among `tokens`; compared in constant time.
pub fn token_index(request: &HttpRequest, tokens: &[Token]) -> Option<usize> {
    let token = bearer_token(request)?;
    // All tokens are compared, so that the time does not depend on the index.
    tokens.iter().enumerate().fold(None, |found, (index, known)| {
        let equal = constant_time_eq(token.as_bytes(), known.secret.expose().as_bytes());
        found.or(equal.then_some(index))
    })
}

/// Requires one of the tokens; without tokens every request passes.
///
/// # Errors
///
/// A problem with status 401 if the token is missing or unknown.
pub fn guard(request: &HttpRequest, tokens: &[Token]) -> Result<(), Problem> {
    if tokens.is_empty() || token_index(request, tokens).is_some() {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNAUTHORIZED, "a bearer token is required, and it is missing or wrong"))
}

/// Compares two secrets by their digests, so that the time does not depend on the first difference.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    use sha2::{Digest, Sha256};
    let (left, right) = (Sha256::digest(left), Sha256::digest(right));
    left.iter().zip(right.iter()).fold(0, |difference, (left, right)| difference | (left ^ right)) == 0
}

/// Requires the admin token; returns it.
///
/// # Errors
///
/// A problem with status 403 if no admin token is set, or 401 if the request has another one or none.
pub fn administers<'v>(request: &HttpRequest, view: &'v ServiceView) -> Result<&'v Secret, Problem> {
    let token = view.admin_token.as_ref().ok_or_else(|| {
        Problem::new(StatusCode::FORBIDDEN, "commands of operators are off: ESS_ADMIN_TOKEN is not set")
    })?;
    if bearer_token(request)
        .is_some_and(|shown| constant_time_eq(shown.as_bytes(), token.expose().as_bytes()))
    {
        return Ok(token);
    }
    Err(Problem::new(StatusCode::UNAUTHORIZED, "the admin token is missing or wrong"))
}
