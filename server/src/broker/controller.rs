//! The commands that change the catalogue: plan on the state of now, commit the records to the metadata log as one batch, apply
//! them, carry them out, answer. One command at a time. Handlers on any core plan; from the commit on the work is core 0's, and goes
//! on there when the caller goes away.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ringlog_engine::core::{Core, CoreHandle};
use ringlog_engine::log::append::AppendError;
use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::alter_configs::{AlterConfigsRequest, AlterConfigsResourceResponse};
use ringlog_protocol::api::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopicResult};
use ringlog_protocol::api::create_topics::{CreatableTopicResult, CreateTopicsRequest};
use ringlog_protocol::api::delete_topics::{DeletableTopicResult, DeleteTopicsRequest};
use ringlog_protocol::api::incremental_alter_configs as incremental;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::broker::groups::Groups;
use crate::broker::metadata_log::{self, CommitError};
use crate::broker::reconcile::{self, State};
use crate::broker::reserve::Reserve;
use crate::broker::topics::{Topic, Topics};
use crate::catalogue::commands::{self, Plan, ProducerIdBlock, Refusal};
use crate::catalogue::{Catalogue, MetadataRecord, names};
use crate::config::BrokerConfig;
use crate::group::GroupConfigs;

/// When what could not be carried out is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How often a command is tried on a full disk, and how long it waits in between.
const FULL_TRIES: u32 = 10;
const FULL_RETRY: Duration = Duration::from_millis(200);

/// A source of random topic ids, for any thread.
pub type NewTopicId = Arc<dyn Fn() -> [u8; 16] + Send + Sync>;

/// What commands are carried out with.
pub(crate) struct Shared {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) data_dir: Arc<Path>,
    pub(crate) cores: Arc<[CoreHandle]>,
    pub(crate) topics: Arc<ArcSwap<Topics>>,
    pub(crate) group_configs: Arc<ArcSwap<GroupConfigs>>,
    pub(crate) reserve: Arc<Reserve>,
    pub(crate) groups: Groups,
    pub(crate) new_id: NewTopicId,
}

/// See the module. Clones are the same controller.
#[derive(Clone)]
pub struct Controller {
    shared: Arc<Shared>,
    /// Locked from the planning of a command to its end.
    state: Arc<Mutex<State>>,
    /// What the metadata log says.
    catalogue: Arc<ArcSwap<Catalogue>>,
}

/// Why a command was not, or perhaps not, done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The metadata log did not take it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// It is committed, and something of it failed on the disk. It is tried again, at the latest at the next start.
    #[error("committed, but not carried out yet: {0}")]
    CarryOut(String),
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping,
}

impl CommandError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Commit(CommitError::TooLarge(_)) => ErrorCode::POLICY_VIOLATION,
            Self::Commit(_) | Self::CarryOut(_) => ErrorCode::KAFKA_STORAGE_ERROR,
            // Retriable, and clients ask again who is in charge.
            Self::Stopping => ErrorCode::NOT_CONTROLLER,
        }
    }

    fn refusal(&self) -> Refusal {
        Refusal { code: self.code(), message: self.to_string() }
    }
}

/// An answer for an item of a request.
trait Answer {
    /// What was planned well fails after all.
    fn fail(&mut self, error: &CommandError);
}

macro_rules! answers {
    ($($answer:ty),*) => {
        $(impl Answer for $answer {
            fn fail(&mut self, error: &CommandError) {
                if self.error_code == ErrorCode::NONE {
                    self.error_code = error.code();
                    self.error_message = Some(error.to_string().into());
                }
            }
        })*
    };
}

answers!(
    CreatableTopicResult<'_>,
    DeletableTopicResult<'_>,
    CreatePartitionsTopicResult<'_>,
    AlterConfigsResourceResponse<'_>,
    incremental::AlterConfigsResourceResponse<'_>
);

impl Controller {
    pub(crate) fn new(shared: Shared, state: State) -> Self {
        let catalogue = state.published.clone();
        Self { shared: Arc::new(shared), state: Arc::new(Mutex::new(state)), catalogue }
    }

    /// Creates the topics of a request that can be created; an answer for each, once their partitions are there.
    pub async fn create_topics<'a>(&self, request: &CreateTopicsRequest<'a>) -> Vec<CreatableTopicResult<'a>> {
        self.change(|catalogue, config| commands::create_topics(catalogue, config, request, &mut || (self.shared.new_id)())).await
    }

    /// Deletes the topics of a request; an answer for each, once they cannot be seen any more and their files are on their way out.
    pub async fn delete_topics<'a>(&self, request: &DeleteTopicsRequest<'a>) -> Vec<DeletableTopicResult<'a>> {
        self.change(|catalogue, config| commands::delete_topics(catalogue, config, request)).await
    }

    /// Adds partitions to topics; an answer for each topic, once the partitions are there.
    pub async fn create_partitions<'a>(&self, request: &CreatePartitionsRequest<'a>) -> Vec<CreatePartitionsTopicResult<'a>> {
        self.change(|catalogue, config| commands::create_partitions(catalogue, config, request)).await
    }

    /// Replaces all settings of resources; an answer for each, once the logs obey.
    pub async fn alter_configs<'a>(&self, request: &AlterConfigsRequest<'a>) -> Vec<AlterConfigsResourceResponse<'a>> {
        self.change(|catalogue, config| commands::alter_configs(catalogue, config, request)).await
    }

    /// Changes single settings of resources; an answer for each resource, once the logs obey.
    pub async fn incremental_alter_configs<'a>(
        &self,
        request: &incremental::IncrementalAlterConfigsRequest<'a>,
    ) -> Vec<incremental::AlterConfigsResourceResponse<'a>> {
        self.change(|catalogue, config| commands::incremental_alter_configs(catalogue, config, request)).await
    }

    /// The topic with this name, created with the broker's defaults if it does not exist and the configuration allows that.
    ///
    /// # Errors
    /// There is no such topic and none comes to be: the code and message are for the client.
    pub async fn auto_create(&self, name: &str) -> Result<Arc<Topic>, Refusal> {
        let find = || self.shared.topics.load().by_name(name).cloned();
        if let Some(topic) = find() {
            return Ok(topic);
        }
        let state = self.lock().await;
        let records = commands::auto_create_topic(&state.catalogue, &self.shared.config, name, &mut || (self.shared.new_id)())?;
        // No records: somebody else was faster, or what is committed is not carried out.
        self.commit(state, records).await.map_err(|error| error.refusal())?;
        let missing = || Refusal { code: ErrorCode::KAFKA_STORAGE_ERROR, message: format!("Topic '{name}' is not open yet.") };
        find().ok_or_else(missing)
    }

    /// The topic of the groups, made if it does not exist.
    ///
    /// # Errors
    /// It does not, and cannot be made: the code and message are for the client.
    pub async fn offsets_topic(&self) -> Result<Arc<Topic>, Refusal> {
        let find = || self.shared.topics.load().by_name(names::CONSUMER_OFFSETS).cloned();
        if let Some(topic) = find() {
            return Ok(topic);
        }
        let state = self.lock().await;
        let records = commands::create_offsets_topic(&state.catalogue, &self.shared.config, &mut || (self.shared.new_id)())?;
        self.commit(state, records).await.map_err(|error| error.refusal())?;
        let missing =
            || Refusal { code: ErrorCode::KAFKA_STORAGE_ERROR, message: "The topic of the groups is not open yet.".to_owned() };
        find().ok_or_else(missing)
    }

    /// A block of producer ids that nobody else gets.
    ///
    /// # Errors
    /// The metadata log does not take the record, or all ids are taken.
    pub async fn allocate_producer_ids(&self) -> Result<ProducerIdBlock, Refusal> {
        let state = self.lock().await;
        let (block, record) = commands::allocate_producer_ids(&state.catalogue, self.shared.config.node_id)?;
        self.commit(state, vec![record]).await.map_err(|error| error.refusal())?;
        Ok(block)
    }

    /// The catalogue of now, which may already have what is not carried out yet. Nobody is waited for.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }

    /// Waits for the command that is at work and lets none begin after it, as long as the guard lives.
    pub(crate) async fn lock(&self) -> OwnedMutexGuard<State> {
        self.state.clone().lock_owned().await
    }

    async fn change<A: Answer>(&self, plan: impl FnOnce(&Catalogue, &BrokerConfig) -> Plan<A>) -> Vec<A> {
        let state = self.lock().await;
        let Plan { records, mut answers } = plan(&state.catalogue, &self.shared.config);
        if let Err(error) = self.commit(state, records).await {
            answers.iter_mut().for_each(|answer| answer.fail(&error));
        }
        answers
    }

    async fn commit(&self, state: OwnedMutexGuard<State>, records: Vec<MetadataRecord>) -> Result<(), CommandError> {
        let controller = self.clone();
        let done = self.shared.cores[0].run(move |core| Box::pin(commit(core, controller, state, records)));
        done.await.unwrap_or(Err(CommandError::Stopping))
    }
}

/// Commits, applies and carries out, on core 0.
async fn commit(
    core: Rc<Core>,
    controller: Controller,
    mut state: OwnedMutexGuard<State>,
    records: Vec<MetadataRecord>,
) -> Result<(), CommandError> {
    if records.is_empty() {
        metadata_log::check_in_service(&core)?;
        if !state.behind {
            return Ok(());
        }
    } else {
        let mut committed = metadata_log::commit(&core, &mut state, &records).await;
        for _ in 0..FULL_TRIES {
            if !matches!(&committed, Err(CommitError::Append(AppendError::NoRoom(_)))) {
                break;
            }
            // Segments that wait for room may be quicker to take it; what they free in the journal is room too.
            if !controller.shared.reserve.give_up(&core.disk).await {
                core.env.sleep(FULL_RETRY).await;
            }
            committed = metadata_log::commit(&core, &mut state, &records).await;
        }
        committed?;
    }
    let result = reconcile::reconcile(&controller.shared, &mut state).await;
    if result.is_err() {
        retry_later(&core, controller, &mut state);
        if !records.is_empty() && reconcile::is_done(&state, &records) {
            // What failed is what others have asked for: on a full disk a topic is deleted though another one cannot be made.
            return Ok(());
        }
    } else if metadata_log::wants_snapshot(&state) {
        // The answer need not wait for it; the next command does.
        let task_core = core.clone();
        core.env.spawn(Box::pin(async move {
            if let Err(error) = metadata_log::write_snapshot(&task_core, &mut state).await {
                tracing::warn!(%error, "no snapshot of the metadata log could be written; tried again later");
            }
        }));
    }
    result.map_err(CommandError::CarryOut)
}

fn retry_later(core: &Rc<Core>, controller: Controller, state: &mut State) {
    if std::mem::replace(&mut state.retrying, true) {
        return;
    }
    let task_core = core.clone();
    core.env.spawn(Box::pin(async move {
        loop {
            task_core.env.sleep(RETRY_INTERVAL).await;
            let mut state = controller.state.lock().await;
            if reconcile::reconcile(&controller.shared, &mut state).await.is_ok() {
                state.retrying = false;
                return;
            }
        }
    }));
}
