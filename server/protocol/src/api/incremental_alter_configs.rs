//! IncrementalAlterConfigs: changes single configuration keys (KIP-339).

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// An IncrementalAlterConfigs request.
    struct IncrementalAlterConfigsRequest<'a> for IncrementalAlterConfigs {
        /// What is to be described or changed.
        resources: Vec<AlterConfigsResource<'a>>, 0+;
        /// Whether to check only and change nothing.
        validate_only: bool, 0+;
    }
}

message! {
    /// One resource in the request.
    struct AlterConfigsResource<'a> {
        /// What kind of resource: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_type: i8, 0+;
        /// Its name; for a broker its id in decimals.
        resource_name: Cow<'a, str>, 0+;
        /// Configuration, key by key.
        configs: Vec<AlterableConfig<'a>>, 0+;
    }
}

message! {
    /// One configuration key in the request.
    struct AlterableConfig<'a> {
        /// The key.
        name: Cow<'a, str>, 0+;
        /// 0 set, 1 delete, 2 append, 3 subtract.
        config_operation: i8, 0+;
        /// Its value, or null.
        value: Option<Cow<'a, str>>, 0+ nullable 0+;
    }
}

message! {
    /// An IncrementalAlterConfigs response.
    struct IncrementalAlterConfigsResponse<'a> for IncrementalAlterConfigs {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+;
        /// The outcome for each.
        responses: Vec<AlterConfigsResourceResponse<'a>>, 0+;
    }
}

message! {
    /// One resource in the response.
    struct AlterConfigsResourceResponse<'a> {
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// What kind of resource: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_type: i8, 0+;
        /// Its name; for a broker its id in decimals.
        resource_name: Cow<'a, str>, 0+;
    }
}
