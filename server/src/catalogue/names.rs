//! The rules for the names and ids of topics. Used by the catalogue's state and commands; knows no topic.

use ringlog_engine::types::TopicId;

/// The metadata log itself, as a topic: no client can create, write or delete it.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";
/// Where groups keep their offsets.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// Where transactions keep their state.
pub const TRANSACTION_STATE: &str = "__transaction_state";

/// The longest name of a topic, in bytes: a folder's name has a partition number behind it.
pub const NAME_BYTES_MAX: usize = 249;

/// Whether the brokers use the topic with this name for themselves. Clients may not produce to it.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    matches!(name, CLUSTER_METADATA | CONSUMER_OFFSETS | TRANSACTION_STATE)
}

/// Checks a topic's name.
///
/// # Errors
/// What is wrong with it, in Kafka's words.
pub fn validate(name: &str) -> Result<(), String> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let why = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if name.len() > NAME_BYTES_MAX => {
            format!("the length of '{name}' is longer than the max allowed length {NAME_BYTES_MAX}")
        }
        _ if !name.bytes().all(is_legal) => {
            format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
        }
        _ => return Ok(()),
    };
    Err(format!("Topic name is invalid: {why}"))
}

/// What two names have in common that differ only in `.` and `_`, which become the same in the names of metrics. `None`: the name
/// has neither.
#[must_use]
pub fn collision_key(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

/// Whether a topic can have this id. Kafka keeps the first hundred for itself (0 is "none", 1 the metadata log), and ids that start
/// with `-` in base64, which would look like an option on a command line.
#[must_use]
pub fn is_usable_id(id: TopicId) -> bool {
    const RESERVED_COUNT: u128 = 100;
    const BASE64_MINUS: u8 = 62;
    u128::from_be_bytes(id.0) >= RESERVED_COUNT && id.0[0] >> 2 != BASE64_MINUS
}
