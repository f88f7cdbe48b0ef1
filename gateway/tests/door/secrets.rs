//! Marked secrets are planted everywhere, things go wrong in every way that quotes one, and then everything that the
//! process has said or written is looked through.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::planted::{PROMPTS, REFUSING, SECRETS, found, mark, plan, quoting};
use crate::program::{records, soon, until};
use crate::upstream::Upstream;

/// The process, with everything that it says.
struct Process {
    child: Child,
    data: String,
    admin: String,
    /// Lines of standard output and standard error, until it ends.
    said: Receiver<String>,
    log: String,
}

impl Process {
    /// Hears it until it says something.
    fn until(&mut self, text: &str) {
        while !self.log.contains(text) {
            self.log += &self.said.recv().expect("it says so before it ends");
        }
    }
    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

/// Sends on what is read, line by line.
fn hear(from: impl Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let _ = to.send(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
    });
}

fn start(home: &Path, at: &str, tls: &str) -> Process {
    std::fs::write(home.join("plan.toml"), plan(home, at, tls)).unwrap();
    std::fs::write(home.join("caller.key"), mark("caller-file-key")).unwrap();
    std::fs::write(home.join("claude.key"), mark("provider-file-key") + "\n").unwrap();
    let proxy = |name: &str, at: &str| format!("http://me:{}@{at}", mark(name));
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--config",
        ])
        .arg(home.join("plan.toml"))
        .env("WEIR_HOME", home)
        .env("WEIR_LOG", "trace")
        .env("P_ADMIN", mark("admin-token"))
        .env("P_CALLER", mark("caller-key"))
        .env("P_OPEN", mark("provider-key"))
        .env("P_HEADER", format!("Bearer {}", mark("header-token")))
        .env("P_PROXIED", mark("provider-proxied-key"))
        .env("P_PROXY", proxy("proxy-password", at))
        .env(
            "P_ODD_PROXY",
            format!("socks5://me:{}@{at}", mark("odd-proxy-password")),
        )
        .env(
            "P_UNSENDABLE",
            format!("{}\u{7}\u{7}x", mark("provider-unsendable-key")),
        )
        .env("P_TLS", mark("provider-tls-key"))
        .env("HTTP_PROXY", proxy("env-proxy-password", at))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let ready = until(&mut out, "weir is ready: http://");
    let place = |nth: usize| {
        let rest = ready.split("http://").nth(nth).unwrap();
        rest.split(['/', ')']).next().unwrap().to_owned()
    };
    let (to, said) = channel();
    hear(child.stderr.take().unwrap(), to.clone());
    hear(out, to);
    Process {
        child,
        data: place(1),
        admin: place(2),
        said,
        log: ready.clone(),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on a connection of its own; the whole response.
fn send(at: &str, line: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    let n = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-type: application/json\r\ncontent-length: {n}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    all
}

/// A question with a key in it wherever a person could put one.
fn question(model: &str, stream: bool) -> String {
    let [prompt, tool, metadata] = [PROMPTS[0], PROMPTS[1], PROMPTS[2]].map(mark);
    serde_json::json!({
        "model": model, "stream": stream, "user": metadata, "metadata": {"note": metadata},
        "messages": [{"role": "user", "content": format!("my key is {prompt}, how many letters has it?")}],
        "tools": [{"type": "function", "function": {"name": "f", "description": tool, "parameters": {"type": "object"}}}],
    })
    .to_string()
}

const CHAT: &str = "POST /v1/chat/completions";

fn bearer(name: &str) -> String {
    format!("authorization: Bearer {}\r\n", mark(name))
}

/// Every request that could make something quote a secret; what the callers saw.
fn callers(data: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let noisy = format!(
        "cookie: session={}\r\nx-weir-debug: 1\r\nidempotency-key: {}",
        mark("caller-cookie"),
        mark("caller-idempotency")
    );
    let mut ask = |model: &str, stream: bool, key: &str| {
        let head = format!("{}{noisy}-{model}-{stream}-{key}\r\n", bearer(key));
        let answer = send(data, CHAT, &head, &question(model, stream));
        seen.push(format!("{model} {stream}: {answer}"));
    };
    for stream in [false, true] {
        for key in ["caller-key", "caller-file-key"] {
            ask("auto", stream, key);
        }
        for refusing in REFUSING {
            ask(&format!("m-{refusing}"), stream, "caller-key");
        }
        for model in [
            "claude-400",
            "proxied-400",
            "t-claude",
            "t-proxied",
            "t-odd-proxy",
            "t-env-proxied",
            "t-unsendable",
            "t-tls",
        ] {
            ask(model, stream, "caller-key");
        }
    }
    ask("nobody", false, "caller-key");
    ask("auto", false, "wrong-caller-key");
    let (key, query) = (bearer("caller-key"), mark("caller-query"));
    seen.push(send(
        data,
        &format!("{CHAT}?api_key={query}"),
        &key,
        &question("auto", false),
    ));
    seen.push(send(data, &format!("GET /v1/nowhere?key={query}"), &key, ""));
    seen.push(send(data, "GET /v1/models", &key, ""));
    let as_api_key = format!("x-api-key: {}\r\n", mark("wrong-caller-key"));
    seen.push(send(data, "GET /v1/models", &as_api_key, ""));
    for bad in [
        "{",
        "[]",
        "{\"model\":5}",
        "{\"model\":\"auto\",\"messages\":[{\"role\":\"x\"}]}",
    ] {
        seen.push(send(data, CHAT, &key, bad));
    }
    seen
}

/// A question over HTTP/2, whose library has a log of its own.
fn over_h2(at: &str) -> String {
    let (at, key, cookie) = (at.to_owned(), mark("caller-key"), mark("caller-cookie"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async move {
        let stream = tokio::net::TcpStream::connect(&at).await.unwrap();
        let io = TokioIo::new(stream);
        let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::post(format!("http://{at}/v1/chat/completions"))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {key}"))
            .header("cookie", cookie)
            .body(Full::new(bytes::Bytes::from(question("m-400", false))))
            .unwrap();
        let (head, body) = client.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();
        format!("{head:?}\r\n\r\n{}", String::from_utf8_lossy(&body))
    })
}

/// Every page of the admin plane, with its token, with a wrong one and without.
fn pages(admin: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for token in [bearer("admin-token"), bearer("wrong-admin-token"), String::new()] {
        for page in [
            "GET /",
            "GET /healthz",
            "GET /readyz",
            "GET /metrics",
            "GET /admin/targets",
            "GET /admin/cache",
            "GET /admin/usage",
            "GET /admin/keys",
            "GET /nowhere",
            "POST /admin/reload",
            "POST /admin/targets/fine",
        ] {
            seen.push(format!(
                "{page}: {}",
                send(admin, page, &token, r#"{"state":"on"}"#)
            ));
        }
    }
    seen
}

#[test]
fn no_planted_secret_is_ever_said_or_written() {
    let home = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(quoting);
    // A server that hangs up on TLS.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = plain.local_addr().unwrap();
    std::thread::spawn(move || plain.incoming().for_each(drop));
    let mut process = start(home.path(), &upstream.address.to_string(), &tls.to_string());

    let mut seen = callers(&process.data);
    seen.push(over_h2(&process.data));
    // A key that is replaced while the process runs is hidden like the first.
    std::fs::write(home.path().join("claude.key"), mark("provider-replaced-key")).unwrap();
    seen.extend(pages(&process.admin));
    let (caller, body) = (bearer("caller-key"), question("claude-400", false));
    soon("the replaced key is sent", Duration::from_secs(20), || {
        seen.push(send(&process.data, CHAT, &caller, &body));
        let keys = upstream.seen();
        let mut keys = keys.iter().filter_map(|asked| asked.header("x-api-key"));
        keys.any(|key| key == mark("provider-replaced-key"))
    });
    // Somebody types a key into the plan, in three wrong ways, and reloads it.
    let typed = mark("typed-into-the-plan");
    let text = std::fs::read_to_string(home.path().join("plan.toml")).unwrap();
    for line in [
        format!(
            "[providers.x]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key = \"{typed}\"\n"
        ),
        format!("[providers.x]\nkind = \"openai\"\nbase_url = \"http://me:{typed}@127.0.0.1:1/v1\"\n"),
        format!("[providers.x]\nkind = \"openai\"\napi_key = {typed}\n"),
    ] {
        std::fs::write(home.path().join("plan.toml"), format!("{text}{line}")).unwrap();
        let answer = send(&process.admin, "POST /admin/reload", &bearer("admin-token"), "");
        assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
        seen.push(answer);
    }
    process.signal("-HUP");
    process.until("the old plan stays");
    process.signal("-TERM");
    assert!(process.child.wait().unwrap().success());
    let rest: String = process.said.iter().collect();
    let log = std::mem::take(&mut process.log) + &rest;

    // The plants were real: providers and proxies got theirs, and the log was as loud as it can be.
    let sent = format!("{:?}", upstream.seen());
    let got = found(&sent, SECRETS);
    for name in [
        "provider-key",
        "provider-file-key",
        "provider-replaced-key",
        "provider-proxied-key",
        "header-token",
        "proxy-password",
        "env-proxy-password",
    ] {
        assert!(got.contains(&name), "{name} was never sent");
    }
    assert_eq!(found(&sent, PROMPTS), PROMPTS);
    assert!(
        log.contains("target switched off") && log.contains("TRACE"),
        "{log}"
    );
    let quoted = seen.iter().filter(|answer| answer.contains("you sent")).count();
    assert!(quoted >= 6, "providers were to be quoted: {quoted}");
    assert!(
        seen.iter()
            .any(|answer| answer.contains("authorization: Bearer ***"))
    );

    // And nobody else got anything.
    for answer in &seen {
        assert_eq!(found(answer, SECRETS), [""; 0], "{answer}");
        let head = answer.split("\r\n\r\n").next().unwrap();
        assert_eq!(found(head, PROMPTS), [""; 0], "{head}");
    }
    let all = [SECRETS, PROMPTS].concat();
    assert_eq!(found(&log, &all), [""; 0], "{log}");
    assert!(records(home.path()).len() >= 50);
    let mut written = 0;
    for file in files(home.path()) {
        let kept = ["plan.toml", "caller.key", "claude.key"]
            .iter()
            .any(|name| file.ends_with(name));
        if kept {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert_eq!(found(&text, &all), [""; 0], "{}", file.display());
        written += 1;
    }
    assert!(written >= 1, "the records");
}

/// Every file below a folder.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all
}
