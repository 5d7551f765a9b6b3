//! The configuration of the broker, of topics and of groups: one definition per option, from which it is parsed, described to
//! clients and documented. Used by everything in the server; pure: it reads text that others have read, and no file, clock or socket.

pub mod broker;
pub mod definition;
pub mod describe;
pub mod error;
pub mod group;
pub mod listeners;
pub mod properties;
pub mod reference;
pub mod topic;

pub use broker::{BROKER_DEFINITIONS, BrokerConfig, BrokerOptions};
pub use describe::{ConfigEntry, ConfigSource, ConfigSynonym, describe_broker, describe_group, describe_topic};
pub use error::{ConfigError, Problem};
pub use group::{GROUP_DEFINITIONS, GroupConfig};
pub use listeners::{HostPort, Listener};
pub use topic::{TOPIC_DEFINITIONS, TopicConfig};

#[cfg(test)]
mod tests;
