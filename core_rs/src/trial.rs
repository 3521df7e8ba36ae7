//! Who meets a bundle on trial: a canary a share of the visitors, a shadow a share of the requests.

use crate::proto::{Trial, trial::Mode};

/// Whether a canary serves the visitor with this key; the same visitor always gets the same answer.
pub fn serves(trial: &Trial, key: &str) -> bool {
    trial.mode() == Mode::Canary && !key.is_empty() && falls(trial, key)
}

/// Whether a shadow answers the request with this id once more.
pub fn shadows(trial: &Trial, request_id: &str) -> bool {
    trial.mode() == Mode::Shadow && falls(trial, request_id)
}

/// Even number in 0..1 from the hash of texts.
pub fn even(texts: &[&str]) -> f64 {
    let mut hasher = blake3::Hasher::new();
    for text in texts {
        hasher.update(text.as_bytes());
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Whether a text falls into the share; each version draws its own, so that trials do not meet the same ones.
fn falls(trial: &Trial, text: &str) -> bool {
    even(&[&trial.version, "/", text]) < trial.share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(mode: Mode, share: f64) -> Trial {
        Trial { version: "b".into(), mode: mode as i32, share, start_time: None }
    }

    #[test]
    fn a_share_of_visitors_meets_the_canary_and_a_greater_share_keeps_them() {
        let (small, large) = (trial(Mode::Canary, 0.2), trial(Mode::Canary, 0.5));
        let keys: Vec<String> = (0..10_000).map(|number| format!("visitor-{number}")).collect();
        let met = |trial: &Trial| keys.iter().filter(|key| serves(trial, key)).count();
        assert!((1_850..2_150).contains(&met(&small)), "{}", met(&small));
        assert!(keys.iter().all(|key| !serves(&small, key) || serves(&large, key)));
        assert!(!serves(&large, "") && !serves(&trial(Mode::Shadow, 1.0), "visitor-1"));
    }

    #[test]
    fn a_shadow_answers_its_share_of_requests_and_serves_nobody() {
        let all = trial(Mode::Shadow, 1.0);
        assert!(shadows(&all, "request") && !serves(&all, "visitor"));
        assert!(!shadows(&trial(Mode::Canary, 1.0), "request"));
    }
}
