//! The sockets clients and operators connect to: opened before anything else, shut for a while without being closed, and given to
//! another process.
//!
//! While a doorway is shut, connections wait in the system's own queue: nobody is refused.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::listeners::ListenerConfig;
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::Service as ServiceTrait;
use pingora::services::listening::Service;
use tokio::sync::watch;

use super::StartError;

/// Sockets of another process, by address.
pub type Inherited = HashMap<SocketAddr, OwnedFd>;

/// Connections that may wait to be accepted, as far as the system lets them.
const BACKLOG: i32 = 65_535;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Whoever connects waits.
    Shut,
    /// Whoever connects is refused.
    Closed,
}

/// The sockets of one service.
pub struct Doorway {
    sockets: Mutex<Vec<(SocketAddr, TcpListener)>>,
    state: watch::Sender<State>,
    accepting: AtomicBool,
}

impl Doorway {
    /// Listens. What another process has given is used where it is for the same address.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub fn open<'a>(
        addresses: impl Iterator<Item = &'a SocketAddr>,
        inherited: &mut Inherited,
    ) -> Result<Arc<Self>, StartError> {
        let listen = |address: &SocketAddr| -> std::io::Result<(SocketAddr, TcpListener)> {
            let socket = match inherited.remove(address) {
                Some(socket) => socket.into(),
                None => TcpListener::bind(address)?,
            };
            socket.set_nonblocking(true)?;
            rustix::net::listen(&socket, BACKLOG)?;
            Ok((*address, socket))
        };
        let mut listen = listen;
        let sockets = addresses
            .map(|address| listen(address).map_err(|error| StartError::Listen { address: *address, error }))
            .collect::<Result<_, _>>()?;
        Ok(Arc::new(Self {
            sockets: Mutex::new(sockets),
            state: watch::Sender::new(State::Open),
            accepting: AtomicBool::new(false),
        }))
    }

    /// Copies of the sockets, for another process.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn copies(&self) -> std::io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let sockets = self.sockets.lock();
        sockets.iter().map(|(address, socket)| Ok((*address, socket.try_clone()?.into()))).collect()
    }

    /// Has whoever connects wait. It takes a moment: see [`Self::is_accepting`].
    pub fn shut(&self) {
        self.change(State::Shut);
    }

    /// Lets those in who wait.
    pub fn reopen(&self) {
        self.change(State::Open);
    }

    /// Has whoever connects refused, unless another process has the sockets.
    pub fn close(&self) {
        self.change(State::Closed);
        self.sockets.lock().clear();
    }

    fn change(&self, to: State) {
        self.state.send_if_modified(|state| *state != State::Closed && std::mem::replace(state, to) != to);
    }

    pub fn is_accepting(&self) -> bool {
        self.accepting.load(Ordering::Acquire)
    }

    /// Copies as Pingora takes them over.
    fn taken(&self) -> std::io::Result<ListenFds> {
        let mut taken = Fds::new();
        for (address, socket) in self.copies()? {
            taken.add(address.to_string(), socket.into_raw_fd());
        }
        Ok(Arc::new(Mutex::new(taken)))
    }
}

/// A service behind a doorway.
pub struct Served<A> {
    name: &'static str,
    app: Arc<A>,
    doorway: Arc<Doorway>,
    threads: usize,
}

impl<A: ServerApp + Send + Sync + 'static> Served<A> {
    pub fn new(name: &'static str, app: A, doorway: &Arc<Doorway>, threads: usize) -> Self {
        Self { name, app: Arc::new(app), doorway: doorway.clone(), threads }
    }

    fn service(&self) -> Service<Behind<A>> {
        let mut service = Service::new(self.name.to_owned(), Behind(self.app.clone()));
        for (address, _) in &*self.doorway.sockets.lock() {
            // Who reads has a buffer of its own; Pingora's would be 64 KiB for each connection.
            service.add_listener(ListenerConfig::tcp(address.to_string()).l4_buffer(L4BufferSettings::unbuffered()));
        }
        service
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServiceTrait for Served<A> {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, tasks: usize) {
        let mut state = self.doorway.state.subscribe();
        // Connections hear from these that nobody is accepted any more; they outlive their service.
        let mut stops = Vec::new();
        loop {
            let now = *state.borrow_and_update();
            if now == State::Open {
                let sockets = match self.doorway.taken() {
                    Ok(sockets) => sockets,
                    Err(error) => {
                        tracing::error!(%error, service = self.name, "nobody is accepted");
                        break;
                    }
                };
                let mut service = self.service();
                let (stop, stopped) = watch::channel(false);
                let mut serving = pin!(ServiceTrait::start_service(&mut service, Some(sockets), stopped, tasks));
                self.doorway.accepting.store(true, Ordering::Release);
                let changed = async {
                    // Nothing but an end or another state ends the wait.
                    let _ = state.wait_for(|state| *state != State::Open).await;
                };
                tokio::select! {
                    () = &mut serving => {}
                    () = changed => {
                        stop.send_replace(true);
                        serving.await;
                    }
                }
                self.doorway.accepting.store(false, Ordering::Release);
                stops.push(stop);
            } else if now == State::Closed || state.changed().await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}

/// The app of a service: it outlives each time the doorway is open.
struct Behind<A>(Arc<A>);

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Behind<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        self.0.process_new(stream, shutdown).await
    }
}
