//! The first half of a decision: hydrate, sources, filters, features.

use crate::{
    bundle::ActiveBundle,
    encoding,
    error::{Error, Result},
    feature::Shared,
    filter::Gate,
    gather::{self, Candidate},
    ids::NONE,
    params::{BOUGHT_RECOVERY_DAYS, DEFAULT_PAGE, SEQUENCE_LATE_MS},
    pipeline::Options,
    proto::{
        Consent, ConsentPurpose, Context, Control, ErrorReason, Placement, PlacementRequest, RecommendRequest,
        control::Action, placement::BoughtRule,
    },
    query::{self, Condition, Query},
    rerank::Traits,
    stage::Stage,
    state::State,
    time::wall_millis,
    trial,
    visitor::{Visitor, days, seconds},
};
use std::{sync::Arc, time::Instant};

/// A decision that waits for scores.
pub struct Plan {
    /// The request, with its id filled in.
    pub request: RecommendRequest,
    /// Time the decision is for, Unix milliseconds.
    pub now_ms: i64,
    /// Last record of the log that the state reflected.
    pub state_offset: i64,
    /// Rows of [`feature::WIDTH`] columns of all slots that the model ranks.
    pub features: Vec<f32>,
    /// Bundle whose lists were read; empty if none.
    pub bundle_version: String,
    /// Bundle whose ranker must score; empty where the heuristic ranks.
    pub model_version: String,
    /// Columns that the ranker answers.
    pub actions: Vec<String>,
    /// Row at which each slot begins, and the total.
    pub slot_rows: Vec<usize>,
    /// Item of each row.
    pub row_items: Vec<u32>,
    /// One slot a placement of the request.
    pub slots: Vec<Slot>,
    /// What could not be done as configured.
    pub degraded: Vec<String>,
    /// Answers of the visitor that the decision was made under.
    pub consents: Vec<Consent>,
    /// Whether a shadow trial answers the request once more.
    pub shadowed: bool,
}

impl Plan {
    /// Whose decision it is: `user_id` if set, else `visitor_id`.
    pub fn visitor_key(&self) -> &str {
        self.request.context.as_ref().map_or("", State::visitor_key)
    }
}

/// Who answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The bundle that serves the visitor.
    Serving,
    /// The bundle on trial.
    Trial,
}

impl By {
    /// The bundle on trial, or the one that serves.
    pub fn of(on_trial: bool) -> Self {
        if on_trial { Self::Trial } else { Self::Serving }
    }
}

/// What all slots of a plan are made with.
#[derive(Clone, Copy)]
struct Moment<'a> {
    state: &'a State,
    bundle: Option<&'a ActiveBundle>,
    now_ms: i64,
    options: &'a Options,
}

/// One placement of a plan.
pub struct Slot {
    /// Placement as it was when the plan was made.
    pub placement: Arc<Placement>,
    /// Items wanted.
    pub page: usize,
    /// Candidates, in order of gathering.
    pub candidates: Vec<Candidate>,
    /// What re-ranking reads, one a candidate.
    pub traits: Vec<Traits>,
    /// Factor of controls and of the bought rule, one a candidate; empty where all are 1.
    pub factors: Vec<f32>,
    /// Pins that may be shown, in order of position.
    pub pins: Vec<Pinned>,
    /// Controls in force, pins aside.
    pub applied_controls: Vec<String>,
    /// Anchors and exclusions that the engine does not know.
    pub missing: Vec<String>,
    /// Counts and times of the stages.
    pub stages: Vec<Stage>,
    /// The first removed items with the name of their filter.
    pub removed: Vec<(u32, &'static str)>,
}

/// Item that a control puts at a position.
pub struct Pinned {
    /// Position, from 1.
    pub position: usize,
    /// Item.
    pub item: u32,
    /// The control.
    pub control_id: String,
}

/// Makes the plan of a valid request.
///
/// # Errors
/// `PLACEMENT_NOT_FOUND` where the request names a placement that does not exist.
pub fn make(state: &State, mut request: RecommendRequest, now_ms: i64, options: &Options, by: By) -> Result<Plan> {
    if request.request_id.is_empty() {
        request.request_id = request_id(&request, now_ms, state.offset);
    }
    let key = request.context.as_ref().map_or("", State::visitor_key);
    let bundle = if by == By::Trial { state.on_trial.as_ref() } else { state.bundle_of(key) };
    let moment = Moment { state, bundle: bundle.map(|bundle| &**bundle), now_ms, options };
    let mut plan = Plan {
        now_ms,
        state_offset: state.offset,
        features: Vec::new(),
        bundle_version: bundle.map_or_else(String::new, |bundle| bundle.bundle.version.clone()),
        model_version: String::new(),
        actions: Vec::new(),
        slot_rows: vec![0],
        row_items: Vec::new(),
        slots: Vec::with_capacity(request.placements.len()),
        degraded: Vec::new(),
        consents: consents(state, request.context.as_ref(), options),
        shadowed: by == By::Serving && state.trial.as_ref().is_some_and(|it| trial::shadows(it, &request.request_id)),
        request,
    };
    let mut shown_before = 0;
    for index in 0..plan.request.placements.len() {
        let slot = plan_slot(moment, &mut plan, index, shown_before)?;
        shown_before += slot.page;
        plan.slots.push(slot);
        plan.slot_rows.push(plan.row_items.len());
    }
    note_degradation(moment, &mut plan);
    note_sequence(moment, &mut plan, by);
    Ok(plan)
}

/// Id of a request that brings none: the same request at the same time and state has the same id.
fn request_id(request: &RecommendRequest, now_ms: i64, offset: i64) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&prost::Message::encode_to_vec(request));
    hasher.update(&now_ms.to_le_bytes()).update(&offset.to_le_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

fn note_degradation(moment: Moment, plan: &mut Plan) {
    let uses_model = plan.slots.iter().any(|slot| slot.placement.use_model);
    if moment.state.catalog.is_empty() {
        plan.degraded.push("catalog_empty".to_owned());
    }
    let key = plan.request.context.as_ref().map_or("", State::visitor_key);
    let canary = moment.state.trial.as_ref().is_some_and(|it| trial::serves(it, key));
    if canary && moment.state.on_trial.is_none() {
        plan.degraded.push("trial_not_loaded".to_owned());
    }
    if uses_model && moment.bundle.is_none() {
        let why = if moment.state.active_version.is_empty() { "model_missing" } else { "bundle_not_loaded" };
        plan.degraded.push(why.to_owned());
    }
    if moment.bundle.is_some_and(|active| !active.has_content()) && rests_on(plan, "similar_content") {
        plan.degraded.push("content_vectors_missing".to_owned());
    }
}

/// Whether a slate of the plan has this source alone.
fn rests_on(plan: &Plan, source: &str) -> bool {
    let alone = |slot: &Slot| slot.placement.sources.iter().all(|used| used.source == source);
    plan.slots.iter().any(alone)
}

/// Says what the source `sequence` lacks, and lets the visitor wait for its vector where that is missing or behind.
fn note_sequence(moment: Moment, plan: &mut Plan, by: By) {
    let active = moment.bundle.filter(|_| asks(plan, "sequence"));
    let Some((active, encoder)) = active.and_then(|active| Some((active, active.bundle.sequence.as_ref()?))) else {
        return;
    };
    let state = moment.state;
    if !active.has_next(|item| state.catalog.row(item).present) {
        plan.degraded.push("sequence_vectors_missing".to_owned());
    }
    let found = plan.request.context.as_ref().map(|context| visitor(state, context, moment.options));
    let behind = found.filter(|(_, visitor)| visitor.is_some_and(|it| encoding::is_behind(it, encoder)));
    if let Some((key, _)) = behind.filter(|_| by == By::Serving) {
        let since_ms = state.waiting.ask(key, moment.now_ms);
        if moment.now_ms.saturating_sub(since_ms) > SEQUENCE_LATE_MS {
            plan.degraded.push("sequence_late".to_owned());
        }
    }
}

/// Whether a slot uses a source.
fn asks(plan: &Plan, source: &str) -> bool {
    plan.slots.iter().any(|slot| slot.placement.sources.iter().any(|used| used.source == source))
}

fn plan_slot(moment: Moment, plan: &mut Plan, index: usize, shown_before: usize) -> Result<Slot> {
    let began = Instant::now();
    let state = moment.state;
    let wanted = &plan.request.placements[index];
    let placement = placement(state, wanted, index)?;
    let context = plan.request.context.as_ref().ok_or_else(|| Error::required("context"))?;
    let mut missing = Vec::new();
    let query = hydrate(moment, context, wanted, placement, &mut missing);
    let mut excluded = query::known(&state.items, &wanted.exclude_item_ids, &mut missing);
    excluded.extend(query.anchors.iter().chain(&query.cart));
    let controls = active_controls(&query);
    let mut gate = Gate::new(&query, wanted, &controls, excluded);
    let page = page(wanted, placement);
    let mut stages = vec![Stage::new("hydrate", "", 0, query.seeds.len(), began)];
    let candidates = gather::gather(&query, wanted, &mut gate, page + shown_before, &mut stages);
    let (factors, pins, applied_controls) = apply_controls(&query, &controls, &gate, &candidates);
    let names = gate.names();
    stages.extend(Stage::filters(names.iter().copied().zip(gate.counts.iter().copied()), candidates.len()));
    if let Some(active) = moment.bundle.filter(|active| placement.use_model && active.bundle.has_ranker) {
        let began = Instant::now();
        Shared::new(&query).push_rows(&candidates, &mut plan.features);
        plan.row_items.extend(candidates.iter().map(|candidate| candidate.item));
        plan.model_version.clone_from(&active.bundle.version);
        plan.actions.clone_from(&active.bundle.actions);
        stages.push(Stage::new("features", "", candidates.len(), candidates.len(), began));
    }
    let traits = candidates.iter().map(|candidate| traits(state, candidate.item)).collect();
    let removed = gate.samples.iter().map(|&(item, number)| (item, names[number])).collect();
    let placement = Arc::clone(placement);
    Ok(Slot { placement, page, candidates, traits, factors, pins, applied_controls, missing, stages, removed })
}

/// Joins a placement of a request to the state; texts that the engine does not know are added to `missing`.
fn hydrate<'a>(
    moment: Moment<'a>,
    context: &'a Context,
    wanted: &PlacementRequest,
    placement: &'a Placement,
    missing: &mut Vec<String>,
) -> Query<'a> {
    let state = moment.state;
    let (key, visitor) = visitor(state, context, moment.options);
    let mut query = Query {
        state,
        now_ms: moment.now_ms,
        wall_ms: wall_millis(moment.now_ms, moment.options.time_zone),
        context,
        key,
        visitor,
        placement,
        anchors: query::known(&state.items, &wanted.anchor_item_ids, missing),
        cart: query::known(&state.items, &context.cart_item_ids, missing),
        seeds: Vec::new(),
        bundle: moment.bundle,
    };
    query.seed();
    query
}

fn placement<'a>(state: &'a State, wanted: &PlacementRequest, index: usize) -> Result<&'a Arc<Placement>> {
    state.documents.placements.get(&wanted.placement_id).ok_or_else(|| {
        let field = format!("placements[{index}].placement_id");
        Error::not_found(ErrorReason::PlacementNotFound, &field, &wanted.placement_id)
    })
}

/// Key and state of the visitor, the known one before the anonymous one.
fn found<'a>(state: &'a State, context: &'a Context) -> Option<(&'a str, &'a Visitor)> {
    let keys = [State::visitor_key(context), &*context.visitor_id];
    keys.into_iter().find_map(|key| state.visitors.get(key).map(|visitor| (key, &**visitor)))
}

/// Key and state of the visitor; nothing where personalisation is not allowed.
fn visitor<'a>(state: &'a State, context: &'a Context, options: &Options) -> (&'a str, Option<&'a Visitor>) {
    if !state.answer(context, ConsentPurpose::Personalization).unwrap_or(options.consent_default) {
        return ("", None);
    }
    found(state, context).map_or((State::visitor_key(context), None), |(key, visitor)| (key, Some(visitor)))
}

/// Answers that apply to a decision about the visitor and to learning from it.
fn consents(state: &State, context: Option<&Context>, options: &Options) -> Vec<Consent> {
    let answered = |purpose: ConsentPurpose| {
        let answer = context.and_then(|context| state.answer(context, purpose));
        Consent { purpose: purpose as i32, granted: answer.unwrap_or(options.consent_default) }
    };
    [ConsentPurpose::Personalization, ConsentPurpose::Training].map(answered).into()
}

fn page(wanted: &PlacementRequest, placement: &Placement) -> usize {
    [wanted.page_size, placement.page_size]
        .into_iter()
        .find(|&size| size > 0)
        .map_or(DEFAULT_PAGE, |size| size as usize)
}

fn traits(state: &State, item: u32) -> Traits {
    let row = state.catalog.row(item);
    Traits { item, category: row.category, department: row.department, brand: row.brand }
}

fn active_controls<'a>(query: &Query<'a>) -> Vec<&'a Control> {
    let controls = query.state.documents.controls.values();
    let id = &query.placement.placement_id;
    controls
        .map(|control| &**control)
        .filter(|control| query::applies(control, id, query.context, query.now_ms))
        .collect()
}

/// Factors of the candidates, admitted pins and the ids of the controls that had an effect.
fn apply_controls(
    query: &Query,
    controls: &[&Control],
    gate: &Gate,
    candidates: &[Candidate],
) -> (Vec<f32>, Vec<Pinned>, Vec<String>) {
    let mut factors = bought_factors(query, candidates);
    let (mut pins, mut applied) = (Vec::<Pinned>::new(), Vec::new());
    for control in controls {
        let changed = match &control.action {
            Some(Action::Boost(boost)) => {
                boost_candidates(query, control, boost.factor as f32, candidates, &mut factors)
            }
            Some(Action::Pin(pin)) => {
                let item = query.state.items.get(&pin.item_id).unwrap_or(NONE);
                if gate.admit_pin(item) && pins.iter().all(|other| other.item != item) {
                    let (position, control_id) = (pin.position as usize, control.control_id.clone());
                    pins.push(Pinned { position, item, control_id });
                }
                false
            }
            Some(Action::Exclude(_) | Action::Require(_)) => true,
            None => false,
        };
        applied.extend(changed.then(|| control.control_id.clone()));
    }
    pins.sort_by_key(|pin| pin.position);
    (factors, pins, applied)
}

fn boost_candidates(
    query: &Query,
    control: &Control,
    factor: f32,
    candidates: &[Candidate],
    factors: &mut Vec<f32>,
) -> bool {
    let condition = Condition::new(&control.items.clone().unwrap_or_default(), query.state);
    let mut changed = false;
    for (index, candidate) in candidates.iter().enumerate() {
        if condition.passes(&query.state.catalog, candidate.item) {
            factors.resize(candidates.len(), 1.0);
            factors[index] *= factor;
            changed = true;
        }
    }
    changed
}

/// Factors of `BOUGHT_RULE_DECAY`: near 0 right after a purchase, 1 after long; empty under another rule.
fn bought_factors(query: &Query, candidates: &[Candidate]) -> Vec<f32> {
    let visitor = query.visitor.filter(|_| query.placement.bought_rule() == BoughtRule::Decay);
    let Some(visitor) = visitor else { return Vec::new() };
    let recovered = |item| {
        visitor.bought(item).map_or(1.0, |bought| {
            let since = days(bought.last_s, seconds(query.now_ms));
            1.0 - (-since / BOUGHT_RECOVERY_DAYS as f32).exp2()
        })
    };
    candidates.iter().map(|candidate| recovered(candidate.item)).collect()
}
