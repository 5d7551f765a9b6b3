//! Offsets of partitions by place or time (ListOffsets), for the commands that show or seek them.

use std::collections::BTreeMap;

use ringlog_protocol::ApiKey;
use ringlog_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic};

use super::client::{Client, ClientError, Cluster, Partition};

/// The place behind the last record that consumers see.
pub(super) const LATEST: i64 = -1;
/// The place of the first record there is.
pub(super) const EARLIEST: i64 = -2;

/// The offset of each of these partitions of a topic at `timestamp`: milliseconds since 1970, [`LATEST`] or [`EARLIEST`]. `None`
/// where there is no record of that time or later.
///
/// # Errors
/// A leader fails, or says no.
pub(super) fn list(
    client: &mut Client,
    cluster: &Cluster,
    topic: &str,
    partitions: &[Partition],
    timestamp: i64,
) -> Result<BTreeMap<i32, Option<i64>>, ClientError> {
    let mut leaders: BTreeMap<i32, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for partition in partitions {
        let asked = ListOffsetsPartition { partition_index: partition.index, current_leader_epoch: -1, timestamp };
        leaders.entry(partition.leader).or_default().push(asked);
    }
    let mut found = BTreeMap::new();
    for (leader, partitions) in leaders {
        let address = cluster.address(leader)?;
        let topics = vec![ListOffsetsTopic { name: topic.into(), partitions }];
        let answer = client.ask(address, &ListOffsetsRequest { replica_id: -1, topics, ..Default::default() })?;
        let response: ListOffsetsResponse<'_> = answer.decode()?;
        for partition in response.topics.iter().filter(|t| t.name == topic).flat_map(|t| &t.partitions) {
            if !partition.error_code.is_none() {
                let of = format!("of partition {} of {topic}", partition.partition_index);
                return Err(ClientError::refused(ApiKey::ListOffsets, of, partition.error_code, None));
            }
            found.insert(partition.partition_index, (partition.offset >= 0).then_some(partition.offset));
        }
    }
    Ok(found)
}
