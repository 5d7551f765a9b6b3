//! The broker between the wire and the engine: which topics there are and where their partitions live, how that changes, and how
//! it all starts and stops. The API handlers get a [`BrokerCore`]; `main` calls [`run`]. Nothing here knows a request's bytes.
//!
//! - [`topics`]: the snapshot of topics that the data path reads.
//! - [`controller`]: commands: plan, commit to the metadata log, apply. [`reconcile`]: make partitions follow the catalogue.
//! - [`groups`]: runs the group coordinator ([`crate::group`]) over the partitions of `__consumer_offsets`.
//! - [`metadata_log`]: the metadata log's records, batches and snapshots.
//! - [`producer_ids`]: the ids that a core gives to idempotent producers.
//! - [`reserve`]: room on the disk for when it is full.
//! - [`boot`], [`serve`]: start and stop.

pub mod boot;
pub mod controller;
mod folders;
pub mod groups;
mod log_reader;
pub mod metadata_log;
pub mod producer_ids;
mod reconcile;
pub mod reserve;
pub mod serve;
pub mod topics;

use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ringlog_engine::core::{Core, CoreHandle};

pub use controller::Controller;
pub use serve::{BrokerError, MakeHandler, run};
pub use topics::{Topic, Topics};

use crate::config::BrokerConfig;
use crate::group::GroupConfigs;

/// What all cores share: it never changes, except that [`Broker::topics`] and [`Broker::group_configs`] are swapped as a whole.
pub struct Broker {
    /// The configuration.
    pub config: Arc<BrokerConfig>,
    /// The cluster's id, from the data directory.
    pub cluster_id: String,
    /// This broker's number.
    pub node_id: i32,
    /// The cores, by number.
    pub cores: Arc<[CoreHandle]>,
    /// The topics of now. `load()` it once per request.
    pub topics: Arc<ArcSwap<Topics>>,
    /// What groups have set for themselves.
    pub group_configs: Arc<ArcSwap<GroupConfigs>>,
    /// Room that is held back for when the disk is full.
    pub reserve: Arc<reserve::Reserve>,
    /// The way to the groups, wherever they live.
    pub groups: groups::Groups,
    /// Where topics are created, changed and deleted.
    pub controller: Controller,
}

/// What a handler gets: one per core.
pub struct BrokerCore {
    /// The broker.
    pub broker: Arc<Broker>,
    /// The core that the handler runs on.
    pub core: Rc<Core>,
    /// Ids for idempotent producers.
    pub producer_ids: producer_ids::ProducerIds,
    /// The way to the groups from this core.
    pub groups: groups::CoreGroups,
}

impl BrokerCore {
    /// The broker as seen from one core, where the groups that live there begin to be served.
    #[must_use]
    pub fn new(broker: Arc<Broker>, core: Rc<Core>) -> Rc<Self> {
        let producer_ids = producer_ids::ProducerIds::new(broker.controller.clone());
        let groups = groups::start(&broker, &core);
        Rc::new(Self { broker, core, producer_ids, groups })
    }
}

#[cfg(test)]
pub(crate) mod tests;
