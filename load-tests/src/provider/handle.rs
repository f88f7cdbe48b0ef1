//! Starting, steering and stopping a provider.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::capacity::Places;
use super::log::{Entry, Log};
use super::rule::{Rule, Rules};
use super::script::Script;
use super::serve;

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The API; port 0: any free one.
    pub listen: SocketAddr,
    /// A second address that serves only `/log`, `/script` and `/state`, and does so whatever the state is.
    pub admin: Option<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            admin: None,
        }
    }
}

/// How the provider is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It answers as scripted.
    #[default]
    Up,
    /// Every request gets 503; what runs, runs on.
    Unavailable,
    /// Requests are accepted and never answered; what runs, runs on.
    Silent,
    /// Nothing listens: connections are refused, those that were open are reset.
    Refuse,
    /// Connections are taken and reset at once, those that were open too.
    Reset,
    /// Connections are taken and not a byte of them is read; those that were open go on.
    Deaf,
}

/// What the parts of a running provider share.
pub(super) struct Shared {
    pub(super) script: RwLock<Arc<Script>>,
    pub(super) rules: Mutex<Rules>,
    pub(super) places: RwLock<Option<Places>>,
    pub(super) log: Log,
    pub(super) state: watch::Sender<State>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) has_admin: bool,
}

impl Shared {
    pub(super) fn script(&self) -> Arc<Script> {
        self.script.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_script(&self, script: Script) {
        *self.places.write().unwrap_or_else(PoisonError::into_inner) = script.capacity.map(Places::new);
        *self.script.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(script);
        self.rules().restart();
    }

    pub(super) fn places(&self) -> Option<Places> {
        self.places.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running provider. Dropping it stops it; open connections close.
pub struct Provider {
    shared: Arc<Shared>,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    finished: Option<oneshot::Receiver<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Provider {
    /// Starts on a free port of the loopback, on the runtime of the caller.
    pub async fn start(script: Script) -> io::Result<Self> {
        Self::start_with(script, Options::default()).await
    }

    /// Starts as the options say, on the runtime of the caller.
    pub async fn start_with(script: Script, options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let (admin_listener, admin) = match options.admin {
            Some(at) => {
                let l = TcpListener::bind(at).await?;
                let at = l.local_addr()?;
                (Some(l), Some(at))
            }
            None => (None, None),
        };
        let shared = Arc::new(Shared {
            log: Log::new(script.log_capacity),
            places: RwLock::new(script.capacity.map(Places::new)),
            script: RwLock::new(Arc::new(script)),
            rules: Mutex::default(),
            state: watch::Sender::new(State::Up),
            stop: watch::Sender::new(false),
            has_admin: admin.is_some(),
        });
        let (done, finished) = oneshot::channel();
        tokio::spawn(serve::run(shared.clone(), listener, admin_listener, done));
        Ok(Self {
            shared,
            address,
            admin,
            finished: Some(finished),
            thread: None,
        })
    }

    /// Starts on a thread of its own, so that a busy caller (a bench, a load generator) cannot slow it down.
    pub fn start_on_thread(script: Script, options: Options) -> io::Result<Self> {
        let (give, take) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("lab-provider".into())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(r) => r,
                    Err(e) => {
                        let _ = give.send(Err(e));
                        return;
                    }
                };
                runtime.block_on(async move {
                    let mut started = Self::start_with(script, options).await;
                    let finished = started.as_mut().ok().and_then(|p| p.finished.take());
                    let _ = give.send(started);
                    if let Some(f) = finished {
                        let _ = f.await;
                    }
                });
            })?;
        let mut provider = take.recv().map_err(io::Error::other)??;
        provider.thread = Some(thread);
        Ok(provider)
    }

    /// `http://127.0.0.1:PORT`, without `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a plan's `base_url` wants: [`Provider::url`] and `/v1`.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The second address, if one was asked for.
    pub fn admin_url(&self) -> Option<String> {
        self.admin.map(|a| format!("http://{a}"))
    }

    /// The log.
    pub fn log(&self) -> Log {
        self.shared.log.clone()
    }

    /// Everything the log keeps.
    pub fn entries(&self) -> Vec<Entry> {
        self.shared.log.entries()
    }

    /// From the next request on this script holds; counts of rules begin anew.
    pub fn set_script(&self, script: Script) {
        self.shared.set_script(script);
    }

    /// From the next request on this rule holds, before the script's own and before those that were armed earlier.
    pub fn arm(&self, rule: Rule) {
        self.shared.rules().arm(rule);
    }

    /// Forgets the armed rules of a model, or all of them.
    pub fn disarm(&self, model: Option<&str>) {
        self.shared.rules().disarm(model);
    }

    /// Changes the state; see [`State`]. `Refuse` takes effect a moment later, when the listener is gone.
    pub fn set_state(&self, state: State) {
        self.shared.state.send_replace(state);
    }

    /// Stops, closes every connection, and waits until that is done.
    pub async fn shutdown(mut self) {
        self.shared.stop.send_replace(true);
        if let Some(finished) = self.finished.take() {
            let _ = finished.await;
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
