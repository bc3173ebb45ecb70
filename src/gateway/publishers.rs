//! Who sends events, and how often each may.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::config::Token;
use crate::event::Source;

/// Somebody whom no check has named yet.
const UNKNOWN: &str = "unknown";
/// Somebody of whom no check is asked.
const ANONYMOUS: &str = "anonymous";

/// A publisher's place among all that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Publisher(usize);

impl Publisher {
    /// Nobody yet.
    pub const UNKNOWN: Self = Self(0);
    /// Where no token is asked for.
    pub const ANONYMOUS: Self = Self(1);

    /// The provider whose signature was checked.
    pub const fn signed(source: Source) -> Self {
        Self(2 + source.index())
    }
}

/// All publishers that can be told apart.
pub(super) struct Publishers {
    names: Vec<String>,
    /// By the places of the tokens.
    tokens: Vec<Publisher>,
    /// One for each, where requests are limited.
    limits: Vec<DefaultDirectRateLimiter>,
    clock: DefaultClock,
}

impl Publishers {
    /// Those whose tokens these are, the providers that sign, and whoever has to show neither; each may send
    /// so many requests a second.
    /// The error says whose name is taken.
    pub fn new(tokens: &[Token], limit: Option<NonZeroU32>) -> Result<Self, String> {
        let fixed = [UNKNOWN, ANONYMOUS].into_iter().chain(Source::ALL.iter().map(|source| source.as_str()));
        let mut names: Vec<String> = fixed.map(str::to_owned).collect();
        let own = names.len();
        let mut places = Vec::new();
        for Token { name, .. } in tokens {
            // Several tokens of one name are one publisher's: while one is rotated.
            let place = match names.iter().position(|known| known == name) {
                Some(place) if place < own => {
                    return Err(format!("ESS_WEBHOOK_TOKEN: no publisher can be called {name}"));
                }
                Some(place) => place,
                None => {
                    names.push(name.clone());
                    names.len() - 1
                }
            };
            places.push(Publisher(place));
        }
        let limits = match limit {
            Some(limit) => names.iter().map(|_| RateLimiter::direct(Quota::per_second(limit))).collect(),
            None => Vec::new(),
        };
        Ok(Self { names, tokens: places, limits, clock: DefaultClock::default() })
    }

    /// Who has the token of this place.
    pub fn with_token(&self, place: usize) -> Publisher {
        self.tokens.get(place).copied().unwrap_or(Publisher::UNKNOWN)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// A publisher's name.
    pub fn name(&self, publisher: Publisher) -> &str {
        self.names.get(publisher.0).map_or(UNKNOWN, String::as_str)
    }

    /// Counts a request of a publisher against its limit; the error says when to come again.
    pub fn pass(&self, publisher: Publisher) -> Result<(), Duration> {
        let Some(limit) = self.limits.get(publisher.0) else { return Ok(()) };
        limit.check().map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_publisher_has_a_limit_of_its_own() {
        let token = |name: &str| Token { name: name.to_owned(), secret: name.to_owned().into() };
        let tokens = [token("acme"), token("other"), token("acme")];
        let publishers = Publishers::new(&tokens, NonZeroU32::new(5)).unwrap();
        let (acme, other) = (publishers.with_token(0), publishers.with_token(1));
        assert_eq!(publishers.with_token(2), acme, "a name has one limit, however many tokens");
        assert!(Publishers::new(&[token("facebook")], None).is_err());
        assert_eq!((publishers.name(acme), publishers.name(other)), ("acme", "other"));
        assert_eq!(publishers.name(Publisher::signed(Source::Tiktok)), "tiktok");
        let passed = (0..100).filter(|_| publishers.pass(acme).is_ok()).count();
        assert!((5..10).contains(&passed), "{passed}");
        assert!(publishers.pass(acme).is_err_and(|wait| wait <= Duration::from_millis(250)));
        assert!(publishers.pass(other).is_ok());
        let open = Publishers::new(&[], None).unwrap();
        assert!((0..1_000).all(|_| open.pass(Publisher::ANONYMOUS).is_ok()));
    }
}
