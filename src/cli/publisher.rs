//! The command `ess publisher`: sends generated events to a gateway.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;
use crate::config::Config;
use crate::publisher::generate::{Generator, Mix};
use crate::publisher::{Feed, Pace, Plan, Tally, publish};
use crate::service::{Ending, Signals};
use crate::source::Source;

/// Default URL that events are sent to.
const DEFAULT_TARGET: &str = "http://localhost:3000/webhook";
/// Events of one POST of the real publisher.
const REAL_SIZES: (usize, usize) = (1_000, 50_000);
/// Maximum POSTs under way at one time, by default.
const CONNECTIONS: usize = 64;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// URL of the webhook [default: EVENT_ENDPOINT, else http://localhost:3000/webhook]
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// Source whose events are sent alone: a built-in one, or a declared or shipped one, from the examples of its file to
    /// its own path, signed with its secret [default: all built-in ones]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Events a second [default: one POST a second, or with --batch as many as are answered]
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Events of one POST: N or MIN..MAX [default: 1000..50000]
    #[arg(long, value_name = "N|MIN..MAX", value_parser = sizes)]
    batch: Option<(usize, usize)>,
    /// Maximum POSTs under way at one time
    #[arg(long, default_value_t = CONNECTIONS, value_parser = connections)]
    connections: usize,
    /// Duration of the run, such as 30s [default: until it is stopped]
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Fraction of events that repeat an earlier one
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = fraction)]
    duplicates: f64,
    /// Fraction of corrupted events [default: one in every tenth POST]
    #[arg(long, value_name = "P", value_parser = fraction)]
    invalid: Option<f64>,
    /// Fraction of events that are up to three days late
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = fraction)]
    late: f64,
    /// Seed of the events, their times included [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Bearer token of the webhook [default: the first of ESS_WEBHOOK_TOKEN]
    #[arg(long)]
    token: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("must be more than 0".to_owned()) }
}

fn fraction(text: &str) -> Result<f64, String> {
    let fraction: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if (0.0..=1.0).contains(&fraction) { Ok(fraction) } else { Err("must be from 0 to 1".to_owned()) }
}

fn connections(text: &str) -> Result<usize, String> {
    let connections = text.parse().map_err(|_| "must be a whole number".to_owned())?;
    if (1..=10_000).contains(&connections) {
        Ok(connections)
    } else {
        Err("must be from 1 to 10000".to_owned())
    }
}

fn sizes(text: &str) -> Result<(usize, usize), String> {
    let number = |text: &str| text.parse::<usize>().map_err(|_| format!("`{text}` is no whole number"));
    let (low, high) = match text.split_once("..") {
        Some((low, high)) => (number(low)?, number(high)?),
        None => (number(text)?, number(text)?),
    };
    if low == 0 || low > high || high > 1_000_000 {
        return Err("must be N or MIN..MAX, from 1 to 1000000".to_owned());
    }
    Ok((low, high))
}

/// Origin of the events that the arguments ask for.
fn feed(config: &Config, arguments: &Arguments, mix: Mix) -> Result<Feed, Failure> {
    let generated = Generator::new(arguments.seed, mix);
    let Some(name) = &arguments.source else { return Ok(Feed::Generated(Box::new(generated))) };
    if let Some(source) = Source::built_in().find(|source| source.name() == name) {
        return Ok(Feed::Generated(Box::new(generated.only(source))));
    }
    let declared = super::sent_source::find(config, name)?;
    let useless = [
        ("--batch", arguments.batch.is_some(), "each POST is the body of one example"),
        ("--invalid", arguments.invalid.is_some(), "only examples that expect events are sent"),
    ];
    for (option, is_given, reason) in useless {
        if is_given {
            return Err(Failure::Usage(format!("{option} has no use with --source {name}: {reason}")));
        }
    }
    declared.examples(config, arguments.seed, mix).map(|examples| Feed::Examples(Box::new(examples)))
}

/// URL of a declared source's own path, by the URL of the webhook.
fn own_path(target: &str, source: &str) -> String {
    let target = target.trim_end_matches('/');
    let own = format!("/{source}");
    if target.ends_with(&format!("/webhook{own}")) { target.to_owned() } else { format!("{target}{own}") }
}

/// Sends events, then prints the counts and latencies.
pub(super) async fn run(config: &Config, arguments: &Arguments) -> Result<Ending, Failure> {
    let target = arguments.target.clone().or_else(|| config.event_endpoint.clone());
    let target = target.unwrap_or_else(|| DEFAULT_TARGET.to_owned());
    if !target.starts_with("http://") && !target.starts_with("https://") {
        return Err(Failure::Usage(format!("the target `{target}` must begin with http:// or https://")));
    }
    let mix = Mix {
        duplicates: arguments.duplicates,
        invalid: arguments.invalid.unwrap_or(0.0),
        late: arguments.late,
    };
    let feed = feed(config, arguments, mix)?;
    let is_verified = matches!(&feed, Feed::Examples(examples) if examples.is_verified());
    if is_verified && arguments.token.is_some() {
        let source = arguments.source.as_deref().unwrap_or_default();
        return Err(Failure::Usage(format!(
            "--token has no use with --source {source}: its file verifies requests by a secret of its own"
        )));
    }
    let plan = Plan {
        target: match (&feed, &arguments.source) {
            (Feed::Examples(_), Some(source)) => own_path(&target, source),
            _ => target,
        },
        authorities: config.nats.authorities.clone(),
        token: arguments
            .token
            .clone()
            .or_else(|| config.webhook_tokens.first().map(|token| token.secret.expose().to_owned()))
            .filter(|_| !is_verified),
        sizes: arguments.batch.unwrap_or(REAL_SIZES),
        pace: match (arguments.rate, arguments.batch) {
            (Some(rate), _) => Pace::Rate(rate),
            (None, None) => Pace::EverySecond,
            (None, Some(_)) => Pace::Closed,
        },
        connections: arguments.connections,
        duration: arguments.duration,
        corrupt_posts: arguments.invalid.is_none() && arguments.batch.is_none_or(|sizes| sizes.1 > 1),
    };
    let mut signals = Signals::listen().map_err(|error| Failure::Other(format!("signals: {error}")))?;
    let stop = async move {
        signals.received().await;
    };
    let bar = bar(arguments);
    let started = Instant::now();
    let tally = publish(&plan, feed, stop, |tally| show(bar.as_ref(), tally)).await;
    let tally = tally.map_err(|error| Failure::Usage(error.to_string()))?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let elapsed = started.elapsed();
    if arguments.json {
        println!("{}", tally.json(elapsed));
    } else {
        tally.lines(elapsed).iter().for_each(|line| println!("{line}"));
    }
    Ok(if tally.failed == 0 { Ending::Clean } else { Ending::Incomplete })
}

fn bar(arguments: &Arguments) -> Option<ProgressBar> {
    if arguments.json || !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        bar.set_style(style);
    }
    Some(bar)
}

fn show(bar: Option<&ProgressBar>, tally: &Tally) {
    if let Some(bar) = bar {
        let Tally { sent, accepted, rejected, failed, .. } = tally;
        bar.set_message(format!("{sent} sent, {accepted} accepted, {rejected} rejected, {failed} failed"));
        bar.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_declared_source_follows_from_the_webhook() {
        for (target, own) in [
            ("http://localhost:3000/webhook", "http://localhost:3000/webhook/stripe"),
            ("https://example.com/in/webhook/", "https://example.com/in/webhook/stripe"),
            ("http://localhost:3000/webhook/stripe", "http://localhost:3000/webhook/stripe"),
        ] {
            assert_eq!(own_path(target, "stripe"), own);
        }
    }
}
