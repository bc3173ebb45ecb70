//! Panels of the screen and their columns.

/// Order of a panel's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sort {
    /// Number of the column.
    pub column: usize,
    /// True if the highest comes first.
    pub descending: bool,
}

/// A part of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Panel {
    /// Rates of each source.
    Sources,
    /// Ledger of each source.
    Ledger,
    /// Services of all processes.
    Processes,
    /// Actors and tasks of all processes.
    Actors,
}

/// Column of a panel.
#[derive(Debug)]
pub(super) struct Column {
    pub title: &'static str,
    /// Width in characters; the first column also takes what is left over.
    pub width: u16,
    /// True for figures: aligned to the right, and the highest first when sorted by.
    pub is_figure: bool,
    /// Columns with a higher number are left out first where the screen is too narrow.
    pub rank: u8,
}

const fn text(title: &'static str, width: u16, rank: u8) -> Column {
    Column { title, width, is_figure: false, rank }
}

const fn figure(title: &'static str, width: u16, rank: u8) -> Column {
    Column { title, width, is_figure: true, rank }
}

const SOURCES: &[Column] = &[
    text("SOURCE /s", 9, 0),
    figure("RECEIVED", 8, 1),
    figure("ACCEPTED", 8, 3),
    figure("REFUSED", 7, 2),
    figure("LOGGED", 7, 3),
    figure("STORED", 7, 1),
    figure("DUPLICATES", 10, 4),
    figure("IN FLIGHT", 9, 1),
    figure("MISSING", 7, 0),
];

const LEDGER: &[Column] = &[
    text("LEDGER", 8, 0),
    figure("PUBLISHED", 10, 1),
    figure("STORED", 10, 1),
    figure("DUPLICATES", 10, 3),
    figure("QUARANTINED", 11, 3),
    figure("IN FLIGHT", 9, 2),
    figure("MISSING", 7, 0),
    figure("REJECTED", 8, 2),
];

const PROCESSES: &[Column] = &[
    text("PROCESS", 19, 0),
    text("INSTANCE", 16, 2),
    text("STATE", 9, 0),
    figure("CORES", 5, 1),
    figure("MEMORY", 7, 1),
    figure("RESTARTS", 8, 2),
    figure("UP", 7, 3),
];

const ACTORS: &[Column] = &[
    text("ACTOR", 28, 0),
    text("INSTANCE", 16, 4),
    text("STATE", 10, 2),
    figure("HANDLED/s", 9, 0),
    figure("MAILBOX", 13, 1),
    figure("BLOCKED", 7, 1),
    figure("RESTARTS", 8, 3),
];

impl Panel {
    /// All panels, from the top of the screen.
    pub const ALL: [Self; 4] = [Self::Sources, Self::Ledger, Self::Processes, Self::Actors];

    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Sources => SOURCES,
            Self::Ledger => LEDGER,
            Self::Processes => PROCESSES,
            Self::Actors => ACTORS,
        }
    }

    /// Order before the user chooses another: names; of actors those that do most.
    pub const fn first_sort(self) -> Sort {
        match self {
            Self::Actors => Sort { column: 3, descending: true },
            _ => Sort { column: 0, descending: false },
        }
    }

    /// The panel so many places further, around.
    pub fn next(self, steps: usize) -> Self {
        Self::ALL[(self as usize + steps) % Self::ALL.len()]
    }
}
