//! A provider of plain bytes: it keeps what it was sent, and answers what it is told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub line: String,
    /// In small letters, in order.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    /// Names of all headers, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
    fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut piece = [0_u8; 4096];
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let mut lines = head.split("\r\n");
                let line = lines.next()?.to_owned();
                let headers: Vec<(String, String)> = lines
                    .filter_map(|l| l.split_once(": "))
                    .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
                    .collect();
                let asked = Self {
                    line,
                    headers,
                    body: body.to_owned(),
                };
                let length = asked.header("content-length").map_or(0, |n| n.parse().unwrap());
                if body.len() >= length {
                    return Some(asked);
                }
            }
            let n = stream.read(&mut piece).ok()?;
            if n == 0 {
                return None;
            }
            bytes.extend_from_slice(&piece[..n]);
        }
    }
}

/// It runs until the test ends.
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Upstream {
    /// `answer` gives the bytes of a response, head and body; the connection closes behind it.
    pub fn start(answer: impl Fn(&Asked) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&seen), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, kept, answer) = (stream.unwrap(), Arc::clone(&kept), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(asked) = Asked::read(&mut stream) else {
                        return;
                    };
                    let answer = answer(&asked);
                    kept.lock().unwrap().push(asked);
                    let _ = stream.write_all(answer.as_bytes());
                });
            }
        });
        Self { address, seen }
    }
    /// What it was asked so far.
    pub fn seen(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().clone()
    }
}

/// A response; `more`: header lines.
pub fn response(status: &str, more: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{more}content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub const WHOLE: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"fine"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
pub const STREAM: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"fine\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
pub const CLAUDE: &str = r#"{"id":"c","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"fine"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;

/// A whole answer or a stream, as it was asked for, in the dialect of the path.
pub fn fine(asked: &Asked, more: &str) -> String {
    if asked.line.contains("/messages") {
        response("200 OK", more, "application/json", CLAUDE)
    } else if asked.body.contains("\"stream\":true") {
        response("200 OK", more, "text/event-stream", STREAM)
    } else {
        response("200 OK", more, "application/json", WHOLE)
    }
}

/// An address that nobody may call.
pub struct Trap(TcpListener);

impl Trap {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
    /// The system takes calls whether anybody waits for them or not.
    pub fn was_called(&self) -> bool {
        self.0.accept().is_ok()
    }
}
