//! Source files of a folder.

use std::fmt;
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::file::Declared;

/// Reason that source files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file or the folder cannot be read.
    #[error("{}: {error}", .path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        #[source]
        error: std::io::Error,
    },
    /// Every mistake of all files.
    #[error("{}", shown(.0))]
    Mistakes(Vec<Mistake>),
}

/// A mistake of source files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mistake {
    /// In one file, with its line and column.
    Fault(Fault),
    /// Two files declare one source.
    Twice {
        /// Name of the source.
        source: String,
        /// The second file.
        path: PathBuf,
        /// The first file.
        other: PathBuf,
    },
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Twice { source, path, other } => {
                let (path, other) = (path.display(), other.display());
                write!(f, "error: the source `{source}` of {path} is declared in {other} too")
            }
        }
    }
}

/// All mistakes, with an empty line between them.
fn shown(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n")
}

/// Source files (`*.yaml`) of a folder, sorted by name; none if there is no folder.
///
/// # Errors
///
/// If the folder cannot be read.
pub fn files_of(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let failed = |error| FolderError::Unreadable { path: folder.to_owned(), error };
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() && path.extension().is_some_and(|ending| ending == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads source files.
///
/// # Errors
///
/// If a file cannot be read, or with every mistake of all files.
pub fn read_files(paths: &[PathBuf]) -> Result<Vec<(PathBuf, Declared)>, FolderError> {
    let (mut sources, mut mistakes): (Vec<(PathBuf, Declared)>, Vec<Mistake>) = (Vec::new(), Vec::new());
    for path in paths {
        let text = std::fs::read_to_string(path)
            .map_err(|error| FolderError::Unreadable { path: path.clone(), error })?;
        match Declared::parse(&path.display().to_string(), &text) {
            Ok(source) => {
                if let Some((other, _)) = sources.iter().find(|(_, other)| other.name() == source.name()) {
                    let (source, path, other) = (source.name().to_owned(), path.clone(), other.clone());
                    mistakes.push(Mistake::Twice { source, path, other });
                }
                sources.push((path.clone(), source));
            }
            Err(faults) => mistakes.extend(faults.into_iter().map(Mistake::Fault)),
        }
    }
    if mistakes.is_empty() { Ok(sources) } else { Err(FolderError::Mistakes(mistakes)) }
}
