//! HTTP and telemetry that every service has: health, readiness, metrics, actors, problems, logs and traces.

mod chunks;
mod connections;
mod files;
mod head;
pub mod http;
mod listen;
pub mod logs;
pub mod metrics;
pub mod openapi;
mod origin;
mod problem;
mod readiness;
mod sampler;
mod stream;
pub mod tls;
pub mod trace;

pub use connections::left;
pub use files::raise_open_files;
pub use origin::{CORRELATION_HEADER, TRACE_HEADER, origin_of, trace_id};
pub use readiness::{Away, Readiness};
pub use sampler::Sampler;
