//! Bodies of requests as JSON values, in the forms that a source accepts.

use super::event::RefusedBody;
use super::file::{Accept, Declared};
use super::json;
use super::request::{Method, Request, form};
use super::value::{Members, Value};
use super::verify::Check;

/// Headers that filters never see, beside the one that carries the source's secret.
const HIDDEN_HEADERS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// The query, unless there is nothing in it beside the secret.
fn is_more(query: Value) -> Option<Value> {
    match &query {
        Value::Object(object) if object.members.is_empty() => None,
        _ => Some(query),
    }
}

impl Declared {
    /// The body as a value, without a secret that travels in it; `None` for a body that holds nothing.
    pub(super) fn body(&self, request: &Request<'_>) -> Result<Option<Value>, RefusedBody> {
        let accepts = |form| self.accept.contains(&form);
        if request.method == Method::Get {
            return match accepts(Accept::Query) {
                true => self.query(request).map(is_more),
                false => Err(RefusedBody::Method("GET")),
            };
        }
        if request.is_empty() {
            return match accepts(Accept::Query) && !request.query.is_empty() {
                true => self.query(request).map(is_more),
                false => Ok(None),
            };
        }
        let mut value = match self.media(request)? {
            Accept::Json => json::parse(request.body)
                .map_err(|error| RefusedBody::Unreadable(format!("not JSON: {error}")))?,
            _ => {
                let text = std::str::from_utf8(request.body);
                let text = text.map_err(|_| RefusedBody::Unreadable("the form is no UTF-8".to_owned()))?;
                form(text)
                    .map_err(|name| RefusedBody::Unreadable(format!("the parameter `{name}` comes twice")))?
            }
        };
        if let Some(Check::JsonField(at, _)) = &self.check {
            at.remove(&mut value);
        }
        Ok(Some(value))
    }

    /// The form of a body, by its content type.
    pub fn media(&self, request: &Request<'_>) -> Result<Accept, RefusedBody> {
        let accepts = |form| self.accept.contains(&form);
        let content_type = request.header("content-type").unwrap_or_default();
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_json = media == "application/json" || media.ends_with("+json");
        let is_form = media == "application/x-www-form-urlencoded";
        if accepts(Accept::Json) && (is_json || media.is_empty()) {
            Ok(Accept::Json)
        } else if accepts(Accept::Form) && (is_form || media.is_empty()) {
            Ok(Accept::Form)
        } else {
            let types: Vec<&str> = self
                .accept
                .iter()
                .filter_map(|accept| match accept {
                    Accept::Json => Some("application/json"),
                    Accept::Form => Some("application/x-www-form-urlencoded"),
                    Accept::Query => None,
                })
                .collect();
            Err(match types.is_empty() {
                true => RefusedBody::Method("POST"),
                false => RefusedBody::ContentType(format!("the content type must be {}", types.join(" or "))),
            })
        }
    }

    /// The query as an object of texts, without a secret that travels in it.
    pub(super) fn query(&self, request: &Request<'_>) -> Result<Value, RefusedBody> {
        let query = form(request.query);
        let mut query =
            query.map_err(|name| RefusedBody::Unreadable(format!("the parameter `{name}` comes twice")))?;
        if let (Some(Check::Query(secret, _)), Value::Object(object)) = (&self.check, &query) {
            let mut members = object.members.clone();
            members.remove(secret.as_str());
            query = Value::object(members);
        }
        Ok(query)
    }

    /// Headers as an object of texts, without those that carry secrets.
    pub(super) fn headers(&self, request: &Request<'_>) -> Value {
        let mut members = Members::new();
        for (name, value) in request.headers {
            let name = name.to_ascii_lowercase();
            let is_secret = HIDDEN_HEADERS.contains(&name.as_str())
                || self.check.as_ref().is_some_and(|check| check.uses_header(&name));
            if is_secret {
                continue;
            }
            let joined = match members.get(name.as_str()).and_then(Value::as_str) {
                Some(before) => format!("{before}, {value}"),
                None => (*value).to_owned(),
            };
            members.insert(name.into(), Value::text(&joined));
        }
        Value::object(members)
    }
}
