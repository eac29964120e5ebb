//! Header blocks (RFC 7541) as a test wants them: literal, without Huffman coding, so that any byte can be sent.

/// A field: name and value, any bytes.
pub type Field = (Vec<u8>, Vec<u8>);

/// Literal Header Field Never Indexed, new name (RFC 7541 section 6.2.3).
const NEVER_INDEXED: u8 = 0x10;
/// Literal Header Field with Incremental Indexing, new name (section 6.2.1).
const INCREMENTAL: u8 = 0x40;
/// Indexed Header Field (section 6.1).
const INDEXED: u8 = 0x80;

/// The first entry of the dynamic table, after 61 static ones.
pub const FIRST_DYNAMIC: u64 = 62;

/// `name: value`; a name may begin with a colon.
///
/// # Panics
/// Without a colon and a space between them.
pub fn field(line: &str) -> Field {
    let at = line.get(1..).and_then(|rest| rest.find(": ")).map(|at| at + 1);
    let at = at.unwrap_or_else(|| panic!("no field line: {line:?}"));
    (line.as_bytes()[..at].to_vec(), line.as_bytes()[at + 2..].to_vec())
}

/// The fields as they are, each by itself.
pub fn literal(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(NEVER_INDEXED);
        string(&mut block, name);
        string(&mut block, value);
    }
    block
}

/// A field that the decoder has to keep, as its newest entry.
pub fn kept(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = vec![INCREMENTAL];
    string(&mut block, name);
    string(&mut block, value);
    block
}

/// A field that both tables' `index` stands for.
pub fn indexed(index: u64) -> Vec<u8> {
    let mut block = Vec::new();
    integer(&mut block, INDEXED, 7, index);
    block
}

/// Tells the decoder how much it may keep from now on (section 6.3).
pub fn table_size(bytes: u64) -> Vec<u8> {
    let mut block = Vec::new();
    integer(&mut block, 0x20, 5, bytes);
    block
}

fn string(block: &mut Vec<u8>, bytes: &[u8]) {
    integer(block, 0, 7, bytes.len() as u64);
    block.extend_from_slice(bytes);
}

/// RFC 7541 section 5.1.
fn integer(block: &mut Vec<u8>, pattern: u8, prefix_bits: u32, value: u64) {
    let most = (1_u64 << prefix_bits) - 1;
    if value < most {
        block.push(pattern | low_byte(value));
        return;
    }
    block.push(pattern | low_byte(most));
    let mut left = value - most;
    while left >= 128 {
        block.push(low_byte(left % 128) | 128);
        left /= 128;
    }
    block.push(low_byte(left));
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_those_of_the_rfc() {
        // RFC 7541 appendix C.1.
        for (bits, value, expected) in [(5, 10, &[10][..]), (5, 1_337, &[31, 154, 10]), (8, 42, &[42])] {
            let mut block = Vec::new();
            integer(&mut block, 0, bits, value);
            assert_eq!(block, expected);
        }
    }

    #[test]
    fn a_decoder_reads_what_is_written() {
        let fields = vec![field(":path: /a: b"), field("x-long: ".to_owned().as_str()), field("Upper: \u{1}\r\n")];
        let long = (b"long".to_vec(), vec![b'x'; 5_000]);
        let fields = [fields, vec![long]].concat();
        let block = [literal(&fields), kept(b"a", b"b"), indexed(FIRST_DYNAMIC), indexed(2)].concat();
        let read = loona_hpack::Decoder::new().decode(&block).expect("a header block");
        let pair = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
        let more = vec![pair(b"a", b"b"), pair(b"a", b"b"), pair(b":method", b"GET")];
        assert_eq!(read, [fields, more].concat());
    }
}
