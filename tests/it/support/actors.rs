//! The tree of a service's actors, as `/actors` shows it.

use serde_json::Value;

use super::http;

/// The token of the services' operators, as a header.
pub const ADMIN: (&str, &str) = ("Authorization", "Bearer admin");

fn add(node: &Value, nodes: &mut Vec<Value>) {
    nodes.push(node.clone());
    node["children"].as_array().unwrap().iter().for_each(|child| add(child, nodes));
}

/// Every node of a service, by its URL; each before its children. Empty while the service is away.
pub fn nodes(url: &str) -> Vec<Value> {
    let Ok(answer) = http::get(&format!("{url}/actors")) else { return Vec::new() };
    let mut nodes = Vec::new();
    answer.json()["actors"].as_array().unwrap().iter().for_each(|root| add(root, &mut nodes));
    nodes
}

/// The node of this name.
pub fn node(url: &str, name: &str) -> Option<Value> {
    nodes(url).into_iter().find(|node| node["name"] == name)
}

/// Names of the actors and tasks: nodes without children.
pub fn leaves(url: &str) -> Vec<String> {
    let leaves = nodes(url).into_iter().filter(|node| node["children"].as_array().unwrap().is_empty());
    leaves.map(|node| node["name"].as_str().unwrap().to_owned()).collect()
}

/// Gives an operator's command, `restart` or `panic`, to a node; the answer's status, 0 while the service is away.
pub fn command(url: &str, name: &str, command: &str) -> u16 {
    let answer = http::post_with(&format!("{url}/actors/{name}/{command}"), &[ADMIN], b"");
    answer.map_or(0, |answer| answer.status)
}
