//! Random shops and requests: what every slate must hold, checked against a plain reading of the rules.

mod common;

use common::{Chance, NOW, Shop, request};
use core_rs::{
    pipeline::{self, Actions, By, Options, Plan},
    proto::{
        Control, EventType, ItemFilter, PlacementRequest, RecommendRequest, RecommendResponse, control::Action,
        item::Availability, placement::BoughtRule,
    },
    query::{Condition, applies},
    visitor::Visitor,
};
use proptest::prelude::*;
use prost::Message;
use std::collections::HashSet;

const CASES: u32 = 1_000;
const CALLS: usize = 100;

fn options() -> Options {
    Options {
        consent_default: true,
        token_key: [7; 32],
        decision_share: 1.0,
        time_zone: chrono_tz::Tz::America__New_York,
    }
}

/// Whether the rules let an item into a slate, read one by one from the state.
struct Rulebook<'a> {
    shop: &'a Shop,
    plan: &'a Plan,
    index: usize,
}

impl Rulebook<'_> {
    fn wanted(&self) -> &PlacementRequest {
        &self.plan.request.placements[self.index]
    }

    fn visitor(&self) -> Option<&Visitor> {
        let key = &self.plan.request.context.as_ref()?.visitor_id;
        let visitor = self.shop.state.visitors.get(key.as_str())?;
        let denied = visitor.stated.as_ref().is_some_and(|stated| stated.left_at_login(i64::MAX).is_some());
        (!denied).then_some(visitor)
    }

    fn controls(&self) -> impl Iterator<Item = &Control> {
        let context = self.plan.request.context.as_ref().expect("a context");
        let id = &self.wanted().placement_id;
        let controls = self.shop.state.documents.controls.values();
        controls.map(|control| &**control).filter(move |control| applies(control, id, context, NOW))
    }

    fn matches(&self, filter: Option<&ItemFilter>, item: u32) -> bool {
        let filter = filter.cloned().unwrap_or_default();
        Condition::new(&filter, &self.shop.state).passes(&self.shop.state.catalog, item)
    }

    fn hard(&self, item: u32) -> bool {
        let state = &self.shop.state;
        let sold = state
            .catalog
            .item(item)
            .is_some_and(|item| item.availability() != Availability::Unavailable && item.stock_quantity != Some(0));
        let name = state.items.name(item).to_owned();
        let cart = &self.plan.request.context.as_ref().expect("a context").cart_item_ids;
        let placement = &self.plan.slots[self.index].placement;
        sold && !self.wanted().exclude_item_ids.contains(&name)
            && !self.wanted().anchor_item_ids.contains(&name)
            && !cart.contains(&name)
            && self.matches(self.wanted().filter.as_ref(), item)
            && self.matches(placement.filter.as_ref(), item)
            && self.controls().all(|control| match &control.action {
                Some(Action::Exclude(_)) => !self.matches(control.items.as_ref(), item),
                Some(Action::Require(_)) => self.matches(control.items.as_ref(), item),
                _ => true,
            })
    }

    fn allows(&self, item: u32) -> bool {
        let placement = &self.plan.slots[self.index].placement;
        let bought = self.visitor().is_some_and(|visitor| visitor.bought(item).is_some());
        let rule = match placement.bought_rule() {
            BoughtRule::Exclude => !bought,
            BoughtRule::Only => bought,
            _ => true,
        };
        let since_s = (NOW / 1000 - i64::from(placement.hide_viewed_hours) * 3600) as u32;
        let viewed = [EventType::View as u8, EventType::Click as u8];
        let hidden = placement.hide_viewed_hours > 0
            && self.visitor().is_some_and(|visitor| {
                visitor.recent().any(|seen| seen.item == item && seen.time_s >= since_s && viewed.contains(&seen.kind))
            });
        self.hard(item) && rule && !hidden
    }

    fn admissible(&self) -> HashSet<u32> {
        (0..self.shop.state.items.len() as u32).filter(|&item| self.allows(item)).collect()
    }

    /// Pins that bind, by item.
    fn pins(&self) -> Vec<(usize, u32)> {
        self.controls()
            .filter_map(|control| match &control.action {
                Some(Action::Pin(pin)) => Some((pin.position as usize, self.shop.state.items.get(&pin.item_id)?)),
                _ => None,
            })
            .filter(|&(_, item)| self.hard(item))
            .collect()
    }
}

fn random_actions(chance: &mut Chance, plan: &Plan) -> Option<Vec<f32>> {
    let count = plan.row_items.len() * plan.actions.len();
    let strange = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    (count > 0 && !chance.once_in(4)).then(|| {
        (0..count)
            .map(|_| if chance.once_in(15) { strange[chance.below(3)] } else { chance.below(1000) as f32 / 1000.0 })
            .collect()
    })
}

fn decide(shop: &Shop, request: &RecommendRequest, chance: &mut Chance) -> (Plan, RecommendResponse) {
    let plan = pipeline::begin(&shop.state, request.clone(), NOW, &options(), By::Serving).expect("a valid request");
    let values = random_actions(chance, &plan);
    let actions = values.as_ref().map(|values| Actions { values, width: plan.actions.len() });
    let finish = || pipeline::finish(&shop.state, &plan, actions.as_ref(), "", &options()).expect("an answer");
    let (first, second) = (finish(), finish());
    assert_eq!(first.response, second.response, "the same scores, other bytes");
    (plan, RecommendResponse::decode(&*first.response).expect("a response"))
}

fn check(shop: &Shop, plan: &Plan, response: &RecommendResponse) {
    let state = &shop.state;
    let mut shown: HashSet<u32> = HashSet::new();
    for (index, slate) in response.slates.iter().enumerate() {
        let rules = Rulebook { shop, plan, index };
        let slot = &plan.slots[index];
        let mut admissible = rules.admissible();
        let pins: Vec<(usize, u32)> = rules.pins().into_iter().filter(|(_, item)| !shown.contains(item)).collect();
        let pinned: HashSet<u32> = pins.iter().map(|&(_, item)| item).collect();
        let on_page: HashSet<u32> =
            pins.iter().filter(|(position, _)| *position <= slot.page).map(|&(_, item)| item).collect();
        admissible.retain(|item| !shown.contains(item));
        let ids: Vec<u32> = slate.items.iter().map(|item| state.items.get(&item.item_id).expect("known")).collect();
        for (item, id) in slate.items.iter().zip(&ids) {
            assert!(item.score.is_finite());
            assert!(admissible.contains(id) || pinned.contains(id), "{} must not be shown", item.item_id);
            assert!(shown.insert(*id), "{} is shown twice", item.item_id);
        }
        let possible = admissible.union(&on_page).count();
        assert!(
            ids.len() >= admissible.len().min(slot.page),
            "{} of {possible} shown, {} wanted",
            ids.len(),
            slot.page
        );
        assert!(ids.len() <= slot.page);
        if let [(position, item)] = pins[..]
            && position <= slot.page
        {
            let place = ids.iter().position(|id| *id == item).expect("a pinned item is shown");
            assert!(place + 1 == position || place + 1 == ids.len(), "pin {position} stands at {}", place + 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// 1,000 shops, 100 calls each: no duplicate, no forbidden item, no score that is not a number; full slates; pins
    /// in place.
    #[test]
    fn slates_keep_every_rule(seed in any::<u64>()) {
        let mut chance = Chance(seed);
        let folder = std::env::temp_dir().join(format!("shopkeeper-slates-{}-{seed:x}", std::process::id()));
        let shop = Shop::new(&mut chance, &folder);
        for _ in 0..CALLS {
            let request = request(&mut chance, shop.item_count);
            let (plan, response) = decide(&shop, &request, &mut chance);
            check(&shop, &plan, &response);
            let again = pipeline::begin(&shop.state, request, NOW, &options(), By::Serving).expect("a valid request");
            prop_assert_eq!(&again.row_items, &plan.row_items);
            let bits = |features: &[f32]| features.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
            prop_assert_eq!(bits(&again.features), bits(&plan.features));
            prop_assert!(plan.features.iter().all(|value| value.is_finite()), "a feature is not finite");
        }
        let _ = std::fs::remove_dir_all(folder);
    }
}
