//! An HTTP client.

use std::time::Duration;

use serde_json::Value;

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A client that keeps its connections open between requests.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}

type Sent = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

fn answer(sent: Sent) -> Result<Answer, ureq::Error> {
    let mut response = sent?;
    let header = |(name, value): (&ureq::http::HeaderName, &ureq::http::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap_or_default().to_owned())
    };
    let headers = response.headers().iter().map(header).collect();
    let status = response.status().as_u16();
    let text = response.body_mut().with_config().limit(64 << 20).read_to_string()?;
    Ok(Answer { status, headers, text })
}

pub fn get(url: &str) -> Result<Answer, ureq::Error> {
    answer(agent().get(url).call())
}

pub fn get_with(url: &str, headers: &[(&str, &str)]) -> Result<Answer, ureq::Error> {
    let request =
        headers.iter().fold(agent().get(url), |request, (name, value)| request.header(*name, *value));
    answer(request.call())
}

pub fn post_with(url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, ureq::Error> {
    let request =
        headers.iter().fold(agent().post(url), |request, (name, value)| request.header(*name, *value));
    answer(request.send(body))
}

pub fn post(url: &str, body: &str) -> Result<Answer, ureq::Error> {
    post_with(url, &[("Content-Type", "application/json")], body.as_bytes())
}

/// Like [`post`], over a connection of this client.
pub fn post_on(agent: &ureq::Agent, url: &str, body: &str) -> Result<Answer, ureq::Error> {
    answer(agent.post(url).header("Content-Type", "application/json").send(body))
}

/// The value of one series, such as `ess_x_total{source="facebook"}`; 0 if it is missing.
pub fn metric(url: &str, series: &str) -> f64 {
    let text = get(url).unwrap().text;
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

/// The ledger at this address, once no event is in flight.
pub fn settled(ledger: &str) -> Option<Value> {
    let ledger = get(ledger).ok().filter(|answer| answer.status == 200)?.json();
    ledger["sources"].as_array()?.iter().all(|source| source["inFlight"] == 0).then_some(ledger)
}
