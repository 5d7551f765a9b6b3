//! Our descriptions against Kafka's own message definitions (clients/src/main/resources/common/message in Kafka's sources, group-coordinator/… for the
//! records; also inside of the jars kafka-clients and kafka-group-coordinator), field by field. They are read from the directories that
//! KAFKA_SCHEMAS_DIR names, separated by colons; without it the tests say so and check
//! nothing. `scripts/test schemas` takes them from the jars that the Java client comes in.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::path::PathBuf;

use common::default_number;
use ringlog_protocol::api::SCHEMAS;
use ringlog_protocol::schema::{Field, Kind, MessageSchema, PayloadSchema, Structure, Versions};
use ringlog_protocol::{ApiKey, consumer_protocol, group_records};
use serde_json::Value;

/// Where we serve less than Kafka's definition has: version 6 is marked unstable there.
const NEWEST_LEFT_OUT: &[(ApiKey, i16)] = &[(ApiKey::InitProducerId, 6)];

/// The directories with definitions; none if there is nothing to compare with.
fn directories() -> Vec<PathBuf> {
    let directories: Vec<PathBuf> = std::env::var_os("KAFKA_SCHEMAS_DIR")
        .map(|paths| std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    if directories.is_empty() {
        eprintln!("SKIPPED: set KAFKA_SCHEMAS_DIR to the directories of Kafka's message definitions to compare ours with them");
    }
    directories
}

fn read(directories: &[PathBuf], name: &str) -> Option<Value> {
    let path = directories.iter().map(|directory| directory.join(format!("{name}.json"))).find(|path| path.exists())?;
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    Some(serde_json::from_str(&lines.join("\n")).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// "3-12", "3+", "3" or "none".
fn versions(text: &str) -> Versions {
    if text == "none" {
        return Versions::NONE;
    }
    let number = |text: &str| text.parse::<i16>().unwrap();
    if let Some(min) = text.strip_suffix('+') {
        return Versions { min: number(min), max: i16::MAX };
    }
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    Versions { min: number(min), max: number(max) }
}

fn versions_of(value: &Value, key: &str) -> Versions {
    value[key].as_str().map_or(Versions::NONE, versions)
}

fn kind_name(kind: Kind) -> String {
    match kind {
        Kind::Array(element) => format!("[]{}", kind_name(*element)),
        Kind::Structure(structure) => structure.name.to_owned(),
        kind => format!("{kind:?}").to_lowercase(),
    }
}

fn structure_of(kind: Kind) -> Option<&'static Structure> {
    match kind {
        Kind::Array(element) => structure_of(*element),
        Kind::Structure(structure) => Some(structure),
        _ => None,
    }
}

/// Zero, empty and null are all `None`: for nullable fields we default to null where Kafka may default to empty.
fn theirs_default(value: &Value) -> Option<i64> {
    let text = match &value["default"] {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let number = match text.as_str() {
        "" | "null" | "false" => 0,
        "true" => 1,
        hex if hex.starts_with("0x") => i64::from_str_radix(&hex[2..], 16).unwrap(),
        decimal => decimal.parse().unwrap(),
    };
    (number != 0).then_some(number)
}

fn check_field(ours: &Field, theirs: &Value, path: &str) {
    let name = theirs["name"].as_str().unwrap();
    let path = format!("{path}.{name}");
    assert_eq!(ours.name.replace('_', ""), name.to_lowercase(), "{path}");
    assert_eq!(kind_name(ours.kind), theirs["type"].as_str().unwrap(), "{path}: type");
    assert_eq!(ours.versions, versions_of(theirs, "versions"), "{path}: versions");
    assert_eq!(ours.nullable, versions_of(theirs, "nullableVersions"), "{path}: nullable versions");
    assert_eq!(ours.tag.map(u64::from), theirs["tag"].as_u64(), "{path}: tag");
    let tagged = if ours.tag.is_some() { ours.versions } else { Versions::NONE };
    assert_eq!(tagged, versions_of(theirs, "taggedVersions"), "{path}: tagged versions");
    assert_eq!(ours.ignorable, theirs["ignorable"].as_bool().unwrap_or(false), "{path}: ignorable");
    assert_eq!(default_number(ours).filter(|&number| number != 0), theirs_default(theirs), "{path}: default");
    assert!(theirs["flexibleVersions"].is_null(), "{path}: an encoding of its own");
}

/// The fields of the structure that `theirs` is of; structures that stand in several places are defined in one, `common`.
fn fields_of<'v>(theirs: &'v Value, common: &'v Value) -> &'v Vec<Value> {
    let inline = theirs["fields"].as_array();
    let name = theirs["type"].as_str().unwrap_or_default().trim_start_matches("[]");
    let shared = || common.as_array()?.iter().find(|value| value["name"] == name)?["fields"].as_array();
    inline.or_else(shared).unwrap_or_else(|| panic!("no fields of {name}"))
}

fn check_structure(ours: &Structure, theirs: &Value, common: &Value, served: Versions, path: &str) -> usize {
    let here = |value: &&Value| {
        let versions = versions_of(value, "versions");
        versions.min <= served.max && versions.max >= served.min
    };
    let mut theirs: Vec<&Value> = fields_of(theirs, common).iter().filter(here).collect();
    // On the wire tagged fields come last, by their tag, wherever the definition puts them.
    theirs.sort_by_key(|value| value["tag"].as_i64().unwrap_or(-1));
    let names = |fields: &[&Value]| fields.iter().map(|value| value["name"].to_string()).collect::<Vec<_>>();
    assert_eq!(ours.fields.len(), theirs.len(), "{path}: theirs are {:?}", names(&theirs));
    let mut count = 0;
    for (ours, theirs) in ours.fields.iter().zip(theirs) {
        check_field(ours, theirs, path);
        count += 1;
        if let Some(structure) = structure_of(ours.kind) {
            count += check_structure(structure, theirs, common, served, &format!("{path}.{}", structure.name));
        }
    }
    count
}

fn check_message(schema: &MessageSchema, theirs: &Value) -> usize {
    let (api, name) = (schema.api, schema.structure.name);
    assert_eq!(theirs["name"].as_str(), Some(name));
    assert_eq!(theirs["apiKey"].as_i64(), Some(i64::from(api.key())), "{name}");
    let valid = versions_of(theirs, "validVersions");
    assert_eq!(api.version_min(), valid.min, "{name}: oldest version");
    if NEWEST_LEFT_OUT.contains(&(api, valid.max)) {
        assert_eq!(api.version_max(), valid.max - 1, "{name}: newest version");
    } else {
        assert_eq!(api.version_max(), valid.max, "{name}: newest version");
    }
    assert_eq!(flexible(api.flexible_min()), versions_of(theirs, "flexibleVersions"), "{name}: flexible versions");
    let served = Versions { min: api.version_min(), max: api.version_max() };
    check_structure(schema.structure, theirs, &theirs["commonStructs"], served, name)
}

fn flexible(min: i16) -> Versions {
    if min == i16::MAX { Versions::NONE } else { Versions { min, max: i16::MAX } }
}

fn check_payload(schema: &PayloadSchema, theirs: &Value) -> usize {
    let name = schema.structure.name;
    assert_eq!(theirs["name"].as_str(), Some(name));
    if let Some(record_type) = schema.record_type {
        assert_eq!(theirs["apiKey"].as_i64(), Some(i64::from(record_type)), "{name}");
    }
    assert_eq!(versions_of(theirs, "validVersions"), schema.versions, "{name}: versions");
    assert_eq!(flexible(schema.flexible_min), versions_of(theirs, "flexibleVersions"), "{name}: flexible versions");
    check_structure(schema.structure, theirs, &theirs["commonStructs"], schema.versions, name)
}

#[test]
fn descriptions_are_kafkas() {
    let directories = directories();
    if directories.is_empty() {
        return;
    }
    let mut fields = 0;
    for schema in SCHEMAS {
        let name = schema.structure.name;
        fields += check_message(schema, &read(&directories, name).unwrap_or_else(|| panic!("no {name}.json")));
    }
    for schema in consumer_protocol::SCHEMAS {
        let name = schema.structure.name;
        fields += check_payload(schema, &read(&directories, name).unwrap_or_else(|| panic!("no {name}.json")));
    }
    assert!(fields > 500, "only {fields} fields compared");
    eprintln!("{} messages, {fields} fields compared", SCHEMAS.len());
}

#[test]
fn descriptions_of_records_are_kafkas() {
    let directories = directories();
    let theirs: Vec<Option<Value>> =
        group_records::SCHEMAS.iter().map(|schema| read(&directories, schema.structure.name)).collect();
    if theirs.iter().all(Option::is_none) {
        eprintln!("SKIPPED: none of the directories has the definitions of Kafka's group coordinator");
        return;
    }
    let mut fields = 0;
    for (schema, theirs) in group_records::SCHEMAS.iter().zip(theirs) {
        fields += check_payload(schema, &theirs.unwrap_or_else(|| panic!("no {}.json", schema.structure.name)));
    }
    assert!(fields > 80, "only {fields} fields compared");
    eprintln!("{} keys and values of records, {fields} fields compared", group_records::SCHEMAS.len());
}

#[test]
fn every_api_has_its_request_and_response() {
    let names: Vec<&str> = SCHEMAS.iter().map(|schema| schema.structure.name).collect();
    let expected: Vec<String> = ApiKey::ALL.iter().flat_map(|api| [format!("{api}Request"), format!("{api}Response")]).collect();
    assert_eq!(names, expected);
}

#[test]
fn tagged_fields_are_described_last_and_in_order() {
    fn check(structure: &Structure) {
        let tags: Vec<Option<u32>> = structure.fields.iter().map(|field| field.tag).collect();
        assert!(tags.is_sorted(), "{}: {tags:?}", structure.name);
        structure.fields.iter().filter_map(|field| structure_of(field.kind)).for_each(check);
    }
    SCHEMAS.iter().for_each(|schema| check(schema.structure));
    group_records::SCHEMAS.iter().for_each(|schema| check(schema.structure));
}
