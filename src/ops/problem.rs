//! Error answers in the problem format of RFC 9457.

use std::fmt::Write;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use serde_json::Value;
use utoipa::ToSchema;

use super::origin::origin_of;
use crate::log::Origin;

/// The media type of problems.
pub(super) const PROBLEM_TYPE: &str = "application/problem+json";

/// An error answer that is being built.
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// Further members of the body: name, and value as JSON.
    members: Vec<(String, String)>,
    retry_after: Option<Duration>,
    close: bool,
}

impl Problem {
    /// A problem with a status and a sentence for `detail`.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), members: Vec::new(), retry_after: None, close: false }
    }

    /// Adds a member to the body.
    #[must_use]
    pub fn with(self, name: &str, value: impl Into<Value>) -> Self {
        self.with_json(name, value.into().to_string())
    }

    /// Adds a member whose value is JSON text already.
    #[must_use]
    pub fn with_json(mut self, name: &str, json: String) -> Self {
        self.members.push((name.to_owned(), json));
        self
    }

    /// Adds `Retry-After`, in whole seconds, at least 1.
    #[must_use]
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// Closes the connection after the answer; the rest of the request is not read.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Builds the answer to a request.
    pub fn respond(self, request: &HttpRequest) -> HttpResponse {
        let origin = origin(request);
        self.respond_to(&origin)
    }

    /// Builds the answer with the correlation id of `origin`.
    pub fn respond_to(self, origin: &Origin) -> HttpResponse {
        let bytes = self.members.iter().map(|(name, json)| name.len() + json.len() + 4).sum::<usize>();
        let mut body = String::with_capacity(512 + self.detail.len() + bytes);
        let title = self.status.canonical_reason().unwrap_or("Problem");
        let first: [(&str, Value); 5] = [
            ("type", "about:blank".into()),
            ("title", title.into()),
            ("status", self.status.as_u16().into()),
            ("detail", self.detail.into()),
            ("correlationId", origin.correlation_id.as_str().into()),
        ];
        for (name, value) in first {
            // Writing to a string does not fail.
            let _ = write!(body, "{}\"{name}\":{value}", if body.is_empty() { '{' } else { ',' });
        }
        for (name, json) in self.members {
            let _ = write!(body, ",{}:{json}", Value::from(name));
        }
        body.push('}');
        let mut response = HttpResponse::build(self.status);
        response.insert_header((header::CONTENT_TYPE, PROBLEM_TYPE));
        if let Some(time) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, time.as_secs().max(1).to_string()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if self.close {
            response.force_close();
        }
        response.body(body)
    }
}

/// The origin of a request; computed on its arrival and kept in the request's extensions.
pub fn origin(request: &HttpRequest) -> Origin {
    match request.extensions().get::<Origin>() {
        Some(origin) => origin.clone(),
        None => origin_of(request.headers()),
    }
}

/// Body of every answer with a status of 400 or more (RFC 9457).
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "only its OpenAPI schema is used")]
pub(super) struct ProblemShape {
    #[schema(rename = "type", example = "about:blank")]
    kind: String,
    #[schema(example = "Bad Request")]
    title: String,
    #[schema(example = 400)]
    status: u16,
    detail: String,
    #[schema(rename = "correlationId")]
    correlation_id: String,
}
