//! What hostile clients do. Each is bounded in pace, so that what is measured is the gateway and not two cores' worth of
//! attackers; each does its worst from one connection after the other until it is told to stop.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{Tally, count, h2};

/// One kind of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// A head that comes byte by byte.
    SlowHead,
    /// A body that comes byte by byte.
    SlowBody,
    /// A body that is announced as long as one may be, and comes byte by byte.
    SlowLongBody,
    /// A stream that is asked for and not read.
    SlowReader,
    /// Connections that are opened and left alone.
    Idle,
    /// Connections that are opened and closed.
    Churn,
    /// Many requests at once on one connection, none of the answers read.
    Pipelined,
    /// Heads larger than may be.
    LargeHead,
    /// Bodies larger than may be, announced and not.
    LargeBody,
    /// Bytes that are no HTTP.
    Garbage,
    /// JSON as deep as it goes.
    DeepJson,
    /// Requests that are left as soon as they are sent.
    Leaver,
    /// HTTP/2: streams that are opened and reset.
    RapidReset,
    /// HTTP/2: settings without end.
    SettingsFlood,
    /// HTTP/2: pings without end.
    PingFlood,
    /// HTTP/2: a head without end.
    ContinuationFlood,
    /// HTTP/2: an answer that is given no window.
    NoWindow,
}

/// Between two of a client's steps.
const STEP: Duration = Duration::from_millis(20);
/// Bytes of the longest body that the plan takes.
const LONGEST: usize = 1 << 20;
/// Clients of each attack at once.
const EACH: usize = 8;
/// So many bodies of the longest would be more than all that the plan lets be in flight.
const LONG_BODIES: usize = 40;
/// Frames of a flood at once.
const BURST: u32 = 50;
const ASK: &str = r#"{"model":"auto","stream":true,"messages":[{"role":"user","content":"hello [[lab: tokens=5000 token_ms=0]]"}]}"#;

impl Attack {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::SlowHead,
        Self::SlowBody,
        Self::SlowLongBody,
        Self::SlowReader,
        Self::Idle,
        Self::Churn,
        Self::Pipelined,
        Self::LargeHead,
        Self::LargeBody,
        Self::Garbage,
        Self::DeepJson,
        Self::Leaver,
        Self::RapidReset,
        Self::SettingsFlood,
        Self::PingFlood,
        Self::ContinuationFlood,
        Self::NoWindow,
    ];

    /// How many of them there are at once.
    pub fn clients(self) -> usize {
        match self {
            Self::SlowLongBody => LONG_BODIES,
            _ => EACH,
        }
    }

    /// For tables: what it does, and what is counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::SlowHead => "slow head (bytes)",
            Self::SlowBody => "slow body (bytes)",
            Self::SlowLongBody => "slow body, 1 MiB told (bytes)",
            Self::SlowReader => "streams not read",
            Self::Idle => "idle connections",
            Self::Churn => "connections opened and closed",
            Self::Pipelined => "pipelined requests",
            Self::LargeHead => "heads too large",
            Self::LargeBody => "bodies too large",
            Self::Garbage => "garbage",
            Self::DeepJson => "deep JSON",
            Self::Leaver => "requests that are left",
            Self::RapidReset => "h2 streams reset",
            Self::SettingsFlood => "h2 settings",
            Self::PingFlood => "h2 pings",
            Self::ContinuationFlood => "h2 continuations",
            Self::NoWindow => "h2 answers without window",
        }
    }

    /// Does it, again and again, until it is told to stop.
    pub async fn run(self, address: String, tally: Tally, mut stopped: watch::Receiver<bool>) {
        let work = async {
            loop {
                // Being thrown out is what it is for.
                let _ = self.once(&address, &tally).await;
                tokio::time::sleep(STEP).await;
            }
        };
        tokio::select! {
            () = work => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    }

    async fn once(self, address: &str, tally: &Tally) -> io::Result<()> {
        let mut io = TcpStream::connect(address).await?;
        match self {
            Self::SlowHead => drip(&mut io, post("", 10, "{}").as_bytes(), tally).await,
            Self::SlowBody => {
                io.write_all(post("", ASK.len(), "").as_bytes()).await?;
                drip(&mut io, ASK.as_bytes(), tally).await
            }
            Self::SlowLongBody => {
                io.write_all(post("", LONGEST, "{").as_bytes()).await?;
                drip(&mut io, &[b' '; 1_000], tally).await
            }
            Self::SlowReader => {
                io.write_all(post("", ASK.len(), ASK).as_bytes()).await?;
                count(tally);
                // Until it is let go: the end of this wait is a reset.
                tokio::time::sleep(Duration::from_secs(8)).await;
                Ok(())
            }
            Self::Idle => {
                count(tally);
                let _ = io.read(&mut [0; 1]).await?;
                Ok(())
            }
            Self::Churn => {
                count(tally);
                Ok(())
            }
            Self::Pipelined => {
                let one = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
                for _ in 0..200 {
                    io.write_all(one.repeat(10).as_bytes()).await?;
                    (0..10).for_each(|_| count(tally));
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
                Ok(())
            }
            Self::LargeHead => {
                let head = format!("x-large: {}\r\n", "a".repeat(100_000));
                io.write_all(post(&head, 2, "{}").as_bytes()).await?;
                count(tally);
                read_on(&mut io).await
            }
            Self::LargeBody => {
                io.write_all(post("", 9 << 20, "{").as_bytes()).await?;
                count(tally);
                io.write_all(&vec![b' '; 1 << 20]).await?;
                read_on(&mut io).await
            }
            Self::Garbage => {
                io.write_all(&[0x80, 0xff, 0, 13, 10].repeat(500)).await?;
                count(tally);
                read_on(&mut io).await
            }
            Self::DeepJson => {
                let body = format!("{{\"model\":\"auto\",\"messages\":{}", "[".repeat(200_000));
                io.write_all(post("", body.len(), &body).as_bytes()).await?;
                count(tally);
                read_on(&mut io).await
            }
            Self::Leaver => {
                io.write_all(post("", ASK.len(), ASK).as_bytes()).await?;
                count(tally);
                Ok(())
            }
            Self::RapidReset => {
                self.flood(&mut io, tally, |n| h2::opened_and_reset(1 + 2 * n))
                    .await
            }
            Self::SettingsFlood => self.flood(&mut io, tally, |_| h2::settings()).await,
            Self::PingFlood => self.flood(&mut io, tally, |_| h2::ping()).await,
            Self::ContinuationFlood => {
                self.flood(&mut io, tally, |n| match n {
                    0 => h2::endless_head(1),
                    _ => h2::more_head(1),
                })
                .await
            }
            Self::NoWindow => {
                io.write_all(&h2::begin()).await?;
                for n in 0..50 {
                    io.write_all(&h2::without_window(1 + 2 * n)).await?;
                    count(tally);
                }
                tokio::time::sleep(Duration::from_secs(8)).await;
                Ok(())
            }
        }
    }

    /// Frames in bursts, nothing read, until the connection is closed.
    async fn flood(
        self,
        io: &mut TcpStream,
        tally: &Tally,
        frame: impl Fn(u32) -> Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&h2::begin()).await?;
        let mut n = 0;
        loop {
            let burst: Vec<u8> = (n..n + BURST).flat_map(&frame).collect();
            io.write_all(&burst).await?;
            n += BURST;
            (0..BURST).for_each(|_| count(tally));
            tokio::time::sleep(STEP).await;
        }
    }
}

fn post(more: &str, length: usize, body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{more}content-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

/// Byte by byte.
async fn drip(io: &mut TcpStream, bytes: &[u8], tally: &Tally) -> io::Result<()> {
    for byte in bytes {
        io.write_all(&[*byte]).await?;
        count(tally);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    read_on(io).await
}

/// Reads what comes until it is closed, for a while.
async fn read_on(io: &mut TcpStream) -> io::Result<()> {
    let mut bytes = [0_u8; 4096];
    let reading = async {
        while io.read(&mut bytes).await? > 0 {}
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(3), reading)
        .await
        .unwrap_or(Ok(()))
}
