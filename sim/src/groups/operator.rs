//! Who looks after groups: lists and describes them, reads offsets, deletes offsets and groups; and who commits without being a member,
//! in groups that have none.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::env::random::Random;
use ringlog_protocol::api::consumer_group_describe::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use ringlog_protocol::api::delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse};
use ringlog_protocol::api::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
use ringlog_protocol::api::list_groups::{ListGroupsRequest, ListGroupsResponse};
use ringlog_protocol::api::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic, OffsetDeleteResponse,
};
use ringlog_protocol::consumer_protocol::ConsumerProtocolAssignment;
use ringlog_protocol::{ApiKey, ErrorCode};

use super::ask::{self, Asker, Committer, Identity, is_trouble};
use super::known::Kind;
use crate::client::{pick, version};
use crate::life::Life;
use crate::wire;

/// See the module.
pub struct Operator {
    random: Random,
    /// Whether it only looks.
    pub is_draining: bool,
}

impl Operator {
    /// One that has done nothing yet.
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self { random, is_draining: false }
    }
}

/// Its life in one life of the machine.
pub async fn run(operator: Rc<RefCell<Operator>>, life: Rc<Life>) {
    let mut asker = Asker::default();
    loop {
        let (pause, mut random, is_draining) = {
            let operator = &mut *operator.borrow_mut();
            (operator.random.below(200_000), operator.random.fork(), operator.is_draining)
        };
        life.env.sleep(Duration::from_micros(pause)).await;
        let (group, kind) = {
            let all = &life.model.borrow().groups.all;
            let group = random.below(all.len() as u64) as usize;
            (group, all[group].kind)
        };
        if !asker.find(&life, &mut random, group).await {
            continue;
        }
        match random.below(if is_draining { 6 } else { 16 }) {
            0 => {
                list(&mut asker, &life, false).await;
            }
            1 | 2 => describe(&mut asker, &life, &mut random, group).await,
            3..=5 => {
                ask::fetch(&mut asker, &life, &mut random, group, None, false).await;
            }
            6 if kind == Kind::Simple || random.chance(0.3) => delete_group(&mut asker, &life, &mut random, group).await,
            7 => delete_offset(&mut asker, &life, &mut random, group).await,
            _ if kind == Kind::Simple => commit(&mut asker, &life, &mut random, group).await,
            _ => {}
        }
    }
}

async fn commit(asker: &mut Asker, life: &Life, random: &mut Random, group: usize) {
    let targets: BTreeSet<_> = (0..1 + random.below(3))
        .filter_map(|_| pick(&life.model.borrow(), random).map(|(topic, partition, _)| (topic, partition)))
        .collect();
    let targets: Vec<_> = targets.into_iter().collect();
    let by = Committer { who: "operator".to_owned(), group, identity: Identity::nobody(), version_min: 0 };
    let code = ask::commit(asker, life, random, &by, &targets).await;
    assert!(code.is_none_or(ErrorCode::is_none), "GroupErrorsAreExpected: a commit without a member: {code:?}");
}

async fn delete_group(asker: &mut Asker, life: &Life, random: &mut Random, group: usize) {
    let version = version(random, ApiKey::DeleteGroups, 0);
    let (name, deletion) = {
        let mut model = life.model.borrow_mut();
        (model.groups.all[group].name.clone(), model.deleting(group, life.now()))
    };
    life.say(|| format!("operator deletes {name}"));
    let request = DeleteGroupsRequest { groups_names: vec![name.as_str().into()] };
    let Some((correlation, frame)) = asker.client.ask(life, &request, version).await else { return };
    let response: DeleteGroupsResponse<'_> = wire::answer(&frame, version, correlation);
    let code = response.results[0].error_code;
    life.say(|| format!("operator: {name} {code}"));
    let mut model = life.model.borrow_mut();
    match code {
        ErrorCode::NONE => model.deleted(group, &deletion, life.now()),
        ErrorCode::GROUP_ID_NOT_FOUND => {
            model.not_deleted(group, deletion, life.now(), false);
        }
        ErrorCode::NON_EMPTY_GROUP => {
            assert!(model.groups.all[group].kind != Kind::Simple, "GroupErrorsAreExpected: {name} has no members: {code}");
            model.not_deleted(group, deletion, life.now(), false);
        }
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => model.not_deleted(group, deletion, life.now(), false),
        code if is_trouble(code) => {
            model.not_deleted(group, deletion, life.now(), true);
            asker.trouble(code);
        }
        code => panic!("GroupErrorsAreExpected: deleting {name}: {code}"),
    }
}

async fn delete_offset(asker: &mut Asker, life: &Life, random: &mut Random, group: usize) {
    let version = version(random, ApiKey::OffsetDelete, 0);
    let Some((topic, partition, _)) = pick(&life.model.borrow(), random) else { return };
    let sent = life.now();
    let (name, topic, write) = {
        let mut model = life.model.borrow_mut();
        let topic = model.topics[topic].name.clone();
        (model.groups.all[group].name.clone(), topic.clone(), model.removing(group, &topic, partition))
    };
    life.say(|| format!("operator deletes the offset of {name} for {topic}-{partition}"));
    let partitions = vec![OffsetDeleteRequestPartition { partition_index: partition }];
    let request = OffsetDeleteRequest {
        group_id: name.as_str().into(),
        topics: vec![OffsetDeleteRequestTopic { name: topic.as_str().into(), partitions }],
    };
    let Some((correlation, frame)) = asker.client.ask(life, &request, version).await else { return };
    let response: OffsetDeleteResponse<'_> = wire::answer(&frame, version, correlation);
    let code = match response.error_code {
        ErrorCode::NONE => response.topics[0].partitions[0].error_code,
        code => code,
    };
    life.say(|| format!("operator: {topic}-{partition} {code}"));
    let mut model = life.model.borrow_mut();
    match code {
        ErrorCode::NONE => model.removed(&write, sent, life.now()),
        // It has none, and the topic is gone, perhaps.
        ErrorCode::GROUP_ID_NOT_FOUND => {
            model.refused(&write);
            model.fetched_nothing(group, sent, life.now());
        }
        ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC | ErrorCode::NON_EMPTY_GROUP => {
            assert!(model.groups.all[group].kind != Kind::Simple, "GroupErrorsAreExpected: {name} has no members: {code}");
            model.refused(&write);
        }
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => model.refused(&write),
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => model.refused(&write),
        code if is_trouble(code) => {
            model.unclear(&write, life.now());
            asker.trouble(code);
        }
        code => panic!("GroupErrorsAreExpected: deleting an offset of {name}: {code}"),
    }
}

/// Lists the groups. Returns whether there was an answer. `is_final`: after a start, before anybody does anything.
pub async fn list(asker: &mut Asker, life: &Life, is_final: bool) -> Option<ErrorCode> {
    let version = 5;
    let asked_of = life.model.borrow().groups.may_exist();
    let (correlation, frame) = asker.client.ask(life, &ListGroupsRequest::default(), version).await?;
    let response: ListGroupsResponse<'_> = wire::answer(&frame, version, correlation);
    if !response.error_code.is_none() {
        assert!(is_trouble(response.error_code), "GroupErrorsAreExpected: listing groups: {}", response.error_code);
        return Some(response.error_code);
    }
    let told = response.groups.iter().map(|group| format!("{} {}", group.group_id, group.group_state)).collect::<Vec<_>>();
    life.say(|| format!("groups: {told:?}"));
    let names = response.groups.iter().map(|group| group.group_id.to_string()).collect();
    life.model.borrow().listed(&names, &asked_of, is_final);
    Some(ErrorCode::NONE)
}

/// Describes a group: nothing has two owners.
async fn describe(asker: &mut Asker, life: &Life, random: &mut Random, group: usize) {
    let (name, kind) = {
        let known = &life.model.borrow().groups.all[group];
        (known.name.clone(), known.kind)
    };
    let as_consumer = kind == Kind::Consumer || (kind == Kind::Mixed && random.chance(0.5));
    let mut owned = BTreeSet::new();
    let mut own = |member: &str, topic: &str, partition: i32| {
        assert!(
            owned.insert((topic.to_owned(), partition)),
            "OneOwner: {member} of {name} has {topic}-{partition}, and another too"
        );
    };
    if as_consumer {
        let version = version(random, ApiKey::ConsumerGroupDescribe, 0);
        let request = ConsumerGroupDescribeRequest { group_ids: vec![name.as_str().into()], ..Default::default() };
        let Some((correlation, frame)) = asker.client.ask(life, &request, version).await else { return };
        let response: ConsumerGroupDescribeResponse<'_> = wire::answer(&frame, version, correlation);
        let described = &response.groups[0];
        for member in &described.members {
            for topic in &member.assignment.topic_partitions {
                topic.partitions.iter().for_each(|partition| own(&member.member_id, &topic.topic_name, *partition));
            }
        }
        let state = &described.group_state;
        life.say(|| format!("{name} is {state} at epoch {}, {} members", described.group_epoch, described.members.len()));
        return trouble(asker, &name, described.error_code);
    }
    let version = version(random, ApiKey::DescribeGroups, 0);
    let request = DescribeGroupsRequest { groups: vec![name.as_str().into()], ..Default::default() };
    let Some((correlation, frame)) = asker.client.ask(life, &request, version).await else { return };
    let response: DescribeGroupsResponse<'_> = wire::answer(&frame, version, correlation);
    let described = &response.groups[0];
    for member in &described.members {
        let Ok(part) = ConsumerProtocolAssignment::from_assignment(&member.member_assignment) else { continue };
        for topic in part.assigned_partitions {
            topic.partitions.iter().for_each(|partition| own(&member.member_id, &topic.topic, *partition));
        }
    }
    life.say(|| format!("{name} is {}, {} members", described.group_state, described.members.len()));
    trouble(asker, &name, described.error_code);
}

fn trouble(asker: &mut Asker, name: &str, code: ErrorCode) {
    let is_expected = code.is_none() || code == ErrorCode::GROUP_ID_NOT_FOUND || is_trouble(code);
    assert!(is_expected, "GroupErrorsAreExpected: describing {name}: {code}");
    if is_trouble(code) {
        asker.trouble(code);
    }
}
