//! A coordinator in the middle of a turn, which no other core waits for.

use super::*;
use crate::broker::groups::Groups;
use crate::broker::tests::Machine;
use crate::group::request::{Commit, CommitOffset, Identity, Join, Reply, Sync};

#[test]
fn a_commit_that_comes_behind_the_end_of_its_topic_is_refused() {
    let machine = Machine::new(1);
    let running = machine.start();
    machine.run(async {
        running.create(&["t"], 1).await;
        let broker = &running.broker;
        broker.controller.offsets_topic().await.unwrap();
        let topics = broker.topics.load_full();
        let topic = topics.by_name("t").unwrap().clone();
        let place = Groups::place_of(&topics, "g").unwrap();
        let (_sender, receiver) = mpsc::unbounded_channel();
        let mut coordinator = Coordinator::new(broker, &running.cores[place.core], receiver);
        // A turn begins, the topic goes, and who has found it before that asks.
        coordinator.follow();
        let others = topics.iter().filter(|other| other.id != topic.id).cloned();
        broker.topics.store(Arc::new(Topics::new(others)));
        coordinator.take(Message::TopicsDeleted([(topic.id, topic.name.clone())].into()));
        let committed = CommitOffset {
            topic: topic.name.clone(),
            topic_id: topic.id.0,
            partition: 0,
            offset: 7,
            leader_epoch: 0,
            metadata: "".into(),
        };
        let identity = Identity { member: "".into(), instance: None, generation: -1 };
        let commit = Commit { identity, knows_epochs: true, retention_ms: None, offsets: vec![committed] };
        let (reply, mut answer) = oneshot::channel();
        let (partition, request) = (place.partition, Request::Commit(commit));
        coordinator.take(Message::Ask { partition, group: "g".into(), request, reply });
        coordinator.append_all();
        let refused = Reply::Committed(vec![ErrorCode::UNKNOWN_TOPIC_OR_PARTITION]);
        assert_eq!(answer.try_recv(), Ok(Ok(refused)), "nothing is to be written");
    });
}

#[test]
fn a_group_that_is_larger_than_the_cores_memory_is_refused_and_costs_no_other_anything() {
    let machine = Machine::new(2);
    let running = machine.start();
    machine.run(async {
        let broker = &running.broker;
        broker.controller.offsets_topic().await.unwrap();
        let place = Groups::place_of(&broker.topics.load(), "g").unwrap();
        let core = &running.cores[place.core];
        let _served = crate::broker::BrokerCore::new(broker.clone(), core.clone());
        let ask = |request| broker.groups.ask(&broker.topics.load(), "g", request);
        let join = Join {
            client_id: "client".into(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(60),
            protocol_type: "p".into(),
            // It fits into the memory of all groups, and into a segment.
            protocols: vec![("x".into(), vec![7; core.memory_bytes().1].into())],
            ..Join::default()
        };
        let Ok(Reply::Joined(joined)) = ask(Request::Join(Box::new(join))).await else { panic!("it joins") };
        let identity = Identity { member: joined.member, instance: None, generation: joined.generation };
        let sync = Sync { identity, protocol_type: None, protocol: None, assignments: Vec::new() };
        assert_eq!(ask(Request::Sync(sync)).await, Err(ErrorCode::UNKNOWN_SERVER_ERROR));
        let Ok(Reply::Described(described)) = ask(Request::Describe).await else { panic!("the groups are still served") };
        assert_eq!((described.state, described.members.len()), ("PreparingRebalance", 1));
    });
}
