//! The second half of a decision: score, value, re-rank, reply. The first half is in `plan`.
//!
//! A decision is a function of request, state, bundle and time. The only clock is the one that measures stages; it
//! never changes an answer.

pub use crate::{
    plan::{By, Plan, make as begin},
    score::Actions,
};

use crate::{
    error::{Error, Result},
    feature,
    plan::{Pinned, Slot},
    proto::{
        DecidedSlate, Decision, ExplainResponse, FeatureValue, ItemTrace, Reason, RecommendResponse, RecommendedItem,
        RemovedItem, Slate, SlateTrace,
    },
    rerank::{self, Caps},
    score::{self, Rules},
    source::SOURCES,
    stage::Stage,
    state::State,
    token, trial,
};
use chrono_tz::Tz;
use hashbrown::HashSet;
use prost::Message;
use std::time::Instant;

/// Share of the logged decisions that carry features.
const FEATURE_SHARE: f64 = 0.01;

/// Settings of decisions.
pub struct Options {
    /// Whether a visitor without an answer is treated as consenting to personalisation.
    pub consent_default: bool,
    /// Key of attribution tokens.
    pub token_key: [u8; 32],
    /// Share of decisions to log, 0 to 1.
    pub decision_share: f64,
    /// Zone of the shop, whose hours and weekdays features read.
    pub time_zone: Tz,
}

/// A finished decision.
pub struct Decided {
    /// What the caller gets: an encoded `RecommendResponse`.
    pub response: Vec<u8>,
    /// What the log gets: an encoded `Decision`; empty if not sampled.
    pub decision: Vec<u8>,
    /// What could not be done as configured.
    pub degraded: Vec<String>,
    /// Every stage, in order.
    pub stages: Vec<Stage>,
}

/// How far the engine came with a request by itself.
pub enum Outcome {
    /// The plan and what was decided.
    Decided(Plan, Decided),
    /// The plan, whose features wait for onnxruntime.
    Planned(Plan),
}

/// What the engine makes of the features of a plan.
#[derive(Default)]
pub struct Scored {
    values: Vec<f32>,
    width: usize,
    /// What could not be done; empty when all is well.
    pub degraded: &'static str,
}

impl Scored {
    /// Actions of every row; `None` where the heuristic ranks.
    pub fn actions(&self) -> Option<Actions<'_>> {
        (self.width > 0).then_some(Actions { values: &self.values, width: self.width })
    }
}

/// Scores a plan; `None` where onnxruntime has to.
pub fn score(state: &State, plan: &Plan) -> Option<Scored> {
    if plan.model_version.is_empty() {
        return Some(Scored::default());
    }
    let ranker = state.bundles.get(&plan.model_version)?.bundle.ranker.as_ref()?;
    let values = ranker.score(&plan.features);
    if values.iter().any(|value| !value.is_finite()) {
        return Some(Scored { degraded: "model_not_finite", ..Scored::default() });
    }
    Some(Scored { values, width: ranker.columns(), degraded: "" })
}

/// Ranks a plan and makes the reply; `None` for `actions` ranks by the heuristic and `degraded` says why.
///
/// # Errors
/// Internal where the shape of `actions` is not the one of the plan.
pub fn finish(
    state: &State,
    plan: &Plan,
    actions: Option<&Actions>,
    degraded: &str,
    options: &Options,
) -> Result<Decided> {
    let (response, ranked) = decide(state, plan, actions, degraded, options)?;
    let stages = plan.slots.iter().map(|slot| &slot.stages).chain(ranked.iter().map(|ranked| &ranked.stages));
    Ok(Decided {
        stages: stages.flatten().copied().collect(),
        response: response.encode_to_vec(),
        degraded: response.degraded.clone(),
        decision: decision(state, plan, response, options).map_or_else(Vec::new, |decision| decision.encode_to_vec()),
    })
}

/// Makes the same reply with how it came about, one trace a placement. Nothing of it is logged.
///
/// # Errors
/// As [`finish`].
pub fn explain(
    state: &State,
    plan: &Plan,
    actions: Option<&Actions>,
    degraded: &str,
    options: &Options,
) -> Result<ExplainResponse> {
    let (response, ranked) = decide(state, plan, actions, degraded, options)?;
    let traces = ranked.iter().enumerate().map(|(index, ranked)| trace(state, plan, index, ranked)).collect();
    Ok(ExplainResponse { response: Some(response), traces })
}

fn decide<'a>(
    state: &State,
    plan: &'a Plan,
    actions: Option<&Actions>,
    degraded: &str,
    options: &Options,
) -> Result<(RecommendResponse, Vec<Ranked<'a>>)> {
    check_shape(plan, actions)?;
    let mut response = RecommendResponse {
        request_id: plan.request.request_id.clone(),
        slates: Vec::with_capacity(plan.slots.len()),
        model_version: actions.map_or_else(String::new, |_| plan.model_version.clone()),
        degraded: plan.degraded.clone(),
        bundle_version: plan.bundle_version.clone(),
    };
    note(&mut response.degraded, degraded);
    let (mut shown, mut slots) = (HashSet::new(), Vec::with_capacity(plan.slots.len()));
    for (index, slot) in plan.slots.iter().enumerate() {
        let ranked = rank(plan, index, actions, &mut shown, &mut response.degraded);
        response.slates.push(reply(state, plan, slot, &ranked, options));
        slots.push(ranked);
    }
    Ok((response, slots))
}

fn check_shape(plan: &Plan, actions: Option<&Actions>) -> Result<()> {
    let Some(actions) = actions else { return Ok(()) };
    let rows = plan.row_items.len();
    if actions.width != plan.actions.len() || actions.values.len() != rows * actions.width {
        return Err(Error::internal(format!(
            "scores have {} values of width {}, the plan has {rows} rows of {} actions",
            actions.values.len(),
            actions.width,
            plan.actions.len()
        )));
    }
    Ok(())
}

fn note(degraded: &mut Vec<String>, reason: &str) {
    if !reason.is_empty() && degraded.iter().all(|other| other != reason) {
        degraded.push(reason.to_owned());
    }
}

/// Place of a candidate in its slot; `Err` holds a pinned item that no source proposed.
type Entry = std::result::Result<u32, u32>;

/// Order of one slot.
struct Ranked<'a> {
    shown: Vec<Entry>,
    pins: Vec<&'a Pinned>,
    base: Vec<f32>,
    scores: Vec<f32>,
    rules: Rules,
    stages: Vec<Stage>,
}

fn rank<'a>(
    plan: &'a Plan,
    index: usize,
    actions: Option<&Actions>,
    shown: &mut HashSet<u32>,
    degraded: &mut Vec<String>,
) -> Ranked<'a> {
    let slot = &plan.slots[index];
    let began = Instant::now();
    let rules = Rules::new(&slot.placement, &slot.candidates);
    let base = base_scores(plan, index, actions, &rules);
    if base.iter().any(|score| !score.is_finite()) {
        note(degraded, "score_not_finite");
    }
    if actions.is_some() && score::values_another(&slot.placement.action_values, &plan.actions) {
        note(degraded, "action_not_predicted");
    }
    let scores = controlled(&base, &slot.factors);
    let mut stages = vec![Stage::new("score", "", slot.candidates.len(), slot.candidates.len(), began)];
    let began = Instant::now();
    let (slate, pins, relaxed) = select(slot, &scores, shown);
    if relaxed {
        note(degraded, "cap_relaxed");
    }
    shown.extend(slate.iter().map(|entry| entry.map_or_else(|item| item, |at| slot.traits[at as usize].item)));
    stages.push(Stage::new("rerank", "", slot.candidates.len(), slate.len(), began));
    Ranked { shown: slate, pins, base, scores, rules, stages }
}

/// Entries of the slate in order, the pins that stand among them, and whether a cap gave way.
fn select<'a>(slot: &'a Slot, scores: &[f32], shown: &HashSet<u32>) -> (Vec<Entry>, Vec<&'a Pinned>, bool) {
    let free: Vec<&Pinned> = slot.pins.iter().filter(|pin| !shown.contains(&pin.item)).collect();
    let places = rerank::places(free.iter().map(|pin| pin.position), slot.page);
    let standing: Vec<(usize, &Pinned)> =
        places.into_iter().zip(free).filter_map(|(place, pin)| Some((place?, pin))).collect();
    let placement = &slot.placement;
    let caps = Caps { category: placement.max_per_category as usize, brand: placement.max_per_brand as usize };
    let wanted = |item| !shown.contains(&item) && standing.iter().all(|(_, pin)| pin.item != item);
    let lambda = if placement.mmr_lambda == 0.0 { 1.0 } else { placement.mmr_lambda as f32 };
    let pool = if lambda < 1.0 { slot.page * rerank::POOL } else { slot.page };
    let count = if caps.bind() { scores.len() } else { pool };
    let mut ordered = rerank::best_first(scores, &slot.traits, count, wanted);
    rerank::diversify(placement.variety(), &mut ordered, scores, &slot.traits, lambda, slot.page);
    let (taken, relaxed) = rerank::take(&ordered, &slot.traits, caps, slot.page - standing.len());
    let mut slate: Vec<Entry> = taken.into_iter().map(Ok).collect();
    let entries: Vec<(usize, Entry)> = standing.iter().map(|&(place, pin)| (place, entry(slot, pin.item))).collect();
    rerank::insert(&mut slate, &entries);
    (slate, standing.into_iter().map(|(_, pin)| pin).collect(), relaxed)
}

fn entry(slot: &Slot, item: u32) -> Entry {
    slot.traits.iter().position(|traits| traits.item == item).map(|at| at as u32).ok_or(item)
}

/// Scores before controls: of the model where it ranks this slot, else of the rules.
fn base_scores(plan: &Plan, index: usize, actions: Option<&Actions>, rules: &Rules) -> Vec<f32> {
    let slot = &plan.slots[index];
    let rows = plan.slot_rows[index]..plan.slot_rows[index + 1];
    match actions.filter(|_| !rows.is_empty()) {
        Some(actions) => {
            let weights = score::action_weights(&slot.placement.action_values, &plan.actions);
            let values = &actions.values[rows.start * actions.width..rows.end * actions.width];
            values.chunks_exact(actions.width).map(|row| score::blend(row, &weights)).collect()
        }
        None => slot.candidates.iter().enumerate().map(|(place, candidate)| rules.score(candidate, place)).collect(),
    }
}

/// Scores after controls; a factor lifts a negative score by dividing it.
fn controlled(base: &[f32], factors: &[f32]) -> Vec<f32> {
    if factors.is_empty() {
        return base.to_vec();
    }
    let apply = |(&score, &factor): (&f32, &f32)| if score < 0.0 { score / factor } else { score * factor };
    base.iter().zip(factors).map(apply).collect()
}

fn reply(state: &State, plan: &Plan, slot: &Slot, ranked: &Ranked, options: &Options) -> Slate {
    let items = ranked.shown.iter().map(|entry| recommended(state, slot, ranked, *entry)).collect();
    let placement_id = &slot.placement.placement_id;
    let pins = ranked.pins.iter().map(|pin| &pin.control_id);
    Slate {
        placement_id: placement_id.clone(),
        items,
        attribution_token: token::make(&options.token_key, &plan.request.request_id, placement_id, &plan.model_version),
        applied_controls: slot.applied_controls.iter().chain(pins).cloned().collect(),
        missing_item_ids: slot.missing.clone(),
    }
}

fn recommended(state: &State, slot: &Slot, ranked: &Ranked, entry: Entry) -> RecommendedItem {
    let (item, score, candidate) = match entry {
        Ok(at) => {
            let candidate = &slot.candidates[at as usize];
            (candidate.item, ranked.scores[at as usize], Some(candidate))
        }
        Err(item) => (item, 0.0, None),
    };
    let (reason, because) = match candidate {
        Some(candidate) if ranked.pins.iter().all(|pin| pin.item != item) => ranked.rules.reason(candidate),
        _ => (Reason::Pinned, crate::ids::NONE),
    };
    let proposed = candidate.map_or(0, |candidate| candidate.sources);
    let sources = SOURCES.iter().enumerate().filter(|(number, _)| proposed >> number & 1 == 1);
    RecommendedItem {
        item_id: state.items.name(item).to_owned(),
        score: if score.is_finite() { f64::from(score) } else { 0.0 },
        reason: reason as i32,
        because_item_id: state.items.name(because).to_owned(),
        sources: sources.map(|(_, source)| source.name().to_owned()).collect(),
        propensity: 1.0,
    }
}

fn trace(state: &State, plan: &Plan, index: usize, ranked: &Ranked) -> SlateTrace {
    let slot = &plan.slots[index];
    let rows = plan.slot_rows[index]..plan.slot_rows[index + 1];
    let items = ranked.shown.iter().filter_map(|entry| entry.ok()).map(|at| {
        let row = rows.start + at as usize;
        let values = if rows.is_empty() { &[][..] } else { &plan.features[row * feature::WIDTH..][..feature::WIDTH] };
        let named = feature::names().into_iter().zip(values);
        ItemTrace {
            item_id: state.items.name(slot.traits[at as usize].item).to_owned(),
            base_score: f64::from(ranked.base[at as usize]),
            score: f64::from(ranked.scores[at as usize]),
            features: named.map(|(name, &value)| FeatureValue { name, value: f64::from(value) }).collect(),
            moved_by: Vec::new(),
        }
    });
    let removed = |&(item, filter): &(u32, &str)| RemovedItem {
        item_id: state.items.name(item).to_owned(),
        filter: filter.to_owned(),
    };
    SlateTrace {
        placement_id: slot.placement.placement_id.clone(),
        items: items.collect(),
        stages: slot.stages.iter().chain(&ranked.stages).map(Stage::trace).collect(),
        removed: slot.removed.iter().map(removed).collect(),
    }
}

/// Record of the decision, if its request id falls into the sampled share.
fn decision(state: &State, plan: &Plan, response: RecommendResponse, options: &Options) -> Option<Decision> {
    let draw = trial::even(&[&plan.request.request_id]);
    if draw >= options.decision_share {
        return None;
    }
    let sampled = draw < options.decision_share * FEATURE_SHARE;
    let slates = response.slates.into_iter().enumerate().map(|(index, slate)| DecidedSlate {
        features: if sampled { shown_features(state, plan, index, &slate) } else { Vec::new() },
        placement_id: slate.placement_id,
        scores: slate.items.iter().map(|item| item.score as f32).collect(),
        reasons: slate.items.iter().map(|item| item.reason).collect(),
        item_ids: slate.items.into_iter().map(|item| item.item_id).collect(),
        applied_controls: slate.applied_controls,
    });
    Some(Decision {
        request: Some(plan.request.clone()),
        now_ms: plan.now_ms,
        state_offset: plan.state_offset,
        model_version: response.model_version,
        slates: slates.collect(),
        degraded: response.degraded,
        consents: plan.consents.clone(),
        bundle_version: response.bundle_version,
    })
}

/// Feature rows of the items of a slate; zeros for a pinned item that no source proposed.
fn shown_features(state: &State, plan: &Plan, index: usize, shown: &Slate) -> Vec<f32> {
    let rows = plan.slot_rows[index]..plan.slot_rows[index + 1];
    if rows.is_empty() {
        return Vec::new();
    }
    let row = |item: &RecommendedItem| {
        let id = state.items.get(&item.item_id);
        let row = rows.clone().find(|&row| Some(plan.row_items[row]) == id);
        row.map_or(&[0.0; feature::WIDTH][..], |row| &plan.features[row * feature::WIDTH..][..feature::WIDTH])
    };
    shown.items.iter().flat_map(row).copied().collect()
}
