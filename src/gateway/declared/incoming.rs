//! A request to the path of a declared source.

use std::sync::Arc;

use actix_web::HttpRequest;
use bytes::Bytes;

use crate::source::declared::{Accept, Method, Request, Served};

/// A request to the path of a declared source, with its body.
#[derive(Clone)]
pub(in crate::gateway) struct Incoming {
    pub served: Arc<Served>,
    method: Method,
    headers: Arc<Vec<(String, String)>>,
    query: Arc<str>,
    /// As it is on the wire, or decompressed.
    pub body: Bytes,
    /// Arrival, in microseconds since 1970.
    pub received: i64,
}

impl Incoming {
    /// The head of a request. Values of headers that are no text are left out.
    pub fn new(request: &HttpRequest, served: &Arc<Served>, method: Method, received: i64) -> Self {
        let headers = request.headers().iter();
        let headers = headers
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
        Self {
            served: served.clone(),
            method,
            headers: Arc::new(headers.collect()),
            query: request.query_string().into(),
            body: Bytes::new(),
            received,
        }
    }

    /// The request with this body.
    pub fn with_body(&self, body: Bytes) -> Self {
        Self { body, ..self.clone() }
    }

    /// Calls `run` with the request in the form of the source's file.
    pub fn with_request<T>(&self, run: impl FnOnce(&Request<'_>) -> T) -> T {
        let headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        run(&Request {
            method: self.method,
            headers: &headers,
            query: &self.query,
            body: &self.body,
            received: self.received,
        })
    }

    /// True if each element of the body is an event by itself.
    pub fn takes_elements(&self) -> bool {
        let is_empty = self.body.iter().all(u8::is_ascii_whitespace);
        let is_json = || self.with_request(|request| self.served.file.media(request)) == Ok(Accept::Json);
        self.method == Method::Post && !is_empty && self.served.file.takes_elements() && is_json()
    }

    /// Bytes of events that the request holds.
    pub fn len(&self) -> usize {
        self.body.len() + self.query.len()
    }
}
