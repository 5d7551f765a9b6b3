//! The tables of options as a page for users. `docs/configuration.md` is its text, and a test keeps it so.

use std::fmt::Write;

use super::definition::Definition;
use super::{BROKER_DEFINITIONS, TOPIC_DEFINITIONS};

/// All options with their types, defaults, accepted values and meaning, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\nA broker's options stand in a file in the format of Kafka's `server.properties` (`ringlog serve --config FILE`) or \
         on the command line (`--set name=value`), which wins. Names and defaults are Kafka's; options that begin with `ringlog.` exist only \
         here. Names that no option has are listed in one warning at start; a wrong value is an error that says what is accepted.\n\n\
         Where the defaults differ from Kafka's: `log.flush.interval.messages` is 1, so that what is acknowledged to acks=all is on the \
         device; `listeners` is the loopback address; `log.dir` is `data` in the working directory; `node.id` is 1.\n\n\
         This page is made from the definitions in `server/src/config/`.\n\n## Broker\n\n",
    );
    section(&mut page, BROKER_DEFINITIONS);
    page.push_str(
        "\n## Topics\n\nSet when a topic is created, or later with AlterConfigs (`kafka-configs --alter`). A topic that does not set an option \
         gets the broker's: of the broker options named, the first that is set counts.\n\n",
    );
    section(&mut page, TOPIC_DEFINITIONS);
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
