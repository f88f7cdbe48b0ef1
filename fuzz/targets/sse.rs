//! Server-sent events: the same events wherever the bytes are cut, and those that a reader written anew from the rules
//! (WHATWG, "Interpreting an event stream") finds.
#![no_main]

use bytes::Bytes;
use gateway::providers::sse::{Parser, Sse, TooLong, frame};
use libfuzzer_sys::fuzz_target;
use weir_fuzz::two_places;

/// What is told of an event: its name and its data; `None`: a comment.
type Told = Option<(Vec<u8>, Vec<u8>)>;

fuzz_target!(|data: &[u8]| {
    let whole = read(&[data]);
    assert_eq!(whole, by_the_rules(data));
    for [a, b] in two_places(data) {
        assert_eq!(
            read(&[&data[..a], &data[a..b], &data[b..]]),
            whole,
            "cut at {a} and {b}"
        );
    }
    if data.len() <= 256 {
        let bytes: Vec<&[u8]> = data.chunks(1).collect();
        assert_eq!(read(&bytes), whole, "byte by byte");
    }
    bounded(data);
});

/// All events, the one that lacks its blank line last.
fn read(pieces: &[&[u8]]) -> Vec<Told> {
    let mut parser = Parser::default();
    let mut all = Vec::new();
    for piece in pieces {
        parser.push(Bytes::copy_from_slice(piece));
        while let Some(sse) = parser.pull().expect("far below the bound") {
            all.push(told(&sse));
        }
    }
    all.extend(parser.finish().map(|event| told(&Sse::Event(event))));
    assert_eq!(parser.held_bytes(), 0);
    all
}

fn told(sse: &Sse) -> Told {
    let Sse::Event(event) = sse else { return None };
    // Framed anew, or as it came: a client reads the same data.
    assert_eq!(data_of(&event.wire()), [event.data.to_vec()]);
    assert_eq!(data_of(&frame(&event.data)), [event.data.to_vec()]);
    if let Some(verbatim) = &event.verbatim {
        assert_eq!(**verbatim, [b"data: ", &*event.data, b"\n\n"].concat());
    }
    Some((event.name.to_vec(), event.data.to_vec()))
}

fn data_of(wire: &Bytes) -> Vec<Vec<u8>> {
    let mut parser = Parser::default();
    parser.push(wire.clone());
    let mut all = Vec::new();
    while let Some(sse) = parser.pull().expect("far below the bound") {
        match sse {
            Sse::Event(event) => all.push(event.data.to_vec()),
            Sse::Comment => panic!("a comment in what is framed"),
        }
    }
    assert_eq!(parser.held_bytes(), 0, "what is framed is whole");
    all
}

/// The rules, line by line and with a copy of everything.
fn by_the_rules(stream: &[u8]) -> Vec<Told> {
    let stream = stream.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(stream);
    let mut lines = Vec::new();
    let (mut from, mut at) = (0, 0);
    while at < stream.len() {
        let end = at;
        match stream[at] {
            b'\r' if stream.get(at + 1) == Some(&b'\n') => at += 2,
            b'\r' | b'\n' => at += 1,
            _ => {
                at += 1;
                continue;
            }
        }
        lines.push(&stream[from..end]);
        from = at;
    }
    // What has no end, and then, as the parser's `finish` has it, an end for what is left.
    lines.push(&stream[from..]);
    let closed = lines.len() - 1;
    let (mut all, mut name, mut data, mut comment) = (Vec::new(), Vec::new(), None::<Vec<u8>>, false);
    for (number, line) in lines.into_iter().chain([&b""[..]]).enumerate() {
        let last = number > closed;
        if line.is_empty() && number != closed {
            match data.take().filter(|d| !d.is_empty()) {
                Some(data) => all.push(Some((std::mem::take(&mut name), data))),
                None if comment && !last => all.push(None),
                None => {}
            }
            (name, comment) = (Vec::new(), false);
            continue;
        }
        let (field, value) = match line.iter().position(|b| *b == b':') {
            None => (line, &b""[..]),
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
        };
        match field {
            b"" if line.first() == Some(&b':') => comment = true,
            b"event" if line.contains(&b':') => name = value.to_vec(),
            b"data" => match &mut data {
                None => data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            _ => {}
        }
    }
    all
}

/// A parser with little room holds no more than that, and says so.
fn bounded(data: &[u8]) {
    const MAX: usize = 24;
    let mut parser = Parser::new(MAX);
    for piece in data.chunks(7) {
        parser.push(Bytes::copy_from_slice(piece));
        loop {
            match parser.pull() {
                Ok(Some(Sse::Event(event))) => assert!(event.data.len() <= MAX),
                Ok(Some(Sse::Comment)) => {}
                Ok(None) => break,
                Err(TooLong { max }) => {
                    assert_eq!(max, MAX);
                    return;
                }
            }
        }
        assert!(parser.held_bytes() <= MAX);
    }
}
