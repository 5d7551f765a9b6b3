//! The topics that a pattern of a group matched.

use std::borrow::Cow;

use crate::message::message;

message! {
    /// The key.
    struct ConsumerGroupRegularExpressionKey<'a> versions 0-0 {
        /// The group.
        group_id: Cow<'a, str>, 0-0;
        /// The pattern.
        regular_expression: Cow<'a, str>, 0-0;
    }
}

message! {
    /// The value.
    struct ConsumerGroupRegularExpressionValue<'a> versions 0-0 flexible 0 {
        /// The topics that it matched.
        topics: Vec<Cow<'a, str>>, 0+;
        /// The version of the metadata for which they were looked up.
        version: i64, 0+;
        /// When, in milliseconds since 1970.
        timestamp: i64, 0+;
    }
}
