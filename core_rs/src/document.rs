//! Placements and controls: immutable sets swapped by pointer at each change.

use crate::proto::{Control, DocumentChange, Placement, document_change::Document};
use prost::Message;
use std::{collections::BTreeMap, sync::Arc};

/// All documents at one moment.
#[derive(Clone, Default)]
pub struct Documents {
    /// Placements by id.
    pub placements: BTreeMap<String, Arc<Placement>>,
    /// Controls by id.
    pub controls: BTreeMap<String, Arc<Control>>,
}

impl Documents {
    /// Applies a change of the log; the etag is made from the content.
    pub fn apply(&mut self, change: DocumentChange) {
        match change.document {
            Some(Document::Placement(placement)) if change.deleted => {
                self.placements.remove(&placement.placement_id);
            }
            Some(Document::Control(control)) if change.deleted => {
                self.controls.remove(&control.control_id);
            }
            Some(Document::Placement(mut placement)) => {
                placement.etag = String::new();
                placement.etag = etag(&placement);
                self.placements.insert(placement.placement_id.clone(), Arc::new(placement));
            }
            Some(Document::Control(mut control)) => {
                control.etag = String::new();
                control.etag = etag(&control);
                self.controls.insert(control.control_id.clone(), Arc::new(control));
            }
            None => {}
        }
    }
}

/// First 16 hexadecimal digits of the hash of a message.
fn etag(message: &impl Message) -> String {
    blake3::hash(&message.encode_to_vec()).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_etag_depends_on_content_only() {
        let put = |text: &str, etag: &str| {
            let mut documents = Documents::default();
            let placement = Placement {
                placement_id: "home".into(),
                description: text.into(),
                etag: etag.into(),
                ..Placement::default()
            };
            documents.apply(DocumentChange { document: Some(Document::Placement(placement)), deleted: false });
            documents.placements["home"].etag.clone()
        };
        assert_eq!(put("a", ""), put("a", "old"));
        assert_ne!(put("a", ""), put("b", ""));
    }
}
