//! Warnings about exposure: settings that are allowed each, and together let in clients or reveal secrets.

use super::http::HttpSettings;
use super::variables::{Variables, others_can_read};
use crate::source::Source;

/// Warnings for the log at the start, each naming the settings.
pub(super) fn exposure_warnings(variables: &Variables, http: &HttpSettings) -> Vec<String> {
    let mut warnings = Vec::new();
    if !http.listen.is_loopback() {
        let listen = http.listen;
        for (name, effect) in [
            ("ESS_WEBHOOK_TOKEN", "anyone who reaches /webhook can send events"),
            ("ESS_REPORTER_TOKEN", "anyone who reaches the reporter can read reports"),
        ] {
            if variables.secret(name).is_none() {
                warnings.push(format!("{name} is not set while ESS_LISTEN is {listen}: {effect}"));
            }
        }
    }
    let signatures = Source::built_in().filter_map(|source| Some(source.signature()?.setting.name));
    if variables.secret("ESS_WEBHOOK_TOKEN").is_none()
        && let Some(name) = signatures.clone().find(|name| variables.secret(name).is_some())
    {
        warnings.push(format!(
            "ESS_WEBHOOK_TOKEN is not set while {name} is: /webhook takes events of every source without a signature"
        ));
    }
    let url = variables.secret("NATS_URL");
    if url.is_some_and(|servers| servers.expose().split(',').any(sends_password_in_clear))
        && variables.path("ESS_NATS_CERT").is_none()
    {
        warnings.push(
            "NATS_URL has a password but no TLS: the password crosses the network in clear text; use tls://"
                .to_owned(),
        );
    }
    for name in ["ESS_TLS_KEY", "ESS_NATS_KEY", "ESS_NATS_CREDENTIALS"] {
        if let Some(path) = variables.path(name).filter(|path| others_can_read(path)) {
            warnings.push(format!("{name}: every user can read {}: run chmod 600 on it", path.display()));
        }
    }
    warnings
}

/// True if a NATS URL has credentials, no TLS, and a host other than this machine.
fn sends_password_in_clear(url: &str) -> bool {
    let host = url.trim().strip_prefix("nats://").and_then(|rest| Some(rest.rsplit_once('@')?.1));
    host.is_some_and(|host| !host.starts_with("127.") && !host.starts_with("localhost"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refused, validate};

    #[test]
    fn missing_tokens_on_a_public_address_are_warned_of() {
        let settings = [("ESS_LISTEN", "0.0.0.0"), ("ESS_ADMIN_TOKEN", " ")];
        let warnings = validate(&settings).unwrap().warnings.join("; ");
        for name in ["ESS_WEBHOOK_TOKEN", "ESS_REPORTER_TOKEN", "ESS_ADMIN_TOKEN"] {
            assert!(warnings.contains(name), "{warnings}");
        }
        let guarded = [("ESS_LISTEN", "0.0.0.0"), ("ESS_WEBHOOK_TOKEN", "a"), ("ESS_REPORTER_TOKEN", "b")];
        assert_eq!(validate(&guarded).unwrap().warnings, Vec::<String>::new());
    }

    #[test]
    fn an_open_webhook_beside_a_signed_path_is_warned_of() {
        let warnings = validate(&[("ESS_FACEBOOK_APP_SECRET", "a")]).unwrap().warnings.join("; ");
        assert!(warnings.contains("/webhook takes events of every source"), "{warnings}");
    }

    #[test]
    fn a_password_in_clear_text_is_warned_of_and_not_shown() {
        for urls in ["nats://u:p@far:4222", "nats://127.0.0.1, nats://u:p@far"] {
            let warnings = validate(&[("NATS_URL", urls)]).unwrap().warnings.join("; ");
            assert!(warnings.contains("in clear text") && !warnings.contains("u:p"), "{warnings}");
        }
        for url in ["nats://u:p@127.0.0.1:4222", "tls://u:p@far", "nats://far"] {
            assert!(validate(&[("NATS_URL", url)]).unwrap().warnings.is_empty(), "{url}");
        }
    }

    #[test]
    fn a_list_of_empty_secrets_is_refused() {
        for name in ["ESS_WEBHOOK_TOKEN", "ESS_REPORTER_TOKEN", "ESS_FACEBOOK_APP_SECRET"] {
            refused(name, ",");
        }
    }
}
