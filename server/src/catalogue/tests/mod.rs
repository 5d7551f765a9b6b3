//! The catalogue's tests: bytes of records, single rules of the commands, and random histories against a naive model.

mod commands;
mod model;
mod records;

use ringlog_engine::types::{LeaderEpoch, Offset};
use ringlog_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};

use super::records::MetadataRecord;
use super::state::{Catalogue, LogPoint};
use crate::config::BrokerConfig;

/// A configuration from the text of a file.
fn broker(text: &str) -> BrokerConfig {
    BrokerConfig::load(Some(text), &[]).unwrap().0
}

/// Ids that can be used, in their order.
fn ids() -> impl FnMut() -> [u8; 16] {
    let mut next = 1000_u128;
    move || {
        next += 1;
        next.to_be_bytes()
    }
}

/// Writes the records to bytes and applies what is read back, as a log would.
fn commit(catalogue: &mut Catalogue, records: &[MetadataRecord]) {
    for record in records {
        let read = MetadataRecord::decode(&record.encode()).unwrap();
        let at = LogPoint { offset: catalogue.applied().offset.plus(1), epoch: LeaderEpoch(3) };
        catalogue.apply(at, &read).unwrap();
    }
}

/// A catalogue with topics of these names and numbers of partitions.
fn catalogue(topics: &[(&str, i32)]) -> Catalogue {
    let mut catalogue = Catalogue::default();
    commit(&mut catalogue, &Catalogue::first_records());
    let request = create(topics.iter().map(|(name, count)| topic(name, *count, &[])).collect());
    let plan = super::commands::create_topics(&catalogue, &broker(""), &request, &mut ids());
    assert!(plan.answers.iter().all(|answer| answer.error_code.is_none()), "{:?}", plan.answers);
    commit(&mut catalogue, &plan.records);
    catalogue
}

fn topic<'a>(name: &'a str, num_partitions: i32, configs: &[(&'a str, &'a str)]) -> CreatableTopic<'a> {
    let configs = configs.iter().map(|(name, value)| CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) });
    CreatableTopic {
        name: name.into(),
        num_partitions,
        replication_factor: -1,
        assignments: Vec::new(),
        configs: configs.collect(),
    }
}

fn create(topics: Vec<CreatableTopic<'_>>) -> CreateTopicsRequest<'_> {
    CreateTopicsRequest { topics, timeout_ms: 1000, validate_only: false }
}

fn at(offset: i64) -> LogPoint {
    LogPoint { offset: Offset(offset), epoch: LeaderEpoch(3) }
}
