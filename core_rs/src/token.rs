//! Attribution tokens: what a slate was, sealed so that a client can carry it but not make it.
//!
//! A token is URL-safe base64 of a version byte, the message [`Slate`] and a keyed tag over both.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;

const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;

/// Slate that a token stands for.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Slate {
    /// Request that it answered.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// Placement that it filled.
    #[prost(string, tag = "2")]
    pub placement_id: String,
    /// Bundle that ranked it; empty where rules did.
    #[prost(string, tag = "3")]
    pub model_version: String,
}

/// Token of a slate.
pub fn make(key: &[u8; 32], request_id: &str, placement_id: &str, model_version: &str) -> String {
    let slate = Slate {
        request_id: request_id.to_owned(),
        placement_id: placement_id.to_owned(),
        model_version: model_version.to_owned(),
    };
    let mut bytes = vec![VERSION];
    bytes.extend(slate.encode_to_vec());
    bytes.extend(tag(key, &bytes));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Slate of a token; `None` unless this key made it.
pub fn open(key: &[u8; 32], token: &str) -> Option<Slate> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (sealed, found) = bytes.split_last_chunk::<TAG_BYTES>()?;
    // Every byte is compared, so that the time taken does not tell a forger how far he came.
    let difference = tag(key, sealed).iter().zip(found).fold(0, |all, (a, b)| all | (a ^ b));
    let (&version, slate) = sealed.split_first()?;
    if difference != 0 || version != VERSION {
        return None;
    }
    Slate::decode(slate).ok()
}

fn tag(key: &[u8; 32], bytes: &[u8]) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&blake3::keyed_hash(key, bytes).as_bytes()[..TAG_BYTES]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [7; 32];

    proptest! {
        #[test]
        fn a_token_opens_to_its_slate_and_no_changed_one_opens(
            request in "\\PC{0,64}", placement in "[a-z_]{1,20}", model in "\\PC{0,20}", place: usize, letter in "[A-Za-z0-9_-]",
        ) {
            let token = make(&KEY, &request, &placement, &model);
            prop_assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            let slate = Slate { request_id: request, placement_id: placement, model_version: model };
            prop_assert_eq!(open(&KEY, &token), Some(slate));
            prop_assert_eq!(open(&[8; 32], &token), None);
            let mut changed = token.clone();
            let place = place % token.len();
            changed.replace_range(place..=place, &letter);
            prop_assert!(changed == token || open(&KEY, &changed).is_none());
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            prop_assert_eq!(open(&KEY, &text), None);
        }
    }
}
