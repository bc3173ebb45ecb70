//! Rows of the panels, made of the model.

use super::panel::{Panel, Sort};
use super::view::View;
use crate::runtime::State;
use crate::terminal::model::{ActorLoad, Model};
use crate::terminal::text::{bytes, duration, number, number_within, printable, rate};

/// Look of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    Dim,
    Good,
    Warning,
    Bad,
}

/// A cell and its place in the order of its column.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub text: String,
    pub look: Look,
    /// Figure to sort by; texts are sorted as texts.
    value: f64,
}

/// A row of a panel.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// One cell for each column.
    pub cells: Vec<Cell>,
    /// More about the row, shown while it is selected.
    pub detail: String,
}

fn name(text: &str) -> Cell {
    Cell { text: printable(text), look: Look::Plain, value: 0.0 }
}

fn value(value: f64, text: String) -> Cell {
    let look = if value == 0.0 { Look::Dim } else { Look::Plain };
    Cell { text, look, value }
}

fn per_second(figure: f64) -> Cell {
    value(figure, rate(figure))
}

fn count(figure: u64, width: usize) -> Cell {
    value(figure as f64, number_within(figure, width))
}

fn known(figure: Option<u64>, width: usize) -> Cell {
    figure.map_or(Cell { text: "?".to_owned(), look: Look::Warning, value: -1.0 }, |figure| {
        count(figure, width)
    })
}

impl Cell {
    /// The cell with another look, unless its figure is 0.
    fn look(mut self, look: Look) -> Self {
        if self.value != 0.0 {
            self.look = look;
        }
        self
    }
}

/// Rows of a panel as the user wants them: those that the filter takes, in their order.
pub(super) fn rows(panel: Panel, model: &Model, view: &View) -> Vec<Row> {
    let mut rows = match panel {
        Panel::Sources => sources(model),
        Panel::Ledger => ledger(model),
        Panel::Processes => processes(model),
        Panel::Actors => model.actors().iter().map(actor).collect(),
    };
    if !view.filter.is_empty() {
        rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&view.filter)));
    }
    let Sort { column, descending } = view.sorts[panel as usize];
    let is_figure = panel.columns()[column].is_figure;
    // The sort is stable, so that rows of the same figure do not change places.
    rows.sort_by(|a, b| {
        let (a, b) = (&a.cells[column], &b.cells[column]);
        let order = if is_figure { a.value.total_cmp(&b.value) } else { a.text.cmp(&b.text) };
        if descending { order.reverse() } else { order }
    });
    rows
}

fn sources(model: &Model) -> Vec<Row> {
    let Some(flow) = model.flow() else { return Vec::new() };
    let row = |of: &crate::fleet::SourceFlow| Row {
        cells: vec![
            name(&of.source),
            per_second(of.received),
            per_second(of.accepted),
            per_second(of.refused).look(Look::Warning),
            per_second(of.logged),
            per_second(of.stored),
            per_second(of.duplicates),
            known(of.in_flight, 9),
            known(of.missing, 7).look(if of.missing.is_some() { Look::Bad } else { Look::Warning }),
        ],
        detail: String::new(),
    };
    flow.sources.iter().map(row).collect()
}

fn ledger(model: &Model) -> Vec<Row> {
    let row = |of: &crate::terminal::reporter::LedgerRow| Row {
        cells: vec![
            name(&of.source),
            count(of.published, 10),
            count(of.stored, 10),
            count(of.duplicates, 10),
            count(of.quarantined, 11).look(Look::Warning),
            count(of.in_flight, 9),
            count(of.missing, 7).look(Look::Bad),
            count(of.rejected, 8),
        ],
        detail: format!(
            "{} published = {} stored + {} duplicates + {} quarantined + {} in flight + {} missing",
            number(of.published),
            number(of.stored),
            number(of.duplicates),
            number(of.quarantined),
            number(of.in_flight),
            number(of.missing)
        ),
    };
    model.ledger.iter().map(row).collect()
}

fn processes(model: &Model) -> Vec<Row> {
    let actors = model.actors();
    let row = |one: &crate::fleet::Instance| {
        let own = actors.iter().filter(|actor| {
            actor.instance == one.instance && actor.node.name.starts_with(&format!("{}.", one.service))
        });
        let restarts = own.map(|actor| actor.node.restarts).sum();
        let up = chrono::DateTime::parse_from_rfc3339(&one.started_at)
            .map_or(0.0, |at| (chrono::Utc::now() - at.to_utc()).as_seconds_f64().max(0.0));
        let (state, look) = if one.ready { ("ready", Look::Good) } else { ("not ready", Look::Bad) };
        let why = one.why.as_deref().filter(|_| !one.ready).map(|why| format!(", {why}")).unwrap_or_default();
        Row {
            cells: vec![
                name(&one.service),
                name(&one.instance),
                Cell { text: state.to_owned(), look, value: 0.0 },
                value(one.cores, format!("{:.2}", one.cores)),
                value(one.memory_bytes as f64, bytes(one.memory_bytes)),
                count(restarts, 8).look(Look::Warning),
                value(up, duration(up)),
            ],
            detail: printable(&format!("{} {}, version {}{why}", one.service, one.instance, one.version)),
        }
    };
    model.instances.iter().map(row).collect()
}

fn actor(load: &ActorLoad) -> Row {
    let ActorLoad { node, instance, handled, blocked } = load;
    let (state, look) = match node.state {
        State::Running => ("running", Look::Good),
        State::Draining => ("draining", Look::Warning),
        State::Restarting => ("restarting", Look::Warning),
        State::Stopped => ("stopped", Look::Bad),
    };
    let (depth, bound) = (node.mailbox.depth, node.mailbox.bound);
    let fill = depth as f64 / bound.max(1) as f64;
    let mailbox = match bound {
        0 => Cell { text: "–".to_owned(), look: Look::Dim, value: -1.0 },
        _ => value(fill, format!("{}/{}", number_within(depth as u64, 6), number_within(bound as u64, 6))),
    };
    let full = if fill >= 0.9 { Look::Bad } else { Look::Plain };
    let why = node.last_failure.as_deref().map(|why| format!(", last failure: {why}")).unwrap_or_default();
    Row {
        cells: vec![
            name(&node.name),
            name(instance),
            Cell { text: state.to_owned(), look, value: 0.0 },
            per_second(*handled),
            if bound == 0 { mailbox } else { mailbox.look(full) },
            value(*blocked, format!("{:.0} %", 100.0 * blocked)).look(Look::Warning),
            count(node.restarts, 8).look(Look::Warning),
        ],
        detail: printable(&format!("{} {instance}, {} handled{why}", node.name, number(node.handled))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::terminal::follow::Update;
    use crate::terminal::model::tests::{flow, instance, node, row};
    use crate::terminal::top::panel::Column;

    fn model() -> Model {
        let mut model = Model::new();
        let now = Instant::now();
        model.take(flow("facebook", 500.0, 2.0, 12), now);
        model.take(Update::Ledger(Ok(vec![row("facebook", 0), row("tiktok", 3)])), now);
        let all = vec![
            instance("gateway", node("gateway.ingest", 7, 2)),
            instance("reporter", node("reporter.feed\u{1b}[31m", 9, 0)),
        ];
        model.take(Update::Fleet(Ok(all)), now);
        model
    }

    #[test]
    fn each_row_has_a_cell_for_each_column_that_is_no_wider() {
        let (model, view) = (model(), View::new("x"));
        for panel in Panel::ALL {
            let rows = rows(panel, &model, &view);
            assert!(!rows.is_empty(), "{panel:?}");
            for row in rows {
                assert_eq!(row.cells.len(), panel.columns().len());
                for (cell, column) in row.cells.iter().zip(panel.columns()).skip(1) {
                    let wide = cell.text.chars().count();
                    assert!(wide <= usize::from(column.width), "{panel:?}: {} {}", column.title, cell.text);
                }
            }
        }
    }

    #[test]
    fn columns_of_the_highest_rank_but_the_instance_fit_in_eighty_characters() {
        for panel in Panel::ALL {
            let columns = panel.columns();
            let optional = |column: &&Column| panel != Panel::Actors || column.title != "INSTANCE";
            let wide: u16 = columns.iter().filter(optional).map(|column| column.width + 1).sum::<u16>() - 1;
            assert!(wide <= 80, "{panel:?}: {wide}");
        }
    }

    #[test]
    fn rows_are_filtered_by_any_cell_and_sorted_by_the_figure_not_its_text() {
        let mut view = View::new("x");
        view.filter = "tik".to_owned();
        assert_eq!(rows(Panel::Ledger, &model(), &view).len(), 1);
        view.filter.clear();
        view.sorts[Panel::Ledger as usize] = Sort { column: 6, descending: true };
        assert_eq!(rows(Panel::Ledger, &model(), &view)[0].cells[0].text, "tiktok");
        view.sorts[Panel::Actors as usize] = Sort { column: 6, descending: false };
        assert_eq!(rows(Panel::Actors, &model(), &view)[1].cells[0].text, "gateway.ingest");
    }
}
