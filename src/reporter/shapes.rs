//! OpenAPI schemas of the query parameters. [`Parameters`](super::query::Parameters) parses their values.

use std::collections::BTreeSet;

use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, KnownFormat, Object, ObjectBuilder, OneOfBuilder,
    Schema, SchemaFormat, Type,
};

use super::query::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::event::{FunnelStage, Source};
use crate::log::Reason;
use crate::money::Currency;

fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}

/// An RFC 3339 instant or a date.
pub(super) fn point() -> Schema {
    let text = |format| {
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(format)))
    };
    AnyOfBuilder::new().item(text(KnownFormat::DateTime)).item(text(KnownFormat::Date)).build().into()
}

/// Name of a source that is known when the description is made. A reporter takes the names that it learns later, too.
pub(super) fn source() -> Object {
    one_of(Source::all().map(|source| source.name()))
}

/// Name of a funnel stage.
pub(super) fn stage() -> Object {
    one_of(FunnelStage::all().map(|stage| stage.name()))
}

/// Name of an event type that any source has when the description is made.
pub(super) fn event_type() -> Object {
    let types = Source::all().flat_map(Source::event_types);
    one_of(types.map(|kind| kind.name()).collect::<BTreeSet<_>>())
}

/// Width of a series' buckets.
pub(super) fn interval() -> Object {
    one_of(["minute", "hour", "day"])
}

/// Grouping of a list.
pub(super) fn group_by() -> Object {
    one_of(["campaign"])
}

/// Reason of a dead letter.
pub(super) fn reason() -> Object {
    one_of(Reason::ALL.map(Reason::as_str))
}

/// Id of a campaign.
pub(super) fn campaign() -> Object {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(256));
    text.pattern(Some(r"^[^\u0000]*$")).build()
}

/// Code of a currency.
pub(super) fn currency() -> Object {
    one_of(Currency::all().map(|(code, _)| code))
}

/// Maximum number of entries of a list.
pub(super) fn limit() -> Object {
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MAX_LIMIT));
    number.default(Some(DEFAULT_LIMIT.into())).build()
}

/// Body of a replay: ids of dead letters, or the filters of their list.
pub(super) fn replay() -> Schema {
    let flag = || ObjectBuilder::new().schema_type(Type::Boolean).default(Some(false.into()));
    let closed = || ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let id = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"));
    let ids = ArrayBuilder::new().items(id).min_items(Some(1)).max_items(Some(MAX_LIMIT.into()));
    let by_id = closed().property("ids", ids).required("ids").property("dryRun", flag());
    let by_filter = closed()
        .property("reason", reason())
        .property("source", source())
        .property("from", point())
        .property("to", point())
        .property("limit", limit())
        .property("dryRun", flag());
    OneOfBuilder::new().item(by_id).item(by_filter).build().into()
}
