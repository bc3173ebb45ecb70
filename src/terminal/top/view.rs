//! State of what the user chose: panel, order, filter, selected row.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::panel::{Panel, Sort};

/// Longest filter, in characters.
const MAX_FILTER: usize = 40;
/// Rows that a page key moves by.
const PAGE: usize = 10;

/// Effect of a key on the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Quit,
}

/// Choices of the user: panel, order, filter.
#[derive(Debug)]
pub(super) struct View {
    /// URL of the reporter.
    pub url: String,
    /// The panel that keys act on.
    pub focus: Panel,
    /// Order of each panel, by its number.
    pub sorts: [Sort; Panel::ALL.len()],
    /// Number of the selected row of each panel, and of the first row that is shown.
    pub rows: [(usize, usize); Panel::ALL.len()],
    /// Text that names of shown rows contain, in lower case.
    pub filter: String,
    /// True while the filter is typed.
    pub types_filter: bool,
    /// True while the help is shown.
    pub helps: bool,
}

impl View {
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            focus: Panel::Actors,
            sorts: Panel::ALL.map(Panel::first_sort),
            rows: Default::default(),
            filter: String::new(),
            types_filter: false,
            helps: false,
        }
    }

    /// Acts on a key.
    pub fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Next::Quit } else { Next::Stay };
        }
        if self.types_filter {
            self.type_filter(key.code);
            return Next::Stay;
        }
        if self.helps {
            self.helps = false;
            return if matches!(key.code, KeyCode::Char('q') | KeyCode::F(10)) {
                Next::Quit
            } else {
                Next::Stay
            };
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::F(10) => return Next::Quit,
            KeyCode::Char('h' | '?') | KeyCode::F(1) => self.helps = true,
            KeyCode::Char('/' | '\\') | KeyCode::F(3 | 4) => self.types_filter = true,
            KeyCode::Esc => self.set_filter(String::new()),
            KeyCode::Tab | KeyCode::Right => self.focus = self.focus.next(1),
            KeyCode::BackTab | KeyCode::Left => self.focus = self.focus.next(Panel::ALL.len() - 1),
            KeyCode::Char('>' | '.' | 's') | KeyCode::F(6) => self.sort_by_next(1),
            KeyCode::Char('<' | ',') => self.sort_by_next(self.focus.columns().len() - 1),
            KeyCode::Char('I' | 'r') => self.sort_mut().descending ^= true,
            KeyCode::Down | KeyCode::Char('j') => self.select(|row| row.saturating_add(1)),
            KeyCode::Up | KeyCode::Char('k') => self.select(|row| row.saturating_sub(1)),
            KeyCode::PageDown => self.select(|row| row.saturating_add(PAGE)),
            KeyCode::PageUp => self.select(|row| row.saturating_sub(PAGE)),
            KeyCode::Home => self.select(|_| 0),
            KeyCode::End => self.select(|_| usize::MAX),
            // Tests see by this key that the terminal is given back.
            #[cfg(feature = "faults")]
            #[allow(clippy::panic)]
            KeyCode::F(12) => panic!("a test asked for a panic"),
            _ => {}
        }
        Next::Stay
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.types_filter = false,
            KeyCode::Esc => {
                self.types_filter = false;
                self.set_filter(String::new());
            }
            KeyCode::Backspace => {
                let mut filter = self.filter.clone();
                filter.pop();
                self.set_filter(filter);
            }
            KeyCode::Char(letter) if !letter.is_control() && self.filter.chars().count() < MAX_FILTER => {
                self.set_filter(self.filter.clone() + &letter.to_lowercase().to_string());
            }
            _ => {}
        }
    }

    fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.rows = Default::default();
    }

    fn sort_mut(&mut self) -> &mut Sort {
        &mut self.sorts[self.focus as usize]
    }

    /// Sorts by another column: texts from A to Z, figures with the highest first.
    fn sort_by_next(&mut self, step: usize) {
        let columns = self.focus.columns();
        let column = (self.sort_mut().column + step) % columns.len();
        *self.sort_mut() = Sort { column, descending: columns[column].is_figure };
    }

    fn select(&mut self, change: impl Fn(usize) -> usize) {
        let selected = &mut self.rows[self.focus as usize].0;
        *selected = change(*selected);
    }

    /// Keeps the selected row of a panel within its rows, and in sight of `height` rows; returns both.
    pub fn settle(&mut self, panel: Panel, all: usize, height: usize) -> (usize, usize) {
        let height = height.max(1);
        let (selected, first) = &mut self.rows[panel as usize];
        *selected = (*selected).min(all.saturating_sub(1));
        *first = (*first).clamp((*selected + 1).saturating_sub(height), *selected);
        *first = (*first).min(all.saturating_sub(height));
        (*selected, *first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(view: &mut View, codes: &[KeyCode]) -> Next {
        let mut next = Next::Stay;
        for code in codes {
            next = view.key(KeyEvent::new(*code, KeyModifiers::NONE));
        }
        next
    }

    #[test]
    fn every_way_to_quit_quits_and_letters_of_a_filter_do_not() {
        let quits = [KeyCode::Char('q'), KeyCode::F(10)];
        for key in quits {
            assert_eq!(press(&mut View::new("x"), &[key]), Next::Quit);
            assert_eq!(press(&mut View::new("x"), &[KeyCode::F(1), key]), Next::Quit, "from the help");
        }
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        let mut view = View::new("x");
        assert_eq!(press(&mut view, &[KeyCode::Char('/'), KeyCode::Char('q')]), Next::Stay);
        assert_eq!(view.filter, "q");
        assert_eq!(view.key(control), Next::Quit, "also while a filter is typed");
    }

    #[test]
    fn a_filter_is_bounded_kept_by_enter_and_cleared_by_escape() {
        let mut view = View::new("x");
        press(&mut view, &[KeyCode::F(4)]);
        press(&mut view, &[KeyCode::Char('Q'); 100]);
        assert_eq!(view.filter, "q".repeat(MAX_FILTER));
        press(&mut view, &[KeyCode::Backspace, KeyCode::Enter]);
        assert_eq!((view.filter.len(), view.types_filter), (MAX_FILTER - 1, false));
        press(&mut view, &[KeyCode::Esc]);
        assert_eq!(view.filter, "");
    }

    #[test]
    fn every_column_of_every_panel_is_sorted_by_in_turn() {
        let mut view = View::new("x");
        for _ in Panel::ALL {
            let columns = view.focus.columns().len();
            let first = view.sorts[view.focus as usize];
            let mut seen: Vec<usize> = Vec::new();
            for _ in 0..columns {
                press(&mut view, &[KeyCode::F(6)]);
                seen.push(view.sorts[view.focus as usize].column);
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..columns).collect::<Vec<_>>());
            assert_eq!(view.sorts[view.focus as usize].column, first.column);
            press(&mut view, &[KeyCode::Tab]);
        }
        assert_eq!(view.focus, View::new("x").focus, "Tab came round");
    }

    #[test]
    fn the_selected_row_stays_within_the_rows_and_in_sight() {
        let mut view = View::new("x");
        press(&mut view, &[KeyCode::End]);
        assert_eq!(view.settle(Panel::Actors, 100, 10), (99, 90));
        press(&mut view, &[KeyCode::Up]);
        assert_eq!(view.settle(Panel::Actors, 100, 10), (98, 90));
        press(&mut view, &[KeyCode::Home]);
        assert_eq!(view.settle(Panel::Actors, 100, 10), (0, 0));
        press(&mut view, &[KeyCode::PageDown]);
        assert_eq!(view.settle(Panel::Actors, 3, 10), (2, 0));
        assert_eq!(view.settle(Panel::Actors, 0, 0), (0, 0));
    }
}
