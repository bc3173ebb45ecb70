//! The envelope of an event: the fields that every source has.

use garde::Validate;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Event;
use crate::json::lenient::leaf;
use crate::json::object::branch;
use crate::json::scalar::{Instant, Text};
use crate::source::{EventType, FunnelStage, Reading, Source};

/// The fields of an event. One that is empty is missing or wrong.
#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Envelope<'a> {
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, min = 1, max = 128))]
    pub event_id: Option<Text<'a>>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    timestamp: Option<Instant>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    pub source: Option<Source>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    funnel_stage: Option<FunnelStage>,
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(custom(belongs_to_stage(self.source, self.funnel_stage)))]
    event_type: Option<Text<'a>>,
    #[serde(default, borrow, deserialize_with = "branch")]
    #[garde(skip)]
    data: Option<Data<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data<'a> {
    #[serde(default, borrow, deserialize_with = "leaf")]
    user: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "leaf")]
    engagement: Option<&'a RawValue>,
}

/// The rule that an eventType is one of its source's and belongs to its funnelStage.
fn belongs_to_stage(
    source: Option<Source>,
    stage: Option<FunnelStage>,
) -> impl FnOnce(&Option<Text<'_>>, &()) -> garde::Result {
    move |text, ()| {
        let (Some(text), Some(source)) = (text, source) else { return Ok(()) };
        let fits = |kind: &&EventType| stage.is_none_or(|stage| kind.stage == stage);
        match source.contract_type(text) {
            Some(kind) if fits(&kind) => Ok(()),
            _ => {
                let types = source.contract().map(|contract| contract.event_types).unwrap_or_default();
                let allowed: Vec<_> = types.iter().filter(fits).map(|kind| kind.name()).collect();
                let stage = stage.map(|stage| format!(" in funnelStage {stage}")).unwrap_or_default();
                Err(garde::Error::new(format!(
                    "must be one of {} for source {source}{stage}",
                    allowed.join(", ")
                )))
            }
        }
    }
}

impl<'a> Envelope<'a> {
    /// Reads user and engagement as the source and the stage declare them.
    pub fn read_data(&self, reading: &mut Reading<'a>) {
        let contract = self.source.and_then(|source| Some((source, source.contract()?)));
        let (Some((source, contract)), Some(data)) = (contract, &self.data) else {
            reading.failed = true;
            return;
        };
        match data.user {
            Some(user) => (contract.user)(reading, user),
            None => reading.failed = true,
        }
        let kind = self.event_type.as_ref().map(|name| source.contract_type(name));
        let stage = match (self.funnel_stage, kind) {
            // A mismatch is an error at eventType; the engagement that was meant is not known.
            (Some(stage), Some(kind)) => kind.filter(|kind| kind.stage == stage).map(|_| stage),
            (stage, None) => stage,
            (None, _) => None,
        };
        match (stage.and_then(|stage| contract.engagement(stage)), data.engagement) {
            (Some(read), Some(engagement)) => read(reading, engagement),
            _ => reading.failed = true,
        }
    }

    /// The event, unless a field is missing or wrong.
    pub fn event(self, reading: &mut Reading<'a>) -> Option<Event<'a>> {
        let source = self.source?;
        let kind = source.contract_type(&self.event_type?)?;
        Some(Event {
            id: self.event_id?.0,
            occurred_at: reading.instant("timestamp", self.timestamp?),
            source,
            kind,
            is_revenue: kind.makes_revenue,
            columns: std::mem::take(&mut reading.columns),
            rest: None,
        })
    }
}
