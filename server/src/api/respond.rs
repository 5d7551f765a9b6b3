//! What several answers say in the same way: where this broker listens, and what a client may do.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::config::Listener;
use crate::net::RequestContext;

/// The bits of the operations on a topic, by Kafka's numbers (KIP-430): read 3, write 4, create 5, delete 6, alter 7, describe 8,
/// describe configs 10, alter configs 11. Everybody may do everything: there is no authorizer.
pub(super) const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// The bits of the operations on a cluster: create 5, alter 7, describe 8, cluster action 9, describe configs 10, alter
/// configs 11, idempotent write 12.
pub(super) const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);
/// The bits of the operations on a group: read 3, delete 6, describe 8, describe configs 10, alter configs 11.
pub(super) const GROUP_OPERATIONS: i32 = bits(&[3, 6, 8, 10, 11]);
/// What stands there when nobody asked.
pub(super) const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

const fn bits(operations: &[u32]) -> i32 {
    let (mut bits, mut at) = (0, 0);
    while at < operations.len() {
        bits |= 1 << operations[at];
        at += 1;
    }
    bits
}

/// Each group once, though a client may name it often: what is said of a group is much larger than its name.
pub(super) fn each_once<'a>(groups: Vec<Cow<'a, str>>) -> Vec<Cow<'a, str>> {
    let mut named = BTreeSet::new();
    groups.into_iter().filter(|group| named.insert(group.clone())).collect()
}

/// Where the client of a request should connect to this broker: what its listener advertises, else the address by which it came.
pub(super) fn endpoint<'a>(listeners: &'a [Listener], context: &RequestContext) -> (Cow<'a, str>, i32) {
    let listener = listeners.iter().find(|listener| *listener.name == *context.connection.listener);
    advertised(listener, context.connection.local)
}

fn advertised(listener: Option<&Listener>, local: SocketAddr) -> (Cow<'_, str>, i32) {
    match listener.and_then(|listener| listener.advertised.as_ref()) {
        Some(advertised) => (Cow::Borrowed(&advertised.host), advertised.port.into()),
        // A socket for both families shows an IPv4 address as one of IPv6.
        None => (local.ip().to_canonical().to_string().into(), local.port().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostPort;

    #[test]
    fn operations_have_kafkas_bits() {
        assert_eq!((TOPIC_OPERATIONS, CLUSTER_OPERATIONS), (3576, 8096));
    }

    #[test]
    fn a_client_is_sent_where_its_listener_says() {
        let host_port = |host: &str, port| HostPort { host: host.to_owned(), port };
        let mut listener = Listener {
            name: "EXTERNAL".to_owned(),
            bind: host_port("", 9093),
            advertised: Some(host_port("broker.example.org", 19093)),
        };
        let local: SocketAddr = "[::ffff:10.0.0.7]:9093".parse().unwrap();
        assert_eq!(advertised(Some(&listener), local), ("broker.example.org".into(), 19093));
        listener.advertised = None;
        assert_eq!(advertised(Some(&listener), local), ("10.0.0.7".into(), 9093));
        assert_eq!(advertised(None, "[::1]:1".parse().unwrap()), ("::1".into(), 1));
    }
}
