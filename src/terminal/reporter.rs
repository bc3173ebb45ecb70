//! Client of a reporter.

use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use awc::error::{PayloadError, SendRequestError};
use awc::http::StatusCode;
use awc::{Client, ClientResponse, Connector};
use futures::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::feed::{FeedMessage, Parser};
use crate::fleet::Instance;
use crate::ops::tls::{self, TlsConfigError};

/// Time limit of a request, and of silence in the feed, which says something each second.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer, in bytes: 512 services, each with a status of 16 KiB.
const MAX_ANSWER: usize = 16 * 1_024 * 1_024;
/// Longest text of an error that is shown, in characters.
const MAX_DETAIL: usize = 300;

/// Error of asking a reporter.
#[derive(Debug, thiserror::Error)]
pub enum ReporterError {
    /// The address is no URL of HTTP.
    #[error("the URL `{0}` must begin with http:// or https://")]
    Url(String),
    /// The file of authorities cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// The request was not answered.
    #[error("{0}")]
    Unreachable(#[from] SendRequestError),
    /// The answer ended early.
    #[error("{0}")]
    Interrupted(#[from] PayloadError),
    /// The reporter refused the request.
    #[error("{status}: {detail}")]
    Refused {
        /// Status of the answer.
        status: StatusCode,
        /// Reason, if the answer tells one.
        detail: String,
    },
    /// The answer is not that of a reporter.
    #[error("the answer is not that of an ESS reporter")]
    NoReporter,
    /// The feed ended, as it does when the reporter stops.
    #[error("the feed ended")]
    Ended,
    /// The feed said nothing for some time.
    #[error("the feed is silent")]
    Silent,
}

impl ReporterError {
    /// True if the same request would be refused again: it is wrong, or its token is.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Url(_) | Self::Tls(_) => true,
            Self::Refused { status, .. } => matches!(status.as_u16(), 400 | 401 | 403),
            _ => false,
        }
    }
}

/// Ledger of one source.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerRow {
    /// The source, or `unknown`.
    pub source: String,
    /// Events that the log ever took.
    pub published: u64,
    /// Events that became rows.
    pub stored: u64,
    /// Events whose key was stored before.
    pub duplicates: u64,
    /// Events that a collector set aside.
    pub quarantined: u64,
    /// Events in the log that are not processed yet.
    pub in_flight: u64,
    /// Published events that neither the log nor the store has.
    pub missing: u64,
    /// Events that a gateway refused.
    pub rejected: u64,
}

#[derive(Deserialize)]
struct Ledger {
    sources: Vec<LedgerRow>,
}

#[derive(Deserialize)]
struct Fleet {
    instances: Vec<Instance>,
}

/// Revenue of all sources.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revenue {
    /// Sum, a decimal number.
    pub total_revenue: String,
    /// Its currency, if the report tells one.
    pub currency: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    detail: Option<String>,
}

/// A reporter at a URL.
#[derive(Clone)]
pub struct Reporter {
    client: Client,
    base: Rc<str>,
    token: Option<Rc<str>>,
}

impl Reporter {
    /// A reporter; `authorities` is a file of authorities that are trusted beside the public ones.
    ///
    /// # Errors
    ///
    /// If the URL is none of HTTP, or the file cannot be read.
    pub fn new(url: &str, token: Option<&str>, authorities: Option<&Path>) -> Result<Self, ReporterError> {
        let base = url.trim_end_matches('/');
        let known = base.starts_with("http://") || base.starts_with("https://");
        let host = base.parse::<awc::http::Uri>().ok().filter(|_| known);
        if host.is_none_or(|uri| uri.host().is_none_or(str::is_empty) || uri.query().is_some()) {
            return Err(ReporterError::Url(url.to_owned()));
        }
        let mut connector = Connector::new().timeout(TIMEOUT / 2);
        if base.starts_with("https://") {
            connector = connector.rustls_0_23(tls::client_config(authorities)?.into());
        }
        let client = Client::builder().connector(connector).timeout(TIMEOUT).finish();
        Ok(Self { client, base: base.into(), token: token.map(Into::into) })
    }

    /// The URL, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.base
    }

    async fn ask(&self, path: &str) -> Result<ClientResponse, ReporterError> {
        let mut request = self.client.get(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let mut answer = request.send().await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.body().limit(MAX_ANSWER).await.unwrap_or_default();
        let problem = serde_json::from_slice::<Problem>(&body).ok().and_then(|problem| problem.detail);
        let detail = problem.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason").to_owned());
        Err(ReporterError::Refused { status, detail: detail.chars().take(MAX_DETAIL).collect() })
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ReporterError> {
        let body = self.ask(path).await?.timeout(TIMEOUT).body().limit(MAX_ANSWER).await?;
        serde_json::from_slice(&body).map_err(|error| {
            tracing::debug!(%error, path, "an answer was not readable");
            ReporterError::NoReporter
        })
    }

    /// Every service of every process that the reporter has heard of.
    ///
    /// # Errors
    ///
    /// If the reporter does not answer, or refuses.
    pub async fn fleet(&self) -> Result<Vec<Instance>, ReporterError> {
        Ok(self.json::<Fleet>("/fleet").await?.instances)
    }

    /// The ledger of each source.
    ///
    /// # Errors
    ///
    /// As [`Reporter::fleet`], and while the log is away.
    pub async fn ledger(&self) -> Result<Vec<LedgerRow>, ReporterError> {
        Ok(self.json::<Ledger>("/ledger").await?.sources)
    }

    /// Revenue of all time and sources.
    ///
    /// # Errors
    ///
    /// As [`Reporter::fleet`].
    pub async fn revenue(&self) -> Result<Revenue, ReporterError> {
        self.json("/reports/revenue").await
    }

    /// Begins to read the feed; `query` begins with `?`, or is empty.
    ///
    /// # Errors
    ///
    /// As [`Reporter::fleet`].
    pub async fn live(&self, query: &str) -> Result<Feed, ReporterError> {
        let answer = self.ask(&format!("/live{query}")).await?;
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("text/event-stream") {
            return Err(ReporterError::NoReporter);
        }
        Ok(Feed { answer, parser: Parser::default(), messages: VecDeque::new() })
    }
}

/// The live feed of a reporter.
pub struct Feed {
    answer: ClientResponse,
    parser: Parser,
    messages: VecDeque<FeedMessage>,
}

impl Feed {
    /// The next message.
    ///
    /// # Errors
    ///
    /// If the feed has ended, broke off, or was silent for 10 s.
    pub async fn next(&mut self) -> Result<FeedMessage, ReporterError> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(message);
            }
            let piece = tokio::time::timeout(TIMEOUT, self.answer.next()).await;
            let piece = piece.map_err(|_| ReporterError::Silent)?.ok_or(ReporterError::Ended)??;
            self.messages.extend(self.parser.push(&piece));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_none_of_http_is_refused() {
        for url in ["localhost:3003", "", "ftp://x", "http://", "http:///x", "https://a b", "http://x/?a=b"] {
            let error = Reporter::new(url, None, None).err().unwrap_or_else(|| panic!("{url}"));
            assert!(error.is_usage() && error.to_string().contains("http://"), "{url}: {error}");
        }
        for url in ["http://localhost:3003/", "http://[::1]:3003", "https://ess.example/behind/a/proxy"] {
            assert_eq!(Reporter::new(url, None, None).unwrap().url(), url.trim_end_matches('/'));
        }
    }
}
