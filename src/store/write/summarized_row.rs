//! Rows as summaries count them.

use crate::event::{Columns, MICROS_PER_MINUTE};
use crate::store::summary::{EventInput, Summarized, to_i32};
use crate::store::write::row::Row;

impl Summarized for Row<'_> {
    fn occurred_at(&self) -> i64 {
        self.event.occurred_at
    }

    fn input(&self) -> EventInput<'_> {
        let event = &self.event;
        let Columns { age, gender, followers, device, watch_time, percentage_watched, .. } = event.columns;
        EventInput {
            user: self.user,
            event_type: event.kind.code(),
            minute: to_i32(event.occurred_at.div_euclid(MICROS_PER_MINUTE)),
            revenue: event.revenue(),
            currency: event.currency().number(),
            age,
            gender,
            followers,
            device,
            watch_time,
            percentage_watched,
            country: event.columns.country.as_deref(),
            city: event.columns.city.as_deref(),
            campaign_id: event.columns.campaign_id.as_deref(),
        }
    }
}
