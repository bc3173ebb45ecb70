//! Declared sources whose events `ess publisher` sends: those of `ESS_SOURCES`, and the shipped ones.

use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::config::Config;
use crate::publisher::Examples;
use crate::publisher::generate::Mix;
use crate::source::Source;
use crate::source::declared::{Declared, FolderError, SecretName, Secrets, files_of, read_files};
use crate::source::shipped::{self, Shipped};

/// A declared source, and where the bodies of its examples are.
#[derive(Debug)]
pub(super) struct SentSource {
    source: Declared,
    bodies: Bodies,
}

#[derive(Debug)]
enum Bodies {
    Shipped(&'static Shipped),
    /// In a folder of the file's name, or beside the file.
    Beside(PathBuf),
}

/// The declared source of this name; a file of `ESS_SOURCES` goes before a shipped one.
pub(super) fn find(config: &Config, name: &str) -> Result<SentSource, Failure> {
    let failed = |error: FolderError| match error {
        FolderError::Mistakes(_) => Failure::Usage(format!("the source file is wrong\n\n{error}")),
        error => Failure::Usage(format!("ESS_SOURCES: {error}")),
    };
    let files = files_of(&config.source_folder).map_err(failed)?;
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    if let Some(path) = files.iter().find(|path| stem(path).as_deref() == Some(name)) {
        let mut read = read_files(std::slice::from_ref(path)).map_err(failed)?;
        if let Some((path, source)) = read.pop() {
            return Ok(SentSource { source, bodies: Bodies::Beside(path) });
        }
    }
    if let Some(shipped) = shipped::find(name)
        && let Ok(source) = Declared::parse(shipped.name, shipped.file)
    {
        return Ok(SentSource { source, bodies: Bodies::Shipped(shipped) });
    }
    let mut known: Vec<String> = Source::built_in().map(|source| source.name().to_owned()).collect();
    let declared = files.iter().filter_map(|path| stem(path));
    for name in declared.chain(shipped::ALL.iter().map(|shipped| shipped.name.to_owned())) {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    Err(Failure::Usage(format!("there is no source `{name}`: it must be one of {}", known.join(", "))))
}

impl SentSource {
    /// Requests of the source's examples, signed with its secret from the environment.
    pub fn examples(self, config: &Config, seed: Option<u64>, mix: Mix) -> Result<Examples, Failure> {
        let Self { source, bodies } = self;
        let secrets = Secrets::load(source.signing_secret(), |name| config.source_secret(name));
        let secrets = secrets.map_err(|names| {
            let names: Vec<&str> = names.iter().map(SecretName::as_str).collect();
            let (names, source) = (names.join(", "), source.name());
            Failure::Usage(format!(
                "the secret {names} of the source `{source}` is not set: requests cannot be signed"
            ))
        })?;
        let examples = match bodies {
            Bodies::Shipped(shipped) => Examples::new(source, secrets, &shipped.reader(), seed, mix),
            Bodies::Beside(path) => {
                let (folder, beside) = (path.with_extension(""), path.parent().unwrap_or(Path::new(".")));
                let file = |name: &str| {
                    std::fs::read(folder.join(name)).or_else(|_| std::fs::read(beside.join(name)))
                };
                Examples::new(source, secrets, &file, seed, mix)
            }
        };
        examples.map_err(|error| Failure::Usage(error.to_string()))
    }
}
