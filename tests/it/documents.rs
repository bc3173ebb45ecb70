//! Documents name only what exists, and whatever a user can set, run, call or watch is documented.

mod examples;
mod names;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex_lite::Regex;

/// Lines of README at most.
const README_LINES: usize = 150;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

/// A Markdown file, its prose apart from its blocks of code.
struct Document {
    /// Path from the repository's root.
    name: String,
    text: String,
    /// Text outside blocks of code.
    prose: String,
    /// Blocks of code: their language and their text.
    blocks: Vec<(String, String)>,
}

impl Document {
    fn new(name: &str) -> Self {
        let text = read(name);
        let (mut prose, mut blocks, mut open) = (String::new(), Vec::new(), None);
        for line in text.lines() {
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(language), None) => open = Some((language.to_owned(), String::new())),
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some((_, block))) => *block += &format!("{line}\n"),
                (None, None) => prose += &format!("{line}\n"),
            }
        }
        assert!(open.is_none(), "{name}: a block of code does not end");
        Self { name: name.to_owned(), text, prose, blocks }
    }

    /// Every `piece of code` in the prose.
    fn spans(&self) -> Vec<String> {
        regex("`([^`\n]+)`").captures_iter(&self.prose).map(|found| found[1].to_owned()).collect()
    }

    /// Lines of code: those of blocks in a shell's language, and pieces of code in the prose.
    fn commands(&self) -> Vec<String> {
        let shell = self.blocks.iter().filter(|(language, _)| language == "sh");
        let lines = shell.flat_map(|(_, block)| block.lines().map(str::to_owned));
        lines.chain(self.spans()).collect()
    }

    /// The anchors of its headings, as GitHub makes them.
    fn anchors(&self) -> Vec<String> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let headings = self.prose.lines().filter(|line| line.starts_with('#'));
        let anchor = |heading: &str| {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
        };
        headings
            .map(|heading| {
                let anchor = anchor(heading);
                let times = seen.entry(anchor.clone()).and_modify(|times| *times += 1).or_insert(0);
                if *times == 0 { anchor } else { format!("{anchor}-{times}") }
            })
            .collect()
    }
}

fn markdown_in(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    names.filter(|name| name.ends_with(".md")).map(|name| format!("{prefix}{name}")).collect()
}

/// Every document, sorted by name.
fn documents() -> Vec<Document> {
    let mut names = [markdown_in(""), markdown_in("docs")].concat();
    names.sort();
    assert!(names.len() >= 12, "{names:?}");
    names.iter().map(|name| Document::new(name)).collect()
}

/// The text of all documents.
fn all_text() -> String {
    documents().into_iter().map(|document| document.text).collect()
}

/// Files below a folder with this ending.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found
}

/// Fails with all faults at once.
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// The fault of a link to a test: its anchor names a function of the file, and its text is that name in words.
fn fault_of_test_link(document: &str, text: &str, file: &Path, name: &str) -> Option<String> {
    if name.is_empty() {
        // These two name the proof of each promise; elsewhere a whole file may be meant.
        let needs_name = ["README.md", "docs/guarantees.md"].contains(&document);
        let is_test = file.to_string_lossy().contains("tests/it/");
        return (needs_name && is_test).then(|| format!("{document}: {} without a test", file.display()));
    }
    if !read(file).contains(&format!("fn {name}(")) {
        return Some(format!("{document}: {} has no test {name}", file.display()));
    }
    (text != name.replace('_', " ")).then(|| format!("{document}: the text of {name} is `{text}`"))
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let link = regex(r"\[([^\]\n]*)\]\(([^)\s]+)\)");
    let (mut faults, mut checked) = (Vec::new(), 0);
    for document in documents() {
        for found in link.captures_iter(&document.prose) {
            let (text, target) = (&found[1], &found[2]);
            if target.starts_with("https://") {
                continue;
            }
            checked += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(&document.name).parent().unwrap();
            let file = if path.is_empty() { PathBuf::from(&document.name) } else { folder.join(path) };
            if !root().join(&file).exists() {
                faults.push(format!("{}: {target} does not exist", document.name));
            } else if path.ends_with(".rs") {
                faults.extend(fault_of_test_link(&document.name, text, &file, anchor));
            } else if !anchor.is_empty() {
                let path = root().join(&file).canonicalize().unwrap();
                let name = path.strip_prefix(root().canonicalize().unwrap()).unwrap();
                if !Document::new(name.to_str().unwrap()).anchors().iter().any(|known| known == anchor) {
                    faults.push(format!("{}: {target} has no such heading", document.name));
                }
            }
        }
    }
    none(&faults);
    assert!(checked > 100, "only {checked} links were read");
}

#[test]
fn the_readme_is_short_and_leads_to_every_page() {
    let readme = Document::new("README.md");
    let lines = readme.text.lines().count();
    assert!(lines <= README_LINES, "{lines} lines");
    for document in documents().iter().filter(|document| document.name != "README.md") {
        assert!(readme.text.contains(&format!("({})", document.name)), "README links no {}", document.name);
    }
}

#[test]
fn the_changelog_has_the_version_of_the_program() {
    let heading = format!("## [{}] - ", env!("CARGO_PKG_VERSION"));
    assert!(read("CHANGELOG.md").contains(&heading), "{heading}");
}
