//! Answers of the routes: a response, or a problem that is sent in its place.

use actix_web::{HttpRequest, HttpResponse};
use utoipa::IntoResponses;

use crate::ops::http::Problem;

/// The answer of a handler.
pub(super) type Answer = Result<HttpResponse, Problem>;

/// The response of an answer.
pub(super) fn answered(request: &HttpRequest, answer: Answer) -> HttpResponse {
    answer.unwrap_or_else(|problem| problem.respond(request))
}

/// Error responses that all routes have in common.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "declared for the description only")]
pub(super) enum Refused {
    /// A parameter is unknown, repeated or invalid; the problem names it
    #[response(status = 400)]
    Parameter,
    /// The token is missing or wrong
    #[response(status = 401)]
    Token,
    /// Too many requests at one time, or the database is unavailable: try again later
    #[response(status = 503)]
    Away,
}
