//! DescribeConfigs: the configuration of topics and brokers.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A DescribeConfigs request.
    struct DescribeConfigsRequest<'a> for DescribeConfigs {
        /// What is to be described or changed.
        resources: Vec<DescribeConfigsResource<'a>>, 0+;
        /// Whether to list every place a value could come from.
        include_synonyms: bool, 1+;
        /// Whether to explain each key.
        include_documentation: bool, 3+;
    }
}

message! {
    /// One resource in the request.
    struct DescribeConfigsResource<'a> {
        /// What kind of resource: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_type: i8, 0+;
        /// Its name; for a broker its id in decimals.
        resource_name: Cow<'a, str>, 0+;
        /// The keys wanted; null for all.
        configuration_keys: Option<Vec<Cow<'a, str>>>, 0+ nullable 0+;
    }
}

message! {
    /// A DescribeConfigs response.
    struct DescribeConfigsResponse<'a> for DescribeConfigs {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+;
        /// The outcome for each.
        results: Vec<DescribeConfigsResult<'a>>, 0+;
    }
}

message! {
    /// One resource in the response.
    struct DescribeConfigsResult<'a> {
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// What kind of resource: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_type: i8, 0+;
        /// Its name; for a broker its id in decimals.
        resource_name: Cow<'a, str>, 0+;
        /// Configuration, key by key.
        configs: Vec<DescribeConfigsResourceResult<'a>>, 0+;
    }
}

message! {
    /// One configuration key in the response.
    struct DescribeConfigsResourceResult<'a> {
        /// The key.
        name: Cow<'a, str>, 0+;
        /// Its value, or null.
        value: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// Whether clients cannot change it.
        read_only: bool, 0+;
        /// Where the value comes from.
        config_source: i8, 1+ default (-1), ignorable;
        /// Whether the value is withheld as a secret.
        is_sensitive: bool, 0+;
        /// Every place that has a value, the one in force first.
        synonyms: Vec<DescribeConfigsSynonym<'a>>, 1+, ignorable;
        /// The type of the value: 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password.
        config_type: i8, 3+, ignorable;
        /// What the key is for.
        documentation: Option<Cow<'a, str>>, 3+ nullable 0+, ignorable;
    }
}

message! {
    /// One place that has a value in the response.
    struct DescribeConfigsSynonym<'a> {
        /// The key.
        name: Cow<'a, str>, 1+;
        /// Its value, or null.
        value: Option<Cow<'a, str>>, 1+ nullable 0+;
        /// Where it is set.
        source: i8, 1+;
    }
}
