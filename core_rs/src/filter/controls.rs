//! Applies the excluding and requiring controls of merchandisers.

use super::{Filter, boxed};
use crate::{
    catalog::Catalog,
    proto::{Control, control::Action},
    query::{Condition, Query},
};

pub(super) struct Controls<'a> {
    catalog: &'a Catalog,
    excluded: Vec<Condition>,
    required: Vec<Condition>,
}

impl<'a> Controls<'a> {
    pub(super) fn when_needed(query: &'a Query, controls: &[&Control]) -> Option<Box<dyn Filter + 'a>> {
        let (mut excluded, mut required) = (Vec::new(), Vec::new());
        for control in controls {
            let condition = || Condition::new(&control.items.clone().unwrap_or_default(), query.state);
            match &control.action {
                Some(Action::Exclude(_)) => excluded.push(condition()),
                Some(Action::Require(_)) => required.push(condition()),
                _ => {}
            }
        }
        let needed = !excluded.is_empty() || !required.is_empty();
        needed.then(|| boxed(Self { catalog: &query.state.catalog, excluded, required }))
    }
}

impl Filter for Controls<'_> {
    fn name(&self) -> &'static str {
        "controls"
    }

    fn keep(&self, item: u32) -> bool {
        self.excluded.iter().all(|condition| !condition.passes(self.catalog, item))
            && self.required.iter().all(|condition| condition.passes(self.catalog, item))
    }
}
