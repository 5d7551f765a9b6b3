//! DescribeTopicPartitions (KIP-966): topics with their partitions, a page at a time.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use ringlog_protocol::ErrorCode;
use ringlog_protocol::api::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};

use super::respond::TOPIC_OPERATIONS;
use super::{Api, decode, reply};
use crate::broker::{Topic, Topics};
use crate::catalogue::names;
use crate::net::{Outcome, RequestContext};

/// The most partitions in one answer, whatever the client says; Kafka's default of `max.request.partition.size.limit`.
const PAGE_PARTITIONS_MAX: usize = 2000;

pub(super) fn handle(api: &Api, context: &RequestContext, body: &[u8]) -> Outcome {
    let request: DescribeTopicPartitionsRequest<'_> = match decode(context, body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let topics = api.topics();
    let response = match describe(&topics, api.core.broker.node_id, &request) {
        Ok(response) => response,
        // The answer has no error of its own, only those of topics.
        Err(error_code) => DescribeTopicPartitionsResponse {
            topics: request.topics.iter().map(|topic| refused(&topic.name, error_code)).collect(),
            ..DescribeTopicPartitionsResponse::default()
        },
    };
    reply(context, &response)
}

fn describe<'a>(
    topics: &'a Topics,
    node_id: i32,
    request: &'a DescribeTopicPartitionsRequest<'_>,
) -> Result<DescribeTopicPartitionsResponse<'a>, ErrorCode> {
    let cursor = request.cursor.as_ref().map(|cursor| (&*cursor.topic_name, cursor.partition_index));
    let from = cursor.map_or("", |(name, _)| name);
    let first_partition = cursor.map_or(0, |(_, partition)| partition);
    let first_partition = usize::try_from(first_partition).map_err(|_| ErrorCode::INVALID_REQUEST)?;
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PAGE_PARTITIONS_MAX);
    let count = |name: &str| topics.by_name(name).map(|topic| topic.partitions.len());
    let page = if request.topics.is_empty() {
        let all = topics.iter_from(from).map(|topic| (&*topic.name, Some(topic.partitions.len())));
        page(all, (from, first_partition), limit)
    } else {
        let wanted: BTreeSet<&str> = request.topics.iter().map(|topic| &*topic.name).filter(|name| *name >= from).collect();
        if cursor.is_some() && !wanted.contains(from) {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        page(wanted.into_iter().map(|name| (name, count(name))), (from, first_partition), limit)
    };
    let topic = |(name, partitions): &(&'a str, Option<Range<usize>>)| match topics.by_name(name).zip(partitions.clone()) {
        Some((topic, partitions)) => shown(topic, node_id, partitions),
        None if names::validate(name).is_err() => refused(name, ErrorCode::INVALID_TOPIC_EXCEPTION),
        None => refused(name, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
    };
    let next = |(name, partition): (&'a str, usize)| Cursor {
        topic_name: Cow::Borrowed(name),
        partition_index: i32::try_from(partition).unwrap_or(i32::MAX),
    };
    Ok(DescribeTopicPartitionsResponse {
        topics: page.topics.iter().map(topic).collect(),
        next_cursor: page.next.map(next),
        ..DescribeTopicPartitionsResponse::default()
    })
}

/// What one answer holds: partitions of topics (`None`: there is no such topic), and where the next answer starts.
#[derive(Debug, PartialEq, Eq)]
struct Page<'a> {
    topics: Vec<(&'a str, Option<Range<usize>>)>,
    next: Option<(&'a str, usize)>,
}

/// A page of at most `limit` partitions. `topics` are sorted, with their numbers of partitions, and begin at the cursor's.
fn page<'a>(topics: impl Iterator<Item = (&'a str, Option<usize>)>, (from, first): (&str, usize), limit: usize) -> Page<'a> {
    let mut page = Page { topics: Vec::new(), next: None };
    let mut left = limit;
    for (name, count) in topics {
        if left == 0 {
            page.next = Some((name, 0));
            break;
        }
        let Some(count) = count else {
            page.topics.push((name, None));
            continue;
        };
        let start = if name == from { first.min(count) } else { 0 };
        let end = count.min(start + left);
        page.topics.push((name, Some(start..end)));
        left -= end - start;
        if end < count {
            page.next = Some((name, end));
            break;
        }
    }
    page
}

fn refused(name: &str, error_code: ErrorCode) -> DescribeTopicPartitionsResponseTopic<'_> {
    DescribeTopicPartitionsResponseTopic {
        error_code,
        name: Some(Cow::Borrowed(name)),
        is_internal: names::is_internal(name),
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn shown(topic: &Topic, node_id: i32, partitions: Range<usize>) -> DescribeTopicPartitionsResponseTopic<'_> {
    let shown = |index: usize| {
        let (partition, info) = (&topic.partitions[index], topic.info.partitions.get(index));
        DescribeTopicPartitionsResponsePartition {
            partition_index: partition.id.index,
            leader_id: node_id,
            leader_epoch: partition.published.leader_epoch().0,
            replica_nodes: info.map_or_else(|| vec![node_id], |info| info.replicas.clone()),
            isr_nodes: info.map_or_else(|| vec![node_id], |info| info.isr.clone()),
            // Nothing to elect from beside the in-sync set.
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            ..DescribeTopicPartitionsResponsePartition::default()
        }
    };
    DescribeTopicPartitionsResponseTopic {
        name: Some(Cow::Borrowed(&topic.name)),
        topic_id: topic.id.0,
        is_internal: topic.is_internal,
        partitions: partitions.map(shown).collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPICS: [(&str, Option<usize>); 4] = [("a", Some(3)), ("b", Some(1)), ("c", None), ("d", Some(2))];

    fn ask(from: &'static str, first: usize, limit: usize) -> Page<'static> {
        page(TOPICS.into_iter().filter(|(name, _)| *name >= from), (from, first), limit)
    }

    #[test]
    fn a_page_that_holds_all_has_no_next() {
        let page = ask("", 0, 6);
        assert_eq!(page.topics, [("a", Some(0..3)), ("b", Some(0..1)), ("c", None), ("d", Some(0..2))]);
        assert_eq!(page.next, None);
    }

    #[test]
    fn a_page_goes_on_where_the_last_one_ended() {
        assert_eq!(ask("", 0, 2), Page { topics: vec![("a", Some(0..2))], next: Some(("a", 2)) });
        assert_eq!(ask("a", 2, 2), Page { topics: vec![("a", Some(2..3)), ("b", Some(0..1))], next: Some(("c", 0)) });
        assert_eq!(ask("c", 0, 2), Page { topics: vec![("c", None), ("d", Some(0..2))], next: None });
    }

    #[test]
    fn any_limit_leads_to_the_end_with_every_partition_once() {
        for limit in 1..8 {
            let mut cursor = ("", 0);
            let mut seen = Vec::new();
            for _ in 0..20 {
                let page = ask(cursor.0, cursor.1, limit);
                for (name, range) in &page.topics {
                    seen.extend(range.clone().into_iter().flatten().map(|index| (*name, index)));
                }
                match page.next {
                    Some(next) => cursor = next,
                    None => break,
                }
            }
            assert_eq!(seen, [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("d", 0), ("d", 1)], "limit {limit}");
        }
    }

    #[test]
    fn a_cursor_behind_the_last_partition_shows_none_of_it() {
        assert_eq!(
            ask("b", 9, 1),
            Page { topics: vec![("b", Some(1..1)), ("c", None), ("d", Some(0..1))], next: Some(("d", 1)) }
        );
    }

    #[test]
    fn a_cursor_has_to_fit_the_request() {
        use ringlog_protocol::api::describe_topic_partitions::TopicRequest;
        let topics = Topics::default();
        let ask = |names: &[&'static str], cursor: &'static str, partition_index| {
            let request = DescribeTopicPartitionsRequest {
                topics: names.iter().map(|name| TopicRequest { name: Cow::Borrowed(name) }).collect(),
                response_partition_limit: 10,
                cursor: Some(Cursor { topic_name: cursor.into(), partition_index }),
            };
            describe(&topics, 1, &request).map(|response| response.topics.len())
        };
        assert_eq!(ask(&["a", "b"], "b", 0), Ok(1));
        assert_eq!(ask(&["a", "b"], "aa", 0), Err(ErrorCode::INVALID_REQUEST));
        assert_eq!(ask(&["a", "b"], "b", -1), Err(ErrorCode::INVALID_REQUEST));
        assert_eq!(ask(&[], "aa", 0), Ok(0));
    }
}
