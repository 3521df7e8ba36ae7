//! Removes what the visitor viewed in the last hours, as the placement says.

use super::{Filter, boxed};
use crate::{
    proto::EventType,
    query::Query,
    visitor::{Visitor, seconds},
};

pub(super) struct Viewed<'a> {
    visitor: &'a Visitor,
    since_s: u32,
}

impl<'a> Viewed<'a> {
    pub(super) fn when_needed(query: &Query<'a>) -> Option<Box<dyn Filter + 'a>> {
        let hours = i64::from(query.placement.hide_viewed_hours);
        let visitor = query.visitor.filter(|_| hours > 0)?;
        Some(boxed(Self { visitor, since_s: seconds(query.now_ms - hours * 3_600_000) }))
    }
}

impl Filter for Viewed<'_> {
    fn name(&self) -> &'static str {
        "viewed"
    }

    fn keep(&self, item: u32) -> bool {
        let viewed = [EventType::View as u8, EventType::Click as u8];
        !self.visitor.recent().any(|interaction| {
            interaction.item == item && interaction.time_s >= self.since_s && viewed.contains(&interaction.kind)
        })
    }

    fn binds_pins(&self) -> bool {
        false
    }
}
