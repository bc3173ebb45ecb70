//! PgBouncer in front of a PostgreSQL server, in a temporary folder. Like PostgreSQL, it refuses to run as root.

use std::net::TcpStream;
use std::path::Path;

use tempfile::TempDir;

use super::postgres::{own, unprivileged};
use super::process::Process;
use super::{MINUTE, eventually, free_port};

/// Connections to the server; fewer than the clients', so that clients share them.
const SERVERS: usize = 7;

pub struct PgBouncer {
    pub port: u16,
    _process: Process,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts PgBouncer in a mode (`session`, `transaction` or `statement`), with additional lines of configuration.
    pub fn start(mode: &str, server: u16, more: &str) -> Self {
        let program = Path::new("/usr/sbin/pgbouncer");
        assert!(program.exists(), "PgBouncer is missing: ./test installs it");
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        // Each session holds a connection to the server, so there must be one for each client.
        let servers = if mode == "session" { 100 } else { SERVERS };
        let users = folder.path().join("users");
        std::fs::write(&users, "\"ess\" \"\"\n\"ess_reporter\" \"\"\n").unwrap();
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {users}\npool_mode = {mode}\n\
             default_pool_size = {servers}\nmax_client_conn = 400\n\
             server_login_retry = 1\n{more}\n",
            users = users.display(),
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, config).unwrap();
        own(folder.path());
        let mut command = unprivileged(program);
        command.arg(&file);
        let process = Process::spawn(command, &folder.path().join("pgbouncer.log"));
        eventually("PgBouncer listens", MINUTE, || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { port, _process: process, _folder: folder }
    }
}
