//! The request header in front of every request, and the response header in front of every answer (KIP-482). Called by the
//! connection; nothing here allocates but a client id that is new to its connection.

use std::rc::Rc;

use super::RequestContext;

/// The part of the header that all of its versions share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderStart {
    /// Which API.
    pub api_key: i16,
    /// Which version of it.
    pub api_version: i16,
    /// The client's number of this request.
    pub correlation_id: i32,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request header is malformed")]
pub struct Malformed;

/// Reads the first eight bytes.
///
/// # Errors
/// When there are fewer.
pub fn start(frame: &[u8]) -> Result<HeaderStart, Malformed> {
    let (first, _) = frame.split_first_chunk::<8>().ok_or(Malformed)?;
    let [k0, k1, v0, v1, c0, c1, c2, c3] = *first;
    Ok(HeaderStart {
        api_key: i16::from_be_bytes([k0, k1]),
        api_version: i16::from_be_bytes([v0, v1]),
        correlation_id: i32::from_be_bytes([c0, c1, c2, c3]),
    })
}

/// Reads what follows [`start`]: the client id (an int16-length string in every version of the header) and, where the
/// header is flexible, its tagged fields. Returns the client id and where the body begins.
///
/// # Errors
/// When a length points outside the frame or the client id is not UTF-8.
pub fn rest(frame: &[u8], flexible: bool) -> Result<(Option<&str>, usize), Malformed> {
    let after = frame.get(8..).ok_or(Malformed)?;
    let (len, text) = after.split_first_chunk::<2>().ok_or(Malformed)?;
    let (client_id, mut at) = match i16::from_be_bytes(*len) {
        -1 => (None, 10),
        len => {
            let len = usize::try_from(len).map_err(|_| Malformed)?;
            let text = text.get(..len).ok_or(Malformed)?;
            (Some(std::str::from_utf8(text).map_err(|_| Malformed)?), 10 + len)
        }
    };
    if flexible {
        let count = varint(frame, &mut at)?;
        for _ in 0..count {
            let _tag = varint(frame, &mut at)?;
            let size = varint(frame, &mut at)? as usize;
            at = at.checked_add(size).filter(|&end| end <= frame.len()).ok_or(Malformed)?;
        }
    }
    Ok((client_id, at))
}

/// An unsigned varint of at most 32 bits.
fn varint(frame: &[u8], at: &mut usize) -> Result<u32, Malformed> {
    let mut value = 0_u64;
    for shift in (0..35).step_by(7) {
        let byte = *frame.get(*at).ok_or(Malformed)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| Malformed);
        }
    }
    Err(Malformed)
}

/// The client id as a shared string; the same one again where it did not change.
pub(super) fn shared_client_id(last: &mut Option<Rc<str>>, now: Option<&str>) -> Option<Rc<str>> {
    if last.as_deref() != now {
        *last = now.map(Rc::from);
    }
    last.clone()
}

/// The bytes that every response begins with: four for its size, which [`super::Response`] fills in, and the response
/// header. A handler encodes its body behind them.
#[must_use]
pub fn response_start(context: &RequestContext) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&context.correlation_id.to_be_bytes());
    if context.response_header_flexible {
        head.push(0);
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 8] = [0, 18, 0, 3, 0, 0, 1, 2];

    fn frame(tail: &[u8]) -> Vec<u8> {
        [&HEADER, tail].concat()
    }

    #[test]
    fn both_versions_are_read() {
        let start = start(&frame(&[])).unwrap();
        assert_eq!(start, HeaderStart { api_key: 18, api_version: 3, correlation_id: 258 });
        assert_eq!(rest(&frame(b"\xff\xffbody"), false), Ok((None, 10)));
        assert_eq!(rest(&frame(b"\0\x02abbody"), false), Ok((Some("ab"), 12)));
        assert_eq!(rest(&frame(b"\0\x02ab\0body"), true), Ok((Some("ab"), 13)));
        assert_eq!(rest(&frame(b"\0\x02ab\x01\x80\x01\x03xyzbody"), true), Ok((Some("ab"), 19)));
    }

    #[test]
    fn no_length_leads_outside() {
        assert_eq!(start(&HEADER[..7]), Err(Malformed));
        for bad in [&b""[..], b"\0", b"\0\x03ab", b"\xff\xfe", b"\0\x01\xff"] {
            assert_eq!(rest(&frame(bad), false), Err(Malformed), "{bad:?}");
        }
        for bad in [
            &b"\0\0"[..],
            b"\0\0\x01",
            b"\0\0\x01\0\x05abcd",
            b"\0\0\xff\xff\xff\xff\x7f",
            b"\0\0\xff\xff\xff\xff\xff\xff",
            b"\0\0\x01\0\xff\xff\xff\xff\x0f",
        ] {
            assert_eq!(rest(&frame(bad), true), Err(Malformed), "{bad:?}");
        }
    }
}
