//! `ess top`: the whole system on one screen, renewed as it changes.

mod draw;
mod panel;
mod rows;
mod screen;
mod view;

use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt;

use self::screen::Screen;
use self::view::{Next, View};
use super::follow::{Watching, watch};
use super::model::Model;
use super::reporter::{Reporter, ReporterError};
use crate::service::Signals;

/// Interval at which the screen is drawn even if nothing is told: ages of findings grow.
const TICK: Duration = Duration::from_secs(1);

/// Error of `ess top`.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// Standard input or output is no terminal.
    #[error("`ess top` needs a terminal; `ess tail --json` writes to pipes")]
    NoTerminal,
    /// The reporter did not answer the first request, or refused it.
    #[error("{url}: {source}")]
    Reporter {
        /// URL of the reporter.
        url: String,
        /// The fault.
        source: ReporterError,
    },
    /// The terminal cannot be read or written any more.
    #[error("the terminal: {0}")]
    Terminal(#[from] std::io::Error),
}

/// Shows the system until a key or a signal ends it. The terminal is then as it was, also after a panic.
///
/// # Errors
///
/// If there is no terminal, or the reporter does not answer at the start. One that goes away later is waited for.
pub async fn run(reporter: &Reporter, signals: &mut Signals) -> Result<(), TopError> {
    if !screen::is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let first = tokio::select! {
        first = reporter.fleet() => first,
        _ = signals.received() => return Ok(()),
    };
    first.map_err(|source| TopError::Reporter { url: reporter.url().to_owned(), source })?;
    // Of samples only refused events are of use here: fewer are sent.
    let mut updates = watch(reporter, "?outcome=refused", Watching::System);
    let mut screen = Screen::enter()?;
    let mut keys = EventStream::new();
    let mut tick = tokio::time::interval(TICK);
    let (mut model, mut view) = (Model::new(), View::new(reporter.url()));
    loop {
        screen.draw(&model, &mut view, Instant::now())?;
        tokio::select! {
            _ = signals.received() => return Ok(()),
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if view.key(key) == Next::Quit {
                        return Ok(());
                    }
                }
                // The next drawing takes the new size.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            },
            Some(update) = updates.recv() => {
                model.take(update, Instant::now());
                while let Ok(update) = updates.try_recv() {
                    model.take(update, Instant::now());
                }
            }
            _ = tick.tick() => {}
        }
    }
}
