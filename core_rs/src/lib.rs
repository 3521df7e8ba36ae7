//! Candidates, features, ranking and live state of Shopkeeper.
//!
//! Modules in dependency order. The core has no clock, no chance and no environment: time comes in as `now_ms`,
//! chance as a hash of the request id. Only `snapshot` and `bundle` touch files.

pub mod error;
pub mod ids;
pub mod network;
pub mod onnx;
pub mod order;
pub mod params;
pub mod prefetch;
pub mod processor;
pub mod proto;
pub mod ranker;
pub mod sequence;
pub mod time;
pub mod trees;
pub mod trial;
pub mod vector;
pub mod waiting;

pub mod affinity;
pub mod bundle;
pub mod catalog;
pub mod decay;
pub mod document;
pub mod place;
pub mod popularity;
pub mod profile;
pub mod promotion;
pub mod validate;
pub mod visitor;

pub mod consent;
pub mod state;
pub mod unrecorded;

pub mod encoding;

pub mod feature;
pub mod filter;
pub mod gather;
pub mod query;
pub mod rerank;
pub mod score;
pub mod scratch;
pub mod source;
pub mod stage;
pub mod token;

pub mod plan;

pub mod pipeline;

pub mod columns;
pub mod engine;
pub mod events;
pub mod live_state;
pub mod snapshot;
pub mod train;

#[cfg(feature = "python")]
mod py;
