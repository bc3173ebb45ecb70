//! The description of the gateway's routes, for `/openapi.json`: the routes of each source and the schemas of its events
//! follow from the registry of sources.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use utoipa::openapi::path::{HttpMethod, Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Content, OpenApi as Document, Ref, RefOr, Required, ResponseBuilder};
use utoipa::{OpenApi, ToSchema};

use super::answer::EventErrors;
use super::refusal::{Address, response};
use crate::event::{FunnelStage, MAX_EVENT_BYTES, Source};
use crate::ops::metrics::RequestOutcome;
use crate::source::declared::{Accept, Served, Subject};
use crate::source::{Handshake, capitalized};

/// The schemas that all sources share.
const SHARED: &str = include_str!("event.schema.json");
/// The name of any source's events.
const ANY: &str = "";

/// The outcome of a body's events. All accepted events are durable.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is the shape alone")]
pub(super) struct Accepted<'a> {
    accepted: usize,
    rejected: usize,
    correlation_id: &'a str,
    /// Of the first 100 events that were rejected, up to 256 KiB.
    errors: Vec<EventErrors<'a>>,
    /// True if events, or errors of one, are not listed.
    errors_truncated: bool,
}

/// A problem with the members of an answer to events.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is the shape alone")]
struct Rejection {
    #[schema(rename = "type", example = "about:blank")]
    kind: String,
    title: String,
    #[schema(example = 422)]
    status: u16,
    detail: String,
    correlation_id: String,
    accepted: usize,
    rejected: usize,
    errors: Vec<EventErrors<'static>>,
    errors_truncated: bool,
}

/// Takes events of any source.
#[utoipa::path(post, path = "/webhook", tag = "webhooks", security((), ("bearer" = [])),
    request_body(content = ref("#/components/schemas/Events"), content_type = "application/json",
        description = "One event or an array of events; plain, gzip or zstd"))]
#[expect(dead_code, reason = "it is the description alone")]
fn any_source() {}

/// The gateway's routes that belong to no source.
#[derive(OpenApi)]
#[openapi(paths(any_source), components(schemas(Accepted, Rejection)))]
struct Routes;

/// The document of the gateway's routes.
pub(super) fn document(served: &[Arc<Served>]) -> Document {
    let mut document = Routes::openapi();
    let Some(any) = document.paths.paths.get_mut("/webhook").and_then(|item| item.post.as_mut()) else {
        return document;
    };
    let mut own = any.clone();
    add_responses(any, Address::Shared);
    add_responses(&mut own, Address::Own);
    for source in Source::built_in() {
        let mut item = PathItem::new(HttpMethod::Post, webhook(source, own.clone()));
        if let Some(handshake) = source.handshake() {
            item.get = Some(challenge(source, handshake));
        }
        document.paths.paths.insert(format!("/webhook/{source}"), item);
    }
    for served in served {
        document.paths.paths.insert(format!("/webhook/{}", served.source), declared(served, &own));
    }
    document
}

/// The path of a declared source.
fn declared(served: &Served, own: &Operation) -> PathItem {
    let (source, file) = (served.source, &served.file);
    let mut post = own.clone();
    post.operation_id = Some(source.name().to_owned());
    post.summary = Some(format!("Takes events of {}.", file.title()));
    if file.subject() != Subject::Token {
        post.security = None;
    }
    let configured = file.answer();
    if let Some(success) = post.responses.responses.remove("200") {
        let success = match (&configured.body, success) {
            (None, success) => success,
            (Some(_), RefOr::T(success)) => {
                ResponseBuilder::new().description(success.description).build().into()
            }
            (Some(_), success) => success,
        };
        post.responses.responses.insert(configured.status.to_string(), success);
    }
    if let Some(RefOr::T(body)) = &mut post.request_body {
        body.content.clear();
        for accept in file.accept() {
            let (media, kinds) = match accept {
                Accept::Json => ("application/json", vec![Type::Object, Type::Array]),
                Accept::Form => ("application/x-www-form-urlencoded", vec![Type::Object]),
                Accept::Query => continue,
            };
            let schema = ObjectBuilder::new().schema_type(SchemaType::from_iter(kinds));
            body.content.insert(media.to_owned(), Content::new(Some(schema)).into());
        }
        body.required = Some(Required::False);
    }
    let mut item = PathItem::new(HttpMethod::Post, post.clone());
    if file.takes_get() {
        let mut get = post;
        get.operation_id = Some(format!("{source}_get"));
        get.request_body = None;
        let answer = |about: &str| ResponseBuilder::new().description(about).build().into();
        if file.accept().contains(&Accept::Query) {
            get.summary = Some(format!("Takes an event of {} in the query.", file.title()));
        } else {
            get.summary = Some(format!("Answers a challenge of {}.", file.title()));
            get.responses.responses.clear();
            get.responses.responses.insert("200".to_owned(), answer("The answer to the challenge"));
        }
        get.responses.responses.insert("400".to_owned(), answer("Neither a challenge nor an event"));
        if file.has_challenge() {
            get.responses.responses.insert("403".to_owned(), answer("Another token"));
        }
        item.get = Some(get);
    }
    item
}

/// Adds the responses to a body of events at an address, one for each status.
fn add_responses(route: &mut Operation, address: Address) {
    for outcome in RequestOutcome::ALL {
        let (status, about) = response(*outcome, address);
        let answer = ResponseBuilder::new().description(about);
        let schema = |name| Content::new(Some(Ref::from_schema_name(name)));
        let answer = match outcome {
            _ if status.is_success() => answer.content("application/json", schema("Accepted")),
            RequestOutcome::Rejected => answer.content("application/problem+json", schema("Rejection")),
            // The common description adds the schema of problems.
            _ => answer,
        };
        route.responses.responses.insert(status.as_u16().to_string(), answer.build().into());
    }
}

/// The route of one source: as that of any, with the source's events.
fn webhook(source: Source, mut route: Operation) -> Operation {
    let title = source.title();
    let signed = source
        .signature()
        .map(|signature| format!(", with `{}` where {} is set", signature.header, signature.setting.name));
    route.operation_id = Some(source.name().to_owned());
    route.summary = Some(format!("Takes events of {title}{}.", signed.unwrap_or_default()));
    if let Some(RefOr::T(body)) = &mut route.request_body {
        let schema = Ref::from_schema_name(body_name(&source.schema_prefix()));
        body.content.insert("application/json".to_owned(), Content::new(Some(schema)).into());
    }
    route
}

/// The route of a handshake.
fn challenge(source: Source, handshake: &Handshake) -> Operation {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let query = |name: &str, required: Required, about: String| {
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query);
        parameter.required(required).description(Some(about))
    };
    let (mode, value) = handshake.mode;
    let answer = |about: &str| ResponseBuilder::new().description(about);
    let mut route = Operation::new();
    route.tags = Some(vec!["webhooks".to_owned()]);
    route.operation_id = Some(format!("{source}_handshake"));
    route.summary = Some(handshake.about.to_owned());
    route.parameters = Some(vec![
        query(mode, Required::True, format!("`{value}`"))
            .schema(Some(text().pattern(Some(format!("^{value}$")))))
            .build()
            .into(),
        query(handshake.challenge, Required::True, "The value that is returned".to_owned())
            .schema(Some(text()))
            .build()
            .into(),
        query(handshake.token, Required::False, format!("{}, where that is set", handshake.setting.name))
            .schema(Some(text()))
            .build()
            .into(),
    ]);
    let plain = Content::new(Some(text()));
    route
        .responses
        .responses
        .insert("200".to_owned(), answer("The challenge").content("text/plain", plain).into());
    route.responses.responses.insert("400".to_owned(), answer("Not a handshake").into());
    route.responses.responses.insert("403".to_owned(), answer("Another token").into());
    route
}

/// The schemas of events, a JSON object, by the contract of each source.
pub(super) fn schemas() -> Result<String, serde_json::Error> {
    let mut schemas: Map<String, Value> = serde_json::from_str(SHARED)?;
    let mut sources = Vec::new();
    for source in Source::built_in() {
        let Some(contract) = source.contract() else { continue };
        let prefix = source.schema_prefix();
        let own: Map<String, Value> = serde_json::from_str(contract.schemas)?;
        schemas.extend(own.into_iter().map(|(name, schema)| (format!("{prefix}{name}"), schema)));
        let stages = contract.engagements.iter().map(|(stage, _)| {
            let name = format!("{prefix}{}Event", capitalized(stage.name()));
            schemas.insert(name.clone(), event(source, *stage));
            reference(&name)
        });
        let stages: Vec<Value> = stages.collect();
        let about = format!("An event of {}. Keys that are not named here are kept.", source.title());
        schemas.insert(format!("{prefix}Event"), json!({"description": about, "oneOf": stages}));
        schemas.insert(events_name(&prefix), events(&prefix));
        schemas.insert(body_name(&prefix), body(&prefix));
        sources.push(reference(&format!("{prefix}Event")));
    }
    let about = format!(
        "An event, of at most {} KiB. Keys that are not named here are kept.",
        MAX_EVENT_BYTES / 1_024
    );
    schemas.insert("Event".to_owned(), json!({"description": about, "oneOf": sources}));
    schemas.insert(events_name(ANY), events(ANY));
    serde_json::to_string(&schemas)
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn events_name(prefix: &str) -> String {
    format!("{prefix}Events")
}

fn body_name(prefix: &str) -> String {
    format!("{prefix}Body")
}

/// The schema of a body on a source's own path, where events that break the contract are kept as dead letters.
fn body(prefix: &str) -> Value {
    json!({
        "description": "Events. Other objects, and other elements of an array, are kept as dead letters.",
        "anyOf": [reference(&events_name(prefix)), {"type": "object"}, {"type": "array"}],
    })
}

/// The schema of a body: one event, or an array.
fn events(prefix: &str) -> Value {
    let event = reference(&format!("{prefix}Event"));
    json!({
        "description": "One event, or an array of events. Each element is accepted or refused by itself: an array \
                        that is not empty is taken if one of its events is.",
        "oneOf": [
            event,
            {"type": "array", "maxItems": 0},
            {"type": "array", "contains": event, "minItems": 1},
        ],
    })
}

/// The schema of a source's events of one stage.
fn event(source: Source, stage: FunnelStage) -> Value {
    let (prefix, engagement) = (source.schema_prefix(), capitalized(stage.name()));
    let types = source.event_types().filter(|kind| kind.stage == stage).map(|kind| kind.name());
    let one_of = |names: Vec<&str>| json!({"type": "string", "enum": names});
    let no_nul = "^[^\\u0000]*$";
    json!({
        "type": "object",
        "description": format!("An event of the {stage} of the funnel."),
        "required": ["eventId", "timestamp", "source", "funnelStage", "eventType", "data"],
        "properties": {
            "eventId": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": no_nul},
            "timestamp": reference("EventTime"),
            "source": one_of(vec![source.name()]),
            "funnelStage": one_of(vec![stage.name()]),
            "eventType": one_of(types.collect()),
            "data": {
                "type": "object",
                "required": ["user", "engagement"],
                "properties": {
                    "user": reference(&format!("{prefix}User")),
                    "engagement": reference(&format!("{prefix}{engagement}Engagement")),
                },
                "propertyNames": {"pattern": no_nul},
                "additionalProperties": reference("Extra"),
            },
        },
        "propertyNames": {"pattern": no_nul},
        "additionalProperties": reference("Extra"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::event::all_codes;

    /// All names of a schema's closed sets.
    fn names(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(members) => {
                let allowed = members.get("enum").and_then(Value::as_array).into_iter().flatten();
                found.extend(allowed.filter_map(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| names(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| names(item, found)),
            _ => {}
        }
    }

    /// The targets of all references.
    fn references(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_schemas_list_the_names_of_the_contract() {
        let schemas: Value = serde_json::from_str(&schemas().unwrap()).unwrap();
        let mut found = BTreeSet::new();
        names(&schemas, &mut found);
        assert_eq!(found, all_codes().map(|code| code.name.to_owned()).collect());
        assert!(found.len() > 20, "{found:?}");
    }

    #[test]
    fn every_reference_has_a_schema() {
        let schemas: Value = serde_json::from_str(&schemas().unwrap()).unwrap();
        let mut found = BTreeSet::new();
        references(&schemas, &mut found);
        for reference in &found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(schemas[name].is_object(), "{name}");
        }
        assert!(found.len() > 10, "{found:?}");
    }

    #[test]
    fn each_source_has_its_route_and_its_handshake() {
        let document = document(&[]);
        for source in Source::built_in() {
            let route = &document.paths.paths[&format!("/webhook/{source}")];
            assert!(route.post.is_some());
            assert_eq!(route.get.is_some(), source.handshake().is_some(), "{source}");
        }
    }
}
