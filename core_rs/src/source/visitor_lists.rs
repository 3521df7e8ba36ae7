//! What the bundle keeps for one visitor: the next basket it expects, what similar visitors buy. Not read for a visitor
//! who was erased after the bundle was trained.

use super::{Proposal, Source, Taker, offer_all};
use crate::{bundle::VisitorList, proto::Reason, query::Query};

pub(super) struct VisitorLists {
    pub(super) list: VisitorList,
    pub(super) name: &'static str,
    pub(super) reason: Reason,
}

impl Source for VisitorLists {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reason(&self) -> Reason {
        self.reason
    }

    fn enable(&self, query: &Query) -> bool {
        let erased_ms = query.state.erased.get(query.key).copied();
        !query.key.is_empty()
            && query.bundle.is_some_and(|active| erased_ms.is_none_or(|erased_ms| erased_ms < active.bundle.create_ms))
    }

    fn propose(&self, query: &Query, taker: &mut dyn Taker) {
        let Some(bundle) = query.bundle else { return };
        offer_all(bundle.of_visitor(self.list, query.key).map(|(item, score)| Proposal::new(item, score)), taker);
    }
}
