//! ApiVersions: what is served, in which versions (KIP-35, KIP-511).

use ringlog_protocol::api::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use ringlog_protocol::{ApiKey, ErrorCode};

use super::{decode, reply};
use crate::net::{Outcome, RequestContext, Response};

pub(super) fn handle(context: &RequestContext, body: &[u8]) -> Outcome {
    if context.version_unsupported {
        // The one version that every client reads; the range of this API tells it how to ask again.
        let response = ApiVersionsResponse {
            error_code: ErrorCode::UNSUPPORTED_VERSION,
            api_keys: vec![range(ApiKey::ApiVersions)],
            ..ApiVersionsResponse::default()
        };
        return Outcome::Reply(Response::encode(context, |encoder| response.encode(encoder, 0)));
    }
    let request: ApiVersionsRequest<'_> = match decode(context, body) {
        Ok(request) => request,
        Err(malformed) => return malformed.into(),
    };
    let names_itself = context.api_version >= 3;
    let is_sound =
        !names_itself || (is_software_name(&request.client_software_name) && is_software_name(&request.client_software_version));
    let response = if is_sound {
        let served = ApiKey::ALL.iter().copied().filter(|api| api.is_served());
        ApiVersionsResponse { api_keys: served.map(range).collect(), ..ApiVersionsResponse::default() }
    } else {
        ApiVersionsResponse { error_code: ErrorCode::INVALID_REQUEST, ..ApiVersionsResponse::default() }
    };
    reply(context, &response)
}

fn range(api: ApiKey) -> ApiVersion {
    ApiVersion { api_key: api.key(), min_version: api.version_min_advertised(), max_version: api.version_max() }
}

/// Whether a client's name for its software, or its version, is one (KIP-511): letters, digits, `-` and `.`, the last two not at
/// either end.
fn is_software_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    is_end(name.as_bytes().first()) && is_end(name.as_bytes().last()) && name.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_those_of_the_kip() {
        for good in ["a", "apache-kafka-java", "4.3.0", "librdkafka", "v2.15.0-dirty"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".", "a b", "a\n", "ä"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }

    #[test]
    fn produce_says_zero_for_old_librdkafka() {
        let produce = range(ApiKey::Produce);
        assert_eq!((produce.api_key, produce.min_version, produce.max_version), (0, 0, 13));
        let fetch = range(ApiKey::Fetch);
        assert_eq!((fetch.api_key, fetch.min_version, fetch.max_version), (1, 4, 18));
    }
}
