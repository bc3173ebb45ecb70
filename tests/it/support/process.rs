//! Processes that a test starts, signals and ends.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{eventually, free_port, http};

/// A child process; it is killed when it is dropped.
pub struct Process {
    child: Child,
    pub log: PathBuf,
}

impl Process {
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let out: File = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().unwrap();
        assert!(sent.success(), "kill -{name}");
    }

    /// Memory in KiB, from a line of `/proc/<pid>/status` such as `VmRSS` or `VmHWM`.
    pub fn memory_kib(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let found = status.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(':'));
        found.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until the process has ended by itself.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        eventually(&format!("the end of {}", self.log.display()), within, || self.child.try_wait().unwrap())
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<_> = output.lines().rev().take(15).collect();
            eprintln!("--- the end of {}", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// The `ess` command with this environment only.
pub fn ess(arguments: &[&str], environment: &[(String, String)], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ess"));
    command.args(arguments).current_dir(folder).env_clear().envs(environment.iter().cloned());
    command
}

/// A service of `ess` and its port.
pub struct Service {
    pub name: String,
    pub port: u16,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    folder: PathBuf,
    pub process: Process,
}

impl Service {
    /// Starts `ess <arguments>` on a free port.
    pub fn start(arguments: &[&str], environment: &[(String, String)], folder: &Path) -> Self {
        let port = free_port();
        let mut environment = environment.to_vec();
        environment.push(("PORT".to_owned(), port.to_string()));
        let name = format!("{}-{port}", arguments.join("-"));
        let log = folder.join(format!("{name}.log"));
        let process = Process::spawn(ess(arguments, &environment, folder), &log);
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { name, port, arguments, environment, folder: folder.to_owned(), process }
    }

    /// Kills the service and starts it again on the same port.
    pub fn start_again(&mut self) {
        let arguments: Vec<_> = self.arguments.iter().map(String::as_str).collect();
        let log = self.process.log.clone();
        self.process.kill();
        self.process = Process::spawn(ess(&arguments, &self.environment, &self.folder), &log);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn wait_ready(&mut self) -> &mut Self {
        let url = self.url("/ready");
        let name = self.name.clone();
        eventually(&format!("{name} is ready"), super::MINUTE, || {
            assert!(self.process.running(), "{name} ended: {}", self.process.output());
            http::get(&url).ok().filter(|answer| answer.status == 200)
        });
        self
    }

    pub fn metric(&self, series: &str) -> f64 {
        http::metric(&self.url("/metrics"), series)
    }

    /// Log lines with this text.
    pub fn lines(&self, text: &str) -> Vec<serde_json::Value> {
        let output = self.process.output();
        let lines = output.lines().filter(|line| line.contains(text));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
