//! Running the examples of a source's file.

use std::fmt;

use super::event::Outcome;
use super::example::{Example, Expected, Given};
use super::file::{Answer, Declared};
use super::request::{Method, Request};
use super::secrets::{SecretName, Secrets};
use super::shown::member;
use crate::source::CanonicalEvent;

/// An example that did not come out as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The example's name, or its number.
    pub example: String,
    /// Line of the example.
    pub line: usize,
    /// Differences.
    pub differences: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.example)?;
        self.differences.iter().try_for_each(|difference| write!(f, "\n  {difference}"))
    }
}

impl Declared {
    /// Runs the file's examples; `file` returns the bytes of a file that they name. The error has those that differ.
    pub fn run_examples(&self, file: &dyn Fn(&str) -> std::io::Result<Vec<u8>>) -> Result<(), Vec<Failure>> {
        let failures: Vec<Failure> = (1..)
            .zip(&self.examples)
            .filter_map(|(number, example)| example.run(number, self, file).err())
            .collect();
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }
}

impl Example {
    /// Runs the example; `file` returns a file beside the source's. The error has the differences.
    pub fn run(
        &self,
        number: usize,
        source: &Declared,
        file: &dyn Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<(), Failure> {
        let mut differences = Vec::new();
        match self.given.with_file(file) {
            Ok((method, query, body)) => self.compare(source, method, &query, &body, &mut differences),
            Err(message) => differences.push(message),
        }
        if differences.is_empty() {
            return Ok(());
        }
        let example = self.name.clone().unwrap_or_else(|| format!("example {number}"));
        Err(Failure { example, line: self.place.line, differences })
    }

    fn compare(
        &self,
        source: &Declared,
        method: Method,
        query: &str,
        body: &[u8],
        differences: &mut Vec<String>,
    ) {
        let headers: Vec<(&str, &str)> =
            self.given.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = Request { method, headers: &headers, query, body, received: self.given.received };
        let (answer, outcomes) = match &self.given.secrets {
            None => self.judged(source, &request),
            Some(values) => {
                let lookup = |name: &str| {
                    values.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
                };
                let named: Vec<&SecretName> =
                    source.secrets().into_iter().filter(|name| lookup(name.as_str()).is_some()).collect();
                match Secrets::load(named, lookup) {
                    Err(names) => {
                        let names: Vec<&str> = names.iter().map(SecretName::as_str).collect();
                        differences.push(format!("the secret {} is empty", names.join(", ")));
                        return;
                    }
                    Ok(secrets) => match source.challenge(&request, &secrets) {
                        Some(reply) => (
                            Answer {
                                status: reply.status,
                                body: Some(reply.body),
                                content_type: reply.content_type,
                            },
                            Vec::new(),
                        ),
                        None => match source.verify(&request, &secrets) {
                            Err(unverified) => (
                                Answer { status: 401, body: Some(unverified.to_string()), content_type: "" },
                                Vec::new(),
                            ),
                            Ok(()) => self.judged(source, &request),
                        },
                    },
                }
            }
        };
        if let Some(expected) = &self.answer {
            expected.compare(&answer, differences);
        } else if answer.status >= 400 {
            let body = answer.body.unwrap_or_default();
            differences.push(format!("the answer is {}, not success: {body}", answer.status));
        }
        self.compare_outcomes(&outcomes, differences);
    }

    fn judged<'s>(&self, source: &'s Declared, request: &Request<'_>) -> (Answer, Vec<Outcome<'s>>) {
        match source.events(request) {
            Ok(outcomes) => (source.answer().clone(), outcomes),
            Err(refused) => refused.into_outcome(source.answer()),
        }
    }

    fn compare_outcomes(&self, outcomes: &[Outcome<'_>], differences: &mut Vec<String>) {
        let events: Vec<&CanonicalEvent<'_>> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Event(event) => Some(&**event),
                Outcome::Refused(_) => None,
            })
            .collect();
        let errors: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Refused(refused) => Some(&refused.errors),
                Outcome::Event(_) => None,
            })
            .flatten()
            .collect();
        if let Some(expect) = &self.expect {
            if events.len() != expect.len() {
                differences.push(format!(
                    "{} events are expected, but there are {}",
                    expect.len(),
                    events.len()
                ));
            }
            for (index, (expected, event)) in expect.iter().zip(&events).enumerate() {
                for (name, value) in expected {
                    let value = &super::json::parse(value.as_bytes()).unwrap_or_default();
                    let found = member(event, name);
                    if found.as_ref() != Some(value) {
                        let found = found.unwrap_or_default();
                        differences
                            .push(format!("event {}: {name} is {found}, but {value} is expected", index + 1));
                    }
                }
            }
        }
        match &self.refused {
            None if self.expect.is_some() => differences
                .extend(errors.iter().map(|error| format!("refused at `{}`: {}", error.path, error.message))),
            None => {}
            Some(refused) => {
                for (path, part) in refused {
                    let found = errors.iter().find(|error| error.path == *path);
                    match (found, part) {
                        (None, _) => differences.push(format!("nothing is refused at `{path}`")),
                        (Some(error), Some(part)) if !error.message.contains(part.as_str()) => differences
                            .push(format!(
                                "the message at `{path}` is \"{}\", without \"{part}\"",
                                error.message
                            )),
                        _ => {}
                    }
                }
                let others =
                    errors.iter().filter(|error| !refused.iter().any(|(path, _)| *path == error.path));
                differences.extend(
                    others.map(|error| format!("refused at `{}` too: {}", error.path, error.message)),
                );
                if self.expect.is_none() && !events.is_empty() {
                    differences.push(format!("{} events are not refused", events.len()));
                }
            }
        }
    }
}

impl Given {
    /// Method, query and body, with the file's bytes.
    pub(super) fn with_file(
        &self,
        file: &dyn Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<(Method, String, Vec<u8>), String> {
        let mut query = self.query.clone();
        let mut body = self.body.clone().map(String::into_bytes);
        if let Some(name) = &self.file {
            let bytes = file(name).map_err(|error| format!("the file {name}: {error}"))?;
            if name.ends_with(".query") {
                query = Some(String::from_utf8_lossy(&bytes).trim_end().to_owned());
            } else {
                body = Some(bytes);
            }
        }
        let method = if body.is_some() { Method::Post } else { Method::Get };
        Ok((method, query.unwrap_or_default(), body.unwrap_or_default()))
    }
}

impl Expected {
    fn compare(&self, answer: &Answer, differences: &mut Vec<String>) {
        let shown = answer.body.as_deref().unwrap_or_default();
        if self.status != answer.status {
            differences
                .push(format!("the answer is {}, but {} is expected: {shown}", answer.status, self.status));
        }
        if let Some(body) = self.body.as_deref().filter(|body| *body != shown && !same_json(body, shown)) {
            differences.push(format!("the answer's body is `{shown}`, but `{body}` is expected"));
        }
        if let Some(expected) =
            self.content_type.as_deref().filter(|expected| !answer.content_type.starts_with(expected))
        {
            differences
                .push(format!("the answer's type is {}, but {expected} is expected", answer.content_type));
        }
    }
}

fn same_json(left: &str, right: &str) -> bool {
    let read = |text: &str| super::json::parse(text.as_bytes()).ok();
    matches!((read(left), read(right)), (Some(left), Some(right)) if left == right)
}
