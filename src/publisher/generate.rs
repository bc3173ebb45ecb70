//! Makes events: valid by the contract, in the real publisher's ranges, and its eight corruptions.
//!
//! With a seed everything follows from it, times included: the same seed makes the same events.

use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::Value;

use crate::event::format_micros;
use crate::source::{Corruption, Dice, SampleEvent, Source};

/// Time of the first event of a seed: 2026-01-01T00:00:00Z.
pub(super) const SEEDED_START: i64 = 1_767_225_600_000_000;
/// Greatest lateness of late events.
pub(super) const MAX_LATENESS: Duration = Duration::from_secs(3 * 86_400);
/// Events that are kept to be sent again.
const MAX_REMEMBERED: usize = 10_000;
/// Room for an event of average size, in bytes.
const EVENT_BYTES: usize = 440;

/// Fractions, from 0 to 1, of events that are something else than new, valid and in time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mix {
    /// Events that were made before.
    pub duplicates: f64,
    /// Events with one of the corruptions; most of them break the contract.
    pub invalid: f64,
    /// Events with a time up to three days ago.
    pub late: f64,
}

/// Makes events one after another.
#[derive(Debug)]
pub struct Generator {
    dice: Dice,
    sources: Vec<Source>,
    mix: Mix,
    seeded: bool,
    made: u64,
    remembered: Vec<String>,
}

impl Generator {
    /// A generator of a seed, or of one by chance.
    pub fn new(seed: Option<u64>, mix: Mix) -> Self {
        let sources = Source::built_in().collect();
        Self { dice: Dice::new(seed), sources, mix, seeded: seed.is_some(), made: 0, remembered: Vec::new() }
    }

    /// Makes events of this built-in source alone.
    pub fn only(mut self, source: Source) -> Self {
        self.sources = vec![source];
        self
    }

    /// The next event's JSON.
    pub fn event(&mut self) -> String {
        if self.dice.chance(self.mix.duplicates)
            && let Some(again) = self.remembered.choose(self.dice.rng())
        {
            return again.clone();
        }
        if self.dice.chance(self.mix.invalid) {
            return self.corrupted();
        }
        let event = self.valid();
        if self.mix.duplicates > 0.0 {
            if self.remembered.len() < MAX_REMEMBERED {
                self.remembered.push(event.clone());
            } else {
                let at = self.dice.rng().random_range(0..MAX_REMEMBERED);
                self.remembered[at].clone_from(&event);
            }
        }
        event
    }

    /// An array of this many events.
    pub fn batch(&mut self, events: usize) -> String {
        let mut body = String::with_capacity(events * EVENT_BYTES + 2);
        body.push('[');
        for index in 0..events {
            if index > 0 {
                body.push(',');
            }
            let event = self.event();
            body.push_str(&event);
        }
        body.push(']');
        body
    }

    /// A number of events for one POST, both ends included.
    pub fn size(&mut self, sizes: (usize, usize)) -> usize {
        self.dice.rng().random_range(sizes.0..=sizes.1)
    }

    /// True in this fraction of calls.
    pub fn chance(&mut self, fraction: f64) -> bool {
        self.dice.chance(fraction)
    }

    /// A valid event of any source.
    pub fn valid(&mut self) -> String {
        let now = if self.seeded {
            SEEDED_START + i64::try_from(self.made).unwrap_or(0) * 1_000
        } else {
            chrono::Utc::now().timestamp_millis() * 1_000
        };
        self.made += 1;
        let late = if self.dice.chance(self.mix.late) {
            let most = i64::try_from(MAX_LATENESS.as_millis()).unwrap_or(0);
            self.dice.rng().random_range(0..most) * 1_000
        } else {
            0
        };
        let time = format_micros(now - late);
        let source = self.dice.pick(&self.sources);
        let Some(contract) = source.contract() else { return String::new() };
        let event_type = &contract.event_types[self.dice.rng().random_range(0..contract.event_types.len())];
        (contract.samples.write)(&mut self.dice, &SampleEvent { time: &time, event_type })
    }

    /// An event with one of the eight corruptions. A corruption of another source than the event's may be only an
    /// unknown key, and the event stays valid.
    pub fn corrupted(&mut self) -> String {
        let mut event: Value = serde_json::from_str(&self.valid()).unwrap_or_default();
        let contracts = || Source::built_in().filter_map(Source::contract);
        let samples = || contracts().map(|contract| &contract.samples);
        match self.dice.rng().random_range(0..8) {
            0 => event["timestamp"] = "invalid-timestamp".into(),
            1 => corrupt(&mut event, Corruption::remove("", "eventId")),
            2 => samples().for_each(|samples| corrupt(&mut event, samples.without_name)),
            3 => corrupt(&mut event, Corruption::remove("/data", "user")),
            4 => event["funnelStage"] = "invalid-stage".into(),
            5 => event["eventType"] = serde_json::json!(["unknown", "event"]),
            6 => {
                let all: Vec<_> = samples().flat_map(|samples| samples.wrong_engagements).copied().collect();
                corrupt(&mut event, self.dice.pick(&all));
            }
            _ => {
                let all: Vec<_> = samples().map(|samples| samples.wrong_user).collect();
                corrupt(&mut event, self.dice.pick(&all));
            }
        }
        event.to_string()
    }
}

fn corrupt(event: &mut Value, Corruption { object, key, value }: Corruption) {
    let Some(Value::Object(object)) = event.pointer_mut(object) else { return };
    match value.map(serde_json::from_str) {
        Some(Ok(value)) => drop(object.insert(key.to_owned(), value)),
        _ => drop(object.remove(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::decode;

    #[test]
    fn the_same_seed_makes_the_same_events() {
        let mix = Mix { duplicates: 0.1, invalid: 0.1, late: 0.1 };
        let make = |seed| Generator::new(Some(seed), mix).batch(500);
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
    }

    #[test]
    fn events_keep_the_contract_and_the_documented_sizes() {
        let mut generator = Generator::new(Some(1), Mix::default());
        let mut bytes = 0;
        let mut cities = std::collections::HashSet::new();
        let (mut amounts, mut kinds) = (0, std::collections::HashSet::new());
        for _ in 0..20_000 {
            let text = generator.valid();
            bytes += text.len();
            assert!(text.len() <= 543, "{text}");
            let event = decode(text.as_bytes(), None).unwrap_or_else(|refusal| panic!("{refusal:?}: {text}"));
            assert_eq!(event.rest, None);
            kinds.insert(event.kind.code());
            amounts += usize::from(event.columns.amount.is_some());
            cities.extend(event.columns.city.map(|city| city.into_owned()));
        }
        let types = Source::built_in().map(|source| source.event_types().count()).sum::<usize>();
        assert_eq!(kinds.len(), types, "every type of every source");
        assert!((380..460).contains(&(bytes / 20_000)), "{} bytes on average", bytes / 20_000);
        assert!((2_900..3_800).contains(&amounts), "one in six: {amounts}");
        assert!((5_000..10_000).contains(&cities.len()), "{} cities", cities.len());
    }

    #[test]
    fn events_of_one_source_are_made_alone() {
        for source in Source::built_in() {
            let mut generator = Generator::new(Some(4), Mix::default()).only(source);
            for _ in 0..200 {
                let event = generator.valid();
                assert_eq!(decode(event.as_bytes(), None).unwrap().source, source, "{event}");
            }
        }
    }

    #[test]
    fn corruptions_are_mostly_refused_and_some_are_only_an_unknown_key() {
        let mut generator = Generator::new(Some(2), Mix::default());
        let (mut refused, mut kept) = (0, 0);
        for _ in 0..2_000 {
            match decode(generator.corrupted().as_bytes(), None) {
                Ok(event) => kept += usize::from(event.rest.is_some()),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 1_300 && kept > 100, "{refused} refused, {kept} kept");
    }
}
