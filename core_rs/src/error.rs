//! Every fault the core reports. No other file makes a reason.

use crate::proto::ErrorReason;
use prost::Message;

/// Result of the core.
pub type Result<T> = std::result::Result<T, Error>;

/// Fault with a stable reason, the field at fault and a text that says how to mend it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Who has to act.
    pub kind: Kind,
    /// Stable machine-readable reason.
    pub reason: ErrorReason,
    /// Field at fault, e.g. `placements[0].page_size`; empty where none is.
    pub field: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// Who has to act on an error; decides the gRPC status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller: the request is wrong.
    InvalidRequest,
    /// The caller: what it names does not exist.
    NotFound,
    /// The operator: a file is damaged.
    Corrupt,
    /// The trainer: a bundle does not fit this engine.
    Bundle,
    /// We: an invariant broke.
    Internal,
}

impl Error {
    /// A field outside its limits.
    pub fn out_of_range(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidRequest, ErrorReason::FieldOutOfRange, field, message)
    }

    /// A required field that is empty.
    pub fn required(field: impl Into<String>) -> Self {
        let field = field.into();
        let message = format!("`{field}` is required; set it");
        Self::new(Kind::InvalidRequest, ErrorReason::FieldRequired, field, message)
    }

    /// Bytes that are not the message they should be.
    fn malformed(message: &str, cause: &prost::DecodeError) -> Self {
        let text = format!("bytes are not a valid {message}: {cause}; send the message of shopkeeper.v1");
        Self::new(Kind::InvalidRequest, ErrorReason::RequestMalformed, "", text)
    }

    /// An event id that another event has.
    pub fn event_id_conflict(field: impl Into<String>) -> Self {
        let field = field.into();
        let message = format!("`{field}` belongs to another event; give every event an id of its own");
        Self::new(Kind::InvalidRequest, ErrorReason::EventIdConflict, field, message)
    }

    /// Something named that does not exist.
    pub fn not_found(reason: ErrorReason, field: &str, id: &str) -> Self {
        Self::new(Kind::NotFound, reason, field, format!("`{field}` names `{id}`, which does not exist"))
    }

    /// A damaged file.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, ErrorReason::ChecksumMismatch, "", message)
    }

    /// A bundle that does not fit.
    pub fn bundle(message: impl Into<String>) -> Self {
        Self::new(Kind::Bundle, ErrorReason::BundleRejected, "", message)
    }

    /// A broken invariant.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, ErrorReason::Internal, "", message)
    }

    fn new(kind: Kind, reason: ErrorReason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, reason, field: field.into(), message: message.into() }
    }

    /// Name of the reason without its prefix, e.g. `FIELD_OUT_OF_RANGE`.
    pub fn reason_name(&self) -> &'static str {
        self.reason.as_str_name().trim_start_matches("ERROR_REASON_")
    }
}

/// The message of `name` in `bytes`.
///
/// # Errors
/// Malformed where the bytes do not hold it.
pub fn decode<M: Message + Default>(bytes: &[u8], name: &str) -> Result<M> {
    M::decode(bytes).map_err(|cause| Error::malformed(name, &cause))
}
