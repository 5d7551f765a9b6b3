//! DescribeCluster: the brokers of the cluster, for admin clients (KIP-700).

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A DescribeCluster request.
    struct DescribeClusterRequest for DescribeCluster {
        /// Whether to say what the client may do with the cluster.
        include_cluster_authorized_operations: bool, 0+;
        /// 1 brokers, 2 controllers.
        endpoint_type: i8, 1+ default (1);
        /// Whether to list fenced brokers too.
        include_fenced_brokers: bool, 2+;
    }
}

message! {
    /// A DescribeCluster response.
    struct DescribeClusterResponse<'a> for DescribeCluster {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// 1 brokers, 2 controllers.
        endpoint_type: i8, 1+ default (1);
        /// The id of the cluster.
        cluster_id: Cow<'a, str>, 0+;
        /// The broker that takes admin requests; -1 if none.
        controller_id: i32, 0+ default (-1);
        /// The brokers.
        brokers: Vec<DescribeClusterBroker<'a>>, 0+;
        /// A bit for each operation that the client may do with the cluster; `i32::MIN` if not asked.
        cluster_authorized_operations: i32, 0+ default (i32::MIN);
    }
}

message! {
    /// One broker in the response.
    struct DescribeClusterBroker<'a> {
        /// The id of the broker.
        broker_id: i32, 0+;
        /// Where it listens, for clients of this listener.
        host: Cow<'a, str>, 0+;
        /// The port it listens on.
        port: i32, 0+;
        /// The rack it stands in, if it has been told.
        rack: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// Whether the broker is fenced.
        is_fenced: bool, 2+;
    }
}
