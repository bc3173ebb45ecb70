//! One line of figures of the whole system that is renewed in place, as `ess demo` shows it.

use std::io::{IsTerminal, Write, stdout};

use super::feed::FeedMessage;
use super::follow::{Update, Watching, watch};
use super::reporter::{LedgerRow, Reporter, Revenue};
use super::text::{number, printable, rate};
use crate::fleet::Flow;
use crate::runtime::DrainHandle;

/// Width that is assumed where the terminal tells none, in characters.
const WIDTH: u16 = 80;
/// Moves to the start of the line, and clears it.
const CLEAR: &str = "\r\u{1b}[2K";

/// True if standard output is a terminal in which a line can be renewed.
pub fn is_possible() -> bool {
    stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|terminal| terminal != "dumb")
}

/// Figures that were told last.
#[derive(Debug, Default)]
struct Figures {
    flow: Option<Flow>,
    ledger: Option<Vec<LedgerRow>>,
    revenue: Option<Revenue>,
    /// Lines of the log that are warnings or errors.
    warnings: u64,
}

impl Figures {
    /// Takes news; true if the line is to be renewed.
    fn take(&mut self, update: Update) -> bool {
        match update {
            Update::Message(FeedMessage::Flow(flow)) => {
                self.flow = Some(flow);
                return true;
            }
            Update::Ledger(ledger) => self.ledger = ledger.ok(),
            Update::Revenue(revenue) => self.revenue = Some(revenue),
            Update::Away(_) => {
                self.flow = None;
                return true;
            }
            Update::Message(_) | Update::Connected | Update::Fleet(_) => {}
        }
        false
    }

    /// The line, in at most `width` characters: figures that do not fit are left out, the last ones first.
    fn line(&self, width: usize) -> String {
        let received = self.flow.as_ref().map(|flow| flow.sources.iter().map(|of| of.received).sum::<f64>());
        let sum = |field: fn(&LedgerRow) -> u64| {
            let all = self.ledger.as_ref().map(|rows| rows.iter().map(field).sum());
            all.map_or("?".to_owned(), number)
        };
        let mut parts = vec![
            format!("{} events/s", received.map_or("?".to_owned(), rate)),
            format!("accepted {}", sum(|row| row.published)),
            format!("refused {}", sum(|row| row.rejected)),
            format!("stored {}", sum(|row| row.stored)),
            format!("in flight {}", sum(|row| row.in_flight)),
            format!("missing {}", sum(|row| row.missing)),
        ];
        match self.warnings {
            0 => {}
            1 => parts.insert(1, "1 warning".to_owned()),
            more => parts.insert(1, format!("{} warnings", number(more))),
        }
        if let Some(Revenue { total_revenue, currency }) = &self.revenue {
            let currency = currency.as_deref().unwrap_or_default();
            parts.push(printable(&format!("revenue {} {currency}", grouped(total_revenue))));
        }
        let mut line = String::new();
        for part in parts.iter().map(|part| part.trim_end()) {
            let wide = line.chars().count() + part.chars().count() + 2 * usize::from(!line.is_empty());
            if wide > width {
                break;
            }
            if !line.is_empty() {
                line.push_str("  ");
            }
            line.push_str(part);
        }
        line
    }
}

/// A decimal number with separators in its whole part.
fn grouped(decimal: &str) -> String {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    match whole.parse() {
        Ok(whole) if !fraction.is_empty() => format!("{}.{fraction}", number(whole)),
        Ok(whole) => number(whole),
        Err(_) => decimal.to_owned(),
    }
}

fn show(text: &str) {
    let mut output = stdout().lock();
    // A terminal that is gone needs no figures.
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// Shows the line until the process drains; `warnings` is the number of warnings and errors in the log so far.
pub async fn run(reporter: Reporter, drain: DrainHandle, warnings: impl Fn() -> u64) {
    // The samples of this viewer are not used: those of refused events are few.
    let mut updates = watch(&reporter, "?outcome=refused", Watching::Totals);
    let mut figures = Figures::default();
    loop {
        let update = tokio::select! {
            () = drain.started() => break,
            update = updates.recv() => update,
        };
        let Some(update) = update else { break };
        if figures.take(update) {
            figures.warnings = warnings();
            // One column stays free, so that no terminal begins a new line.
            let width = crossterm::terminal::size().map_or(WIDTH, |(width, _)| width).saturating_sub(1);
            show(&format!("{CLEAR}{}", figures.line(usize::from(width))));
        }
    }
    show("\r\nstopping: what was accepted is being stored\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::model::tests::{flow, row};

    fn figures() -> Figures {
        let mut figures = Figures::default();
        assert!(figures.take(flow("facebook", 498.4, 2.0, 90)));
        assert!(!figures.take(Update::Ledger(Ok(vec![row("facebook", 0), row("tiktok", 3)]))));
        let revenue = Revenue { total_revenue: "12345.67".to_owned(), currency: Some("USD".to_owned()) };
        assert!(!figures.take(Update::Revenue(revenue)));
        figures
    }

    #[test]
    fn the_line_tells_the_figures_of_all_sources() {
        let mut figures = figures();
        assert_eq!(
            figures.line(200),
            "498 events/s  accepted 2,000,000  refused 24  stored 1,998,000  in flight 180  missing 3  \
             revenue 12,345.67 USD"
        );
        figures.warnings = 2;
        assert!(figures.line(200).starts_with("498 events/s  2 warnings  accepted"));
        assert!(figures.take(Update::Away(crate::terminal::ReporterError::Ended)));
        assert!(figures.take(Update::Away(crate::terminal::ReporterError::Ended)));
        assert!(figures.line(200).starts_with("? events/s"));
    }

    #[test]
    fn the_line_never_wraps() {
        let figures = figures();
        for width in 0..200 {
            assert!(figures.line(width).chars().count() <= width);
        }
        assert_eq!(figures.line(60), "498 events/s  accepted 2,000,000  refused 24");
    }
}
