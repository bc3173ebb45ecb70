//! Settings of every listener.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{ConfigError, ConfigFault};
use super::variables::Variables;

/// A certificate and its private key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Identity {
    /// The files that two settings name; `None` if neither is set.
    pub(super) fn read(
        variables: &Variables,
        certificate: &str,
        key: &str,
    ) -> Result<Option<Self>, ConfigError> {
        let incomplete = |name: &str, other: &str| {
            Err(ConfigError::new(name, ConfigFault::Incomplete { other: other.to_owned() }))
        };
        match (variables.readable_file(certificate)?, variables.readable_file(key)?) {
            (Some(certificate), Some(key)) => Ok(Some(Self { certificate, key })),
            (None, None) => Ok(None),
            (Some(_), None) => incomplete(key, certificate),
            (None, Some(_)) => incomplete(certificate, key),
        }
    }
}

/// Bounds of every listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Address to listen on.
    pub listen: IpAddr,
    /// Certificate, if the listener speaks TLS.
    pub tls: Option<Identity>,
    /// Connections at one time.
    pub max_connections: usize,
    /// Bytes of a request's head.
    pub max_header: usize,
    /// Time for a request's head.
    pub head_timeout: Duration,
    /// Time that a connection may be idle between two requests, or that a client may read nothing of its answer.
    pub idle_timeout: Duration,
}

/// Bytes of a request's head: the HTTP library takes at most 128 KiB.
const HEAD: std::ops::RangeInclusive<usize> = 1_024..=65_536;

impl HttpSettings {
    pub(super) fn read(variables: &Variables) -> Result<Self, ConfigError> {
        Ok(Self {
            listen: variables.parsed("ESS_LISTEN", "an IP address", |text| text.parse().ok())?,
            tls: Identity::read(variables, "ESS_TLS_CERT", "ESS_TLS_KEY")?,
            max_connections: variables.count("ESS_MAX_CONNECTIONS", 1, 1_000_000)?,
            max_header: variables.parsed("ESS_MAX_HEADER", "a size from 1KiB to 64KiB", |text| {
                let size = text.parse::<bytesize::ByteSize>().ok()?.as_u64();
                usize::try_from(size).ok().filter(|size| HEAD.contains(size))
            })?,
            head_timeout: variables.positive_duration("ESS_HEAD_TIMEOUT")?,
            idle_timeout: variables.positive_duration("ESS_IDLE_TIMEOUT")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refused, validate};

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let error = validate(&[("ESS_TLS_CERT", "/etc/hostname")]).unwrap_err();
        assert_eq!(error.to_string(), "ESS_TLS_KEY: is not set, but ESS_TLS_CERT is: set both, or neither");
        assert!(refused("ESS_TLS_CERT", "/nowhere/cert.pem").contains("/nowhere/cert.pem"));
    }

    #[test]
    fn bounds_of_a_listener_have_bounds() {
        for (name, value) in [
            ("ESS_LISTEN", "localhost:1"),
            ("ESS_MAX_CONNECTIONS", "0"),
            ("ESS_MAX_HEADER", "1MiB"),
            ("ESS_HEAD_TIMEOUT", "0"),
            ("ESS_IDLE_TIMEOUT", "soon"),
        ] {
            let error = refused(name, value);
            assert!(error.contains(value) && error.contains("it must be"), "{error}");
        }
    }
}
