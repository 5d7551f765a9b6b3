//! The tables of options as a page for users. `docs/configuration.md` is its text, and a test keeps it so.

use std::fmt::Write;

use super::definition::Definition;
use super::{BROKER_DEFINITIONS, GROUP_DEFINITIONS, TOPIC_DEFINITIONS};

/// All options with their types, defaults, accepted values and meaning, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\nA broker's options stand in a file in the format of Kafka's `server.properties` (`ringlog serve --config FILE`) or \
         on the command line (`--set name=value`), which wins. Names and defaults are Kafka's; options that begin with `ringlog.` exist only \
         here. Names that no option has are listed in one warning at start; a wrong value is an error that says what is accepted.\n\n\
         Where the defaults differ from Kafka's: `log.flush.interval.messages` is 1, so that what is acknowledged to acks=all is on the \
         device; `listeners` is the loopback address; `log.dir` is `data` in the working directory; `node.id` is 1; \
         `group.consumer.assignment.interval.ms` is 0, so that partitions move at once: a member that comes or goes within Kafka's second \
         would otherwise wait for the heartbeat after it, and assigning costs little.\n\n\
         This page is made from the definitions in `server/src/config/`.\n\n## Broker\n\n",
    );
    section(&mut page, BROKER_DEFINITIONS);
    page.push_str(
        "\n## Topics\n\nSet when a topic is created, or later with AlterConfigs (`kafka-configs --alter`). A topic that does not set an option \
         gets the broker's: of the broker options named, the first that is set counts.\n\n",
    );
    section(&mut page, TOPIC_DEFINITIONS);
    page.push_str(
        "\n## Groups\n\nSet with AlterConfigs on a resource of type GROUP (`kafka-configs --entity-type groups --alter`, `ringlog config alter \
         --group`), for groups of the new protocol (KIP-848), whether or not the group exists; they stay when it is deleted. A group that does \
         not set an option gets the broker's. A value out of the broker's bounds is refused; one that is out of them after a restart, \
         because they were changed, is taken as the nearest in them, with a warning; where heartbeats and session then contradict each other, \
         both are the broker's. At most 10,000 groups may have settings. In the log's metadata and towards clients it stays \
         what was set.\n\n",
    );
    section(&mut page, GROUP_DEFINITIONS);
    page.push_str(
        "\n## Kafka's other options of groups\n\nOf the options of Kafka 4.3 that begin with `group.` or `offsets.`, all are in the table of \
         the broker's options but `group.share.*` and `group.streams.*`: neither share groups (KIP-932) nor streams groups (KIP-1071) are \
         served. In a file they are unknown names; `share.*` and `streams.*` on a group, which Kafka takes, are refused. Streams \
         applications use the classic protocol.\n",
    );
    page
}

fn section(page: &mut String, definitions: &[Definition]) {
    page.push_str("| Option | Type | Default | Accepted | Meaning |\n|---|---|---|---|---|\n");
    for definition in definitions {
        let default = match definition.default {
            Some("") => "empty".to_owned(),
            Some(default) => format!("`{default}`"),
            None if definition.synonyms.is_empty() => "not set".to_owned(),
            None => definition.synonyms.iter().map(|synonym| format!("`{}`", synonym.name)).collect::<Vec<_>>().join(", else "),
        };
        let (name, value_type, valid) = (definition.name, definition.value_type, definition.valid.to_string());
        let doc = definition.doc.trim();
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{name}` | {value_type} | {default} | {valid} | {doc} |");
    }
}
