//! Commands, settings, metrics, alerts, files and tests that documents name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use ess::config::SETTINGS;
use ess::ops::metrics::catalog::METRICS;

use super::{all_text, documents, files, none, read, regex, root};
use crate::support::process::ess;

/// Subcommands with their flags, by the words that lead to them.
fn help_tree() -> BTreeMap<Vec<String>, BTreeSet<String>> {
    let folder = tempfile::tempdir().unwrap();
    let flag = regex("--[a-z][a-z-]+");
    let mut tree = BTreeMap::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(words) = open.pop() {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let output = ess(&arguments, &[], folder.path()).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}");
        let commands = help.split_once("Commands:\n").map_or("", |(_, rest)| rest);
        let commands = commands.split("\n\n").next().unwrap_or_default();
        for line in commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
            let name = line.split_whitespace().next().unwrap();
            if name != "help" {
                open.push([words.as_slice(), &[name.to_owned()]].concat());
            }
        }
        let flags = flag.find_iter(&help).map(|found| found.as_str().to_owned()).collect();
        tree.insert(words, flags);
    }
    assert!(tree.len() > 15, "{tree:?}");
    tree
}

/// The words of `ess` in a line of a shell: behind the program, up to the end of the command.
fn calls(line: &str) -> Vec<Vec<String>> {
    let call = regex(r"(?:^|[\s(&])(?:ess|cargo run(?: --release)? --) ([^&|;#`]*)");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    call.captures_iter(line).map(|found| words(&found[1])).collect()
}

#[test]
fn every_command_that_is_named_exists_with_its_flags_and_every_command_is_documented() {
    let tree = help_tree();
    let (mut faults, mut named) = (Vec::new(), BTreeSet::new());
    for document in documents() {
        for call in document.commands().iter().flat_map(|line| calls(line)) {
            let depth = (0..=call.len()).rev().find(|&depth| tree.contains_key(&call[..depth])).unwrap_or(0);
            if depth == 0 {
                faults.push(format!("{}: there is no command `ess {}`", document.name, call.join(" ")));
                continue;
            }
            let flags = &tree[&call[..depth]];
            let unknown = call.iter().filter(|word| word.starts_with("--") && !flags.contains(*word));
            faults.extend(unknown.map(|flag| {
                format!("{}: `ess {}` has no flag {flag}", document.name, call[..depth].join(" "))
            }));
            named.extend((1..=depth).map(|depth| call[..depth].to_vec()));
        }
    }
    let missing = tree.keys().filter(|words| !words.is_empty() && !named.contains(*words));
    faults.extend(missing.map(|words| format!("no document names `ess {}`", words.join(" "))));
    none(&faults);
}

#[test]
fn every_setting_that_is_named_exists_and_every_setting_is_documented_with_its_default() {
    let name = regex("ESS_[A-Z0-9_]+");
    let tests: String = files("tests/it", ".rs").iter().map(read).collect();
    let known = |name: &str| {
        SETTINGS.iter().any(|setting| setting.name == name || setting.file_name().as_deref() == Some(name))
    };
    // Streams are named like settings; the image's tag is Compose's.
    let other = |name: &str| {
        ["ESS_FACEBOOK", "ESS_FACEBOOK_2", "ESS_FACEBOOK_4", "ESS_TIKTOK", "ESS_DEAD_LETTERS"].contains(&name)
            || read("compose.yaml").contains(&format!("${{{name}:"))
            || (name.starts_with("ESS_TEST_") && tests.contains(name))
    };
    let mut faults = Vec::new();
    for document in documents() {
        let names = name.find_iter(&document.text).map(|found| found.as_str());
        // The secrets of a source file have names of the operator's choice.
        let names = names.filter(|name| !document.text.contains(&format!("secret: {name}}}")));
        let wrong = names.filter(|name| !known(name) && !other(name) && *name != "ESS_");
        faults.extend(wrong.map(|name| format!("{}: there is no setting {name}", document.name)));
    }
    let page = read("docs/configuration.md");
    for setting in SETTINGS.iter() {
        let default =
            if setting.default.is_empty() { "unset".to_owned() } else { format!("`{}`", setting.default) };
        let row = format!("| `{}` | {default}", setting.name);
        let Some(line) = page.lines().find(|line| line.starts_with(&row)) else {
            faults.push(format!("docs/configuration.md has no row that begins {row}"));
            continue;
        };
        if setting.secret != line.contains("*secret*") {
            faults.push(format!("docs/configuration.md: is {} a secret?", setting.name));
        }
    }
    none(&faults);
}

#[test]
fn every_metric_that_is_named_exists() {
    let name = regex(r"\bess_[a-z_]+");
    let known = |name: &str| METRICS.iter().any(|metric| metric.name == name);
    let (mut faults, mut checked) = (Vec::new(), 0);
    for document in documents() {
        for name in name.find_iter(&document.text).map(|found| found.as_str()) {
            checked += 1;
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            if !known(name) && !base.is_some_and(known) {
                faults.push(format!("{}: there is no metric {name}", document.name));
            }
        }
    }
    none(&faults);
    assert!(checked > 50, "only {checked} names were looked for");
}

#[test]
fn every_alert_is_documented_and_none_is_made_up() {
    let names = |text: &str, pattern: &str| -> BTreeSet<String> {
        regex(pattern).captures_iter(text).map(|found| found[1].to_owned()).collect()
    };
    let rules = names(&read("docker/prometheus/rules.yml"), r"- alert: (\w+)");
    let page = read("docs/operations.md");
    let section = page.split("### Alerts").nth(1).unwrap().split("\n### ").next().unwrap();
    assert_eq!(names(section, r"(?m)^\| `(\w+)`"), rules);
}

/// True if this is a path from the root, or one whose folder's name is ignored by Git.
fn is_file(path: &str) -> bool {
    let ignored =
        read(".gitignore").lines().any(|line| line.trim_start_matches('/') == path.trim_end_matches('/'));
    root().join(path).exists() || root().join(format!("{path}.example")).exists() || ignored
}

#[test]
fn every_file_and_module_that_is_named_exists() {
    let folder = regex(r"^(?:src|tests|docs|docker|benches|dashboards|migration|\.github)(?:/[\w./-]*)?$");
    let file = regex(r"^[\w./-]*\.(?:rs|md|ya?ml|toml|conf|sql|sh)$");
    let variables = regex(r"^\.env[\w.]*$");
    let module = regex(r"^[a-z_]+(?:::[a-z_]+)+$");
    let (mut faults, mut checked) = (Vec::new(), 0);
    for document in documents() {
        // Source files are the reader's own.
        for span in document.spans().into_iter().filter(|span| !span.starts_with("sources/")) {
            if folder.is_match(&span) || file.is_match(&span) || variables.is_match(&span) {
                checked += 1;
                if !is_file(&span) {
                    faults.push(format!("{}: there is no file {span}", document.name));
                }
            } else if module.is_match(&span) {
                checked += 1;
                let path = format!("src/{}", span.replace("::", "/"));
                if !is_file(&format!("{path}.rs")) && !is_file(&format!("{path}/mod.rs")) {
                    faults.push(format!("{}: there is no module {span}", document.name));
                }
            }
        }
    }
    none(&faults);
    assert!(checked > 30, "only {checked} files were looked for");
}

#[test]
fn every_test_and_bench_that_is_named_exists() {
    let function = regex(r"^(?:[a-z_]+::)*([a-z]+(?:_[a-z0-9]+){3,})$");
    let run = regex(r"(?:^|\s)\./test ([a-z_0-9]+)");
    let bench = regex(r"cargo bench --bench (\w+)(?: -- ([a-z-]+))?");
    let code: String =
        ["src", "tests", "migration"].iter().flat_map(|place| files(place, ".rs")).map(read).collect();
    let benches: String = files("benches", ".rs").iter().map(read).collect();
    let manifest = read("Cargo.toml");
    let mut faults = Vec::new();
    for document in documents() {
        for line in document.commands() {
            let name = function.captures(&line).map_or("", |found| found.get(1).unwrap().as_str());
            // Metrics look the same.
            let metric = name.starts_with("ess_") || name.starts_with("process_");
            if !metric && !code.contains(name) {
                faults.push(format!("{}: nothing is called {line}", document.name));
            }
            for name in run.captures_iter(&line) {
                let file = Path::new("tests/it").join(format!("{}.rs", &name[1]));
                if !root().join(file).exists() && !code.contains(&name[1]) {
                    faults.push(format!("{}: no test has {} in its name", document.name, &name[1]));
                }
            }
            for name in bench.captures_iter(&line) {
                let part = name.get(2).map(|part| format!("\"{}\"", part.as_str()));
                if !manifest.contains(&format!("name = \"{}\"", &name[1]))
                    || part.is_some_and(|part| !benches.contains(&part))
                {
                    faults.push(format!("{}: there is no bench {}", document.name, &name[0]));
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn what_documents_say_of_compose_is_in_its_files() {
    let service = regex(r"--scale ([\w-]+)=|docker compose port ([\w-]+)");
    let variable = regex(r"`([A-Z]+_[A-Z_]+)(?:=[^`]*)?`");
    let places = ["compose.yaml", ".env.example", ".env.database.example"].map(read).concat();
    let code: String = files("src", ".rs").iter().map(read).collect();
    let mut faults = Vec::new();
    for document in documents() {
        for found in service.captures_iter(&document.text) {
            let name = found.get(1).or(found.get(2)).unwrap().as_str();
            if !places.contains(&format!("\n  {name}:\n")) {
                faults.push(format!("{}: Compose has no service {name}", document.name));
            }
        }
        for found in variable.captures_iter(&document.prose) {
            let name = &found[1];
            let setting = name.starts_with("ESS_") || name.ends_with("_FILE") || places.contains(name);
            if !setting && !code.contains(&format!("const {name}:")) {
                faults.push(format!("{}: nothing reads {name}", document.name));
            }
        }
    }
    none(&faults);
    assert!(all_text().contains("docker compose up --build"));
}

#[test]
fn nothing_of_the_repository_is_missing_from_the_list_of_rooms() {
    let page = read("docs/architecture.md");
    let listed = Command::new("git").args(["ls-files", "src"]).current_dir(root()).output();
    let Some(listed) = listed.ok().filter(|output| output.status.success()) else { return };
    let listed = String::from_utf8(listed.stdout).unwrap();
    let rooms: BTreeSet<&str> = listed.lines().filter_map(|path| path.split('/').nth(1)).collect();
    let rooms = rooms.into_iter().filter(|room| !["lib.rs", "main.rs", "fuzzing.rs"].contains(room));
    none(
        &rooms.filter(|room| !page.contains(&format!("`src/{room}`"))).map(str::to_owned).collect::<Vec<_>>(),
    );
}
