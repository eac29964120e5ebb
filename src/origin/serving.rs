//! The health protocol of gRPC, `grpc.health.v1.Health/Check`: one message there, one back.
//!
//! Both are a prefix of five bytes and one field of protobuf, so that no generated code is needed.
//! Source: github.com/grpc/grpc/blob/master/doc/health-checking.md and PROTOCOL-HTTP2.md.

/// Where a server takes checks.
pub const PATH: &str = "/grpc.health.v1.Health/Check";

/// Bytes of an answer that are read: the prefix and one number are seven.
pub const ANSWER_MAX: usize = 1024;

/// A flag of compression and the length of the message.
const PREFIX: usize = 5;
/// Protobuf: field 1, a length and so many bytes.
const SERVICE_FIELD: u8 = 1 << 3 | 2;
/// Protobuf: field 1, a number.
const STATUS_FIELD: u8 = 1 << 3;

/// What is asked about a service; the empty name is the server as a whole.
pub fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 12);
    if !service.is_empty() {
        message.push(SERVICE_FIELD);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or_default());
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

/// Whether the answer says that the service serves; else what it says.
///
/// # Errors
/// It says something else, or is no answer.
pub fn verdict(answer: &[u8]) -> Result<(), &'static str> {
    let message = answer.split_at_checked(PREFIX).and_then(|(prefix, message)| {
        let (flag, length) = prefix.split_first()?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        (*flag == 0 && length == message.len()).then_some(message)
    });
    match message {
        Some([STATUS_FIELD, 1]) => Ok(()),
        // Protobuf does not write a zero.
        Some([] | [STATUS_FIELD, 0]) => Err("unknown"),
        Some([STATUS_FIELD, 2]) => Err("not serving"),
        Some([STATUS_FIELD, 3]) => Err("service unknown"),
        _ => Err("not an answer of grpc.health.v1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("a.B"), [0, 0, 0, 0, 5, 10, 3, b'a', b'.', b'B']);
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 10, 0xac, 2], "a length of two bytes");
        assert_eq!(long.len(), 5 + 3 + 300);
    }

    #[test]
    fn answers() {
        let rows: &[(&[u8], Result<(), &str>)] = &[
            (&[0, 0, 0, 0, 2, 8, 1], Ok(())),
            (&[0, 0, 0, 0, 2, 8, 2], Err("not serving")),
            (&[0, 0, 0, 0, 2, 8, 3], Err("service unknown")),
            (&[0, 0, 0, 0, 2, 8, 0], Err("unknown")),
            (&[0, 0, 0, 0, 0], Err("unknown")),
            (&[1, 0, 0, 0, 2, 8, 1], Err("not an answer of grpc.health.v1")),
            (&[0, 0, 0, 0, 3, 8, 1], Err("not an answer of grpc.health.v1")),
            (&[0, 0, 0, 0, 2, 8, 1, 9], Err("not an answer of grpc.health.v1")),
            (&[0, 0, 0, 0, 2, 16, 1], Err("not an answer of grpc.health.v1")),
            (&[0, 0, 0], Err("not an answer of grpc.health.v1")),
            (b"", Err("not an answer of grpc.health.v1")),
        ];
        for (answer, expected) in rows {
            assert_eq!(verdict(answer), *expected, "{answer:?}");
        }
    }
}
