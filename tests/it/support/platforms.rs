//! Platforms of the shipped source files: their secrets, their signatures, and the examples of their files as requests.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ess::source::shipped::{self, Shipped};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

/// A request to a source's path.
#[derive(Debug, Clone)]
pub struct Request {
    /// `None` for a GET.
    pub body: Option<Vec<u8>>,
    pub query: String,
    pub headers: Vec<(String, String)>,
}

/// An example of a source file.
#[derive(Debug, Clone)]
pub struct Example {
    pub name: String,
    pub request: Request,
    /// Members of each event that is expected, if the example tells them.
    pub expect: Option<Vec<Value>>,
    /// Paths that are refused, if the example tells them.
    pub refused: Option<Vec<String>>,
    pub status: u16,
    /// Body of the answer, if the example tells it.
    pub answer: Option<Value>,
}

/// Secrets that the examples of a file use: the first value of each variable.
pub fn secrets(shipped: &Shipped) -> BTreeMap<String, String> {
    let mut secrets = BTreeMap::new();
    for example in yaml(shipped)["examples"].as_array().unwrap() {
        for (name, value) in example["given"]["secrets"].as_object().into_iter().flatten() {
            secrets.entry(name.clone()).or_insert_with(|| value.as_str().unwrap().to_owned());
        }
    }
    // A challenge can have a secret that no example of events names.
    for line in shipped.file.lines().filter(|line| !line.trim_start().starts_with('#')) {
        if let Some((_, rest)) = line.split_once("secret: ESS_") {
            let name: String = rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            secrets.entry(format!("ESS_{name}")).or_insert_with(|| "invented-other-secret".to_owned());
        }
    }
    secrets
}

fn yaml(shipped: &Shipped) -> Value {
    serde_yaml_ng::from_str(shipped.file).unwrap_or_else(|error| panic!("{}: {error}", shipped.name))
}

/// The examples of a file that a gateway with its [`secrets`] can be asked, signed anew where they are to be accepted.
pub fn examples(shipped: &Shipped, now: i64) -> Vec<Example> {
    let all = secrets(shipped);
    let yaml = yaml(shipped);
    let examples = yaml["examples"].as_array().unwrap().iter();
    examples.filter_map(|example| read(shipped, example, &all, now)).collect()
}

fn read(shipped: &Shipped, example: &Value, all: &BTreeMap<String, String>, now: i64) -> Option<Example> {
    let given = &example["given"];
    if let Some(secrets) = given["secrets"].as_object()
        && !secrets.iter().all(|(name, value)| all.get(name).map(String::as_str) == value.as_str())
    {
        // The gateway has other secrets.
        return None;
    }
    let mut body = match &given["body"] {
        Value::Null => given["text"].as_str().map(|text| text.as_bytes().to_vec()),
        body => Some(body.to_string().into_bytes()),
    };
    let mut query = match &given["query"] {
        Value::String(query) => query.clone(),
        Value::Object(pairs) => {
            let pair = |(name, value): (&String, &Value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                format!("{}={}", encoded(name), encoded(&text))
            };
            pairs.iter().map(pair).collect::<Vec<_>>().join("&")
        }
        _ => String::new(),
    };
    if let Some(name) = given["file"].as_str() {
        let (_, text) = shipped.examples.iter().find(|(known, _)| *known == name)?;
        match name.ends_with(".query") {
            true => query = text.trim_end().to_owned(),
            false => body = Some(text.as_bytes().to_vec()),
        }
    }
    let headers = given["headers"].as_object().into_iter().flatten();
    let headers = headers
        .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
    let mut request = Request { body, query, headers: headers.collect() };
    let (status, answer) = match &example["answer"] {
        Value::Null => (0, None),
        Value::Object(answer) => {
            (answer["status"].as_u64()?, answer.get("body").cloned().filter(|body| !body.is_null()))
        }
        status => (status.as_u64()?, None),
    };
    let status = u16::try_from(status).unwrap();
    if status == 401 && !given["at"].is_null() {
        // Its signature is too old at that time, and perhaps not now.
        return None;
    }
    // A challenge carries no signature of its own.
    let is_challenge = request.body.is_none() && example["expect"].is_null() && example["refused"].is_null();
    let is_events = !is_challenge && status != 401 && status != 403;
    if is_events {
        sign(shipped.name, all, &mut request, now);
    }
    let texts = |value: &Value| match value {
        Value::Object(paths) => Some(paths.keys().cloned().collect()),
        Value::Array(paths) => Some(paths.iter().map(|path| path.as_str().unwrap().to_owned()).collect()),
        _ => None,
    };
    Some(Example {
        name: example["name"].as_str().unwrap_or_default().to_owned(),
        request,
        expect: example["expect"].as_array().cloned(),
        refused: texts(&example["refused"]),
        status: if status == 0 { success(shipped).0 } else { status },
        // Answers of failure are problems, whatever the example tells.
        answer: answer.or_else(|| success(shipped).1.filter(|_| is_events)).filter(|_| status < 400),
    })
}

/// Status and body that the file answers success with.
pub fn success(shipped: &Shipped) -> (u16, Option<Value>) {
    match &yaml(shipped)["answer"] {
        Value::Null => (200, None),
        Value::Object(answer) => {
            (u16::try_from(answer["status"].as_u64().unwrap()).unwrap(), answer.get("body").cloned())
        }
        status => (u16::try_from(status.as_u64().unwrap()).unwrap(), None),
    }
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// Signs a request as the platform of a shipped file does, at a time in seconds.
pub fn sign(name: &str, secrets: &BTreeMap<String, String>, request: &mut Request, now: i64) {
    let secret = |suffix: &str| {
        let name = format!("ESS_{}_{suffix}", name.to_uppercase());
        secrets.get(&name).unwrap_or_else(|| panic!("{name}: {secrets:?}")).clone()
    };
    if name == "adjust" {
        if !request.query.contains("token=") {
            request.query = format!("token={}&{}", secret("TOKEN"), request.query);
        }
        return;
    }
    let (now, body) = (now.to_string(), request.body.clone().unwrap_or_default());
    let hex_of = |secret: &str, parts: &[&[u8]]| hex::encode(hmac_sha256(secret.as_bytes(), parts));
    let timed = |secret: &str| hex_of(secret, &[now.as_bytes(), b".", &body]);
    let signed: Vec<(&str, String)> = match name {
        "meta_leads" | "meta_ads" => {
            vec![("X-Hub-Signature-256", format!("sha256={}", hex_of(&secret("SECRET"), &[&body])))]
        }
        "tiktok_events" => vec![("TikTok-Signature", format!("t={now},s={}", timed(&secret("SECRET"))))],
        "tiktok_leads" => vec![("X-Open-Signature", hex_of(&secret("SECRET"), &[&body]))],
        "linkedin_leads" => vec![("X-LI-Signature", hex_of(&secret("SECRET"), &[b"hmacsha256=", &body]))],
        "snapchat_leads" => vec![("t", now.clone()), ("signature", timed(&secret("SECRET")))],
        "shopify_orders" => {
            let signature = hmac_sha256(secret("SECRET").as_bytes(), &[&body]);
            vec![("X-Shopify-Hmac-Sha256", STANDARD.encode(signature))]
        }
        "stripe" => vec![("Stripe-Signature", format!("t={now},v1={}", timed(&secret("SECRET"))))],
        "standard_webhooks" => {
            let known = request.headers.iter().find(|(name, _)| name == "webhook-id");
            let id = known.map_or_else(|| "msg_invented9999".to_owned(), |(_, id)| id.clone());
            let key = STANDARD.decode(secret("SECRET").trim_start_matches("whsec_")).unwrap();
            let head = format!("{id}.{now}.");
            let signature = STANDARD.encode(hmac_sha256(&key, &[head.as_bytes(), &body]));
            let signature = format!("v1,{signature}");
            vec![("webhook-id", id), ("webhook-timestamp", now.clone()), ("webhook-signature", signature)]
        }
        "google_leads" => {
            if let Ok(Value::Object(mut members)) = serde_json::from_slice(&body) {
                members.insert("google_key".to_owned(), secret("KEY").into());
                request.body = Some(Value::from(members).to_string().into_bytes());
            }
            Vec::new()
        }
        "appsflyer" => vec![("Authorization", format!("Bearer {}", secret("TOKEN")))],
        "generic" => vec![("Authorization", format!("Bearer {}", secret("SECRET")))],
        other => panic!("no rule for the signatures of {other}"),
    };
    for (name, value) in signed {
        request.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        request.headers.push((name.to_owned(), value));
    }
}

/// All shipped files.
pub fn all() -> &'static [Shipped] {
    shipped::ALL
}
