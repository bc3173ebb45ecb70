//! Sources: the platforms that events come from.
//!
//! A source is a [`Source`], a small handle into the registry. A built-in source is a folder with its contract as Rust
//! types (serde, garde), its code tables, its signature, its sample events and its schemas, and one entry of `BUILT_IN`;
//! nothing outside the folder names it. Every other source is a file that an operator writes ([`declared`]); files for
//! common platforms come with the binary ([`shipped`]). The registry learns such sources while the process runs: a
//! gateway from its files, collectors and reporters from the log and the database.
//!
//! ```text
//! registry ──▶ Source, BySource        the handle, and one value for each source
//!     ├──────▶ Contract                all that a built-in source declares
//!     │          ├── facebook/         contract, codes, signature, samples, schemas
//!     │          └── tiktok/           the same
//!     └──────▶ Declared                name, number and types of a declared source, as they are learnt
//! ```

mod by_source;
pub mod canonical;
mod codes;
mod columns;
pub mod declared;
mod description;
mod event_type;
mod learnt;
mod names;
mod reading;
mod registry;
mod sample;
mod secret;
mod setting;
pub mod shipped;
mod signature;
mod source_map;
mod stage;

mod facebook;
mod tiktok;

pub use by_source::BySource;
pub use canonical::{CanonicalColumns, CanonicalEvent};
pub use codes::Code;
pub(crate) use codes::capitalized;
pub use columns::Columns;
pub(crate) use description::Contract;
pub use description::{Breakdown, Handshake};
pub use event_type::EventType;
pub use learnt::{DeclareError, FIRST_LEARNT, MAX_DECLARED, MAX_TYPES, MAX_WORDS, Vocabulary, WordColumn};
pub use names::{Names, NewName};
pub(crate) use reading::Reading;
pub(crate) use registry::DECLARED_DEMOGRAPHICS;
pub use registry::{OTHER, Source, all_codes, has_name, name_of_code};
pub(crate) use sample::{Corruption, Dice, SampleEvent};
pub use secret::Secret;
pub use setting::SourceSetting;
pub use signature::{Signature, SignatureError, SignedRequest};
pub use source_map::SourceMap;
pub use stage::FunnelStage;

/// The largest event, in bytes as sent: 256 KiB.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// The built-in sources, a line each. The order is that of reports, metrics and lists.
const BUILT_IN: &[&Contract] = &[&facebook::CONTRACT, &tiktok::CONTRACT];

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::Source;

    /// Lines outside the folders of sources that may name one: the file, a part of the line, the reason.
    const EXCEPTIONS: &[(&str, &str, &str)] = &[
        ("source/mod.rs", "facebook", "the registry"),
        ("source/mod.rs", "tiktok", "the registry"),
        ("store/write/samples.rs", "facebook", "events that only tests use"),
    ];

    /// All Rust files and scripts of the console below a folder.
    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "js") {
                found.push(path);
            }
        }
    }

    #[test]
    fn no_file_outside_its_folder_names_a_built_in_source() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut all = Vec::new();
        files(&src, &mut all);
        let (mut read, mut found) = (0, Vec::new());
        for path in all {
            let file = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
            let own = Source::all().any(|source| file.starts_with(&format!("source/{source}/")));
            if own || file.starts_with("source/shipped/") || file.ends_with("tests.rs") {
                continue;
            }
            read += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            // Tests name sources as they like.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code.lines() {
                let lower = line.to_lowercase();
                let named = Source::all().any(|source| lower.contains(source.name()));
                let excepted = EXCEPTIONS.iter().any(|(at, part, _)| *at == file && lower.contains(part));
                if named && !excepted {
                    found.push(format!("{file}: {}", line.trim()));
                }
            }
        }
        assert!(read > 100, "{read} files");
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}
