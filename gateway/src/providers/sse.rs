//! Server-sent events, parsed as they come in, by the WHATWG rules: CR, LF and CRLF end a line, a leading BOM is
//! dropped, comment lines are ignored, several `data` lines are joined by a newline.
//!
//! An event that arrives in one piece is a slice of what was read; only one that straddles two reads is copied. Where
//! an event is exactly one `data: ...` line, its raw bytes can be passed on as they are.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest event that is held, in bytes.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// One event, or a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sse {
    /// An event with data.
    Event(SseEvent),
    /// Comment lines and nothing else.
    Comment,
}

/// An event with data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    /// The `event` field, empty when absent.
    pub name: Bytes,
    /// The data, lines joined by `\n`.
    pub data: Bytes,
    /// The bytes as they came, when they are just `data: {data}\n\n`.
    pub verbatim: Option<Bytes>,
}

impl SseEvent {
    /// The bytes to pass on: as they came, or framed anew.
    pub fn wire(&self) -> Bytes {
        self.verbatim.clone().unwrap_or_else(|| frame(&self.data))
    }
}

/// `data: ...\n\n` around one line of data.
pub fn frame(data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 8);
    for line in data.split(|&b| b == b'\n') {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
    out.freeze()
}

/// An event is larger than the parser may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The bound, in bytes.
    pub max: usize,
}

/// The parser. [`Parser::push`] what was read, then [`Parser::pull`] until it has no more.
#[derive(Debug)]
pub struct Parser {
    /// What was pushed and not looked at yet.
    fresh: Bytes,
    /// The beginning of an event whose end has not come.
    carry: BytesMut,
    ends: Ends,
    at_stream_start: bool,
    max: usize,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new(MAX_EVENT_BYTES)
    }
}

impl Parser {
    /// Holds at most `max` bytes of one event.
    pub fn new(max: usize) -> Self {
        Self {
            fresh: Bytes::new(),
            carry: BytesMut::new(),
            ends: Ends {
                at_line_start: true,
                after_cr: false,
            },
            at_stream_start: true,
            max,
        }
    }

    /// Hands over what was read. Call [`Parser::pull`] until it gives `None` before the next push; what is left is
    /// joined otherwise, at the price of a copy.
    pub fn push(&mut self, chunk: Bytes) {
        if self.fresh.is_empty() {
            self.fresh = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(self.fresh.len() + chunk.len());
            joined.put_slice(&self.fresh);
            joined.put_slice(&chunk);
            self.fresh = joined.freeze();
        }
    }

    /// The next event, or `None` when more bytes are needed.
    pub fn pull(&mut self) -> Result<Option<Sse>, TooLong> {
        while let Some(raw) = self.next_raw()? {
            if let Some(sse) = self.parse(raw) {
                return Ok(Some(sse));
            }
        }
        Ok(None)
    }

    /// The stream has ended: an event that lacks only its closing blank line, if there is one. The rules discard it;
    /// but servers are about that leave the last newline out after `[DONE]`, so the caller may look.
    pub fn finish(&mut self) -> Option<SseEvent> {
        self.carry.put_slice(&std::mem::take(&mut self.fresh));
        let raw = self.carry.split().freeze();
        match self.parse(raw) {
            Some(Sse::Event(event)) => Some(SseEvent {
                verbatim: None,
                ..event
            }),
            _ => None,
        }
    }

    /// Bytes held.
    pub fn held_bytes(&self) -> usize {
        self.carry.len() + self.fresh.len()
    }

    fn next_raw(&mut self) -> Result<Option<Bytes>, TooLong> {
        if self.carry.is_empty() && self.ends.after_cr && self.fresh.first() == Some(&b'\n') {
            self.fresh.advance(1);
            self.ends.after_cr = false;
        }
        let end = self.ends.find(&self.fresh);
        let taken = end.unwrap_or(self.fresh.len());
        if self.carry.len() + taken > self.max {
            return Err(TooLong { max: self.max });
        }
        let Some(end) = end else {
            self.carry.put_slice(&std::mem::take(&mut self.fresh));
            return Ok(None);
        };
        let piece = self.fresh.split_to(end);
        if self.carry.is_empty() {
            return Ok(Some(piece));
        }
        self.carry.put_slice(&piece);
        Ok(Some(self.carry.split().freeze()))
    }

    fn parse(&mut self, mut raw: Bytes) -> Option<Sse> {
        if self.at_stream_start && !raw.is_empty() {
            self.at_stream_start = false;
            if raw.starts_with(b"\xEF\xBB\xBF") {
                raw.advance(3);
            }
        }
        parse_event(&raw)
    }
}

/// Where events end: after a blank line.
#[derive(Debug)]
struct Ends {
    at_line_start: bool,
    after_cr: bool,
}

impl Ends {
    /// Index just behind the blank line that ends an event; remembers where it stopped when there is none.
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut pos = 0;
        while let Some(&first) = bytes.get(pos) {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                pos += 1;
                continue;
            }
            let Some(at) = memchr::memchr2(b'\n', b'\r', bytes.get(pos..)?) else {
                self.at_line_start = false;
                return None;
            };
            let blank = self.at_line_start && at == 0;
            self.after_cr = bytes.get(pos + at) == Some(&b'\r');
            self.at_line_start = true;
            pos += at + 1;
            if blank {
                return Some(self.with_lf(bytes, pos));
            }
        }
        None
    }

    /// The LF of a CRLF that is already there belongs to this event.
    fn with_lf(&mut self, bytes: &[u8], pos: usize) -> usize {
        if self.after_cr && bytes.get(pos) == Some(&b'\n') {
            self.after_cr = false;
            return pos + 1;
        }
        pos
    }
}

fn parse_event(raw: &Bytes) -> Option<Sse> {
    if let Some(event) = verbatim(raw) {
        return Some(Sse::Event(event));
    }
    let mut fields = Fields::default();
    let mut pos = 0;
    while pos < raw.len() {
        let rest = raw.get(pos..).unwrap_or_default();
        let len = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        fields.line(raw, pos, len);
        pos += len + 1;
    }
    fields.done()
}

/// The usual case: one `data: ` line with something in it, ended by LF LF, without a NUL or CR in it.
fn verbatim(raw: &Bytes) -> Option<SseEvent> {
    let inside = raw.strip_prefix(b"data: ")?.strip_suffix(b"\n\n")?;
    if inside.is_empty() || memchr::memchr2(b'\n', b'\r', inside).is_some() {
        return None;
    }
    Some(SseEvent {
        name: Bytes::new(),
        data: raw.slice_ref(inside),
        verbatim: Some(raw.clone()),
    })
}

#[derive(Default)]
struct Fields {
    name: Bytes,
    data: Option<Bytes>,
    comment: bool,
}

impl Fields {
    fn line(&mut self, raw: &Bytes, start: usize, len: usize) {
        let line = raw.slice(start..start + len);
        let Some(colon) = memchr::memchr(b':', &line) else {
            if line.as_ref() == b"data" {
                self.data_line(Bytes::new());
            }
            return;
        };
        let from = colon + 1 + usize::from(line.get(colon + 1) == Some(&b' '));
        match line.get(..colon) {
            Some(b"") => self.comment = true,
            Some(b"data") => self.data_line(line.slice(from..)),
            Some(b"event") => self.name = line.slice(from..),
            _ => {}
        }
    }

    fn data_line(&mut self, line: Bytes) {
        self.data = Some(match self.data.take() {
            None => line,
            Some(before) => {
                let mut joined = BytesMut::with_capacity(before.len() + 1 + line.len());
                joined.put_slice(&before);
                joined.put_u8(b'\n');
                joined.put_slice(&line);
                joined.freeze()
            }
        });
    }

    fn done(self) -> Option<Sse> {
        match self.data {
            // An empty data buffer dispatches nothing.
            Some(data) if !data.is_empty() => Some(Sse::Event(SseEvent {
                name: self.name,
                data,
                verbatim: None,
            })),
            _ => self.comment.then_some(Sse::Comment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(parser: &mut Parser, chunks: &[&[u8]]) -> Vec<Sse> {
        let mut out = Vec::new();
        for chunk in chunks {
            parser.push(Bytes::copy_from_slice(chunk));
            while let Some(e) = parser.pull().unwrap() {
                out.push(e);
            }
        }
        out
    }

    /// Events as name and data; how they were framed does not matter.
    fn plain(events: &[Sse]) -> Vec<(String, String)> {
        events
            .iter()
            .map(|e| match e {
                Sse::Event(e) => (
                    String::from_utf8_lossy(&e.name).into_owned(),
                    String::from_utf8_lossy(&e.data).into_owned(),
                ),
                Sse::Comment => (":".to_owned(), String::new()),
            })
            .collect()
    }

    const MIXED: &[u8] = b"\xEF\xBB\xBF: hello\n\ndata: {\"a\":1}\n\nevent: x\r\ndata: one\r\ndata: two\r\n\r\ndata:three\r\rdata\n\nid: 7\nretry: 10\ndata: {\"b\":\"\xC3\xA9\"}\n\n\n\ndata: [DONE]\n\n";

    fn expected() -> Vec<(String, String)> {
        [
            (":", ""),
            ("", "{\"a\":1}"),
            ("x", "one\ntwo"),
            ("", "three"),
            ("", "{\"b\":\"\u{e9}\"}"),
            ("", "[DONE]"),
        ]
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .to_vec()
    }

    #[test]
    fn follows_the_rules() {
        assert_eq!(plain(&all(&mut Parser::default(), &[MIXED])), expected());
    }

    #[test]
    fn the_same_at_every_split_and_byte_by_byte() {
        for at in 0..=MIXED.len() {
            let (a, b) = MIXED.split_at(at);
            assert_eq!(
                plain(&all(&mut Parser::default(), &[a, b])),
                expected(),
                "split at {at}"
            );
        }
        let bytes: Vec<&[u8]> = MIXED.chunks(1).collect();
        assert_eq!(plain(&all(&mut Parser::default(), &bytes)), expected());
    }

    #[test]
    fn an_event_in_one_piece_is_a_slice_and_can_be_passed_on() {
        let chunk = Bytes::from_static(b"data: {\"a\":1}\n\ndata: {\"b\":2}\n\n");
        let mut p = Parser::default();
        p.push(chunk.clone());
        let Some(Sse::Event(e)) = p.pull().unwrap() else {
            panic!("an event")
        };
        assert_eq!(e.verbatim.unwrap().as_ptr(), chunk.as_ptr());
        let Some(Sse::Event(e)) = p.pull().unwrap() else {
            panic!("an event")
        };
        assert_eq!(e.wire(), "data: {\"b\":2}\n\n");
    }

    #[test]
    fn framing_anew_gives_the_same_event() {
        let events = all(&mut Parser::default(), &[b"data: one\r\ndata: two\r\n\r\n"]);
        let [Sse::Event(e)] = events.as_slice() else {
            panic!("one event")
        };
        assert_eq!(e.wire(), "data: one\ndata: two\n\n");
    }

    #[test]
    fn a_cr_that_ends_an_event_does_not_wait_for_its_lf() {
        let mut p = Parser::default();
        assert_eq!(plain(&all(&mut p, &[b"data: a\r\n\r"])).len(), 1);
        assert_eq!(
            plain(&all(&mut p, &[b"\ndata: b\n\n"])),
            [(String::new(), "b".to_owned())]
        );
    }

    /// Whichever way it is written: some servers send it to show that they live.
    #[test]
    fn an_event_without_data_is_none() {
        for empty in [
            "data: \n\n",
            "data:\n\n",
            "data\n\n",
            "data: \r\n\r\n",
            "event: ping\ndata: \n\n",
        ] {
            assert!(
                all(&mut Parser::default(), &[empty.as_bytes()]).is_empty(),
                "{empty:?}"
            );
            let mut unclosed = Parser::default();
            unclosed.push(Bytes::from(empty.trim_end().to_owned()));
            assert_eq!(
                (unclosed.pull(), unclosed.finish()),
                (Ok(None), None),
                "{empty:?}"
            );
        }
    }

    #[test]
    fn events_are_bounded() {
        let mut p = Parser::new(16);
        p.push(Bytes::from_static(b"data: 0123456789"));
        assert_eq!(p.pull(), Ok(None));
        p.push(Bytes::from_static(b"0"));
        assert_eq!(p.pull(), Err(TooLong { max: 16 }));
    }

    #[test]
    fn the_last_event_without_its_blank_line() {
        let mut p = Parser::default();
        assert!(all(&mut p, &[b"data: [DONE]"]).is_empty());
        assert_eq!(p.finish().unwrap().data, "[DONE]");
        assert_eq!(p.finish(), None);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), Just(b'd'), Just(b'a'), Just(b't'), any::<u8>()],
                0..200),
            cuts in proptest::collection::vec(0usize..200, 0..8),
        ) {
            let whole = plain(&all(&mut Parser::default(), &[&bytes]));
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            pieces.push(&bytes[from..]);
            prop_assert_eq!(plain(&all(&mut Parser::default(), &pieces)), whole);
        }

        #[test]
        fn what_is_framed_is_read_back(lines in proptest::collection::vec("[a-z:\" {}]{0,20}", 1..4)) {
            let data = lines.join("\n");
            prop_assume!(!data.is_empty());
            let wire = frame(data.as_bytes());
            let got = plain(&all(&mut Parser::default(), &[&wire]));
            prop_assert_eq!(got, vec![(String::new(), data)]);
        }
    }
}
