//! Stores on both databases, and frames to write into them.

use std::path::Path;

use ess::event::decode;
use ess::log::{Origin, WriterMark};
use ess::store::{BatchFrame, Purpose, Row, Store};
use sea_orm::{Database, DatabaseConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::postgres::{self, Kind, Postgres};

/// Temporary databases for stores.
pub struct Stores {
    _folder: TempDir,
    _postgres: Postgres,
    /// URLs of SQLite and PostgreSQL; only PostgreSQL if its kind is not the default.
    pub urls: Vec<String>,
}

pub fn stores() -> Stores {
    let folder = tempfile::tempdir().unwrap();
    let postgres = Postgres::start();
    let mut urls = vec![postgres.url()];
    if postgres::kind() == Kind::Packaged {
        urls.insert(0, sqlite(&folder.path().join("ess.db")));
    }
    Stores { urls, _folder: folder, _postgres: postgres }
}

/// URL of a SQLite database, which is created if it does not exist.
pub fn sqlite(file: &Path) -> String {
    format!("sqlite://{}?mode=rwc", file.display())
}

pub async fn open(url: &str) -> Store {
    let store = Store::connect(url, Purpose::Write { transactions: 2 }).await.unwrap();
    store.migrate().await.unwrap();
    store
}

pub fn origin() -> Origin {
    Origin { correlation_id: "c".to_owned(), traceparent: None, accepted_at: 1_772_323_200_000_000 }
}

/// A frame with these events, which must be valid and of one source.
pub fn frame<'a>(sequence: u64, number: u64, origin: &'a Origin, events: &'a [String]) -> BatchFrame<'a> {
    let rows = events.iter().map(|text| {
        let event = decode(text.as_bytes(), None).unwrap();
        Row::new(event, text.as_bytes(), origin, 5, 6)
    });
    BatchFrame {
        sequence,
        writer: Uuid::from_u128(9),
        number,
        total: number * 1_000,
        acknowledged: WriterMark::default(),
        rows: rows.collect(),
        set_aside: Vec::new(),
        unreadable: false,
    }
}

pub fn log() -> Uuid {
    Uuid::from_u128(1)
}

/// Runs a query that returns one number, on the store's connections.
pub async fn number(store: &Store, sql: &str) -> i64 {
    store.query_number(sql).await.unwrap()
}

/// A connection to a database, to run single migrations.
pub async fn plain(url: &str) -> DatabaseConnection {
    Database::connect(url).await.unwrap()
}
