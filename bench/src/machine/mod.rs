//! What machine this is, and whether a measurement on it can be trusted. Every run stores it; it changes nothing.

use serde::{Deserialize, Serialize};

/// Where a run took place.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// What a reader sees first, in order: name and value.
    pub facts: Vec<(String, String)>,
    /// Why figures from here may not be believed.
    pub warnings: Vec<String>,
}

impl Machine {
    /// Looks around.
    #[must_use]
    pub fn probe(_directory: &std::path::Path) -> Self {
        Self::default()
    }
}
