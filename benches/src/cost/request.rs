//! Whole requests through the gateway as a service: no socket, no second thread, a scripted target that has nothing ready
//! when it is first asked, as a provider has not.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use gateway::addresses::Peer;
use gateway::app::{App, Setup};
use gateway::clock::Clock;
use gateway::providers::Client;
use gateway::providers::event::Event;
use gateway::providers::fake::{Act, FakeTarget, Script};
use gateway::runtime::Made;
use gateway::runtime::secrets::Secrets;
use gateway::telemetry::Telemetry;
use gateway::telemetry::writer::Sink;
use http::Request;
use http_body_util::{BodyExt, Full};

use super::counted;

/// A plan as it comes.
pub const ON: &str = include_str!("plans/on.toml");
/// And with everything off.
pub const OFF: &str = include_str!("plans/off.toml");
/// A plan with every guard on.
pub const GUARDED: &str = include_str!("plans/guarded.toml");
/// Events of text in the stream.
pub const EVENTS: usize = 200;

const WORDS: [&str; 8] = [" over", " the", " weir", " it", " goes", ",", " slowly", " down"];

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Something new each time.
    Anew,
    /// The same each time.
    Again,
}

/// With a seed an answer may be shared and kept.
fn body(stream: bool, seed: Option<u32>) -> Bytes {
    let seed = seed.map_or(String::new(), |seed| format!(",\"seed\":{seed}"));
    let stream = if stream { ",\"stream\":true" } else { "" };
    Bytes::from(format!(
        r#"{{"model":"auto","messages":[{{"role":"system","content":"You are a helpful assistant. Answer briefly."}},{{"role":"user","content":"What is the difference between a ledger and a journal in bookkeeping?"}}],"temperature":0.7{seed},"max_tokens":400{stream}}}"#
    ))
}

/// Every event comes after a look that found nothing, as from a socket.
fn script(stream: bool) -> Script {
    let mut script = Script::new().act(Act::Yield).accept().begin("lab");
    if stream {
        for (n, word) in WORDS.iter().cycle().take(EVENTS).enumerate() {
            // With a number here and there: an answer that repeats itself is not kept.
            let numbered = format!("{word} {n}");
            let word = if n % 4 == 0 { &numbered } else { *word };
            script = script.act(Act::Yield).text(word);
        }
    } else {
        let text: String = WORDS.iter().cycle().take(24).copied().collect();
        let text = Event::Text {
            choice: 0,
            text: text.as_str().into(),
        };
        script = script.act(Act::Yield).act(Act::Say(vec![text]));
    }
    script.stop().usage(30, EVENTS as u64).done()
}

fn app(plan: &str, stream: bool) -> Result<App, String> {
    let compiled = routing::plan::load(plan).map_err(|problems| problems.to_string())?;
    let fake = FakeTarget::new([script(stream)]);
    let make = move |plan: &routing::plan::Plan, _: &Secrets| -> Vec<Made> {
        let on = || Made::on(Client::Fake(fake.clone()));
        plan.targets.iter().map(|_| on()).collect()
    };
    Ok(App::new(Setup {
        plan: compiled.plan,
        notes: compiled.notes,
        clock: Clock::system(),
        telemetry: Telemetry::new(),
        sink: Sink::none(),
        limits: Arc::new(gateway::limits::Local::default()),
        make: Box::new(make),
        secrets: Secrets::new(Arc::new(|name| (name == "KEY").then(|| "unused".to_owned()))),
        cores: 1,
        session_key: 7,
    }))
}

/// So many requests, one after the other, each read to its end.
///
/// # Errors
/// The plan does not load, or an answer was not what it must be.
pub fn serve(plan: &str, stream: bool, asked: Asked, times: u32) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let app = {
        let _entered = runtime.enter();
        app(plan, stream)?.for_peer(Peer {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            streams: Arc::default(),
        })
    };
    let seed = |n| match (plan == GUARDED, asked) {
        (false, _) => None,
        (true, Asked::Anew) => Some(100_000 + n),
        (true, Asked::Again) => Some(100_000),
    };
    let bodies: Vec<Bytes> = (0..times).map(|n| body(stream, seed(n))).collect();
    let asked = async move {
        for sent in bodies {
            let request = Request::post("/v1/chat/completions")
                .header("host", "127.0.0.1:8080")
                .header("content-type", "application/json")
                .header("user-agent", "OpenAI/Python 2.8.0")
                .header("authorization", "Bearer unused")
                .body(Full::new(sent))
                .map_err(|e| e.to_string())?;
            let mut answer = app.handle(request).await;
            let (status, mut bytes, mut last) = (answer.status(), 0, Bytes::new());
            while let Some(frame) = answer.body_mut().frame().await {
                let Ok(frame) = frame;
                if let Ok(data) = frame.into_data() {
                    bytes += data.len();
                    last = data;
                }
            }
            let well = status == 200 && bytes > 200 && (!stream || last.ends_with(b"[DONE]\n\n"));
            if !well {
                let last = String::from_utf8_lossy(&last);
                return Err(format!("{status}, {bytes} bytes, at the end: {last}"));
            }
        }
        Ok(())
    };
    // A task of its own, as a connection is.
    counted(|| runtime.block_on(async { tokio::spawn(asked).await.map_err(|e| e.to_string())? }))
}
