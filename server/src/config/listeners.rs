//! Where the broker listens and what it tells clients to connect to: `listeners`, `advertised.listeners` and
//! `listener.security.protocol.map`, whose values depend on one another. Reads text only; resolves no name, opens no socket.

use std::collections::BTreeMap;
use std::fmt;

use super::broker::BrokerOptions;
use super::error::Problem;

/// A host name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; an IPv6 address without brackets. Empty: every address of the machine.
    pub host: String,
    /// The port; 0: one that the kernel picks.
    pub port: u16,
}

impl HostPort {
    /// Whether it means every address of the machine, so that no client can connect to it as it stands.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(self.host.as_str(), "" | "0.0.0.0" | "::")
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A named place where clients connect. What Metadata answers depends on the listener that was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, in capitals, as Kafka has it.
    pub name: String,
    /// Where the socket is bound.
    pub bind: HostPort,
    /// What clients are told. `None`: the address by which they came, because neither the advertised listeners nor the
    /// bound address say one.
    pub advertised: Option<HostPort>,
}

/// Works out the listeners of a broker, pushing what is wrong to `problems`.
pub(super) fn resolve(options: &BrokerOptions, problems: &mut Vec<Problem>) -> Vec<Listener> {
    let security = security_protocols(&options.listener_security_protocol_map, problems);
    let controllers: Vec<String> = options.controller_listener_names.iter().map(|name| name.to_ascii_uppercase()).collect();

    let mut listeners: Vec<Listener> = Vec::new();
    for (name, bind) in endpoints("listeners", &options.listeners, problems) {
        // A quorum of one needs no door for other controllers: theirs stay shut.
        if controllers.contains(&name) {
            continue;
        }
        match security.get(&name).map(String::as_str) {
            Some("PLAINTEXT") => {}
            Some(protocol) => conflict(
                problems,
                format!("listeners: listener {name} needs {protocol}, which is not implemented yet; accepted: PLAINTEXT"),
            ),
            None => conflict(
                problems,
                format!(
                    "listeners: listener.security.protocol.map says no security protocol for listener {name}; accepted: PLAINTEXT"
                ),
            ),
        }
        if bind.port != 0 && listeners.iter().any(|other| other.bind.port == bind.port && clash(&other.bind, &bind)) {
            conflict(problems, format!("listeners: two listeners on port {}", bind.port));
        }
        let advertised = (!bind.is_wildcard() && bind.port != 0).then(|| bind.clone());
        listeners.push(Listener { name, bind, advertised });
    }

    for (name, address) in endpoints("advertised.listeners", &options.advertised_listeners, problems) {
        if controllers.contains(&name) {
            continue;
        }
        if address.is_wildcard() {
            conflict(
                problems,
                format!(
                    "advertised.listeners: {name} needs a host that clients can connect to, not every address of the machine"
                ),
            );
        }
        match listeners.iter_mut().find(|listener| listener.name == name) {
            Some(listener) => listener.advertised = Some(address),
            None => {
                conflict(problems, format!("advertised.listeners: {name} is not one of the listeners ({})", names(&listeners)))
            }
        }
    }

    let is_one = |name: &String| listeners.iter().any(|listener| listener.name.eq_ignore_ascii_case(name));
    if let Some(name) = options.inter_broker_listener_name.as_ref().filter(|name| !is_one(name)) {
        conflict(problems, format!("inter.broker.listener.name: {name} is not one of the listeners ({})", names(&listeners)));
    }
    if listeners.is_empty() && problems.is_empty() {
        conflict(
            problems,
            "listeners: at least one listener for clients is needed, such as PLAINTEXT://127.0.0.1:9092".to_owned(),
        );
    }
    listeners
}

fn names(listeners: &[Listener]) -> String {
    listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn conflict(problems: &mut Vec<Problem>, what: String) {
    problems.push(Problem::Conflict { what });
}

/// Whether two addresses with one port cannot both be bound: one host twice, or one host and every address of its family.
fn clash(one: &HostPort, other: &HostPort) -> bool {
    let is_v6 = |address: &HostPort| address.host.contains(':');
    one.host == other.host || ((one.is_wildcard() || other.is_wildcard()) && is_v6(one) == is_v6(other))
}

fn security_protocols(entries: &[String], problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
    const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
    let mut map = BTreeMap::new();
    for entry in entries {
        let (name, protocol) = entry.split_once(':').unwrap_or((entry, ""));
        let (name, protocol) = (name.trim().to_ascii_uppercase(), protocol.trim().to_ascii_uppercase());
        if name.is_empty() || !PROTOCOLS.contains(&protocol.as_str()) {
            let why = format!("Expected NAME:PROTOCOL entries with one of the protocols {}", PROTOCOLS.join(", "));
            problems.push(Problem::invalid("listener.security.protocol.map", entry, why));
        } else if map.insert(name.clone(), protocol).is_some() {
            problems.push(Problem::invalid("listener.security.protocol.map", entry, format!("{name} comes twice")));
        }
    }
    map
}

/// Reads `NAME://host:port` entries; each name may come once.
fn endpoints(option: &str, entries: &[String], problems: &mut Vec<Problem>) -> Vec<(String, HostPort)> {
    let mut endpoints: Vec<(String, HostPort)> = Vec::new();
    for entry in entries {
        match endpoint(entry) {
            Ok((name, _)) if endpoints.iter().any(|(other, _)| *other == name) => {
                problems.push(Problem::invalid(option, entry, format!("Each listener must have a different name: {name}")));
            }
            Ok(endpoint) => endpoints.push(endpoint),
            Err(why) => problems.push(Problem::invalid(option, entry, why)),
        }
    }
    endpoints
}

fn endpoint(entry: &str) -> Result<(String, HostPort), String> {
    const FORM: &str = "Expected NAME://host:port, such as PLAINTEXT://127.0.0.1:9092";
    let (name, address) = entry.split_once("://").ok_or(FORM)?;
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if !is_name(name) {
        return Err(FORM.to_owned());
    }
    let (host, port) = address.rsplit_once(':').ok_or(FORM)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-%._:".contains(&byte));
    let host = bracketed.unwrap_or(host);
    if !is_host(host) || (bracketed.is_none() && host.contains(':')) {
        return Err(format!("{FORM}; an IPv6 address stands in brackets"));
    }
    let port = port.parse().map_err(|_| format!("The port must be between 0 and {}", u16::MAX))?;
    Ok((name.to_ascii_uppercase(), HostPort { host: host.to_owned(), port }))
}
