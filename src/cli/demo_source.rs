//! The third source of `ess demo`: a shipped source file, with a secret that the demo makes.

use std::path::PathBuf;
use std::sync::Arc;

use rand::Rng;

use super::failure::Failure;
use super::sent_source;
use crate::config::Config;
use crate::publisher::Examples;
use crate::publisher::generate::Mix;
use crate::source::declared::{Declared, Served, serve};
use crate::source::shipped;

/// Name of the source: orders with amounts in a currency.
pub(super) const NAME: &str = "shopify_orders";
/// Rate of its events, in events per second.
pub(super) const RATE: f64 = 10.0;

/// Adds the source to those that are served, and gives the requests of its examples. A source of this name in
/// `ESS_SOURCES` is taken instead, with its own secret.
pub(super) fn add(config: &Config, served: &mut Vec<Arc<Served>>) -> Result<Examples, Failure> {
    if served.iter().any(|served| served.source.name() == NAME) {
        return sent_source::find(config, NAME)?.examples(config, None, Mix::default());
    }
    let wrong = |message: String| Failure::Other(format!("the demo's source `{NAME}`: {message}"));
    let shipped = shipped::find(NAME).ok_or_else(|| wrong("it is not shipped".to_owned()))?;
    let read = || {
        Declared::parse(NAME, shipped.file)
            .map_err(|faults| wrong(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
    };
    let secret = format!("demo-{:032x}", rand::rng().random::<u128>());
    let own = serve(vec![(PathBuf::from(NAME), read()?)], |_| Some(secret.clone()));
    let own = own.map_err(|error| wrong(error.to_string()))?;
    let secrets = own.first().map(|own| own.secrets.clone()).unwrap_or_default();
    served.extend(own);
    let examples = Examples::new(read()?, secrets, &shipped.reader(), None, Mix::default());
    examples.map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Variables;

    #[test]
    fn the_third_source_of_the_demo_is_served_with_a_secret_of_its_own() {
        let config = Config::from_variables(&Variables::default()).unwrap();
        let mut served = Vec::new();
        let mut examples = add(&config, &mut served).unwrap();
        assert_eq!(served.len(), 1);
        assert_eq!(served[0].source.name(), NAME);
        assert!(examples.is_verified() && examples.request().unwrap().1 > 0);
        let mut others = Vec::new();
        add(&config, &mut others).unwrap();
        let shown = |served: &Served| format!("{:?}", served.secrets);
        assert!(!shown(&served[0]).contains("demo-") && !shown(&others[0]).contains("demo-"));
    }
}
