//! Header compression: RFC 7541, and what RFC 9113 section 4.3 says of its errors.

use super::case::{Case, FINE, Step, fields, get, never_with, rfc7541, rfc9113};
use crate::frames::{COMPRESSION_ERROR, END_HEADERS, END_STREAM, HEADER_TABLE_SIZE, HEADERS, block, frame, settings};

const WHOLE: u8 = END_STREAM | END_HEADERS;

/// A good request whose block begins and ends with these bytes.
fn around(stream: u32, front: &[u8], back: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &[front, &block(&fields("GET", FINE)), back].concat())
}

/// The same of a request that must not reach the bank.
fn never_around(front: &[u8], back: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &[front, &block(&never_with(&[])), back].concat())
}

/// A literal `x: VALUE` without indexing, whose value is in Huffman's code (RFC 7541 section 5.2).
fn huffman(value: &[u8]) -> Vec<u8> {
    [&[0, 1, b'x', 0x80 | u8::try_from(value.len()).expect("short")], value].concat()
}

pub fn good() -> Vec<Case> {
    // `custom-key: custom-value` in Huffman's code (RFC 7541 appendix C.6).
    const KEY: &[u8] = &[0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f];
    const VALUE: &[u8] = &[0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf];
    let indexing = [&[0x40], KEY, VALUE].concat();
    vec![
        rfc7541("6.2.1", "a literal with indexing, then its index", {
            // The first entry of the dynamic table has the index 62 (section 2.3.3).
            [around(1, &[], &indexing), around(3, &[], &[0x80 | 62])].concat()
        })
        .answer(3, 200),
        rfc7541("6.2.2", "a literal whose name has an index", {
            around(1, &[], &[&[0x0f, 58 - 15][..], b"\x04test"].concat())
        })
        .answer(1, 200),
        rfc7541("6.2.3", "a literal that is never indexed", around(1, &[], &[&[0x10], KEY, VALUE].concat()))
            .answer(1, 200),
        rfc7541("4.3", "a table of 0 bytes, and one of 4096 again", around(1, &[0x20, 0x3f, 0xe1, 0x1f], &indexing))
            .answer(1, 200),
        rfc7541("4.4", "an entry that is larger than the table empties it", {
            let large = [&[0x40, 1, b'y', 0x7f, 0x80 | 33, 0x1f][..], &[b'z'; 4128]].concat();
            [around(1, &[], &indexing), around(3, &[], &large), get(5)].concat()
        })
        .answer(5, 200),
        rfc7541("5.1", "an integer with a needless byte", {
            around(1, &[], &[&[0, 1, b'x', 0x7f, 0x80, 0][..], &[b'y'; 127]].concat())
        })
        .answer(1, 200),
        rfc7541(
            "4.2",
            "a table of our own size of 0",
            [
                Step::Send(settings(&[(HEADER_TABLE_SIZE, 0)])),
                Step::Settled,
                Step::Send(get(1)),
                Step::Ended(1),
                Step::Send(get(3)),
            ],
        )
        .answer(3, 200),
    ]
}

pub fn bad() -> Vec<Case> {
    let broken = |section, name, bytes: Vec<u8>| {
        rfc7541(section, name, bytes).goaway(&[COMPRESSION_ERROR]).but_h2_names_no_code_of_its_own()
    };
    vec![
        broken("6.1", "the index 0", never_around(&[], &[0x80])),
        broken("2.3.3", "an index behind the tables", never_around(&[], &[0xff, 0x00])),
        broken("2.3.3", "the index of an entry that is not there", never_around(&[], &[0x80 | 62])),
        broken("2.3.3", "a name with an index behind the tables", never_around(&[], &[0x7f, 0x7f, 1, b'x'])),
        broken("5.1", "an integer that no counter holds", {
            never_around(&[], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])
        }),
        broken("5.1", "an integer without an end", never_around(&[], &[0xff, 0x80])),
        broken("5.2", "a string that is longer than its block", never_around(&[], &[0, 1, b'x', 9, b'y'])),
        broken("5.2", "a name without a value", never_around(&[], &[0, 1, b'x'])),
        // `a` is 00011.
        broken("5.2", "a padding of other bits than ones", never_around(&[], &huffman(&[0b0001_1000]))),
        broken("5.2", "a padding of more than seven bits", never_around(&[], &huffman(&[0b0001_1111, 0xff]))),
        broken("5.2", "nothing but a padding", never_around(&[], &huffman(&[0xff]))),
        broken("5.2", "the end of a string as a character", never_around(&[], &huffman(&[0xff, 0xff, 0xff, 0xff]))),
        broken("4.2", "a table that is larger than allowed", never_around(&[0x3f, 0xe2, 0x1f], &[])),
        broken("4.2", "a change of the table's size behind a field", never_around(&[], &[0x20])),
        rfc9113("4.3", "a block that cannot be read", frame(HEADERS, WHOLE, 1, &[0xff; 6]))
            .goaway(&[COMPRESSION_ERROR])
            .but_h2_names_no_code_of_its_own(),
        rfc9113("4.3", "trailers that cannot be read", {
            [super::case::open(1, &fields("POST", super::case::NEVER)), frame(HEADERS, WHOLE, 1, &[0xff; 6])].concat()
        })
        .goaway(&[COMPRESSION_ERROR])
        .but_h2_names_no_code_of_its_own(),
    ]
}
