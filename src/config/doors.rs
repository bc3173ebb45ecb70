//! Settings that each are possible, and together leave a door open: they are warned of at the start, by name.

use super::HttpSettings;
use super::variables::{Variables, everybody_reads};

/// What lets somebody in who may not be meant to be.
pub(super) fn open_doors(variables: &Variables, http: &HttpSettings) -> Vec<String> {
    let mut doors = Vec::new();
    if !http.listen.is_loopback() {
        let listen = http.listen;
        for (name, what) in [
            ("ESS_WEBHOOK_TOKEN", "whoever reaches /webhook can send events"),
            ("ESS_REPORTER_TOKEN", "whoever reaches the reporter can read reports"),
        ] {
            if variables.secret(name).is_none() {
                doors.push(format!("{name} is not set while ESS_LISTEN is {listen}: {what}"));
            }
        }
    }
    let signs = |name: &&&str| variables.secret(name).is_some();
    if variables.secret("ESS_WEBHOOK_TOKEN").is_none()
        && let Some(name) = ["ESS_FACEBOOK_APP_SECRET", "ESS_TIKTOK_CLIENT_SECRET"].iter().find(signs)
    {
        doors.push(format!(
            "ESS_WEBHOOK_TOKEN is not set while {name} is: /webhook takes events of every source without a signature"
        ));
    }
    let clear = |url: &str| {
        let host = url.strip_prefix("nats://").and_then(|rest| Some(rest.rsplit_once('@')?.1));
        host.is_some_and(|host| !host.starts_with("127.") && !host.starts_with("localhost"))
    };
    if variables.secret("NATS_URL").is_some_and(|urls| urls.expose().split(',').any(clear))
        && variables.path("ESS_NATS_CERT").is_none()
    {
        doors.push(
            "NATS_URL has a password and no TLS: it goes over the wire in the clear (tls://…)".to_owned(),
        );
    }
    for name in ["ESS_TLS_KEY", "ESS_NATS_KEY", "ESS_NATS_CREDENTIALS"] {
        if let Some(path) = variables.path(name).filter(|path| everybody_reads(path)) {
            doors.push(format!("{name}: {} can be read by everybody (chmod 600)", path.display()));
        }
    }
    doors
}
