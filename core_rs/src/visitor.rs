//! What the engine remembers of one visitor: a ring of interactions, fading affinities, counts of bought items.

pub use crate::affinity::Affinity;

use crate::{
    affinity::{NO_AFFINITY, strengthen},
    decay,
    ids::NONE,
    params::{AFFINITIES, BASKET_DECAY, LATELY_HALF_LIFE_DAYS, MAX_PERSONAL, PERSONAL_HALF_LIFE_DAYS, RING},
    popularity::event_weight,
    profile::Stated,
    proto::{ConsentPurpose, EventType},
    sequence::SequenceVector,
};

/// One remembered interaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interaction {
    /// Item.
    pub item: u32,
    /// Unix seconds.
    pub time_s: u32,
    /// What happened, a number of [`EventType`].
    pub kind: u8,
}

/// Purchases of one item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bought {
    /// Item.
    pub item: u32,
    /// Decayed count of baskets, kept as by [`decay`].
    pub weight: f32,
    /// The same with a short half-life.
    pub weight_lately: f32,
    /// Count of baskets that fades with each further basket of the visitor, as of `last_basket`.
    pub basket_weight: f32,
    /// First basket, Unix seconds.
    pub first_s: u32,
    /// Last basket, Unix seconds.
    pub last_s: u32,
    /// Baskets with the item.
    pub baskets: u16,
    /// Ordinal of the visitor's basket that held it last, from 1.
    pub last_basket: u16,
}

impl Bought {
    /// Basket weight as of the visitor's basket number `baskets`.
    pub fn faded(&self, baskets: u32) -> f32 {
        let since = baskets.saturating_sub(u32::from(self.last_basket)) as f32;
        self.basket_weight * BASKET_DECAY.powf(since)
    }
}

/// Live state of one visitor.
#[derive(Clone, Debug)]
pub struct Visitor {
    ring: [Interaction; RING],
    ring_len: u8,
    /// Lines that the ring ever took; what was made of it with the same number is up to date.
    pub ring_lines: u32,
    /// Strongest categories, in no order.
    pub categories: [Affinity; AFFINITIES],
    /// Strongest brands, in no order.
    pub brands: [Affinity; AFFINITIES],
    /// Bought items, in order of item id.
    pub bought: Vec<Bought>,
    /// What the shop stated; `None` if nothing.
    pub stated: Option<Box<Stated>>,
    /// What an encoder made of the latest interactions; `None` before it did.
    pub sequence: Option<Box<SequenceVector>>,
    /// Whether an event named this key as `user_id`; such a visitor is never merged into another.
    pub is_user: bool,
    /// Offset from which on this is what the log says of the key, but for denials: what was before went to a user at a
    /// login, or was forgotten; 0 where that is not known.
    pub since_offset: i64,
    /// Events applied.
    pub events: u32,
    /// Purchase events applied.
    pub baskets: u32,
    /// Lines bought.
    pub lines: u32,
    /// Sum of the known prices paid a line, currency units.
    pub spent: f32,
    /// First purchase, Unix milliseconds; 0 before it.
    pub first_purchase_ms: i64,
    /// Last event, Unix milliseconds.
    pub last_ms: i64,
    /// Store of most baskets, as a vote finds it (Boyer and Moore 1981); [`NONE`] if not known.
    pub store: u32,
    /// Baskets by which the store leads.
    pub store_lead: u16,
}

impl Default for Visitor {
    fn default() -> Self {
        Self {
            ring: [Interaction { item: NONE, time_s: 0, kind: 0 }; RING],
            ring_len: 0,
            ring_lines: 0,
            categories: [NO_AFFINITY; AFFINITIES],
            brands: [NO_AFFINITY; AFFINITIES],
            bought: Vec::new(),
            stated: None,
            sequence: None,
            is_user: false,
            since_offset: 0,
            events: 0,
            baskets: 0,
            lines: 0,
            spent: 0.0,
            first_purchase_ms: 0,
            last_ms: 0,
            store: NONE,
            store_lead: 0,
        }
    }
}

impl Visitor {
    /// Visitor of whom the log first says something at an offset.
    pub fn since(since_offset: i64) -> Self {
        Self { since_offset, ..Self::default() }
    }

    /// Latest interactions, newest first.
    pub fn recent(&self) -> impl Iterator<Item = &Interaction> {
        self.ring[..self.ring_len as usize].iter()
    }

    /// Takes interactions of a snapshot, newest first; those beyond the ring are dropped.
    pub(crate) fn restore_recent(&mut self, recent: impl Iterator<Item = Interaction>) {
        self.ring_len = 0;
        let kept = recent.filter(|interaction| is_remembered(i32::from(interaction.kind)));
        for (slot, interaction) in self.ring.iter_mut().zip(kept) {
            *slot = interaction;
            self.ring_len += 1;
        }
    }

    /// Purchases of an item, if the visitor bought it.
    pub fn bought(&self, item: u32) -> Option<&Bought> {
        self.bought.binary_search_by_key(&item, |bought| bought.item).ok().map(|index| &self.bought[index])
    }

    /// Counts one event before its lines are recorded.
    pub fn begin_event(&mut self, kind: EventType, time_ms: i64) {
        self.events = self.events.saturating_add(1);
        self.last_ms = self.last_ms.max(time_ms);
        if kind == EventType::Purchase {
            self.baskets = self.baskets.saturating_add(1);
            if self.first_purchase_ms == 0 || time_ms < self.first_purchase_ms {
                self.first_purchase_ms = time_ms;
            }
        }
    }

    /// Counts one basket bought in `store`, if that is known.
    pub fn shop_at(&mut self, store: u32) {
        if store == NONE {
            return;
        }
        if self.store_lead == 0 {
            self.store = store;
        }
        let gains = self.store == store;
        self.store_lead = if gains { self.store_lead.saturating_add(1) } else { self.store_lead - 1 };
    }

    /// Records one line of an event; returns in how many baskets the visitor has bought the item when this is one more.
    pub fn record(&mut self, item: u32, kind: EventType, time_ms: i64, category: u32, brand: u32) -> Option<u16> {
        let seconds = seconds(time_ms);
        if is_remembered(kind as i32) {
            self.remember(Interaction { item, time_s: seconds, kind: kind as u8 });
        }
        let gain = decay::term(event_weight(kind), time_ms, PERSONAL_HALF_LIFE_DAYS) as f32;
        if gain > f32::NEG_INFINITY {
            strengthen(&mut self.categories, category, gain);
            strengthen(&mut self.brands, brand, gain);
        }
        if kind != EventType::Purchase {
            return None;
        }
        let lately = decay::term(event_weight(kind), time_ms, LATELY_HALF_LIFE_DAYS) as f32;
        self.buy(item, seconds, gain, lately)
    }

    /// Takes over what `other` did, as if it came after all of this visitor's baskets, and what was stated about it;
    /// used when an event, which the log took at `log_ms`, shows an anonymous visitor to be this one, who was forgotten
    /// last at `erased_ms`.
    pub fn merge(&mut self, other: &Self, log_ms: i64, erased_ms: i64) {
        self.merge_recent(other);
        for affinity in other.categories.iter().filter(|affinity| affinity.key != NONE) {
            strengthen(&mut self.categories, affinity.key, affinity.weight);
        }
        for affinity in other.brands.iter().filter(|affinity| affinity.key != NONE) {
            strengthen(&mut self.brands, affinity.key, affinity.weight);
        }
        for bought in &other.bought {
            let last_basket = ordinal(self.baskets + u32::from(bought.last_basket));
            self.merge_bought(&Bought { last_basket, ..*bought });
        }
        if let Some(stated) = &other.stated {
            self.stated.get_or_insert_default().adopt(stated, log_ms, erased_ms);
        }
        self.events = self.events.saturating_add(other.events);
        self.baskets = self.baskets.saturating_add(other.baskets);
        self.lines = self.lines.saturating_add(other.lines);
        self.spent += other.spent;
        if other.first_purchase_ms > 0
            && (self.first_purchase_ms == 0 || other.first_purchase_ms < self.first_purchase_ms)
        {
            self.first_purchase_ms = other.first_purchase_ms;
        }
        self.last_ms = self.last_ms.max(other.last_ms);
        if other.store_lead > self.store_lead {
            (self.store, self.store_lead) = (other.store, other.store_lead);
        }
    }

    /// Whether the visitor allows a purpose, if it has answered.
    pub fn consent(&self, purpose: ConsentPurpose) -> Option<bool> {
        self.stated.as_ref()?.granted(purpose as i32)
    }

    /// Whether the visitor said no to personalisation.
    pub fn is_denied(&self) -> bool {
        self.consent(ConsentPurpose::Personalization) == Some(false)
    }

    /// Drops what was learnt of the events of a visitor that said no; returns whether it did.
    pub fn forget_if_denied(&mut self) -> bool {
        if self.is_denied() {
            self.sequence = None;
        }
        self.is_denied()
    }

    /// What stays in the browser when a user takes this visitor over, as [`Stated::left_at_login`] has it.
    pub fn left_at_login(&self, log_ms: i64) -> Option<Self> {
        let left = self.stated.as_ref()?.left_at_login(log_ms)?;
        Some(Self { stated: Some(Box::new(left)), ..Self::default() })
    }

    /// Whether the visitor took over from a browser what is in no record of its own.
    pub fn has_unrecorded(&self) -> bool {
        self.stated.as_ref().is_some_and(|stated| !stated.unrecorded().is_empty())
    }

    /// Bytes held, without the allocator's overhead and what was stated.
    pub fn bytes(&self) -> usize {
        let sequence = self.sequence.as_ref().map_or(0, |vector| vector.bytes());
        size_of::<Self>() + self.bought.len() * size_of::<Bought>() + sequence
    }

    fn merge_recent(&mut self, other: &Self) {
        if other.ring_len == 0 {
            return;
        }
        let mut all: Vec<Interaction> = self.recent().chain(other.recent()).copied().collect();
        all.sort_by(|a, b| b.time_s.cmp(&a.time_s).then(a.item.cmp(&b.item)).then(a.kind.cmp(&b.kind)));
        all.truncate(RING);
        self.ring_len = all.len() as u8;
        self.ring[..all.len()].copy_from_slice(&all);
        self.ring_lines = self.ring_lines.saturating_add(other.ring_lines);
    }

    fn remember(&mut self, interaction: Interaction) {
        let len = self.ring_len as usize;
        let position = self.ring[..len].partition_point(|old| old.time_s > interaction.time_s);
        if position == RING {
            return;
        }
        let kept = len.min(RING - 1);
        self.ring.copy_within(position..kept.max(position), position + 1);
        self.ring[position] = interaction;
        self.ring_lines = self.ring_lines.saturating_add(1);
        self.ring_len = (kept + 1) as u8;
    }

    fn buy(&mut self, item: u32, time_s: u32, gain: f32, lately: f32) -> Option<u16> {
        self.lines = self.lines.saturating_add(1);
        let basket = ordinal(self.baskets);
        match self.bought.binary_search_by_key(&item, |bought| bought.item) {
            Ok(index) => {
                let bought = &mut self.bought[index];
                if bought.last_basket == basket {
                    return None;
                }
                bought.weight = decay::add(f64::from(bought.weight), f64::from(gain)) as f32;
                bought.weight_lately = decay::add(f64::from(bought.weight_lately), f64::from(lately)) as f32;
                bought.basket_weight = bought.faded(u32::from(basket)) + 1.0;
                bought.first_s = bought.first_s.min(time_s);
                bought.last_s = bought.last_s.max(time_s);
                bought.baskets = bought.baskets.saturating_add(1);
                bought.last_basket = basket;
                Some(bought.baskets)
            }
            Err(index) => {
                let bought = Bought {
                    item,
                    weight: gain,
                    weight_lately: lately,
                    basket_weight: 1.0,
                    first_s: time_s,
                    last_s: time_s,
                    baskets: 1,
                    last_basket: basket,
                };
                self.bought.insert(index, bought);
                self.shrink();
                Some(1)
            }
        }
    }

    fn merge_bought(&mut self, other: &Bought) {
        match self.bought.binary_search_by_key(&other.item, |bought| bought.item) {
            Ok(index) => {
                let bought = &mut self.bought[index];
                bought.weight = decay::add(f64::from(bought.weight), f64::from(other.weight)) as f32;
                bought.weight_lately =
                    decay::add(f64::from(bought.weight_lately), f64::from(other.weight_lately)) as f32;
                bought.basket_weight = bought.faded(u32::from(other.last_basket)) + other.basket_weight;
                bought.last_basket = other.last_basket;
                bought.first_s = bought.first_s.min(other.first_s);
                bought.last_s = bought.last_s.max(other.last_s);
                bought.baskets = bought.baskets.saturating_add(other.baskets);
            }
            Err(index) => {
                self.bought.insert(index, *other);
                self.shrink();
            }
        }
    }

    fn shrink(&mut self) {
        if self.bought.len() > MAX_PERSONAL {
            let weakest = self.bought.iter().enumerate().min_by(|(_, a), (_, b)| a.weight.total_cmp(&b.weight));
            if let Some((index, _)) = weakest {
                self.bought.remove(index);
            }
        }
    }
}

/// Whether the ring keeps lines of a kind: what the shop showed says nothing of what the visitor wants.
fn is_remembered(kind: i32) -> bool {
    kind != EventType::Impression as i32
}

/// Number of a basket, as far as it is counted.
fn ordinal(baskets: u32) -> u16 {
    baskets.min(u32::from(u16::MAX)) as u16
}

/// Unix seconds of a time, within what `u32` holds.
pub fn seconds(time_ms: i64) -> u32 {
    (time_ms / 1000).clamp(0, i64::from(u32::MAX)) as u32
}

/// Days from one time to another, Unix seconds; 0 if it is not after it.
pub fn days(from_s: u32, until_s: u32) -> f32 {
    until_s.saturating_sub(from_s) as f32 / 86_400.0
}

#[cfg(test)]
mod tests;
