//! Drawing of the screen: what is wrong, figures of the system, four panels, keys.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row as TableRow, Table};

use super::panel::{Column, Panel};
use super::rows::{Cell, Look, Row, rows};
use super::view::View;
use crate::terminal::model::{Finding, Level, Model};
use crate::terminal::text::{duration, number, printable, rate};

/// Rows of a panel that another one has the focus of, if there is room.
const UNFOCUSED: u16 = 4;

const HELP: &[&str] = &[
    "Keys",
    "",
    "Tab, Shift-Tab   next panel, panel before",
    "arrows, j k      select a row; its details show below",
    "PgUp PgDn        ten rows up or down; Home, End",
    "F4 / \\           filter rows by text; Esc shows all",
    "F6 > < . ,       sort by the next column, or the one before",
    "I r              turn the order around",
    "F1 h ?           this help",
    "F10 q Ctrl-C     quit",
    "",
    "BLOCKED is the share of time for which senders waited for",
    "room in the mailbox. HANDLED/s is over the last 10 s.",
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, view: &mut View, now: Instant) {
    let area = frame.area();
    let findings = model.findings(now);
    let most = usize::from((area.height / 8).max(1));
    let mut lines = vec![title(view, area.width)];
    lines.extend(verdict(&findings, most));
    lines.push(figures(model));
    let head = (lines.len() as u16).min(area.height);
    // Two lines at the bottom: details of the selected row, and keys.
    let foot = 2.min(area.height - head);
    let middle = Rect { y: area.y + head, height: area.height - head - foot, ..area };
    frame.render_widget(Paragraph::new(lines), Rect { height: head, ..area });
    let detail = panels(frame, middle, model, view);
    let bottom = Rect { y: middle.y + middle.height, height: foot, ..area };
    frame.render_widget(Paragraph::new(vec![Line::from(detail), keys(view)]), bottom);
    if view.helps {
        help(frame, area);
    }
}

fn title(view: &View, width: u16) -> Line<'static> {
    let left = format!("ESS  {}", printable(&view.url));
    let right = chrono::Local::now().format("%H:%M:%S").to_string();
    let gap = usize::from(width).saturating_sub(left.chars().count() + right.len()).max(2);
    Line::styled(format!("{left}{}{right}", " ".repeat(gap)), Modifier::BOLD)
}

fn verdict(findings: &[Finding], most: usize) -> Vec<Line<'static>> {
    let style = |level| match level {
        Level::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        Level::Warning => Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
        Level::Notice => Style::new(),
        Level::Good => Style::new().fg(Color::Green),
    };
    let shown = if findings.len() > most { most.max(2) - 1 } else { most };
    let mut lines: Vec<_> = findings
        .iter()
        .take(shown)
        .map(|finding| Line::styled(finding.text.clone(), style(finding.level)))
        .collect();
    let left = findings.len().saturating_sub(shown);
    if left > 0 && most > 1 {
        lines.push(Line::from(format!("and {left} more")));
    }
    lines
}

/// Figures of all sources together, and the latency.
fn figures(model: &Model) -> Line<'static> {
    let Some(flow) = model.flow() else { return Line::from("no figures yet") };
    let sum = |field: fn(&crate::fleet::SourceFlow) -> f64| flow.sources.iter().map(field).sum::<f64>();
    let all = |field: fn(&crate::fleet::SourceFlow) -> Option<u64>| {
        flow.sources.iter().map(field).sum::<Option<u64>>().map_or("?".to_owned(), number)
    };
    let latency = flow.post_to_row.map_or("–".to_owned(), |latency| {
        format!("{}, p99 {}", duration(latency.p50), duration(latency.p99))
    });
    let parts = [
        ("Received ", format!("{}/s", rate(sum(|of| of.received)))),
        ("Stored ", format!("{}/s", rate(sum(|of| of.stored)))),
        ("In flight ", all(|of| of.in_flight)),
        ("Missing ", all(|of| of.missing)),
        ("POST to row ", latency),
    ];
    let mut spans = Vec::new();
    for (label, figure) in parts {
        spans.push(Span::styled(label, Color::DarkGray));
        spans.push(Span::styled(figure, Modifier::BOLD));
        spans.push(Span::from("  "));
    }
    let line = Line::from(spans);
    if model.is_stale() { line.style(Modifier::DIM) } else { line }
}

/// Draws the panels; returns the details of the selected row.
fn panels(frame: &mut Frame<'_>, area: Rect, model: &Model, view: &mut View) -> String {
    let all = Panel::ALL.map(|panel| rows(panel, model, view));
    let wanted = [0, 1, 2, 3].map(|panel: usize| u16::try_from(all[panel].len() + 1).unwrap_or(u16::MAX));
    let heights = heights(area.height, wanted, view.focus);
    let mut at = area.y;
    let mut detail = String::new();
    for (panel, rows) in Panel::ALL.into_iter().zip(all) {
        let height = heights[panel as usize];
        let room = usize::from(height.saturating_sub(1));
        let (selected, first) = view.settle(panel, rows.len(), room);
        let focused = panel == view.focus;
        if focused {
            detail = rows.get(selected).map(|row| row.detail.clone()).unwrap_or_default();
        }
        let place = Rect { y: at, height, ..area };
        at += height;
        let marked = (focused && !rows.is_empty()).then(|| selected - first);
        let shown = &rows[first.min(rows.len())..(first + room).min(rows.len())];
        table(frame, place, panel, shown, marked, view, model.is_stale());
    }
    detail
}

/// Heights of panels: a few rows for each, then what is left for the one with the focus, then for the others. Where
/// there is hardly room, only the one with the focus is shown.
fn heights(height: u16, wanted: [u16; Panel::ALL.len()], focus: Panel) -> [u16; Panel::ALL.len()] {
    let focus = focus as usize;
    let mut heights = wanted.map(|rows| rows.min(UNFOCUSED));
    if heights.iter().sum::<u16>() > height {
        heights = Default::default();
    }
    for panel in [focus, 3, 2, 0, 1] {
        let left = height - heights.iter().sum::<u16>();
        heights[panel] += (wanted[panel] - heights[panel]).min(left);
    }
    heights
}

fn style(look: Look) -> Style {
    match look {
        Look::Plain => Style::new(),
        Look::Dim => Style::new().fg(Color::DarkGray),
        Look::Good => Style::new().fg(Color::Green),
        Look::Warning => Style::new().fg(Color::Yellow),
        Look::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

/// Numbers of the columns that fit: those of the highest rank are left out first.
fn fitting(columns: &[Column], width: u16) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    while shown.len() > 1 && shown.iter().map(|at| columns[*at].width + 1).sum::<u16>() > width + 1 {
        let worst = shown.iter().copied().skip(1).max_by_key(|at| (columns[*at].rank, *at));
        shown.retain(|at| Some(*at) != worst);
    }
    shown
}

fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    panel: Panel,
    rows: &[Row],
    marked: Option<usize>,
    view: &View,
    stale: bool,
) {
    let columns = panel.columns();
    let shown = fitting(columns, area.width);
    let aligned = |at: usize, text: String| {
        let line = Line::from(text);
        if columns[at].is_figure { line.right_aligned() } else { line }
    };
    let sort = view.sorts[panel as usize];
    let head = shown.iter().map(|at| {
        let sorted = *at == sort.column;
        let style = if sorted { Modifier::UNDERLINED } else { Modifier::empty() };
        aligned(*at, columns[*at].title.to_owned()).style(style)
    });
    let head_style = if panel == view.focus {
        Style::new().add_modifier(Modifier::REVERSED)
    } else {
        Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD)
    };
    let row = |(at, row): (usize, &Row)| {
        let cells = shown.iter().map(|column| {
            let Cell { text, look, .. } = &row.cells[*column];
            aligned(*column, text.clone()).style(style(*look))
        });
        let marked = if marked == Some(at) { Modifier::REVERSED } else { Modifier::empty() };
        TableRow::new(cells).style(marked)
    };
    let widths = shown.iter().map(|at| match at {
        0 => Constraint::Min(columns[0].width),
        at => Constraint::Length(columns[*at].width),
    });
    let style = if stale { Modifier::DIM } else { Modifier::empty() };
    let table = Table::new(rows.iter().enumerate().map(row), widths)
        .header(TableRow::new(head).style(head_style))
        .style(style);
    frame.render_widget(table, area);
}

fn keys(view: &View) -> Line<'static> {
    if view.types_filter {
        return Line::from(format!(
            "Filter: {}_   Enter keeps it, Esc shows all rows",
            printable(&view.filter)
        ));
    }
    let key = |name: &'static str| Span::styled(name, Modifier::BOLD);
    let text = |text: &'static str| Span::styled(text, Modifier::REVERSED);
    let mut spans = vec![key("F1"), text("Help "), key("F4"), text("Filter "), key("F6"), text("Sort ")];
    spans.extend([key("I"), text("Invert "), key("Tab"), text("Panel "), key("F10"), text("Quit ")]);
    if !view.filter.is_empty() {
        spans.push(Span::from(format!("  filter: {}", printable(&view.filter))));
    }
    Line::from(spans)
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let (width, height) = (62.min(area.width), (HELP.len() as u16 + 2).min(area.height));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let text: Vec<_> = HELP.iter().map(|line| Line::from(*line)).collect();
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" ess top ")), place);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::terminal::follow::Update;
    use crate::terminal::model::tests::{flow, instance, node, row};

    /// A system with a gateway that is not ready and 40 actors.
    fn model(now: Instant) -> Model {
        let mut model = Model::new();
        model.take(Update::Connected, now);
        let mut gateway = instance("gateway", node("gateway.ingest", 0, 0));
        (gateway.ready, gateway.why) = (false, Some("log: away".to_owned()));
        let collector = instance("collector.facebook", node("collector.facebook.consume", 0, 0));
        let mut reporter = instance("reporter", node("reporter.report.0", 0, 0));
        reporter.actors[0].children[0].children =
            (0..40).map(|number| node(&format!("reporter.report.{number}"), number, 0)).collect();
        model.take(Update::Fleet(Ok(vec![gateway, collector, reporter])), now);
        model.take(Update::Ledger(Ok(vec![row("facebook", 0), row("tiktok", 0)])), now);
        model.take(flow("facebook", 50_000.0, 120.0, 9_000), now);
        model
    }

    fn screen(model: &Model, view: &mut View, width: u16, height: u16) -> Vec<String> {
        let now = Instant::now();
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, view, now)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn eighty_columns_and_twenty_four_lines_show_every_panel_and_what_is_wrong_first() {
        let model = model(Instant::now());
        let lines = screen(&model, &mut View::new("http://localhost:3003"), 80, 24);
        assert!(lines[0].starts_with("ESS  http://localhost:3003"), "{lines:#?}");
        assert_eq!(lines[1], "gateway host-1 is not ready: log: away");
        assert!(lines[2].starts_with("facebook: 120/s are refused"), "{lines:#?}");
        assert!(lines[3].contains("Received 50,000/s") && lines[3].contains("In flight 9,000"), "{lines:#?}");
        for title in ["SOURCE", "LEDGER", "PROCESS", "ACTOR"] {
            assert!(lines.iter().any(|line| line.starts_with(title)), "{title}: {lines:#?}");
        }
        for text in ["MISSING", "HANDLED/s", "MAILBOX", "3/64", "not ready", "1,000,000"] {
            assert!(lines.iter().any(|line| line.contains(text)), "{text}: {lines:#?}");
        }
        assert!(lines[23].starts_with("F1Help"), "{lines:#?}");
    }

    #[test]
    fn every_size_is_drawn_without_a_fault() {
        let model = model(Instant::now());
        let mut drawn = 0;
        for (width, height) in
            (0..130).step_by(9).flat_map(|width| (0..40).step_by(3).map(move |height| (width, height)))
        {
            for helps in [false, true] {
                let mut view = View::new("http://localhost:3003");
                view.helps = helps;
                screen(&model, &mut view, width, height);
                drawn += 1;
            }
        }
        assert_eq!(drawn, 15 * 14 * 2);
    }

    #[test]
    fn a_small_screen_shows_the_panel_with_the_focus_and_scrolls_to_the_selected_row() {
        let mut view = View::new("x");
        let model = model(Instant::now());
        for _ in 0..60 {
            view.key(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE));
        }
        let lines = screen(&model, &mut view, 60, 12);
        assert!(!lines.iter().any(|line| line.starts_with("LEDGER")), "{lines:#?}");
        assert!(lines[10].contains("handled"), "details of the selected row: {lines:#?}");
        let last = rows(Panel::Actors, &model, &view).pop().unwrap();
        assert!(lines[9].starts_with(&last.cells[0].text), "{lines:#?}");
    }

    #[test]
    fn wide_screens_show_all_columns_and_narrow_ones_what_matters_most() {
        for panel in Panel::ALL {
            let columns = panel.columns();
            assert_eq!(fitting(columns, 120).len(), columns.len(), "{panel:?}");
            assert!(fitting(columns, 1) == [0], "{panel:?}");
            let of = |width| fitting(columns, width).iter().map(|at| columns[*at].rank).max();
            assert!((20..120).all(|width| of(width) <= of(width + 1)), "{panel:?}");
        }
    }

    #[test]
    fn the_panel_with_the_focus_gets_the_room_that_is_left() {
        assert_eq!(heights(30, [3, 4, 5, 50], Panel::Actors), [3, 4, 4, 19]);
        assert_eq!(heights(30, [3, 4, 40, 50], Panel::Processes), [3, 4, 19, 4]);
        assert_eq!(heights(10, [3, 4, 5, 50], Panel::Ledger), [0, 4, 0, 6]);
        assert_eq!(heights(0, [3, 4, 5, 50], Panel::Ledger), [0; 4]);
    }

    #[test]
    fn figures_of_a_reporter_that_is_away_are_marked_as_old() {
        let now = Instant::now();
        let mut model = model(now);
        model.take(Update::Away(crate::terminal::ReporterError::Ended), now);
        let lines = screen(&model, &mut View::new("x"), 80, 24);
        assert!(lines[1].contains("has not answered") && lines[1].contains("figures are old"), "{lines:#?}");
        assert!(model.is_stale());
        model.take(Update::Connected, now + Duration::from_secs(1));
        assert!(!model.is_stale());
    }
}
