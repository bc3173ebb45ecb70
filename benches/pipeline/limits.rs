//! The limits that a measurement is held against, taken in the same run.

use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use ess::publisher::generate::{Generator, Mix};
use serde_json::Value;

use crate::machine::Machine;
use crate::support::process::Process;
use crate::support::{MINUTE, eventually, free_port, http};

/// The argument with which this program serves the bare handler.
pub const BARE: &str = "--bare-handler";

/// An actix-web handler that parses an event and answers what the gateway would, and does nothing else.
pub fn serve_bare(port: u16) {
    async fn webhook(event: web::Json<Value>) -> HttpResponse {
        let accepted = usize::from(event.is_object());
        HttpResponse::Accepted().json(serde_json::json!({
            "accepted": accepted, "rejected": 0, "correlationId": "", "errors": [], "errorsTruncated": false
        }))
    }
    actix_web::rt::System::new()
        .block_on(async {
            HttpServer::new(|| {
                let health = web::get().to(|| async { HttpResponse::Ok().finish() });
                App::new().route("/webhook", web::post().to(webhook)).route("/health", health)
            })
            .workers(2)
            .bind(("127.0.0.1", port))?
            .run()
            .await
        })
        .unwrap();
}

/// The bare handler as a process of its own, and its webhook.
pub fn bare_handler(log: &std::path::Path) -> (Process, String) {
    let port = free_port();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([BARE, &port.to_string()]);
    let process = Process::spawn(command, log);
    let health = format!("http://127.0.0.1:{port}/health");
    eventually("the bare handler answers", MINUTE, || http::get(&health).ok());
    (process, format!("http://127.0.0.1:{port}/webhook"))
}

/// Microseconds an event that serde_json alone takes to parse arrays of 50,000.
pub fn json_parsing() -> f64 {
    let body = Generator::new(Some(7), Mix::default()).batch(50_000).into_bytes();
    let started = Instant::now();
    let mut events = 0;
    while started.elapsed() < Duration::from_secs(2) {
        let parsed: Vec<Value> = serde_json::from_slice(&body).unwrap();
        events += std::hint::black_box(parsed).len();
    }
    started.elapsed().as_secs_f64() * 1e6 / events as f64
}

/// Rows a second that PostgreSQL copies of those that are stored into a table like theirs, with its indexes.
pub fn copy(machine: &Machine) -> f64 {
    // The file is deleted with the server's folder.
    let file = format!("{}/copied", machine.postgres.query("SHOW data_directory")[0]);
    machine.postgres.query(&format!("COPY event_rows TO '{file}' (FORMAT binary)"));
    machine.postgres.query("CREATE TABLE copied (LIKE event_rows INCLUDING ALL)");
    let rows = machine.number("SELECT count(*) FROM event_rows");
    let started = Instant::now();
    machine.postgres.query(&format!("COPY copied FROM '{file}' (FORMAT binary)"));
    let took = started.elapsed().as_secs_f64();
    machine.postgres.query("DROP TABLE copied");
    rows / took
}
