//! A NATS server with JetStream in a temporary folder.

use std::net::TcpStream;
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::{MINUTE, eventually, free_port, tool};

pub struct Nats {
    pub port: u16,
    pub process: Process,
    folder: TempDir,
    more: String,
}

fn spawn(port: u16, folder: &TempDir, more: &str) -> Process {
    // The shipped configuration, on this port and in this folder.
    let shipped = include_str!("../../../docker/nats.conf");
    let config = shipped
        .replace("port: 4222", &format!("listen: 127.0.0.1:{port}"))
        .replace("http_port: 8222", "")
        .replace("store_dir: /data", &format!("store_dir: \"{}\"", folder.path().join("store").display()));
    let file = folder.path().join("nats.conf");
    std::fs::write(&file, format!("{config}\n{more}\n")).unwrap();
    let mut command = Command::new(tool("nats-server"));
    command.arg("-c").arg(file);
    let process = Process::spawn(command, &folder.path().join("nats.log"));
    eventually("NATS listens", MINUTE, || TcpStream::connect(("127.0.0.1", port)).ok());
    process
}

impl Nats {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With more settings than the shipped ones.
    pub fn start_with(more: &str) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let process = spawn(port, &folder, more);
        Self { port, folder, more: more.to_owned(), process }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn start_again(&mut self) {
        self.process.kill();
        self.process = spawn(self.port, &self.folder, &self.more);
    }
}
