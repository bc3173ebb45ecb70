//! HTTP and telemetry that every service has: health, readiness, metrics, actors, problems, logs and traces.

mod chunks;
mod connections;
mod files;
mod head;
pub mod http;
mod linger;
mod listen;
pub mod logs;
pub mod metrics;
pub mod openapi;
mod origin;
mod problem;
mod readiness;
mod resources;
mod sampler;
mod service_routes;
mod stream;
pub mod tls;
mod tokens;
pub mod trace;
mod view;

pub use connections::left;
pub use files::raise_open_files;
pub use origin::{CORRELATION_HEADER, TRACE_HEADER, origin_of, trace_id};
pub use readiness::{Away, Readiness};
pub use sampler::Sampler;
