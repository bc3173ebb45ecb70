//! Clients of the gateway: their names, and the limit of their requests.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::config::Token;
use crate::event::Source;
use crate::service::StartError;

/// Name of a client before its signature or token is checked.
const UNKNOWN: &str = "unknown";
/// Name of a client of which neither is asked.
const ANONYMOUS: &str = "anonymous";

/// A client, by its index among all that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client(usize);

impl Client {
    /// A client that is not checked yet.
    pub const UNKNOWN: Self = Self(0);
    /// A client of which no token is asked.
    pub const ANONYMOUS: Self = Self(1);

    /// The provider that signed the request.
    pub const fn signed(source: Source) -> Self {
        Self(2 + source.index())
    }
}

/// All clients that can be told apart.
pub(super) struct Clients {
    names: Vec<String>,
    /// The client of each token, by the token's index.
    tokens: Vec<Client>,
    /// The limit of each client; empty if requests are not limited.
    limits: Vec<DefaultDirectRateLimiter>,
    clock: DefaultClock,
}

impl Clients {
    /// Token holders, signing providers and anonymous clients, each with a limit of `limit` requests a second.
    ///
    /// # Errors
    ///
    /// If a token has the name of a provider, or one of the two names of clients without a token.
    pub fn new(tokens: &[Token], limit: Option<NonZeroU32>) -> Result<Self, StartError> {
        let fixed = [UNKNOWN, ANONYMOUS].into_iter().chain(Source::all().map(|source| source.name()));
        let mut names: Vec<String> = fixed.map(str::to_owned).collect();
        let own = names.len();
        let mut clients = Vec::new();
        for Token { name, .. } in tokens {
            // Several tokens of one name are one client's, while a token is rotated.
            let index = match names.iter().position(|known| known == name) {
                Some(index) if index < own => {
                    return Err(StartError::ReservedName { name: name.clone() });
                }
                Some(index) => index,
                None => {
                    names.push(name.clone());
                    names.len() - 1
                }
            };
            clients.push(Client(index));
        }
        let limits = match limit {
            Some(limit) => names.iter().map(|_| RateLimiter::direct(Quota::per_second(limit))).collect(),
            None => Vec::new(),
        };
        Ok(Self { names, tokens: clients, limits, clock: DefaultClock::default() })
    }

    /// The client of the token with this index.
    pub fn with_token(&self, index: usize) -> Client {
        self.tokens.get(index).copied().unwrap_or(Client::UNKNOWN)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// A client's name.
    pub fn name(&self, publisher: Client) -> &str {
        self.names.get(publisher.0).map_or(UNKNOWN, String::as_str)
    }

    /// Counts a request against its client's limit. The error is the time until the next request is allowed.
    pub fn pass(&self, publisher: Client) -> Result<(), Duration> {
        let Some(limit) = self.limits.get(publisher.0) else { return Ok(()) };
        limit.check().map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_limit() {
        let token = |name: &str| Token { name: name.to_owned(), secret: name.to_owned().into() };
        let tokens = [token("acme"), token("other"), token("acme")];
        let publishers = Clients::new(&tokens, NonZeroU32::new(5)).unwrap();
        let (acme, other) = (publishers.with_token(0), publishers.with_token(1));
        assert_eq!(publishers.with_token(2), acme, "a name has one limit, however many tokens");
        assert!(Clients::new(&[token("facebook")], None).is_err());
        assert_eq!((publishers.name(acme), publishers.name(other)), ("acme", "other"));
        assert_eq!(publishers.name(Client::signed(Source::TIKTOK)), "tiktok");
        let passed = (0..100).filter(|_| publishers.pass(acme).is_ok()).count();
        assert!((5..10).contains(&passed), "{passed}");
        assert!(publishers.pass(acme).is_err_and(|wait| wait <= Duration::from_millis(250)));
        assert!(publishers.pass(other).is_ok());
        let open = Clients::new(&[], None).unwrap();
        assert!((0..1_000).all(|_| open.pass(Client::ANONYMOUS).is_ok()));
    }
}
