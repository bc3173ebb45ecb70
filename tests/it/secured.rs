//! TLS of listeners and of connections to NATS and PostgreSQL, credentials, and the reporter's read-only role.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::support::events::simple;
use crate::support::http;
use crate::support::nats::Nats;
use crate::support::postgres::Postgres;
use crate::support::process::{Service, ess};
use crate::support::{MINUTE, eventually};

/// Certificate authority of a test, for certificates of this machine.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Issues a certificate. Returns the files of the certificate and its key.
    fn certify(&self, name: &str) -> (PathBuf, PathBuf) {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |kind: &str| self.folder.path().join(format!("{name}.{kind}.pem"));
        std::fs::write(path("cert"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("cert"), path("key"))
    }
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Status of a GET by a client that trusts one authority alone.
fn get(url: &str, authority: &Path) -> Result<u16, ureq::Error> {
    let pem = std::fs::read(authority).unwrap();
    let root = ureq::tls::Certificate::from_pem(&pem).unwrap();
    let tls =
        ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::new_with_certs(&[root])).build();
    let agent: ureq::Agent =
        ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false).build().into();
    Ok(agent.get(url).call()?.status().as_u16())
}

#[test]
fn listeners_with_a_certificate_accept_only_tls() {
    let authority = Authority::new();
    let (certificate, key) = authority.certify("listener");
    let folder = tempfile::tempdir().unwrap();
    let ports: Vec<u16> = (0..4).map(|_| crate::support::free_port()).collect();
    let mut pairs = environment(&[
        ("ESS_TLS_CERT", text(&certificate)),
        ("ESS_TLS_KEY", text(&key)),
        ("ESS_CA_FILE", text(&authority.ca())),
    ]);
    for (name, port) in
        ["ESS_GATEWAY_PORT", "ESS_FACEBOOK_COLLECTOR_PORT", "ESS_TIKTOK_COLLECTOR_PORT", "ESS_REPORTER_PORT"]
            .iter()
            .zip(&ports)
    {
        pairs.push(((*name).to_owned(), port.to_string()));
    }
    let _up = Service::start(&["up"], &pairs, folder.path());
    let ready = |port: &u16| format!("https://127.0.0.1:{port}/ready");
    for url in ports.iter().map(ready) {
        eventually("the service is ready", MINUTE, || {
            get(&url, &authority.ca()).ok().filter(|status| *status == 200)
        });
    }
    let url = ready(&ports[0]);
    let stranger = Authority::new();
    assert!(get(&url, &stranger.ca()).is_err(), "another authority");
    assert!(http::get(&url.replace("https", "http")).is_err(), "no TLS");
    let run = |arguments: &[&str]| ess(arguments, &pairs, folder.path()).output().unwrap();
    let health = run(&["health"]);
    assert!(health.status.success(), "{}", String::from_utf8_lossy(&health.stderr));
    let target = format!("https://localhost:{}/webhook", ports[0]);
    let sent = run(&[
        "publisher",
        "--target",
        &target,
        "--rate",
        "200",
        "--batch",
        "10",
        "--duration",
        "1s",
        "--json",
    ]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
    let mut untrusting = pairs.clone();
    untrusting.retain(|(name, _)| name != "ESS_CA_FILE");
    let refused = ess(
        &["publisher", "--target", &target, "--batch", "1", "--rate", "5", "--duration", "1s"],
        &untrusting,
        folder.path(),
    )
    .output()
    .unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stdout));
}

#[test]
fn connections_to_nats_and_postgres_use_tls_and_verify_certificates() {
    let authority = Authority::new();
    let (nats_certificate, nats_key) = authority.certify("nats");
    let (our_certificate, our_key) = authority.certify("ours");
    let nats = Nats::start_with(&format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}\n\
         authorization {{ user: ess, password: \"s3cret\" }}",
        nats_certificate,
        nats_key,
        authority.ca()
    ));
    let (certificate, key) = authority.certify("postgres");
    let postgres = Postgres::start_with_files(
        &[("server.crt", &certificate), ("server.key", &key)],
        &["fsync=off", "ssl=on"],
    );
    let folder = tempfile::tempdir().unwrap();
    // The first server of the list is down; the credentials in its URL apply to all.
    let away = crate::support::free_port();
    let nats_url = format!("tls://ess:s3cret@127.0.0.1:{away},tls://127.0.0.1:{}", nats.port);
    let database_url =
        format!("{}?sslmode=verify-full&sslrootcert={}", postgres.url(), authority.ca().display());
    let pairs = environment(&[
        ("NATS_URL", &nats_url),
        ("DATABASE_URL", &database_url),
        ("ESS_CA_FILE", text(&authority.ca())),
        ("ESS_NATS_CERT", text(&our_certificate)),
        ("ESS_NATS_KEY", text(&our_key)),
    ]);
    let mut gateway = Service::start(&["gateway"], &pairs, folder.path());
    let mut collector = Service::start(&["collector", "facebook"], &pairs, folder.path());
    gateway.wait_ready();
    collector.wait_ready();
    let answer = http::post(&gateway.url("/webhook"), &simple("over-tls", "facebook").to_string()).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text);
    eventually("the row is there", MINUTE, || {
        (postgres.query("SELECT event_id FROM events") == ["over-tls"]).then_some(())
    });
    let encrypted = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name <> 'psql' AND client_addr IS NOT NULL AND usename = 'ess' AND pid <> pg_backend_pid()";
    assert_eq!(postgres.query(encrypted), ["t"]);
    // With another authority, or another's client certificate, the connection fails.
    let stranger = Authority::new();
    for (name, value) in [
        ("ESS_CA_FILE", text(&stranger.ca()).to_owned()),
        ("DATABASE_URL", database_url.replace(text(&authority.ca()), text(&stranger.ca()))),
        ("ESS_NATS_CERT", text(&stranger.certify("x").0).to_owned()),
    ] {
        let mut wrong = pairs.clone();
        wrong.iter_mut().find(|(known, _)| known == name).unwrap().1 = value;
        if name == "ESS_NATS_CERT" {
            wrong.iter_mut().find(|(known, _)| known == "ESS_NATS_KEY").unwrap().1 =
                text(&stranger.folder.path().join("x.key.pem")).to_owned();
        }
        let check = ess(&["check"], &wrong, folder.path()).output().unwrap();
        assert_eq!(check.status.code(), Some(1), "{name}: {}", String::from_utf8_lossy(&check.stdout));
        assert!(!String::from_utf8_lossy(&check.stdout).contains("s3cret"));
    }
    let check = ess(&["check"], &pairs, folder.path()).output().unwrap();
    let output = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{output}");
    assert!(output.contains("1 of 2 servers") && output.contains(&format!(":{away}")), "{output}");
    assert!(!output.contains("s3cret"), "{output}");
}

#[test]
fn a_gateway_logs_in_to_nats_with_a_credentials_file() {
    let keys = Credentials::new();
    let nats = Nats::start_with(&keys.server);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ess.creds");
    std::fs::write(&file, &keys.file).unwrap();
    let url = nats.url();
    let with = environment(&[("NATS_URL", &url), ("ESS_NATS_CREDENTIALS", text(&file))]);
    let mut gateway = Service::start(&["gateway"], &with, folder.path());
    gateway.wait_ready();
    let answer = http::post(&gateway.url("/webhook"), &simple("with-creds", "tiktok").to_string()).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text);
    let without = environment(&[("NATS_URL", &url)]);
    let gateway = Service::start(&["gateway"], &without, folder.path());
    let ready = eventually("the gateway answers", MINUTE, || http::get(&gateway.url("/ready")).ok());
    assert_eq!(ready.status, 503, "{}", ready.text);
}

/// NATS operator, account and user: the server's configuration and the user's credentials file.
struct Credentials {
    server: String,
    file: String,
}

impl Credentials {
    fn new() -> Self {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        use nkeys::KeyPair;
        let (operator, account, user) =
            (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
        let sign = |by: &KeyPair, subject: &KeyPair, kind: &str, more: serde_json::Value| {
            let mut nats = more;
            nats["type"] = kind.into();
            nats["version"] = 2.into();
            let claims = json!({"jti": format!("{kind}-1"), "iat": 1_700_000_000, "iss": by.public_key(), "name": kind,
                "sub": subject.public_key(), "nats": nats});
            let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
            let body = URL_SAFE_NO_PAD.encode(claims.to_string());
            let signed = format!("{header}.{body}");
            let signature = URL_SAFE_NO_PAD.encode(by.sign(signed.as_bytes()).unwrap());
            format!("{signed}.{signature}")
        };
        let unlimited = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
        let operator_jwt = sign(&operator, &operator, "operator", json!({}));
        let account_jwt = sign(&operator, &account, "account", json!({"limits": unlimited}));
        let user_jwt = sign(
            &account,
            &user,
            "user",
            json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}),
        );
        let system = KeyPair::new_account();
        let system_jwt = sign(
            &operator,
            &system,
            "account",
            json!({"limits": {"subs": -1, "data": -1, "payload": -1,
            "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1}}),
        );
        let seed = user.seed().unwrap();
        Self {
            server: format!(
                "operator: {operator_jwt}\nresolver: MEMORY\nsystem_account: {system}\n\
                 resolver_preload: {{ {account}: {account_jwt}, {system}: {system_jwt} }}",
                account = account.public_key(),
                system = system.public_key(),
            ),
            file: format!(
                "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
                 -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
            ),
        }
    }
}

#[test]
pub fn the_reporter_reads_with_a_role_that_cannot_write() {
    let (nats, postgres) = (Nats::start(), Postgres::start());
    // The role is created by the script that is shipped for it.
    let script =
        include_str!("../../docker/postgres/reporter-role.sql").replace(":'password'", "'read-0nly'");
    postgres.query(&script);
    let folder = tempfile::tempdir().unwrap();
    let (nats_url, database_url) = (nats.url(), postgres.url());
    let read_only = database_url.replace("ess@", "ess_reporter:read-0nly@");
    let pairs = environment(&[
        ("NATS_URL", &nats_url),
        ("DATABASE_URL", &database_url),
        ("ESS_REPORTER_DATABASE_URL", &read_only),
        ("ESS_ADMIN_TOKEN", "an-operator"),
    ]);
    let mut reporter = Service::start(&["reporter"], &pairs, folder.path());
    let waiting = eventually("the reporter answers without a schema", MINUTE, || {
        http::get(&reporter.url("/ready")).ok()
    });
    assert_eq!(waiting.status, 503, "{}", waiting.text);
    let mut gateway = Service::start(&["gateway"], &pairs, folder.path());
    let mut collector = Service::start(&["collector", "facebook"], &pairs, folder.path());
    gateway.wait_ready();
    collector.wait_ready();
    reporter.wait_ready();
    let mut broken = simple("broken", "facebook");
    broken["timestamp"] = json!("never");
    let body = json!([simple("read", "facebook"), broken]).to_string();
    assert_eq!(http::post(&gateway.url("/webhook"), &body).unwrap().status, 202);
    eventually("the event is stored", MINUTE, || http::settled(&reporter.url("/ledger")));
    eventually("the report counts it", MINUTE, || {
        let report = http::get(&reporter.url("/reports/events")).ok()?.json();
        (report["totalEvents"] == 1).then_some(())
    });
    for path in
        ["/reports/revenue?groupBy=campaign", "/reports/demographics", "/dead-letters", "/events/read"]
    {
        let answer = http::get(&reporter.url(path)).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    // Such a reporter says which letters would pass, and why it replays none.
    let replay = |dry_run: bool| {
        let headers = [("Authorization", "Bearer an-operator"), ("Content-Type", "application/json")];
        let body = json!({"source": "facebook", "dryRun": dry_run}).to_string();
        http::post_with(&reporter.url("/dead-letters/replay"), &headers, body.as_bytes()).unwrap()
    };
    let tried = replay(true);
    assert_eq!((tried.status, &tried.json()["refused"]), (200, &json!(1)), "{}", tried.text);
    let refused = replay(false);
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(refused.text.contains("ESS_REPORTER_DATABASE_URL"), "{}", refused.text);
    let user = "SELECT DISTINCT usename FROM pg_stat_activity WHERE usename LIKE 'ess_%'";
    assert_eq!(postgres.query(user), ["ess_reporter"]);
    let write =
        postgres.try_query_as("ess_reporter", "SET transaction_read_only = off; DELETE FROM event_rows");
    assert!(write.is_err_and(|error| error.contains("permission denied")), "the role cannot write");
}
