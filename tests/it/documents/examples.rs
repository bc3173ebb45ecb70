//! Examples in documents are real: their requests are sent to a system, and their answers compared.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Document, all_text, documents, none, read, regex};
use crate::support::http::{self, Answer};
use crate::support::system::System;

const ADMIN_TOKEN: &str = "an admin token of this test";

/// Time until an answer has to be the documented one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Members that differ each time.
const VOLATILE: [&str; 7] =
    ["correlationId", "receivedAt", "acceptedAt", "loggedAt", "collectedAt", "storedAt", "id"];

/// A system that keeps operators' commands on.
fn start() -> System {
    System::embedded(&[("ESS_ADMIN_TOKEN", ADMIN_TOKEN)])
}

/// A value without what differs each time.
fn settled(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            for (name, member) in members {
                let volatile = VOLATILE.contains(&name.as_str()) && member.is_string();
                *member = if volatile { Value::Null } else { settled(member.take()) };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = settled(item.take())),
        _ => {}
    }
    value
}

/// Words of a shell, with quotes as a shell reads them; no escapes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.trim().chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c.is_whitespace() => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Sends what a `curl` of a document sends.
fn curl(system: &System, command: &str) -> Answer {
    let command = command.replace("$ESS_ADMIN_TOKEN", ADMIN_TOKEN);
    let (mut headers, mut body, mut post, mut url) = (Vec::new(), None, false, None);
    let mut words = words(&command).into_iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-s" => {}
            "-H" => {
                let header = words.next().unwrap();
                let (name, value) = header.split_once(": ").unwrap();
                headers.push((name.to_owned(), value.to_owned()));
            }
            "-d" => body = words.next(),
            "-X" => post = words.next().as_deref() == Some("POST"),
            word if word.starts_with('-') => panic!("{word} of {command} is not known to this test"),
            word => url = Some(word.to_owned()),
        }
    }
    let url = url.unwrap();
    let url = match (url.strip_prefix("localhost:3000"), url.strip_prefix("localhost:3003")) {
        (Some(path), _) => system.gateway_url(path),
        (_, Some(path)) => system.reporter_url(path),
        _ => panic!("{url} is neither a gateway's nor a reporter's"),
    };
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    match body {
        Some(body) => http::post_with(&url, &headers, body.as_bytes()).unwrap(),
        None if post => http::post_with(&url, &headers, b"").unwrap(),
        None => http::get_with(&url, &headers).unwrap(),
    }
}

/// True if an answer is the documented one.
fn matches(language: &str, documented: &str, answer: &Answer) -> bool {
    match language {
        "json" => serde_json::from_str(&answer.text)
            .is_ok_and(|value| settled(value) == settled(serde_json::from_str(documented).unwrap())),
        _ => answer.text.replace("\r\n", "\n").trim() == documented.trim(),
    }
}

/// Sends every request of a document that an answer follows; gives how many those were.
fn try_examples(document: &Document) -> usize {
    let system = start();
    let mut tried = 0;
    for pair in document.blocks.windows(2) {
        let [(shell, command), (language, documented)] = pair else { continue };
        if shell != "sh" || !command.starts_with("curl ") || !["json", "csv"].contains(&language.as_str()) {
            continue;
        }
        tried += 1;
        // Events are stored a moment after they were accepted.
        let until = Instant::now() + if command.contains(" -d ") { Duration::ZERO } else { PATIENCE };
        loop {
            let answer = curl(&system, command);
            if matches(language, documented, &answer) {
                break;
            }
            assert!(Instant::now() < until, "{}: {command}gives {}", document.name, answer.text);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    tried
}

#[test]
fn the_requests_of_documents_have_the_answers_that_documents_show() {
    for (name, least) in [("README.md", 2), ("docs/reports.md", 7), ("docs/operations.md", 1)] {
        let tried = try_examples(&Document::new(name));
        assert!(tried >= least, "{name} has {tried} examples");
    }
}

#[test]
fn sql_in_documents_finds_the_events_of_the_examples_on_the_database_that_it_is_for() {
    let document = Document::new("docs/reports.md");
    let sends = document.blocks.iter().find(|(language, text)| language == "sh" && text.contains(" -d "));
    for (system, other) in [(start(), "sql postgresql"), (System::real(&[]), "sql sqlite")] {
        curl(&system, &sends.unwrap().1);
        system.settle();
        let mut asked = 0;
        for (_, block) in
            document.blocks.iter().filter(|(language, _)| language.starts_with("sql") && language != other)
        {
            for statement in block.lines() {
                assert!(!system.database.query(statement).is_empty(), "nothing is found by {statement}");
                asked += 1;
            }
        }
        assert!(asked >= 4, "{asked}");
    }
}

#[test]
fn json_in_documents_is_json() {
    let mut read = 0;
    for document in documents() {
        for (_, block) in document.blocks.iter().filter(|(language, _)| language == "json") {
            let value: Result<Value, _> = serde_json::from_str(block);
            assert!(value.is_ok(), "{}: {value:?}: {block}", document.name);
            read += 1;
        }
    }
    assert!(read > 8, "{read}");
}

/// Paths that a document names: behind a method, in a URL of a service, or alone in code.
fn paths(document: &Document) -> BTreeSet<String> {
    let in_text = regex(r"(?:GET|POST) (/[\w/{}.-]*)|localhost:300\d(/[\w/{}.-]*)");
    let alone = regex(r"^/[a-z][\w/{}-]*$");
    let found = in_text.captures_iter(&document.text);
    let found = found.map(|found| found.get(1).or(found.get(2)).unwrap().as_str().to_owned());
    let spans = document.spans().into_iter().filter(|span| alone.is_match(span));
    found.chain(spans).filter(|path| !path.starts_with("/run/")).collect()
}

#[test]
fn every_endpoint_that_is_named_exists_and_every_endpoint_is_documented() {
    let system = start();
    let urls = [system.gateway_url(""), system.reporter_url("")];
    let mut known = BTreeSet::new();
    for url in &urls {
        let description = http::get(&format!("{url}/openapi.json")).unwrap().json();
        known.extend(description["paths"].as_object().unwrap().keys().cloned());
    }
    let placeholder = regex(r"\{\w+\}");
    let serves = |url: &String, path: &str| {
        let url = format!("{url}{}", placeholder.replace_all(path, "x"));
        http::get(&url).unwrap().status != 404
    };
    let mut faults = Vec::new();
    for document in documents() {
        let wrong = paths(&document)
            .into_iter()
            .filter(|path| !known.contains(path) && !urls.iter().any(|url| serves(url, path)));
        // An example names an event or an actor, and a placeholder stands for every source.
        let wrong = wrong.filter(|path| {
            let words = |path: &str| path.split('/').count();
            !known.iter().any(|known| {
                words(known) == words(path)
                    && known
                        .split('/')
                        .zip(path.split('/'))
                        .all(|(known, word)| known == word || known.starts_with('{') || word.starts_with('{'))
            })
        });
        faults.extend(wrong.map(|path| format!("{}: nothing is served at {path}", document.name)));
    }
    let page = read("docs/reports.md");
    let missing = known.iter().filter(|path| !page.contains(&format!("{path}`")));
    faults.extend(missing.map(|path| format!("docs/reports.md does not name {path}")));
    none(&faults);
}

/// Full names of a node and of all below it.
fn names_of_nodes(node: &Value, found: &mut BTreeSet<String>) {
    found.insert(node["name"].as_str().unwrap().to_owned());
    node["children"].as_array().unwrap().iter().for_each(|child| names_of_nodes(child, found));
}

#[test]
fn the_tree_of_actors_is_the_documented_one() {
    // Rows are deleted by age only where that is set.
    let system = System::embedded(&[("ESS_RETENTION", "90d")]);
    let setting = |name: &str| system.environment.iter().find(|(known, _)| known == name).unwrap().1.clone();
    let mut shown = BTreeSet::new();
    for port in ["ESS_GATEWAY_PORT", "ESS_FACEBOOK_COLLECTOR_PORT", "ESS_REPORTER_PORT"] {
        let url = format!("http://127.0.0.1:{}/actors", setting(port));
        let tree = http::get(&url).unwrap().json();
        tree["actors"].as_array().unwrap().iter().for_each(|node| names_of_nodes(node, &mut shown));
    }
    let page = read("docs/architecture.md");
    let section = page.split("## Actors").nth(1).unwrap();
    let tree = section.split("```").nth(1).unwrap();
    let line = regex(r"^[│├└─ ]*([a-z_]+(?:\.[a-z_]+)*(?:\.1)?)((?:, \.[a-z_0-9]+)*)(?: to \.(\d))?");
    let mut documented = BTreeSet::new();
    for found in tree.lines().filter_map(|text| line.captures(text)).filter(|found| &found[1] != "text") {
        let base = found[1].rsplit_once('.').map_or("", |(base, _)| base).to_owned();
        documented.insert(found[1].to_owned());
        documented.extend(found[2].split(", .").skip(1).map(|last| format!("{base}.{last}")));
        let last = found.get(3).map_or(1, |last| last.as_str().parse().unwrap());
        documented.extend((2..=last).map(|number: usize| format!("{base}.{number}")));
    }
    assert_eq!(documented, shown);
}

/// Names of members and allowed values in a JSON Schema.
fn names_in(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            let values = members.get("enum").and_then(Value::as_array).into_iter().flatten();
            let values = values.chain(members.get("const")).filter_map(Value::as_str);
            found.extend(values.map(str::to_owned));
            let properties = members.get("properties").and_then(Value::as_object);
            found.extend(properties.into_iter().flat_map(|properties| properties.keys().cloned()));
            members.values().for_each(|member| names_in(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| names_in(item, found)),
        _ => {}
    }
}

#[test]
fn every_member_and_value_of_an_event_is_documented() {
    let system = start();
    let description = http::get(&system.gateway_url("/openapi.json")).unwrap().json();
    let schemas = description["components"]["schemas"].as_object().unwrap();
    let mut found = BTreeSet::new();
    for source in ["Facebook", "Tiktok"] {
        let of_source = schemas.iter().filter(|(name, _)| name.starts_with(source));
        of_source.for_each(|(_, schema)| names_in(schema, &mut found));
    }
    assert!(found.len() > 50, "{found:?}");
    let page = read("docs/events.md");
    // `location` and `data` are named with a member of theirs.
    let missing = found
        .into_iter()
        .filter(|name| !page.contains(&format!("{name}`")) && !page.contains(&format!("`{name}.")));
    none(&missing.map(|name| format!("docs/events.md does not name {name}")).collect::<Vec<_>>());
}

#[test]
fn every_table_and_column_of_the_schema_is_documented() {
    let system = start();
    let page = read("docs/architecture.md");
    let schema = page.split("## The schema").nth(1).unwrap();
    let mut faults = Vec::new();
    let columns = system.database.query(
        "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'",
    );
    assert!(columns.len() > 100, "{columns:?}");
    for line in &columns {
        let (table, column) = line.split_once('|').unwrap();
        for name in [table, column] {
            if !schema.contains(&format!("`{name}`")) {
                faults.push(format!("docs/architecture.md does not name {name} ({table})"));
            }
        }
    }
    let view = system.database.query("SELECT name FROM pragma_table_info('events')");
    let reports = read("docs/reports.md");
    let sql = reports.split("## SQL").nth(1).unwrap();
    let missing = view.iter().filter(|column| !sql.contains(&format!("`{column}`")));
    faults.extend(missing.map(|column| format!("docs/reports.md does not name the column {column}")));
    none(&faults);
}

#[test]
fn every_metric_that_a_service_shows_is_documented() {
    let system = start();
    let text = all_text();
    let name = regex(r"(?m)^# HELP (ess_[a-z_]+) ");
    let mut seen = BTreeSet::new();
    for url in [system.gateway_url("/metrics"), system.reporter_url("/metrics")] {
        let shown = http::get(&url).unwrap().text;
        seen.extend(name.captures_iter(&shown).map(|found| found[1].to_owned()));
    }
    assert!(seen.len() > 20, "{seen:?}");
    none(&seen.into_iter().filter(|name| !text.contains(&format!("`{name}`"))).collect::<Vec<_>>());
}
