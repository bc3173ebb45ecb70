//! Routes of dead letters: the list, one letter with its bytes, and their replay.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

use super::answered::{Answer, Refused, answered};
use super::error::ReportError;
use super::query::{BadParameter, MAX_LIMIT, Parameters};
use super::shapes;
use super::shared::Shared;
use crate::event::FieldError;
use crate::log::Reason;
use crate::ops::http::{Problem, ServiceView, administers, guard};
use crate::replay::{Replay, ReplayError, ReplayOutcome, ReplayedLetter, Selection, shown_payload};
use crate::store::{DeadLetterFilter, ListedLetter, StoredLetter};

/// Filters of a list.
const FILTERS: &[&str] = &["reason", "source", "from", "to", "limit"];
/// Largest body of a request for a replay, in bytes: more than [`MAX_LIMIT`] ids take.
const MAX_BODY: usize = 64 << 10;
/// Bytes of the letters that one request replays: bounds its duration.
const MAX_BYTES: u64 = 64 << 20;
/// Bytes of all errors in an answer, and the least share of one letter.
const ERRORS: usize = 2 << 20;
const LEAST_ERRORS: usize = 1 << 10;

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "declared for the description only")]
struct ListParameters {
    /// Reason of the dead letters.
    #[param(schema_with = shapes::reason)]
    reason: Option<String>,
    /// A source's name.
    #[param(schema_with = shapes::source)]
    source: Option<String>,
    /// RFC 3339 or a date; inclusive.
    #[param(schema_with = shapes::point)]
    from: Option<String>,
    /// RFC 3339 or a date; exclusive.
    #[param(schema_with = shapes::point)]
    to: Option<String>,
    /// Maximum number of letters: 1 to 1,000, 50 by default.
    #[param(schema_with = shapes::limit)]
    limit: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DeadLetters {
    dead_letters: Vec<ListedLetter>,
}

/// Dead letters: events that were refused or could not be stored, newest first.
#[utoipa::path(get, path = "/dead-letters", tag = "dead letters", security((), ("bearer" = [])),
    params(ListParameters),
    responses(
        (status = 200, description = "The letters", body = DeadLetters),
        Refused,
    ))]
pub(super) async fn list(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let answer = async {
        guard(&request, &shared.tokens)?;
        let parameters = shared.parameters(request.query_string(), FILTERS).await?;
        let filter = DeadLetterFilter { replayed: true, ..filter(&parameters)? };
        let turn = shared.lists.turn().await?;
        let letters = shared.store.list_letters(&filter).await.map_err(ReportError::from)?;
        turn.answer(&DeadLetters { dead_letters: letters })
    };
    answered(&request, answer.await)
}

/// The filter that parameters describe.
fn filter(parameters: &Parameters) -> Result<DeadLetterFilter, ReportError> {
    let reason = match parameters.text("reason") {
        None => None,
        Some(text) => Some(Reason::parse(text).ok_or_else(|| {
            let allowed = Reason::ALL.map(Reason::as_str).join(", ");
            bad("reason", format!("must be one of {allowed}"))
        })?),
    };
    let (from, to) = parameters.instants()?;
    let (source, limit) = (parameters.source()?, parameters.limit()?.into());
    Ok(DeadLetterFilter { reason, source, from, to, limit, ids: Vec::new(), replayed: false })
}

fn bad(name: &str, message: impl Into<String>) -> BadParameter {
    BadParameter { name: name.to_owned(), message: message.into() }
}

/// A dead letter with its bytes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WholeLetter<'a> {
    #[serde(flatten)]
    #[schema(inline)]
    letter: &'a ListedLetter,
    /// The event as text, as far as its bytes are kept and `ESS_PII` lets them be shown. Bytes that are no UTF-8 are
    /// replaced by U+FFFD.
    payload: String,
    /// True if only the beginning of the bytes is kept, or if `ESS_PII` takes out some of them.
    payload_changed: bool,
}

/// One dead letter, with the bytes of its event.
#[utoipa::path(get, path = "/dead-letters/{id}", tag = "dead letters", security((), ("bearer" = [])),
    params(("id" = String, Path, description = "Id of the letter")),
    responses(
        (status = 200, description = "The letter", body = WholeLetter),
        Refused,
        (status = 404, description = "There is no such letter"),
    ))]
pub(super) async fn letter(
    request: HttpRequest,
    shared: web::Data<Shared>,
    id: web::Path<String>,
) -> HttpResponse {
    let answer = async {
        guard(&request, &shared.tokens)?;
        Parameters::read(request.query_string(), &[]).map_err(ReportError::from)?;
        let id = read_id(&id).ok_or(ReportError::UnknownLetter)?;
        let turn = shared.lists.turn().await?;
        let only =
            DeadLetterFilter { ids: vec![id], replayed: true, limit: 1, ..DeadLetterFilter::default() };
        let found: Option<StoredLetter> = shared.store.letters(&only).await.map_err(ReportError::from)?.pop();
        let letter = found.ok_or(ReportError::UnknownLetter)?;
        let payload = shown_payload(&letter, shared.redactor.as_ref(), &shared.source_folder);
        turn.answer(&WholeLetter {
            letter: &letter,
            payload: String::from_utf8_lossy(&payload).into_owned(),
            payload_changed: !letter.is_whole() || payload != letter.payload,
        })
    };
    answered(&request, answer.await)
}

/// An id in its usual form; other forms are no ids of letters.
fn read_id(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// Request for a replay: ids, or the filters of the list.
struct ReplayBody;

impl ToSchema for ReplayBody {
    fn name() -> std::borrow::Cow<'static, str> {
        "ReplayBody".into()
    }
}

impl PartialSchema for ReplayBody {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        shapes::replay().into()
    }
}

/// Result of a replay.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Replays {
    /// True if nothing was changed.
    dry_run: bool,
    /// Number of letters whose event is in the log now, or would be.
    accepted: usize,
    /// Number of letters that are refused again.
    refused: usize,
    /// True if more letters match: another request is needed for them.
    more: bool,
    /// Each letter, the newest first; then ids that were not replayed.
    letters: Vec<LetterResult>,
}

/// Result for a letter.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LetterResult {
    #[schema(value_type = String)]
    id: Uuid,
    outcome: ReplayOutcome,
    /// Source of an event that is valid now.
    #[schema(value_type = Option<String>)]
    source: Option<&'static str>,
    /// Type of an event that is valid now.
    event_type: Option<String>,
    /// Id of the event, if it could be read.
    event_id: Option<String>,
    /// Errors of an event that is refused again.
    errors: Vec<FieldError>,
    /// True if there are more errors.
    errors_truncated: bool,
}

impl LetterResult {
    /// A result whose errors take at most so many bytes; at least one error is kept.
    fn new(letter: ReplayedLetter, share: usize) -> Self {
        let ReplayedLetter { id, outcome, kind, event_id, mut errors } = letter;
        let (all, mut bytes) = (errors.len(), 0);
        let fitting = errors.iter().take_while(|error| {
            bytes += error.path.len() + error.message.len();
            bytes <= share
        });
        let kept = fitting.count().max(1);
        errors.truncate(kept);
        let errors_truncated = errors.len() < all;
        let (source, event_type) = kind.map(|(source, kind)| (source.name(), kind)).unzip();
        Self { id, outcome, source, event_type, event_id, errors, errors_truncated }
    }
}

/// Validates dead letters again, and puts those that are valid now into the log.
///
/// A letter is replayed once; an event that was stored meanwhile is recognised as a duplicate. One that is refused again
/// stays, with both reasons. Up to 1,000 letters and 64 MiB of them in one request; `dryRun` changes nothing.
#[utoipa::path(post, path = "/dead-letters/replay", tag = "dead letters", security((), ("bearer" = [])),
    request_body(content = ReplayBody, description = "Ids of letters, or filters as of the list"),
    responses(
        (status = 200, description = "The result for each letter", body = Replays),
        Refused,
        (status = 403, description = "ESS_ADMIN_TOKEN is not set"),
        (status = 409, description = "This reporter's database is read-only: use another reporter, or the command"),
        (status = 413, description = "The body is larger than 64 KiB"),
        (status = 415, description = "The body is no JSON by its Content-Type"),
    ))]
pub(super) async fn replay(
    request: HttpRequest,
    shared: web::Data<Shared>,
    view: web::Data<ServiceView>,
    body: web::Payload,
) -> HttpResponse {
    let answer = async {
        administers(&request, &view)?;
        Parameters::read(request.query_string(), &[]).map_err(ReportError::from)?;
        let (filter, dry_run) = read_body(&read_bytes(&request, body).await?)?;
        run(&shared, &filter, dry_run).await.unwrap_or_else(|error| Err(error.into()))
    };
    answered(&request, answer.await)
}

/// The body of a request that is JSON by its `Content-Type`, or has none.
async fn read_bytes(request: &HttpRequest, body: web::Payload) -> Result<web::Bytes, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::to_str);
    let is_json = |kind: &str| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    };
    if !kind.is_none_or(|kind| kind.is_ok_and(is_json)) {
        let detail = "the body must be JSON, with Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    match body.to_bytes_limited(MAX_BODY).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(Problem::new(StatusCode::BAD_REQUEST, error.to_string())),
        Err(_) => {
            let detail = format!("the body is larger than {MAX_BODY} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).close())
        }
    }
}

/// The letters that a body asks for, and true for a dry run.
fn read_body(body: &[u8]) -> Result<(DeadLetterFilter, bool), ReportError> {
    let mut members: BTreeMap<String, Value> = serde_json::from_slice(body)
        .map_err(|error| bad("body", format!("must be a JSON object: {error}")))?;
    let dry_run = match members.remove("dryRun") {
        None => false,
        Some(Value::Bool(dry_run)) => dry_run,
        Some(_) => return Err(bad("dryRun", "must be true or false").into()),
    };
    let Some(ids) = members.remove("ids") else {
        return Ok((filter(&Parameters::from_json(members, FILTERS)?)?, dry_run));
    };
    if let Some(name) = members.into_keys().next() {
        return Err(bad(&name, "must not come beside ids").into());
    }
    let wrong = || bad("ids", format!("must be a list of 1 to {MAX_LIMIT} ids of dead letters"));
    let Value::Array(list) = ids else { return Err(wrong().into()) };
    let ids: Option<Vec<Uuid>> = list.iter().map(|id| read_id(id.as_str()?)).collect();
    let mut ids = ids.ok_or_else(wrong)?;
    if ids.is_empty() || ids.len() > usize::from(MAX_LIMIT) {
        return Err(wrong().into());
    }
    ids.sort_unstable();
    ids.dedup();
    let limit = ids.len() as u64;
    Ok((DeadLetterFilter { ids, limit, ..DeadLetterFilter::default() }, dry_run))
}

/// Replays letters, and answers with their results.
async fn run(shared: &Shared, filter: &DeadLetterFilter, dry_run: bool) -> Result<Answer, ReportError> {
    let log = match dry_run {
        true => None,
        false => Some(shared.log.as_ref().ok_or(ReportError::NoLog)?),
    };
    // One replay at a time: two at once would replay letters twice, and the bytes of one are bounded.
    let _one = shared.replaying.try_acquire().map_err(|_| ReportError::Replaying)?;
    if !dry_run && let Some(why) = shared.store.letters_are_read_only().await? {
        return Err(ReportError::ReadOnly(why));
    }
    let turn = shared.lists.turn().await?;
    let selection = Selection::new(&shared.store, filter, MAX_BYTES).await?;
    let share = (ERRORS / selection.len().max(1)).max(LEAST_ERRORS);
    let mut letters = Vec::new();
    let replay = Replay {
        store: &shared.store,
        log,
        redactor: shared.redactor.as_ref(),
        source_folder: &shared.source_folder,
    };
    let ended = replay.run(&selection, |letter| letters.push(LetterResult::new(letter, share))).await;
    let count = |outcome| letters.iter().filter(|letter| letter.outcome == outcome).count();
    let (accepted, refused) = (count(ReplayOutcome::Accepted), count(ReplayOutcome::Refused));
    if let Err(error) = ended {
        return match error {
            ReplayError::Read(error) => Err(error.into()),
            error => Ok(Err(Problem::from(ReportError::Replay(error)).with("accepted", accepted))),
        };
    }
    if !dry_run {
        tracing::info!(accepted, refused, more = selection.more, "dead letters were replayed");
    }
    letters.extend(selection.others.into_iter().map(|letter| LetterResult::new(letter, share)));
    Ok(turn.answer(&Replays { dry_run, accepted, refused, more: selection.more, letters }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<(DeadLetterFilter, bool), String> {
        read_body(body.as_bytes()).map_err(|error| match error {
            ReportError::Parameter(BadParameter { name, .. }) => name,
            other => other.to_string(),
        })
    }

    #[test]
    fn a_replay_names_ids_or_filters() {
        let id = "ec0bc4f8-bc3e-c2c5-7eca-cb54d70d098e";
        let (filter, dry_run) = read(&format!(r#"{{"ids":["{id}","{id}"],"dryRun":true}}"#)).unwrap();
        assert_eq!((filter.ids.len(), filter.limit, dry_run), (1, 1, true));
        let (filter, dry_run) = read(r#"{"reason":"invalid","limit":7,"from":"2026-01-01"}"#).unwrap();
        assert_eq!((filter.reason, filter.limit, dry_run), (Some(Reason::Invalid), 7, false));
        assert!(filter.from.is_some() && filter.ids.is_empty() && !filter.replayed);
    }

    #[test]
    fn a_wrong_member_of_a_replay_is_named() {
        let many =
            format!(r#"{{"ids":[{}]}}"#, vec![r#""ec0bc4f8-bc3e-c2c5-7eca-cb54d70d098e""#; 1_001].join(","));
        for (body, name) in [
            ("", "body"),
            ("[]", "body"),
            ("[[\"dryRun\",true]]", "body"),
            (r#"{"id":"x"}"#, "id"),
            (r#"{"ids":[]}"#, "ids"),
            (r#"{"ids":["x"]}"#, "ids"),
            (r#"{"ids":["ec0bc4f8bc3ec2c57ecacb54d70d098e"]}"#, "ids"),
            (r#"{"ids":null}"#, "ids"),
            (many.as_str(), "ids"),
            (r#"{"ids":["ec0bc4f8-bc3e-c2c5-7eca-cb54d70d098e"],"source":"facebook"}"#, "source"),
            (r#"{"dryRun":"true"}"#, "dryRun"),
            (r#"{"dryRun":null}"#, "dryRun"),
            (r#"{"limit":0}"#, "limit"),
            (r#"{"limit":"5"}"#, "limit"),
            (r#"{"limit":1001}"#, "limit"),
            (r#"{"source":null}"#, "source"),
            (r#"{"source":"nobody"}"#, "source"),
            (r#"{"reason":"boredom"}"#, "reason"),
            (r#"{"from":"2026-02-01","to":"2026-01-01"}"#, "from"),
        ] {
            assert_eq!(read(body).err().as_deref(), Some(name), "{body}");
        }
    }

    #[test]
    fn errors_of_an_answer_are_bounded_and_never_all_left_out() {
        let error = |size| FieldError { path: "a".to_owned(), message: "x".repeat(size) };
        let letter = |errors| ReplayedLetter {
            id: Uuid::nil(),
            outcome: ReplayOutcome::Refused,
            kind: None,
            event_id: None,
            errors,
        };
        let kept = |errors: Vec<FieldError>| {
            let shown = LetterResult::new(letter(errors), 1_000);
            (shown.errors.len(), shown.errors_truncated)
        };
        assert_eq!(kept(vec![error(400); 2]), (2, false));
        assert_eq!(kept(vec![error(400); 9]), (2, true));
        assert_eq!(kept(vec![error(4_000); 2]), (1, true));
        assert_eq!(kept(Vec::new()), (0, false));
    }
}
