//! What a profile tells of the live state of a visitor.

use crate::{
    decay,
    ids::{Interner, NONE},
    proto::{self, LiveState},
    state::State,
    time::timestamp,
    visitor::{Affinity, Visitor},
};

/// What the engine knows of a visitor, newest interaction first.
pub fn live_state(state: &State, visitor: &Visitor) -> LiveState {
    let recent = visitor.recent().map(|interaction| proto::Interaction {
        item_id: state.items.name(interaction.item).to_owned(),
        event_type: i32::from(interaction.kind),
        event_time: Some(timestamp(i64::from(interaction.time_s) * 1000)),
    });
    LiveState {
        recent: recent.collect(),
        categories: shares(&visitor.categories, &state.catalog.categories),
        brands: shares(&visitor.brands, &state.catalog.brands),
        event_count: i64::from(visitor.events),
        purchase_count: i64::from(visitor.baskets),
        last_event_time: (visitor.events > 0).then(|| timestamp(visitor.last_ms)),
    }
}

/// Affinities as shares, greatest first, ties by name. Time fades all alike, so the kept weights are enough.
fn shares(slots: &[Affinity], names: &Interner) -> Vec<proto::Affinity> {
    let kept: Vec<&Affinity> = slots.iter().filter(|slot| slot.key != NONE).collect();
    let total = kept.iter().map(|slot| f64::from(slot.weight)).fold(decay::EMPTY, decay::add);
    let share = |slot: &&Affinity| proto::Affinity {
        name: names.name(slot.key).to_owned(),
        share: (f64::from(slot.weight) - total).exp2(),
    };
    let mut shares: Vec<proto::Affinity> = kept.iter().map(share).collect();
    shares.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.name.cmp(&b.name)));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_one() {
        let mut names = Interner::default();
        let mut slots = [Affinity { key: NONE, weight: f32::NEG_INFINITY }; crate::params::AFFINITIES];
        for (slot, (name, weight)) in slots.iter_mut().zip([("milk", 10.0), ("cheese", 11.0)]) {
            *slot = Affinity { key: names.intern(name), weight };
        }
        let shares = shares(&slots, &names);
        assert_eq!(shares.iter().map(|share| share.name.as_str()).collect::<Vec<_>>(), ["cheese", "milk"]);
        assert!((shares[0].share - 2.0 / 3.0).abs() < 1e-9 && (shares[1].share - 1.0 / 3.0).abs() < 1e-9);
    }
}
