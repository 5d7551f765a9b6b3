//! What groups have set for themselves: the catalogue's overrides, and what they come to with the broker's settings. A snapshot, made
//! by the broker whenever the catalogue has others, read by shards and by the handlers that describe it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Name;
use crate::catalogue::GroupOverrides;
use crate::config::{BrokerConfig, GroupConfig};

/// See the module.
#[derive(Default)]
pub struct GroupConfigs {
    overrides: Arc<GroupOverrides>,
    configs: HashMap<Name, GroupConfig>,
}

impl GroupConfigs {
    /// The snapshot of these overrides, some of which may be the same as before.
    #[must_use]
    pub fn next(&self, broker: &BrokerConfig, overrides: &Arc<GroupOverrides>) -> Self {
        let config = |(name, own): (&Name, &Arc<BTreeMap<String, String>>)| {
            let is_same = self.overrides.get(name).is_some_and(|before| Arc::ptr_eq(before, own));
            if let Some(known) = self.configs.get(name).filter(|_| is_same) {
                return (name.clone(), *known);
            }
            let (config, warnings) = GroupConfig::effective(broker, own);
            for warning in warnings {
                tracing::warn!(group = %name, warning, "a setting of a group does not hold as it is");
            }
            (name.clone(), config)
        };
        Self { configs: overrides.iter().map(config).collect(), overrides: overrides.clone() }
    }

    /// Whether it is the snapshot of these overrides.
    #[must_use]
    pub fn is_of(&self, overrides: &Arc<GroupOverrides>) -> bool {
        Arc::ptr_eq(&self.overrides, overrides)
    }

    /// The configuration of a group that has settings of its own.
    #[must_use]
    pub fn of(&self, group: &str) -> Option<&GroupConfig> {
        self.configs.get(group)
    }

    /// Each group that has settings of its own, with these.
    #[must_use]
    pub fn overrides(&self) -> &GroupOverrides {
        &self.overrides
    }
}
