//! Façade of the core: the live state behind one lock, with bytes in and bytes out.

use crate::{
    bundle::{ActiveBundle, Bundle},
    encoding::{self, Histories},
    error::{Error, Result, decode},
    events::{self, Batch},
    live_state::live_state,
    pipeline::{self, Actions, By, Decided, Options, Outcome, Plan},
    profile::Stated,
    proto::{ErrorReason, GetProfileResponse},
    snapshot,
    state::{Record, State},
    unrecorded::UnrecordedStatement,
    validate,
    visitor::Visitor,
};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use prost::Message;
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Records applied before waiting answers get their turn.
const RECORDS_AT_ONCE: usize = 128;
/// Items of a bundle looked up before records that wait get their turn.
const ITEMS_AT_ONCE: usize = 4_096;

/// Live state of one replica. Every method may be called from any thread.
pub struct Engine {
    state: RwLock<State>,
    options: Options,
    skipped: AtomicU64,
}

impl Engine {
    /// Engine without state.
    ///
    /// # Errors
    /// A fault of `decision_share` where it is not a share, or of `time_zone` where it names no zone of the IANA.
    pub fn new(token_key: &[u8], consent_default: bool, decision_share: f64, time_zone: &str) -> Result<Self> {
        if !(0.0..=1.0).contains(&decision_share) {
            let message = format!("`decision_share` is {decision_share}; give a share from 0 to 1");
            return Err(Error::out_of_range("decision_share", message));
        }
        let time_zone = time_zone.parse().map_err(|_| {
            let message = format!("`time_zone` is `{time_zone}`; give a name of the IANA, e.g. `Europe/Berlin`");
            Error::out_of_range("time_zone", message)
        })?;
        let token_key = blake3::derive_key("shopkeeper 2025 attribution token", token_key);
        let options = Options { consent_default, token_key, decision_share, time_zone };
        Ok(Self { state: RwLock::default(), options, skipped: AtomicU64::new(0) })
    }

    /// Checks the events of an encoded `RecordEventsRequest`.
    ///
    /// # Errors
    /// As [`events::prepare`].
    pub fn prepare_events(&self, request: &[u8], now_ms: i64, history: bool) -> Result<Batch> {
        events::prepare(&self.read(), request, now_ms, history)
    }

    /// Applies records in order; returns how many changed the state. One that cannot be read is counted and passed
    /// over.
    pub fn apply<'a>(&self, records: impl IntoIterator<Item = Record<'a>>) -> usize {
        let mut state = self.state.write();
        let mut changed = 0;
        for (number, record) in records.into_iter().enumerate() {
            if number % RECORDS_AT_ONCE == RECORDS_AT_ONCE - 1 {
                RwLockWriteGuard::bump(&mut state);
            }
            changed += usize::from(self.counted(state.apply(&record)));
        }
        changed
    }

    /// Applies a late erasure as [`State::apply_late_erasure`] does; no answer comes in between. Returns whether that
    /// changed the state; an erasure that cannot be read is counted and passed over.
    pub fn apply_late_erasure(&self, erasure: &Record, since: &[Record], of_user: &[Record]) -> bool {
        let is_new = self.state.write().apply_late_erasure(erasure, since, of_user);
        self.counted(is_new)
    }

    fn counted(&self, is_new: Result<bool>) -> bool {
        is_new.unwrap_or_else(|_| {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            false
        })
    }

    /// Offset of the last applied record.
    pub fn offset(&self) -> i64 {
        self.read().offset
    }

    /// Plan of an encoded `RecommendRequest`.
    ///
    /// # Errors
    /// Where the request is malformed, outside its limits or names a placement that does not exist.
    pub fn begin(&self, request: &[u8], now_ms: i64, by: By) -> Result<Plan> {
        self.plan(&self.read(), request, now_ms, by)
    }

    fn plan(&self, state: &State, request: &[u8], now_ms: i64, by: By) -> Result<Plan> {
        let request = decode(request, "RecommendRequest")?;
        validate::recommend(&request)?;
        pipeline::begin(state, request, now_ms, &self.options, by)
    }

    /// Decision of an encoded `RecommendRequest`, or its plan where onnxruntime has to score it.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn decide(&self, request: &[u8], now_ms: i64, by: By) -> Result<Outcome> {
        let state = self.read();
        let plan = self.plan(&state, request, now_ms, by)?;
        let Some(scored) = pipeline::score(&state, &plan) else { return Ok(Outcome::Planned(plan)) };
        let decided = pipeline::finish(&state, &plan, scored.actions().as_ref(), scored.degraded, &self.options)?;
        Ok(Outcome::Decided(plan, decided))
    }

    /// Decision of a plan; the heuristic ranks where there are no `actions`.
    ///
    /// # Errors
    /// As [`pipeline::finish`].
    pub fn finish(&self, plan: &Plan, actions: Option<&Actions>, degraded: &str) -> Result<Decided> {
        pipeline::finish(&self.read(), plan, actions, degraded, &self.options)
    }

    /// Encoded `ExplainResponse` of the same decision.
    ///
    /// # Errors
    /// As [`pipeline::finish`].
    pub fn explain(&self, plan: &Plan, actions: Option<&Actions>, degraded: &str) -> Result<Vec<u8>> {
        Ok(pipeline::explain(&self.read(), plan, actions, degraded, &self.options)?.encode_to_vec())
    }

    /// Texts of items.
    pub fn item_ids(&self, items: &[u32]) -> Vec<String> {
        let state = self.read();
        items.iter().map(|&item| state.items.name(item).to_owned()).collect()
    }

    /// Encoded `Item`.
    ///
    /// # Errors
    /// `ITEM_NOT_FOUND`.
    pub fn item(&self, item_id: &str) -> Result<Vec<u8>> {
        let state = self.read();
        let raw = state.items.get(item_id).and_then(|id| state.catalog.raw(id));
        raw.map(<[u8]>::to_vec).ok_or_else(|| Error::not_found(ErrorReason::ItemNotFound, "item_id", item_id))
    }

    /// Up to `count` encoded items from position `start`, and the next position; 0 at the end.
    pub fn items(&self, start: u32, count: usize) -> (Vec<Vec<u8>>, u32) {
        let state = self.read();
        let mut present = (start..state.catalog.end()).filter_map(|id| state.catalog.raw(id).map(|raw| (id, raw)));
        let items = present.by_ref().take(count).map(|(_, raw)| raw.to_vec()).collect();
        (items, present.next().map_or(0, |(id, _)| id))
    }

    /// Encoded `Placement`.
    ///
    /// # Errors
    /// `PLACEMENT_NOT_FOUND`.
    pub fn placement(&self, placement_id: &str) -> Result<Vec<u8>> {
        let state = self.read();
        let found = state.documents.placements.get(placement_id).map(|placement| placement.encode_to_vec());
        found.ok_or_else(|| Error::not_found(ErrorReason::PlacementNotFound, "placement_id", placement_id))
    }

    /// Every encoded `Placement`, in order of id.
    pub fn placements(&self) -> Vec<Vec<u8>> {
        self.read().documents.placements.values().map(|placement| placement.encode_to_vec()).collect()
    }

    /// Encoded `Control`.
    ///
    /// # Errors
    /// `CONTROL_NOT_FOUND`.
    pub fn control(&self, control_id: &str) -> Result<Vec<u8>> {
        let state = self.read();
        let found = state.documents.controls.get(control_id).map(|control| control.encode_to_vec());
        found.ok_or_else(|| Error::not_found(ErrorReason::ControlNotFound, "control_id", control_id))
    }

    /// Every encoded `Control`, in order of id.
    pub fn controls(&self) -> Vec<Vec<u8>> {
        self.read().documents.controls.values().map(|control| control.encode_to_vec()).collect()
    }

    /// Encoded `GetProfileResponse`.
    ///
    /// # Errors
    /// `PROFILE_NOT_FOUND`.
    pub fn profile(&self, visitor_id: &str) -> Result<Vec<u8>> {
        let state = self.read();
        let visitor = state.visitors.get(visitor_id);
        let visitor =
            visitor.ok_or_else(|| Error::not_found(ErrorReason::ProfileNotFound, "visitor_id", visitor_id))?;
        let profile = visitor.stated.as_deref().unwrap_or(&Stated::default()).profile(visitor_id);
        Ok(GetProfileResponse { profile: Some(profile), live_state: Some(live_state(&state, visitor)) }.encode_to_vec())
    }

    /// Up to `count` statements of what users took over from browsers and is in no record.
    pub fn unrecorded_statements(&self, count: usize) -> Vec<UnrecordedStatement> {
        self.read().unrecorded_statements(count)
    }

    /// Version of the bundle that serves by the log, and of the one before; empty if none.
    pub fn models(&self) -> (String, String) {
        let state = self.read();
        (state.active_version.clone(), state.previous_version.clone())
    }

    /// Encoded `Trial` in force; empty if there is none.
    pub fn trial(&self) -> Vec<u8> {
        self.read().trial.as_ref().map_or_else(Vec::new, Message::encode_to_vec)
    }

    /// Numbers of what machines of one shop have in common.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.read().counts()
    }

    /// Counts and bytes of the state; goes through all visitors.
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        let state = self.read();
        let key_bytes = |key: &str| key.len() + size_of::<(Box<str>, Box<Visitor>)>();
        let visitor_bytes: usize = state.visitors.iter().map(|(key, visitor)| key_bytes(key) + visitor.bytes()).sum();
        let encoded = || state.visitors.values().filter_map(|visitor| visitor.sequence.as_ref());
        let bundle_bytes: usize = state.bundles.values().map(|bundle| bundle.bundle.bytes()).sum();
        let others = [
            ("item_ids", state.items.len()),
            ("bundles", state.bundles.len()),
            ("erased", state.erased.len()),
            ("visitor_bytes", visitor_bytes),
            ("item_bytes", state.items.bytes() + state.catalog.bytes()),
            ("popularity_bytes", state.popularity.bytes()),
            ("place_bytes", state.places.bytes()),
            ("neighbour_bytes", bundle_bytes),
            ("sequence_vectors", encoded().count()),
            ("sequence_bytes", encoded().map(|vector| vector.bytes()).sum()),
            ("waiting", state.waiting.len()),
        ];
        let totals = [("events", state.events), ("skipped_records", self.skipped.load(Ordering::Relaxed))];
        let others = others.map(|(name, count)| (name, count as u64));
        state.counts().into_iter().chain(others).chain(totals).collect()
    }

    /// Visitors whose sequence vector is missing or behind.
    pub fn waiting(&self) -> usize {
        self.read().waiting.len()
    }

    /// Histories of up to `count` visitors that wait for a sequence vector.
    pub fn take_histories(&self, count: usize) -> Histories {
        encoding::take(&self.read(), count, self.options.consent_default)
    }

    /// Gives the visitors of `histories` their vectors, row after row; returns how many got one, the others wait on.
    ///
    /// # Errors
    /// Out of range where there are other than `histories.len()` vectors of `histories.width` values.
    pub fn set_vectors(&self, histories: &Histories, values: &[f32], width: usize) -> Result<usize> {
        if (width, values.len()) != (histories.width, histories.len() * histories.width) {
            let text = format!("{} histories need vectors of {} values", histories.len(), histories.width);
            return Err(Error::out_of_range("vectors", format!("{text}, given are {} of {width}", values.len())));
        }
        let vectors = histories.vectors(values);
        Ok(encoding::set(&mut self.state.write(), histories, vectors))
    }

    /// Lets the visitors of `histories` wait on, since their vectors could not be made.
    pub fn put_back(&self, histories: &Histories) {
        encoding::set(&mut self.state.write(), histories, Vec::new());
    }

    /// Writes the state to `path`; returns the offset it holds.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn save_snapshot(&self, path: &Path) -> io::Result<i64> {
        let draft = snapshot::Draft::create(path)?;
        let state = self.read();
        let draft = draft.write(&state)?;
        let offset = state.offset;
        // The disk is waited for without the lock, so that the log can be applied meanwhile.
        drop(state);
        draft.publish()?;
        Ok(offset)
    }

    /// Replaces the state by that of `path`, keeping the loaded bundles; returns its offset.
    ///
    /// # Errors
    /// Corrupt where the file is damaged; the state is then unchanged.
    pub fn load_snapshot(&self, path: &Path) -> Result<i64> {
        let mut loaded = snapshot::load(path)?;
        let offset = loaded.offset;
        let mut state = self.state.write();
        for bundle in state.bundles.values() {
            loaded.keep_bundle(ActiveBundle::new(Arc::clone(&bundle.bundle)));
        }
        let before = std::mem::replace(&mut *state, loaded);
        // What is not needed any more is freed without the lock, for that takes long.
        drop(state);
        drop(before);
        Ok(offset)
    }

    /// Reads a bundle and keeps it under its version.
    ///
    /// # Errors
    /// As [`Bundle::load`]; Bundle too where it was trained for the clock of another time zone.
    pub fn load_bundle(&self, folder: &Path) -> Result<Arc<Bundle>> {
        let bundle = Arc::new(Bundle::load(folder)?);
        let (ours, Bundle { version, time_zone: theirs, .. }) = (self.options.time_zone.name(), &*bundle);
        if ours != theirs {
            return Err(Error::bundle(format!(
                "bundle `{version}` was trained for the time zone {theirs}, this engine answers in {ours}; set it or train again"
            )));
        }
        let looked_up = self.looked_up(Arc::clone(&bundle));
        self.state.write().keep_bundle(looked_up);
        Ok(bundle)
    }

    /// A bundle with the items looked up that the engine knows, while answers and the log go on.
    fn looked_up(&self, bundle: Arc<Bundle>) -> ActiveBundle {
        let mut bundle = ActiveBundle::new(bundle);
        for start in (0..bundle.len()).step_by(ITEMS_AT_ONCE) {
            bundle.look_up(start..bundle.len().min(start + ITEMS_AT_ONCE), &self.read().items);
        }
        bundle
    }

    /// Lets go of a bundle; a version that is not loaded is none to let go of.
    ///
    /// # Errors
    /// Bundle where the version serves.
    pub fn unload_bundle(&self, version: &str) -> Result<()> {
        let mut state = self.state.write();
        if state.needs_bundle(version) {
            return Err(Error::bundle(format!("bundle `{version}` serves; activate another one before unloading it")));
        }
        let removed = state.bundles.remove(version);
        drop(state);
        drop(removed);
        Ok(())
    }

    /// Reads while a writer may wait: an answer is short, and a writer that waits must not hold it up.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read_recursive()
    }
}

#[cfg(test)]
mod tests;
