//! Origin of the POSTs: generated events of built-in sources, or requests of a declared one.

use awc::http::Method;

use super::examples::Examples;
use super::generate::Generator;
use crate::source::declared::{self, Unsigned};

/// Fraction of POSTs with an extra, corrupted event, as the real publisher sends them.
const CORRUPTED_POSTS: f64 = 0.1;

/// Origin of the POSTs.
#[derive(Debug)]
pub enum Feed {
    /// Events of built-in sources, one alone or in arrays.
    Generated(Box<Generator>),
    /// Requests of a declared source to its own path.
    Examples(Box<Examples>),
}

/// One request to send.
#[derive(Debug)]
pub(super) struct Post {
    pub method: Method,
    /// Text after the question mark of the URL.
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Number of its events.
    pub events: u64,
    /// True if it goes to a declared source's own path, whose answers the source's file chooses.
    pub is_declared: bool,
}

impl Feed {
    /// The next request; generated ones have a number of events of this range, and `corrupt` says if one in ten has an extra,
    /// corrupted event.
    ///
    /// # Errors
    ///
    /// If it cannot be signed.
    pub(super) fn next(&mut self, sizes: (usize, usize), corrupt: bool) -> Result<Post, Unsigned> {
        match self {
            Self::Generated(generator) => {
                let size = generator.size(sizes);
                let extra = corrupt && generator.chance(CORRUPTED_POSTS);
                let (body, events) = body(generator, size, extra);
                Ok(Post {
                    method: Method::POST,
                    query: String::new(),
                    headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
                    body: body.into_bytes(),
                    events,
                    is_declared: false,
                })
            }
            Self::Examples(examples) => {
                let (draft, events) = examples.request()?;
                let method = match draft.method {
                    declared::Method::Get => Method::GET,
                    declared::Method::Post => Method::POST,
                };
                let (query, headers, body) = (draft.query, draft.headers, draft.body);
                Ok(Post { method, query, headers, body, events, is_declared: true })
            }
        }
    }
}

/// The body of one POST, and its number of events.
fn body(generator: &mut Generator, size: usize, extra: bool) -> (String, u64) {
    if size == 1 && !extra {
        return (generator.event(), 1);
    }
    let mut body = generator.batch(size);
    if extra {
        body.pop();
        body.push(',');
        body.push_str(&generator.corrupted());
        body.push(']');
    }
    (body, (size + usize::from(extra)) as u64)
}
