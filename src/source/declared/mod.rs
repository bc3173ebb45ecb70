//! Sources that a file declares.
//!
//! ```text
//! file ─parse─▶ Declared, or every mistake with its line
//! request ─▶ challenge: the platform asks who we are
//!         ─▶ verify: signature or secret, over the bytes on the wire
//!         ─▶ events: accept ▶ filter (jq) ▶ schema ▶ map ▶ canonical events and refusals
//! ```
//!
//! Files come from the operator, bodies from anyone: a run of a filter has bounds ([`Bound`]) that no body exceeds.

mod body;
mod budget;
mod builtins;
mod challenge;
mod decimal;
mod draft;
mod event;
mod example;
mod example_request;
mod fault;
mod file;
mod filter;
mod folder;
mod functions;
mod hmac_key;
mod indexing;
mod json;
mod judge;
mod kinds;
mod leaf;
mod map;
mod operations;
mod origin;
mod pointer;
mod prelude;
mod privacy;
mod program;
mod reader;
mod reason;
mod request;
mod run;
mod schema;
mod secrets;
mod served;
mod shown;
mod sign;
mod signature;
mod template;
mod time;
mod unsigned;
mod unverified;
mod value;
mod verify;
mod yaml;

pub use budget::Bound;
pub use challenge::Reply;
pub use draft::Draft;
pub use event::{Outcome, Refused, RefusedBody};
pub use example_request::ExampleRequest;
pub use fault::Fault;
pub use file::{Accept, Answer, Declared};
pub use folder::{FolderError, files_of, read_files};
pub use leaf::Serial;
pub use pointer::Pointer;
pub use privacy::Privacy;
pub use request::{Method, Request};
pub use run::Failure;
pub use secrets::{SecretName, Secrets};
pub use served::{ServeError, Served, serve};
pub use unsigned::Unsigned;
pub use unverified::Unverified;
pub use verify::Subject;

#[cfg(test)]
mod tests;
