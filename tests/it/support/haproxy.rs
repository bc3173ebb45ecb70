//! HAProxy with the shipped configuration, in front of gateways that it finds by name.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::names::Names;
use super::process::Process;
use super::{MINUTE, eventually, free_port, http};

pub struct HaProxy {
    /// Port of the webhook.
    pub port: u16,
    /// Port of metrics and health.
    pub metrics: u16,
    pub names: Names,
    _process: Process,
    _folder: TempDir,
}

impl HaProxy {
    /// Starts it before gateways at these addresses, which all listen on the same port.
    pub fn start(gateways: &[Ipv4Addr], gateway_port: u16) -> Self {
        let program = Path::new("/usr/sbin/haproxy");
        assert!(program.exists(), "HAProxy is missing: ./test installs it");
        let (port, metrics, names) = (free_port(), free_port(), Names::start(gateways));
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/docker/haproxy/haproxy.cfg"));
        command.env_clear().envs([
            ("BALANCER_WEBHOOK_ADDRESS", format!("127.0.0.1:{port}")),
            ("BALANCER_METRICS_ADDRESS", format!("127.0.0.1:{metrics}")),
            ("BALANCER_NAME_SERVER", format!("127.0.0.1:{}", names.port)),
            ("BALANCER_GATEWAYS", format!("gateway:{gateway_port}")),
        ]);
        let process = Process::spawn(command, &folder.path().join("haproxy.log"));
        let haproxy = Self { port, metrics, names, _process: process, _folder: folder };
        eventually("HAProxy listens", MINUTE, || http::get(&haproxy.metrics_url("/metrics")).ok());
        haproxy
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn metrics_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.metrics)
    }

    pub fn metric(&self, series: &str) -> f64 {
        http::metric(&self.metrics_url("/metrics"), series)
    }

    /// Waits until so many gateways get requests.
    pub fn wait_gateways(&self, count: usize) {
        eventually(&format!("HAProxy uses {count} gateways"), MINUTE, || {
            (self.metric("haproxy_backend_active_servers{proxy=\"gateways\"}") == count as f64).then_some(())
        });
    }
}
