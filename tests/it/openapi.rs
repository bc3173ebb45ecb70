//! The description of the HTTP is what the HTTP is.

use serde_json::{Value, json};

use crate::support::events::{Chance, event, simple};
use crate::support::http;
use crate::support::system::{System, samples};
use crate::support::tool;

/// A schema of the document, with the document's components beside it so that references resolve.
fn schema(document: &Value, path: &str, method: &str, status: &str, kind: &str) -> Value {
    let response = &document["paths"][path][method]["responses"][status];
    let mut schema = response["content"][kind]["schema"].clone();
    assert!(schema.is_object(), "{path} {status} {kind}: {response}");
    schema["components"] = document["components"].clone();
    schema
}

fn check(document: &Value, path: &str, method: &str, status: u16, answer: &http::Answer) {
    assert_eq!(answer.status, status, "{path}: {}", answer.text);
    let schema = schema(document, path, method, &status.to_string(), "application/json");
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&answer.json()).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{path}: {errors:?} in {}", answer.text);
    // A schema that takes anything would prove nothing.
    assert!(!validator.is_valid(&json!({"nothing": 1})), "{path}: {schema}");
}

#[test]
fn answers_are_as_the_description_says() {
    let system = System::embedded(&[("ESS_ADMIN_TOKEN", "an-operator")]);
    let reporter = system.report("/openapi.json");
    let gateway = http::get(&system.gateway_url("/openapi.json")).unwrap().json();
    for document in [&reporter, &gateway] {
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
        for path in ["/health", "/ready", "/metrics", "/actors", "/actors/{name}/restart"] {
            assert!(document["paths"][path].is_object(), "{path}");
        }
    }
    let mut chance = Chance(4);
    let mut events: Vec<Value> = (0..200).map(|place| event(&format!("e-{place}"), &mut chance)).collect();
    events.push(json!({"eventId": "bad"}));
    let answer = system.post(&Value::from(events).to_string());
    check(&gateway, "/webhook", "post", 202, &answer);
    let url = system.gateway_url("/webhook/facebook");
    let answer = http::post(&url, &simple("one", "facebook").to_string()).unwrap();
    check(&gateway, "/webhook/facebook", "post", 200, &answer);
    system.settle();
    for (path, query) in [
        ("/reports/events", "?interval=hour"),
        ("/reports/events", ""),
        ("/reports/revenue", "?interval=day&groupBy=campaign"),
        ("/reports/revenue", ""),
        ("/reports/demographics", ""),
        ("/reports/demographics", "?source=tiktok"),
        ("/ledger", ""),
        ("/dead-letters", ""),
        ("/actors", ""),
        ("/health", ""),
        ("/ready", ""),
    ] {
        let answer = http::get(&system.reporter_url(&format!("{path}{query}"))).unwrap();
        check(&reporter, path, "get", 200, &answer);
    }
    let answer = http::get(&system.reporter_url("/events/one")).unwrap();
    check(&reporter, "/events/{eventId}", "get", 200, &answer);
    let id = system.report("/dead-letters")["deadLetters"][0]["id"].as_str().unwrap().to_owned();
    let answer = http::get(&system.reporter_url(&format!("/dead-letters/{id}"))).unwrap();
    check(&reporter, "/dead-letters/{id}", "get", 200, &answer);
    let operator = [("Authorization", "Bearer an-operator")];
    let url = system.reporter_url("/dead-letters/replay");
    let answer = http::post_with(&url, &operator, br#"{"dryRun":true}"#).unwrap();
    check(&reporter, "/dead-letters/replay", "post", 200, &answer);
    // Every parameter that is described is taken.
    for path in ["/reports/events", "/reports/revenue", "/reports/demographics", "/dead-letters"] {
        for parameter in reporter["paths"][path]["get"]["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            let answer = http::get(&system.reporter_url(&format!("{path}?{name}="))).unwrap();
            assert!(!answer.text.contains("is not known"), "{path} {name}: {}", answer.text);
        }
    }
}

#[test]
fn the_pages_are_served_by_the_services_and_guarded_like_the_rest() {
    let system = System::embedded(&[("ESS_REPORTER_TOKEN", "t")]);
    for url in [system.gateway_url("/docs"), system.gateway_url("/docs/")] {
        let page = http::get(&url).unwrap();
        assert_eq!(page.status, 200, "{url}");
        assert!(page.header("content-type").unwrap().starts_with("text/html"));
        for line in page.text.lines().filter(|line| line.contains("src=") || line.contains("href=")) {
            assert!(!line.contains("http://") && !line.contains("https://"), "another host: {line}");
        }
    }
    for file in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        assert_eq!(http::get(&system.gateway_url(&format!("/docs/{file}"))).unwrap().status, 200, "{file}");
    }
    let start = http::get(&system.gateway_url("/docs/swagger-initializer.js")).unwrap().text;
    assert!(start.contains("../openapi.json"), "{start}");
    assert_eq!(http::get(&system.gateway_url("/docs/nothing.html")).unwrap().status, 404);
    for path in ["/docs/", "/openapi.json"] {
        assert_eq!(http::get(&system.reporter_url(path)).unwrap().status, 401, "{path}");
        let shown = http::get_with(&system.reporter_url(path), &[("Authorization", "Bearer t")]).unwrap();
        assert_eq!(shown.status, 200, "{path}");
    }
}

/// Asks a service whatever its description allows and forbids, with every check, for a minute at most.
fn schemathesis(url: &str, more: &[&str], least: u32) {
    let tools = tool("schemathesis");
    let hooks = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let output = std::process::Command::new("python3")
        .arg(tools.join("bin/st"))
        .args(["run", &format!("{url}/openapi.json"), "--checks", "all", "--seed", "1", "-n", "25"])
        // Its answer has no end.
        .args(["--exclude-path", "/live"])
        .args([
            "--continue-on-failure",
            "--suppress-health-check",
            "all",
            "--request-timeout",
            "60",
            "--max-time",
            "60",
        ])
        .args(more)
        .env("PYTHONPATH", std::env::join_paths([&tools, &hooks]).unwrap())
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(tempfile::tempdir().unwrap().path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let tried = text.lines().find_map(|line| line.split_once(" generated")?.0.trim().parse().ok());
    assert!(tried.is_some_and(|tried: u32| tried > least), "it tried too little: {text}");
}

#[test]
fn a_client_that_tries_whatever_the_description_says_finds_nothing() {
    let system = System::embedded(&[("ESS_ADMIN_TOKEN", "an-operator")]);
    let valid = std::fs::read_to_string(samples().join("valid.jsonl")).unwrap();
    let events = format!("[{}]", valid.lines().collect::<Vec<_>>().join(","));
    assert_eq!(system.post(&events).status, 202);
    system.settle();
    // The reporter first: what is posted then makes its reports long.
    schemathesis(&system.reporter_url(""), &[], 100);
    schemathesis(&system.gateway_url(""), &[], 100);
    let replays = ["--include-path", "/dead-letters/replay", "-H", "Authorization: Bearer an-operator"];
    schemathesis(&system.reporter_url(""), &replays, 20);
}

#[test]
fn the_schemas_of_events_take_what_the_gateway_takes() {
    let system = System::embedded(&[]);
    let gateway = http::get(&system.gateway_url("/openapi.json")).unwrap().json();
    let validator = |name: &str| {
        let schema =
            json!({"$ref": format!("#/components/schemas/{name}"), "components": gateway["components"]});
        jsonschema::validator_for(&schema).unwrap()
    };
    let (one, body) = (validator("Event"), validator("Events"));
    let lines = |file: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(samples().join(file)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (valid, invalid) = (lines("valid.jsonl"), lines("invalid.jsonl"));
    assert!(valid.len() > 5 && invalid.len() > 5);
    for event in &valid {
        assert!(one.is_valid(event) && body.is_valid(event), "{event}");
        assert_eq!(system.post(&event.to_string()).status, 202);
    }
    for sample in &invalid {
        let event = &sample["event"];
        assert!(!one.is_valid(event) && !body.is_valid(event), "{sample}");
        assert!(!body.is_valid(&json!([event])), "{sample}");
        assert!(body.is_valid(&json!([event, valid[0]])), "one good event is enough");
        assert_eq!(system.post(&event.to_string()).status, 422);
    }
    assert!(body.is_valid(&json!([])) && !body.is_valid(&json!([{}])) && !body.is_valid(&json!({})));
}
