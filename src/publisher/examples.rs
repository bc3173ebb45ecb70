//! Requests of a declared source, made of the examples of its file, each with new ids and times, and signed.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::generate::{MAX_LATENESS, Mix, SEEDED_START};
use crate::source::Dice;
use crate::source::declared::{Declared, Draft, ExampleRequest, Secrets, Serial, Unsigned};

/// Requests that are kept to be sent again.
const MAX_REMEMBERED: usize = 1_000;

/// Reason that a declared source's events cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ExamplesError {
    /// No example expects events that can be made new.
    #[error("no example of the source `{0}` expects events with ids of their own: there is nothing to send")]
    Nothing(String),
    /// The requests cannot be signed.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
}

/// Makes requests of a declared source one after another.
#[derive(Debug)]
pub struct Examples {
    source: Declared,
    secrets: Secrets,
    requests: Vec<ExampleRequest>,
    mix: Mix,
    dice: Dice,
    serial: Serial,
    seeded: bool,
    made: i64,
    /// Requests as they are before they are signed, with their numbers of events.
    remembered: Vec<(Draft, u64)>,
}

impl Examples {
    /// Requests of a seed, or of one by chance. Corrupted events are not made; `file` returns the bytes of a file that an
    /// example names.
    ///
    /// # Errors
    ///
    /// If there is nothing to send, or it cannot be signed.
    pub fn new(
        source: Declared,
        secrets: Secrets,
        file: &dyn Fn(&str) -> std::io::Result<Vec<u8>>,
        seed: Option<u64>,
        mix: Mix,
    ) -> Result<Self, ExamplesError> {
        let mut requests = source.example_requests(file);
        if requests.is_empty() {
            return Err(ExamplesError::Nothing(source.name().to_owned()));
        }
        let mut refused = None;
        requests.retain(|request| {
            let mut draft = request.renewed(&mut Serial::new(0), SEEDED_START);
            let signed = source.sign(&mut draft, &secrets, 0);
            let is_signed = signed.is_ok();
            refused = signed.err().or(refused.take());
            is_signed
        });
        if let Some(unsigned) = refused.filter(|_| requests.is_empty()) {
            return Err(unsigned.into());
        }
        let mut dice = Dice::new(seed);
        let serial = Serial::new(dice.rng().random());
        Ok(Self {
            source,
            secrets,
            requests,
            mix,
            dice,
            serial,
            seeded: seed.is_some(),
            made: 0,
            remembered: Vec::new(),
        })
    }

    /// True if the source's file verifies requests by a secret of its own.
    pub fn is_verified(&self) -> bool {
        self.source.signing_secret().is_some()
    }

    /// The next request, and its number of events. A request that is sent again is signed anew, as platforms do.
    ///
    /// # Errors
    ///
    /// If the request cannot be signed.
    pub fn request(&mut self) -> Result<(Draft, u64), Unsigned> {
        let again = match self.dice.chance(self.mix.duplicates) {
            true => self.remembered.choose(self.dice.rng()).cloned(),
            false => None,
        };
        let (mut draft, events) = again.unwrap_or_else(|| self.renewed());
        self.source.sign(&mut draft, &self.secrets, chrono::Utc::now().timestamp())?;
        Ok((draft, events))
    }

    fn renewed(&mut self) -> (Draft, u64) {
        let now = match self.seeded {
            true => SEEDED_START + self.made * 1_000_000,
            false => chrono::Utc::now().timestamp_micros(),
        };
        self.made += 1;
        let late = match self.dice.chance(self.mix.late) {
            true => self.dice.rng().random_range(0..i64::try_from(MAX_LATENESS.as_micros()).unwrap_or(1)),
            false => 0,
        };
        let at = self.dice.rng().random_range(0..self.requests.len());
        let request = &self.requests[at];
        let made = (request.renewed(&mut self.serial, now - late), request.events() as u64);
        if self.mix.duplicates > 0.0 {
            if self.remembered.len() < MAX_REMEMBERED {
                self.remembered.push(made.clone());
            } else {
                let at = self.dice.rng().random_range(0..MAX_REMEMBERED);
                self.remembered[at].clone_from(&made);
            }
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::shipped;

    fn examples(name: &str, secret: &str, seed: Option<u64>, mix: Mix) -> Result<Examples, ExamplesError> {
        let shipped = shipped::find(name).unwrap();
        let source = Declared::parse(name, shipped.file).unwrap();
        let secrets = Secrets::load(source.signing_secret(), |_| Some(secret.to_owned())).unwrap();
        Examples::new(source, secrets, &shipped.reader(), seed, mix)
    }

    #[test]
    fn the_same_seed_makes_the_same_requests() {
        let make = |seed| {
            let mut examples = examples("shopify_orders", "invented", Some(seed), Mix::default()).unwrap();
            (0..50).map(|_| examples.request().unwrap().0).collect::<Vec<_>>()
        };
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
    }

    #[test]
    fn requests_are_sent_again_as_often_as_was_asked() {
        let mix = Mix { duplicates: 0.5, ..Mix::default() };
        let mut examples = examples("generic", "invented", Some(3), mix).unwrap();
        let bodies: Vec<_> = (0..400).map(|_| examples.request().unwrap().0.body).collect();
        let different: std::collections::HashSet<_> = bodies.iter().collect();
        assert!((140..260).contains(&different.len()), "{} of 400 are new", different.len());
    }

    #[test]
    fn a_key_that_is_no_base64_is_named() {
        let error = examples("standard_webhooks", "whsec_!", None, Mix::default()).unwrap_err();
        assert!(error.to_string().contains("ESS_STANDARD_WEBHOOKS_SECRET"), "{error}");
    }
}
