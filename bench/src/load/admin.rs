//! What the main thread asks a broker outside of the load, each time over a connection of its own. It blocks; once the run has
//! begun it waits for a broker that went away, as long as the run's own connections do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::client::{ClientError, Connection, Offsets, Topic, create_topic, delete_topic, find_topic, list_offsets, resolve};
use super::plan::Plan;
use crate::error::Error;
use crate::stop;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// What a broker is asked through, outside of the load.
pub(crate) struct Admin {
    /// Where requests run.
    pub runtime: Runtime,
    /// Where to connect first.
    pub addresses: Vec<SocketAddr>,
    /// How long a request may go without an answer.
    pub timeout: Duration,
    /// Whether a broker elsewhere is fine.
    pub allow_remote: bool,
    /// How long to try again.
    pub retry_for: Duration,
}

impl Admin {
    /// For the broker of a plan; nothing is connected yet.
    ///
    /// # Errors
    /// The address is none, or elsewhere.
    pub(crate) fn new(plan: &Plan) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Failed(format!("no runtime: {error}")))?;
        let addresses = resolve(&plan.bootstrap, plan.allow_remote)?;
        Ok(Self { runtime, addresses, timeout: plan.timeout, allow_remote: plan.allow_remote, retry_for: plan.retry_for })
    }

    /// Asks again while the broker, which was there before, is away.
    fn patiently<T>(&self, ask: impl Fn() -> Result<T, ClientError>) -> Result<T, ClientError> {
        let started = Instant::now();
        loop {
            match ask() {
                // One that is just starting, or ending, may close a connection that it took.
                Err(error)
                    if (error.is_passing() || matches!(error, ClientError::NotKafka { .. }))
                        && started.elapsed() < self.retry_for
                        && !stop::requested() =>
                {
                    std::thread::sleep(PAUSE);
                }
                answer => return answer,
            }
        }
    }

    /// Looks a topic up.
    pub(crate) fn find(&self, topic: &str) -> Result<Option<Topic>, ClientError> {
        self.runtime.block_on(async {
            let mut connection = Connection::open_any(&self.addresses, self.timeout).await?;
            find_topic(&mut connection, topic, None, self.allow_remote).await
        })
    }

    /// Creates the plan's topic and waits for its leaders.
    pub(crate) fn create(&self, plan: &Plan) -> Result<Topic, Error> {
        let partitions = plan.partitions.unwrap_or(1);
        let created = self.runtime.block_on(async {
            let mut connection = Connection::open_any(&self.addresses, self.timeout).await?;
            create_topic(&mut connection, &plan.topic, partitions, &plan.topic_config).await?;
            find_topic(&mut connection, &plan.topic, Some(partitions), self.allow_remote).await
        });
        let topic = created?;
        topic.ok_or_else(|| Error::Failed(format!("topic {} was created and is not there", plan.topic)))
    }

    /// Deletes a topic.
    pub(crate) fn delete(&self, topic: &str) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let mut connection = Connection::open_any(&self.addresses, self.timeout).await?;
            delete_topic(&mut connection, topic).await
        })
    }

    /// One end of each partition, by number.
    pub(crate) fn offsets(&self, topic: &Topic, which: Offsets) -> Result<Vec<i64>, ClientError> {
        self.runtime.block_on(async {
            let mut offsets = vec![0; topic.partitions.len()];
            for (leader, partitions) in topic.by_leader() {
                let mut connection = Connection::open(leader, self.timeout).await?;
                let found = list_offsets(&mut connection, &topic.name, &partitions, which).await?;
                for (partition, offset) in partitions.iter().zip(found) {
                    offsets[*partition as usize] = offset;
                }
            }
            Ok(offsets)
        })
    }

    /// The ends once they have stayed the same for a second: with acks=1 what was acknowledged may become visible a little later, as on
    /// a durable topic when it is synced.
    pub(crate) fn settled_ends(&self, topic: &Topic, acks: i16) -> Result<Vec<i64>, ClientError> {
        let ends = || self.patiently(|| self.offsets(topic, Offsets::Latest));
        let mut settled = ends()?;
        let (mut looks, mut same) = (0, 0);
        while acks == 1 && looks < 50 && same < 5 {
            std::thread::sleep(PAUSE);
            let again = ends()?;
            same = if again == settled { same + 1 } else { 0 };
            settled = again;
            looks += 1;
        }
        Ok(settled)
    }
}
