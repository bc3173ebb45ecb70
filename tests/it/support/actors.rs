//! The tree of a service's actors, read from `/actors`.

use serde_json::Value;

use super::http;

/// Header with the admin token.
pub const ADMIN: (&str, &str) = ("Authorization", "Bearer admin");

fn add(node: &Value, nodes: &mut Vec<Value>) {
    nodes.push(node.clone());
    node["children"].as_array().unwrap().iter().for_each(|child| add(child, nodes));
}

/// All nodes of the service at `url`, parents before children; empty while the service does not answer.
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

/// Sends a command, `restart` or `panic`, to a node; returns the status, 0 while the service does not answer.
pub fn command(url: &str, name: &str, command: &str) -> u16 {
    let answer = http::post_with(&format!("{url}/actors/{name}/{command}"), &[ADMIN], b"");
    answer.map_or(0, |answer| answer.status)
}
