//! The whole system: one process with embedded log and store, or services on NATS and PostgreSQL.

use std::path::Path;

use sea_orm::sqlx::{self, Row, SqlitePool};
use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Answer};
use super::nats::Nats;
use super::postgres::{self, Kind, Postgres};
use super::process::{Service, ess};
use super::{MINUTE, block_on, eventually, free_port};

/// The database of a system. Queries return rows as text, with columns separated by `|`.
pub enum Database {
    Postgres(Postgres),
    Sqlite(std::path::PathBuf),
}

impl Database {
    pub fn query(&self, sql: &str) -> Vec<String> {
        match self {
            Self::Postgres(postgres) => postgres.query(sql),
            Self::Sqlite(file) => block_on(async {
                let pool =
                    SqlitePool::connect(&format!("sqlite://{}?mode=ro", file.display())).await.unwrap();
                let rows = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(&pool).await.unwrap();
                let text = |row: &sqlx::sqlite::SqliteRow, at: usize| {
                    let text = row.try_get_unchecked::<Option<String>, _>(at);
                    text.unwrap_or_default().unwrap_or_default()
                };
                rows.iter()
                    .map(|row| (0..row.len()).map(|at| text(row, at)).collect::<Vec<_>>().join("|"))
                    .collect()
            }),
        }
    }
}

/// A running system. Fields are dropped in order, so that all processes end before their folder is deleted.
pub struct System {
    /// Only `up`, or gateway, collectors and reporter.
    pub services: Vec<Service>,
    pub nats: Option<Nats>,
    pub database: Database,
    pub folder: TempDir,
    pub environment: Vec<(String, String)>,
    gateway: u16,
    reporter: u16,
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl System {
    /// Starts `ess up` with embedded log and store.
    pub fn embedded(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<u16> = (0..5).map(|_| free_port()).collect();
        let mut environment = pairs(settings);
        let named = settings.iter().find(|(name, _)| *name == "ESS_DATA_DIR");
        let data = named.map_or_else(|| folder.path().join("data"), |(_, folder)| folder.into());
        environment.push(("ESS_DATA_DIR".to_owned(), data.display().to_string()));
        let names = [
            "ESS_GATEWAY_PORT",
            "ESS_FACEBOOK_COLLECTOR_PORT",
            "ESS_TIKTOK_COLLECTOR_PORT",
            "ESS_REPORTER_PORT",
            "ESS_COLLECTOR_PORT",
        ];
        for (name, port) in names.iter().zip(&ports) {
            environment.push(((*name).to_owned(), port.to_string()));
        }
        let mut up = Service::start(&["up"], &environment, folder.path());
        // `up` uses the port settings of each service instead of PORT.
        up.port = ports[0];
        let database = Database::Sqlite(data.join("ess.db"));
        let mut system = Self {
            folder,
            environment,
            nats: None,
            database,
            services: vec![up],
            gateway: ports[0],
            reporter: ports[3],
        };
        system.wait_ready();
        system
    }

    /// Starts one service of each kind on NATS and PostgreSQL.
    pub fn real(settings: &[(&str, &str)]) -> Self {
        Self::real_with(
            settings,
            &[&["gateway"], &["collector", "facebook"], &["collector", "tiktok"], &["reporter"]],
        )
    }

    /// Starts these services on NATS and PostgreSQL; the first is a gateway, the last a reporter.
    pub fn real_with(settings: &[(&str, &str)], services: &[&[&str]]) -> Self {
        let postgres = Postgres::start();
        let url = postgres.url();
        Self::real_at(postgres, url, settings, services)
    }

    /// Starts these services on NATS and a given server, which they reach by `url`.
    pub fn real_at(postgres: Postgres, url: String, settings: &[(&str, &str)], services: &[&[&str]]) -> Self {
        let nats = Nats::start();
        let folder = tempfile::tempdir().unwrap();
        let mut environment = pairs(settings);
        environment.push(("NATS_URL".to_owned(), nats.url()));
        environment.push(("DATABASE_URL".to_owned(), url));
        let services: Vec<_> =
            services.iter().map(|arguments| Service::start(arguments, &environment, folder.path())).collect();
        let (gateway, reporter) = (services[0].port, services[services.len() - 1].port);
        let mut system = Self {
            folder,
            environment,
            nats: Some(nats),
            database: Database::Postgres(postgres),
            services,
            gateway,
            reporter,
        };
        system.wait_ready();
        system
    }

    pub fn wait_ready(&mut self) {
        self.services.iter_mut().for_each(|service| {
            service.wait_ready();
        });
        let ready = format!("http://127.0.0.1:{}/ready", self.reporter);
        eventually("the reporter is ready", MINUTE, || {
            http::get(&ready).ok().filter(|answer| answer.status == 200)
        });
    }

    pub fn postgres(&mut self) -> &mut Postgres {
        match &mut self.database {
            Database::Postgres(postgres) => postgres,
            Database::Sqlite(_) => panic!("the database is embedded"),
        }
    }

    pub fn nats(&mut self) -> &mut Nats {
        self.nats.as_mut().expect("the log is embedded")
    }

    /// The service whose command starts with `name`.
    pub fn service(&mut self, name: &str) -> &mut Service {
        self.services.iter_mut().find(|service| service.name.starts_with(name)).expect(name)
    }

    pub fn gateway_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.gateway)
    }

    pub fn post(&self, body: &str) -> Answer {
        http::post(&self.gateway_url("/webhook"), body).unwrap()
    }

    pub fn reporter_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.reporter)
    }

    pub fn report(&self, path: &str) -> Value {
        let answer = http::get(&self.reporter_url(path)).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    }

    pub fn count_rows(&self) -> u64 {
        self.database.query("SELECT count(*) FROM event_rows")[0].parse().unwrap()
    }

    /// Changes the database without the services' knowledge.
    pub fn damage(&self, sql: &str) {
        match &self.database {
            Database::Postgres(postgres) => drop(postgres.query(sql)),
            Database::Sqlite(file) => block_on(async {
                let pool = SqlitePool::connect(&format!("sqlite://{}", file.display())).await.unwrap();
                sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(&pool).await.unwrap();
            }),
        }
    }

    /// Waits until no event is in flight and the ledger is balanced; returns the ledger.
    pub fn settle(&self) -> Value {
        eventually("everything is stored", MINUTE * 2, || http::settled(&self.reporter_url("/ledger")))
    }

    pub fn ess(&self, arguments: &[&str]) -> std::process::Output {
        ess(arguments, &self.environment, self.folder.path()).output().unwrap()
    }
}

/// Runs a test on an embedded system and on services; only on services if the kind of PostgreSQL is not the default.
pub fn both(settings: &[(&str, &str)], test: impl Fn(&mut System)) {
    if postgres::kind() == Kind::Packaged {
        test(&mut System::embedded(settings));
    }
    test(&mut System::real(settings));
}

/// Folder of the sample requests.
pub fn samples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples")
}
