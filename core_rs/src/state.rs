//! The memory view: everything the log says, ready for answers. Changed only by records, in log order.

use crate::{
    bundle::ActiveBundle,
    catalog::{self, Catalog},
    document::Documents,
    error::{Error, Result, decode},
    ids::{Interner, NONE},
    place::Places,
    popularity::Popularity,
    proto::{
        Activation, Context, DocumentChange, Erasure, Event, EventType, ItemChange, Profile, RecordKind, Stated, Trial,
    },
    time::millis,
    trial,
    visitor::Visitor,
    waiting::Waiting,
};
use hashbrown::HashMap;
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// One record of the log.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Offset, from 1.
    pub offset: i64,
    /// Number of a [`RecordKind`].
    pub kind: i32,
    /// When the log took it, Unix milliseconds.
    pub time_ms: i64,
    /// Message of the kind.
    pub payload: &'a [u8],
}

/// Live state of one replica.
#[derive(Default)]
pub struct State {
    /// Offset of the last applied record.
    pub offset: i64,
    /// Item ids.
    pub items: Interner,
    /// Catalogue.
    pub catalog: Catalog,
    /// Popularity of items.
    pub popularity: Popularity,
    /// Sales by store.
    pub places: Places,
    /// Visitors by key: `user_id` of the known, `visitor_id` of the anonymous.
    pub visitors: HashMap<Box<str>, Box<Visitor>>,
    /// Users who took over from browsers what is in no record of theirs.
    pub unrecorded_users: BTreeSet<Box<str>>,
    /// Erased visitors with the time of their erasure, Unix milliseconds.
    pub erased: BTreeMap<Box<str>, i64>,
    /// Placements and controls.
    pub documents: Arc<Documents>,
    /// Bundles loaded, by version.
    pub bundles: BTreeMap<String, Arc<ActiveBundle>>,
    /// Bundle that serves, if its files are loaded.
    pub active: Option<Arc<ActiveBundle>>,
    /// Version that serves by the log; empty before the first activation.
    pub active_version: String,
    /// Version that served before; empty if none.
    pub previous_version: String,
    /// Trial in force.
    pub trial: Option<Trial>,
    /// Bundle on trial, if its files are loaded.
    pub on_trial: Option<Arc<ActiveBundle>>,
    /// Events applied.
    pub events: u64,
    /// Visitors whose sequence vector is missing or behind.
    pub waiting: Waiting,
}

impl State {
    /// Numbers of what machines of one shop have in common.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = [
            ("visitors", self.visitors.len()),
            ("items", self.catalog.len()),
            ("placements", self.documents.placements.len()),
            ("controls", self.documents.controls.len()),
        ];
        counts.map(|(name, count)| (name, count as u64)).to_vec()
    }

    /// Applies one record; returns whether it changed anything. Records at or below the offset are skipped.
    ///
    /// # Errors
    /// Malformed where the payload is not the message of its kind; the offset has then moved on, the state has not.
    pub fn apply(&mut self, record: &Record) -> Result<bool> {
        if record.offset <= self.offset {
            return Ok(false);
        }
        self.offset = record.offset;
        self.change(record, true)
    }

    /// Applies an erasure that came late, and then anew what the log took of its visitor `since`: after the time of
    /// the erasure and before its offset, in order. Such records have counted for their items. What had gone over to a
    /// user at a login stays with it, but for the user whose erasure it is part of: where the records of that one since,
    /// `of_user`, show that it was back as this visitor, it is made anew of them. Returns whether the visitor was
    /// forgotten or the user made anew.
    ///
    /// # Errors
    /// As [`Self::apply`]; a record that cannot be applied is passed over, as it was before.
    pub fn apply_late_erasure(&mut self, erasure: &Record, since: &[Record], of_user: &[Record]) -> Result<bool> {
        if erasure.offset <= self.offset {
            return Ok(false);
        }
        let Erasure { visitor_id: key, user_id } = decode(erasure.payload, "Erasure").unwrap_or_default();
        let before = self.visitors.get(&*key).cloned();
        let is_new = self.apply(erasure)?;
        if is_new {
            self.make_anew(&key, before, &taken_after(erasure.time_ms, since), erasure.time_ms);
        }
        let erased_ms = self.erased.get(&*user_id).map_or(i64::MAX, |&erased_ms| erased_ms.max(erasure.time_ms));
        let of_user = taken_after(erased_ms, of_user);
        let is_back = of_user.iter().any(|record| is_in_browser(record, &key));
        if is_back {
            let before = self.forget(&user_id);
            self.make_anew(&user_id, before, &of_user, erased_ms);
        }
        Ok(is_new || is_back)
    }

    /// Makes a visitor who was forgotten as of a time anew of records since, if it was there `before`. Denials of
    /// browsers that bound it since, and are in no record yet, stay.
    fn make_anew(&mut self, key: &str, before: Option<Box<Visitor>>, since: &[&Record], erased_ms: i64) {
        let Some(before) = before else { return };
        self.apply_anew(key, since, before.since_offset);
        let denials = before.stated.map_or_else(Vec::new, |stated| stated.unrecorded_denials(erased_ms));
        if !denials.is_empty() {
            self.restate(key, |visitor| {
                visitor.is_user = true;
                visitor.stated.get_or_insert_default().bind_all(denials);
            });
        }
    }

    /// Applies records of a visitor who is not there anew; of those before `since_offset` only denials are its own.
    fn apply_anew(&mut self, key: &str, records: &[&Record], since_offset: i64) {
        let (gone_over, own) = records.split_at(records.partition_point(|record| record.offset < since_offset));
        for record in gone_over.iter().filter(|record| record.kind != RecordKind::Event as i32) {
            self.change_if_sound(record);
        }
        if let Some(left) = self.visitors.remove(key).and_then(|visitor| visitor.left_at_login(i64::MAX)) {
            self.visitors.insert(key.into(), Box::new(left));
        }
        for record in own {
            self.change_if_sound(record);
        }
        if let Some(visitor) = self.visitors.get_mut(key) {
            visitor.since_offset = since_offset;
        }
    }

    /// Applies a record that has counted, unless it cannot be.
    fn change_if_sound(&mut self, record: &Record) {
        drop(catch_unwind(AssertUnwindSafe(|| self.change(record, false))));
    }

    /// Applies a record; an event `counts` for its items too, or for its visitor alone.
    fn change(&mut self, record: &Record, counts: bool) -> Result<bool> {
        let (payload, time_ms) = (record.payload, record.time_ms);
        match RecordKind::try_from(record.kind) {
            Ok(RecordKind::Event) => self.apply_event(&decode(payload, "Event")?, time_ms, counts),
            Ok(RecordKind::Item) => return self.apply_item(&decode(payload, "ItemChange")?, time_ms),
            Ok(RecordKind::Profile) => self.apply_profile(decode(payload, "Profile")?, time_ms),
            Ok(RecordKind::Document) => {
                Arc::make_mut(&mut self.documents).apply(decode::<DocumentChange>(payload, "DocumentChange")?);
            }
            Ok(RecordKind::Erasure) => {
                let Erasure { visitor_id: key, .. } = decode(payload, "Erasure")?;
                return Ok(self.erase(&key, time_ms));
            }
            Ok(RecordKind::Stated) => self.apply_stated(decode(payload, "Stated")?),
            Ok(RecordKind::Activation) => self.activate(decode(payload, "Activation")?),
            Ok(RecordKind::Decision | RecordKind::Unspecified) | Err(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Forgets a visitor as of a time; returns false, and changes nothing, where it was erased as of then or later.
    fn erase(&mut self, key: &str, time_ms: i64) -> bool {
        if self.erased.get(key).is_some_and(|&erased_ms| time_ms <= erased_ms) {
            return false;
        }
        self.forget(key);
        self.erased.insert(key.into(), time_ms);
        true
    }

    /// Removes and returns what is known of a visitor, but for its erasure.
    fn forget(&mut self, key: &str) -> Option<Box<Visitor>> {
        self.waiting.remove(key);
        self.unrecorded_users.remove(key);
        self.visitors.remove(key)
    }

    /// Keeps a loaded bundle, of which any item may be looked up; joins it at once if the log says that it serves.
    pub fn keep_bundle(&mut self, bundle: ActiveBundle) {
        let version = bundle.bundle.version.clone();
        self.bundles.insert(version.clone(), Arc::new(bundle));
        if version == self.active_version {
            self.active = self.joined(&version);
        }
        if self.trial.as_ref().is_some_and(|trial| trial.version == version) {
            self.on_trial = self.joined(&version);
        }
    }

    /// Whether decisions may read the lists of a bundle now.
    pub fn needs_bundle(&self, version: &str) -> bool {
        let serves = self.active_version == version && self.active.is_some();
        serves || self.trial.as_ref().is_some_and(|trial| trial.version == version)
    }

    /// Bundle that answers a visitor: a canary takes its share of them.
    pub fn bundle_of(&self, key: &str) -> Option<&Arc<ActiveBundle>> {
        let canary = self.trial.as_ref().is_some_and(|trial| trial::serves(trial, key));
        self.on_trial.as_ref().filter(|_| canary).or(self.active.as_ref())
    }

    /// Key under which a visitor's state is kept.
    pub fn visitor_key(context: &Context) -> &str {
        if context.user_id.is_empty() { &context.visitor_id } else { &context.user_id }
    }

    fn activate(&mut self, activation: Activation) {
        let Activation { version, trial, is_trial_only, is_rollback } = activation;
        let trial = trial.filter(|trial| !is_trial_only || trial.version != self.active_version);
        self.on_trial = trial.as_ref().and_then(|trial| self.joined(&trial.version));
        self.trial = trial;
        if is_trial_only || (version == self.active_version && self.active.is_some()) {
            return;
        }
        self.active = self.joined(&version);
        if version != self.active_version {
            let left = std::mem::replace(&mut self.active_version, version);
            self.previous_version = if is_rollback { String::new() } else { left };
        }
    }

    fn joined(&mut self, version: &str) -> Option<Arc<ActiveBundle>> {
        let bundle = self.bundles.get_mut(version)?;
        *bundle = bundle.join(&mut self.items);
        Some(Arc::clone(bundle))
    }

    fn apply_item(&mut self, change: &ItemChange, time_ms: i64) -> Result<bool> {
        let item = change.item.as_ref().ok_or_else(|| Error::required("item"))?;
        let id = self.items.intern(&item.item_id);
        Ok(self.catalog.apply(id, change, time_ms))
    }

    fn apply_profile(&mut self, change: Profile, time_ms: i64) {
        let key = change.visitor_id.clone();
        self.restate(&key, |visitor| visitor.stated.get_or_insert_default().update(change, time_ms));
    }

    fn apply_stated(&mut self, mut known: Stated) {
        let key = std::mem::take(&mut known.visitor_id);
        self.restate(&key, |visitor| {
            visitor.is_user |= known.is_user || !known.denials.is_empty(); // nobody else is bound by a browser
            visitor.stated.get_or_insert_default().merge(known);
        });
    }

    fn restate(&mut self, key: &str, change: impl FnOnce(&mut Visitor)) {
        if !key.is_empty() {
            change(self.visitors.entry_ref(key).or_insert_with(|| Box::new(Visitor::since(self.offset))));
            self.after_statement(key);
        }
    }

    /// Forgets what may not be known of a visitor of whom something was stated, and notes what is to be recorded.
    fn after_statement(&mut self, key: &str) {
        if self.visitors.get_mut(key).is_some_and(|visitor| visitor.forget_if_denied()) {
            self.waiting.remove(key);
        }
        self.update_unrecorded(key);
    }

    fn apply_event(&mut self, event: &Event, log_ms: i64, counts: bool) {
        let context = event.context.as_ref().filter(|context| !Self::visitor_key(context).is_empty());
        let Some(context) = context else { return };
        let time_ms = event.event_time.as_ref().map_or(log_ms, millis);
        let kind = event.event_type();
        self.events += u64::from(counts);
        let anonymous =
            if counts { self.take_anonymous(context, log_ms) } else { self.left_in_browser(context, log_ms) };
        let begin = || Box::new(Visitor::since(self.offset));
        let visitor = self.visitors.entry_ref(Self::visitor_key(context)).or_insert_with(begin);
        visitor.is_user |= !context.user_id.is_empty();
        let known_lines = visitor.ring_lines;
        if let Some(anonymous) = &anonymous {
            let erased_ms = self.erased.get(Self::visitor_key(context)).copied().unwrap_or(i64::MIN);
            visitor.merge(anonymous, log_ms, erased_ms);
        }
        visitor.begin_event(kind, time_ms);
        let store = if kind == EventType::Purchase { self.places.store(&context.store_id) } else { NONE };
        visitor.shop_at(store);
        for line in &event.items {
            let item = self.items.intern(&line.item_id);
            let row = self.catalog.row(item);
            let basket = visitor.record(item, kind, time_ms, row.category, row.brand);
            if kind == EventType::Purchase {
                visitor.spent += line.price.as_ref().map_or(row.price, catalog::money).max(0.0);
            }
            if counts {
                self.popularity.record(item, kind, time_ms, basket);
                self.places.record(store, item, 1);
            }
        }
        let has_new_lines = visitor.ring_lines > known_lines;
        if anonymous.is_some() {
            self.after_statement(Self::visitor_key(context));
        }
        if has_new_lines {
            self.await_vector(Self::visitor_key(context), log_ms);
        }
    }

    /// Lets a visitor of whom an event came wait for a new sequence vector, if a bundle encodes it and it consents.
    fn await_vector(&self, key: &str, log_ms: i64) {
        let encodes = self.bundle_of(key).is_some_and(|active| active.bundle.sequence.is_some());
        if encodes && self.visitors.get(key).is_some_and(|visitor| !visitor.is_denied()) {
            self.waiting.add(key, log_ms);
        }
    }

    /// Takes the anonymous visitor that an event shows to be a known one, but for what stays in the browser.
    fn take_anonymous(&mut self, context: &Context, log_ms: i64) -> Option<Box<Visitor>> {
        let key = self.browser(context)?;
        self.waiting.remove(key);
        let anonymous = self.visitors.remove(key)?;
        if let Some(mut left) = anonymous.left_at_login(log_ms) {
            left.since_offset = self.offset;
            self.visitors.insert(key.into(), Box::new(left));
        }
        Some(anonymous)
    }

    /// What an event that was applied before left in the browser, whose visitor it took.
    fn left_in_browser(&self, context: &Context, log_ms: i64) -> Option<Box<Visitor>> {
        self.visitors.get(self.browser(context)?)?.left_at_login(log_ms).map(Box::new)
    }

    /// Key of the anonymous visitor that an event shows to be a known one; a key that ever was a user's is not.
    fn browser<'a>(&self, context: &'a Context) -> Option<&'a str> {
        let (key, user_id) = (&*context.visitor_id, &*context.user_id);
        let is_shown = !key.is_empty() && !user_id.is_empty() && user_id != key;
        (is_shown && !self.visitors.get(key)?.is_user).then_some(key)
    }
}

fn taken_after<'a, 'b>(time_ms: i64, records: &'b [Record<'a>]) -> Vec<&'b Record<'a>> {
    records.iter().filter(|record| record.time_ms > time_ms).collect()
}

/// Whether a record is an event with an anonymous id.
fn is_in_browser(record: &Record, anonymous_id: &str) -> bool {
    let event = || decode::<Event>(record.payload, "Event").ok()?.context;
    record.kind == RecordKind::Event as i32 && event().is_some_and(|context| context.visitor_id == anonymous_id)
}
