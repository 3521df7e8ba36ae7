//! Limits of a request for recommendations.

use super::{At, context, count, filled, filter, names, optional_id, within};
use crate::{
    error::Result,
    params::{MAX_ANCHORS, MAX_LISTED_IDS, MAX_PAGE, MAX_PLACEMENTS},
    proto::RecommendRequest,
};

/// Checks a request; whether its placements exist is left to the plan.
///
/// # Errors
/// `FIELD_REQUIRED` or `FIELD_OUT_OF_RANGE` with the first field at fault.
pub fn recommend(request: &RecommendRequest) -> Result<()> {
    optional_id(&At::top("request_id"), &request.request_id, 64)?;
    context(&At::top("context"), request.context.as_ref())?;
    let placements = At::top("placements");
    if request.placements.is_empty() {
        return Err(placements.missing());
    }
    count(&placements, request.placements.len(), MAX_PLACEMENTS)?;
    for (index, wanted) in request.placements.iter().enumerate() {
        let at = placements.entry(index);
        filled(&at.field("placement_id"), &wanted.placement_id, 64)?;
        within(&at.field("page_size"), wanted.page_size, &(0..=MAX_PAGE as i32))?;
        names(&at.field("anchor_item_ids"), &wanted.anchor_item_ids, MAX_ANCHORS)?;
        filter(&at.field("filter"), wanted.filter.as_ref())?;
        names(&at.field("exclude_item_ids"), &wanted.exclude_item_ids, MAX_LISTED_IDS)?;
    }
    Ok(())
}
