//! Writes an event as one JSON object.

use super::event::{CanonicalEvent, VERSION};
use super::member::Member;

impl CanonicalEvent<'_> {
    /// Appends the event as one compact JSON object.
    pub fn write(&self, to: &mut Vec<u8>) {
        let columns = &self.columns;
        let mut members = Writer { to, separator: b'{' };
        members.number(Member::Version, Some(i64::from(VERSION)));
        members.text(Member::Id, Some(&self.id));
        members.number(Member::Timestamp, Some(self.timestamp));
        members.flag(Member::Arrival, self.is_arrival);
        members.text(Member::Source, Some(&self.source));
        members.text(Member::Type, Some(&self.event_type));
        members.text(Member::Stage, Some(self.stage.name()));
        members.text(Member::User, self.user.as_deref());
        members.text(Member::Campaign, columns.campaign.as_deref());
        members.text(Member::Ad, columns.ad.as_deref());
        members.text(Member::Country, columns.country.as_deref());
        members.text(Member::City, columns.city.as_deref());
        members.text(Member::Device, columns.device.as_deref());
        members.text(Member::Browser, columns.browser.as_deref());
        members.number(Member::Age, columns.age.map(i64::from));
        members.text(Member::Gender, columns.gender.as_deref());
        members.number(Member::Followers, columns.followers);
        members.text(Member::Name, columns.name.as_deref());
        members.text(Member::Referrer, columns.referrer.as_deref());
        members.text(Member::Video, columns.video.as_deref());
        members.number(Member::Amount, self.amount);
        members.text(Member::Currency, self.currency.as_deref());
        members.flag(Member::Revenue, self.is_revenue);
        members.key(Member::Raw).extend_from_slice(self.raw.as_bytes());
        to.push(b'}');
    }
}

/// Writes members of an object.
struct Writer<'t> {
    to: &'t mut Vec<u8>,
    /// Byte before the next member.
    separator: u8,
}

impl Writer<'_> {
    fn key(&mut self, member: Member) -> &mut Vec<u8> {
        self.to.push(self.separator);
        self.separator = b',';
        self.to.push(b'"');
        self.to.extend_from_slice(member.name().as_bytes());
        self.to.extend_from_slice(b"\":");
        self.to
    }

    fn text(&mut self, member: Member, text: Option<&str>) {
        if let Some(text) = text {
            // Writing to memory does not fail.
            let _ = serde_json::to_writer(self.key(member), text);
        }
    }

    fn number(&mut self, member: Member, number: Option<i64>) {
        if let Some(number) = number {
            let _ = serde_json::to_writer(self.key(member), &number);
        }
    }

    fn flag(&mut self, member: Member, flag: bool) {
        if flag {
            self.key(member).extend_from_slice(b"true");
        }
    }
}
