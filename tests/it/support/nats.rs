//! NATS servers with JetStream in temporary folders: one, or a cluster of three.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;
use super::{MINUTE, eventually, free_port, http, tool};

pub struct Nats {
    pub port: u16,
    pub process: Process,
    folder: TempDir,
    config: String,
}

fn spawn(port: u16, folder: &TempDir, config: &str) -> Process {
    let file = folder.path().join("nats.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(tool("nats-server"));
    command.arg("-c").arg(file);
    let process = Process::spawn(command, &folder.path().join("nats.log"));
    eventually("NATS listens", MINUTE, || TcpStream::connect(("127.0.0.1", port)).ok());
    process
}

/// The shipped configuration with this port, this folder and additional settings.
fn shipped(port: u16, folder: &TempDir, more: &str) -> String {
    let shipped = include_str!("../../../docker/nats.conf")
        .replace("port: 4222", &format!("listen: 127.0.0.1:{port}"))
        .replace("http_port: 8222", "")
        .replace("store_dir: /data", &format!("store_dir: \"{}\"", folder.path().join("store").display()));
    format!("{shipped}\n{more}\n")
}

impl Nats {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a server with settings in addition to the shipped ones.
    pub fn start_with(more: &str) -> Self {
        Self::start_on(free_port(), more)
    }

    fn start_on(port: u16, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = shipped(port, &folder, more);
        let process = spawn(port, &folder, &config);
        Self { port, folder, config, process }
    }

    /// Starts a server without JetStream, for tests that answer the requests of its API themselves.
    pub fn plain() -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let config = format!("listen: 127.0.0.1:{port}\n");
        let process = spawn(port, &folder, &config);
        Self { port, folder, config, process }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A copy of the stored data; the server must be stopped.
    pub fn copy_store(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        let copied =
            Command::new("cp").arg("-a").arg(self.folder.path().join("store")).arg(copy.path()).status();
        assert!(copied.unwrap().success());
        copy
    }

    /// Replaces the stored data by a copy; the server must be stopped.
    pub fn restore_store(&self, copy: &TempDir) {
        let store = self.folder.path().join("store");
        std::fs::remove_dir_all(&store).unwrap();
        let copied = Command::new("cp").arg("-a").arg(copy.path().join("store")).arg(&store).status();
        assert!(copied.unwrap().success());
    }

    pub fn start_again(&mut self) {
        self.process.kill();
        // A test may have changed the port.
        let listen = self.config.lines().find(|line| line.starts_with("listen: ")).unwrap().to_owned();
        self.config = self.config.replacen(&listen, &format!("listen: 127.0.0.1:{}", self.port), 1);
        self.process = spawn(self.port, &self.folder, &self.config);
    }
}

/// A cluster of three servers.
pub struct Cluster {
    pub servers: Vec<Nats>,
    monitors: Vec<u16>,
}

/// A stream as one server of a cluster sees it.
struct View {
    stream: String,
    leader: String,
    /// True if both replicas are up to date, as seen by the leader.
    current: bool,
}

impl Cluster {
    pub fn start() -> Self {
        let ports = || -> Vec<u16> { (0..3).map(|_| free_port()).collect() };
        let (clients, routes, monitors) = (ports(), ports(), ports());
        let servers = (0..3)
            .map(|n| {
                // The shipped settings of a cluster, with addresses of this machine.
                let mut more = include_str!("../../../docker/nats-cluster.conf")
                    .replace("include \"nats.conf\"", "")
                    .replace("$NATS_SERVER_NAME", &Self::name(n))
                    .replace("port: 6222", &format!("listen: \"127.0.0.1:{}\"", routes[n]));
                for (name, port) in ["nats:", "nats-2:", "nats-3:"].iter().zip(&routes) {
                    more = more.replace(&format!("//{name}6222"), &format!("//127.0.0.1:{port}"));
                }
                more += &format!("http: \"127.0.0.1:{}\"\n", monitors[n]);
                Nats::start_on(clients[n], &more)
            })
            .collect();
        let cluster = Self { servers, monitors };
        cluster.wait_healthy();
        cluster
    }

    /// The name of a server.
    pub fn name(server: usize) -> String {
        format!("n{}", server + 1)
    }

    /// The list of all servers, as NATS_URL takes it.
    pub fn url(&self) -> String {
        self.servers.iter().map(Nats::url).collect::<Vec<_>>().join(",")
    }

    pub fn signal(&self, server: usize, signal: &str) {
        self.servers[server].process.signal(signal);
    }

    fn ask(&self, server: usize, path: &str) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.monitors[server]);
        http::get(&url).ok().filter(|answer| answer.status == 200).map(|answer| answer.json())
    }

    /// Streams in the view of a server; empty if it does not answer.
    fn views(&self, server: usize) -> Vec<View> {
        let answer = self.ask(server, "/jsz?acc=$G&streams=true").unwrap_or_default();
        let streams = answer["account_details"][0]["stream_detail"].as_array().cloned().unwrap_or_default();
        let view = |stream: &Value| {
            let replicas = stream["cluster"]["replicas"].as_array().cloned().unwrap_or_default();
            Some(View {
                stream: stream["name"].as_str()?.to_owned(),
                leader: stream["cluster"]["leader"].as_str().unwrap_or_default().to_owned(),
                current: replicas.len() == 2 && replicas.iter().all(|replica| replica["current"] == true),
            })
        };
        streams.iter().filter_map(view).collect()
    }

    /// The server among these that reports itself as the stream's leader.
    pub fn leader(&self, stream: &str, among: &[usize]) -> Option<usize> {
        among.iter().copied().find(|server| {
            let name = Self::name(*server);
            self.views(*server).iter().any(|view| view.stream == stream && view.leader == name)
        })
    }

    /// The server that has a client's connection.
    pub fn server_of(&self, client: &str) -> Option<usize> {
        (0..3).find(|server| {
            let answer = self.ask(*server, "/connz").unwrap_or_default();
            answer["connections"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == client))
        })
    }

    /// Waits until every server answers and has a meta leader, and all copies of every stream are current.
    pub fn wait_healthy(&self) {
        eventually("the cluster is healthy", MINUTE * 2, || {
            let healthy = (0..3).all(|server| {
                self.ask(server, "/healthz").is_some_and(|health| health["status"] == "ok")
                    && self.ask(server, "/jsz").is_some_and(|jsz| {
                        jsz["meta_cluster"]["leader"].as_str().is_some_and(|name| !name.is_empty())
                    })
            });
            let current = (0..3).all(|server| {
                let name = Self::name(server);
                self.views(server)
                    .iter()
                    .all(|view| !view.leader.is_empty() && (view.leader != name || view.current))
            });
            if !(healthy && current) {
                std::thread::sleep(Duration::from_millis(250));
                return None;
            }
            Some(())
        });
    }
}
