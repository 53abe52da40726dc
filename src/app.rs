//! Builds every room from a checked configuration and runs them.
//!
//! One control thread: signals, the configuration file, the watcher, every child
//! process, listeners that come and go. One worker thread per core. A fault of
//! Tailscale's is reported and waited out; only a fault of ours, or of what the
//! operator asked for, ends the process.

pub mod certificate;

mod funnel;
mod https_listeners;
mod listen;
mod report;
pub(crate) mod serve_desk;
mod serve_doors;
pub(crate) mod serve_route;
mod tailnet_listeners;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use openclaw_tailscale::{ClientMode, LocateOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::authn::IdentityCache;
use crate::authz::pins::Pins;
use crate::certs::self_signed::SelfSignedError;
use crate::certs::{AskCert, NodeKeeper, node_file};
use crate::config::{
    AuthMode, Config, Env, Gateway, GatewayFlags, GeneratedToken, GeneratedTokenError, Loaded,
    TailscaleClient, load,
};
use crate::domain::{Exposure, TailnetState};
use crate::edge::{Edge, Settings, Shared};
use crate::funnel::Publication;
use crate::ingress::{BindError, Binder, Limits, TlsError, UnixError, Workers, default_workers, local_addrs};
use crate::limits::Limiter;
use crate::metrics::Counts;
use crate::readiness::{Fault, Readiness};
use crate::state_db::StateDb;
use crate::telemetry;
use crate::watch::{Finder, FoundSource, Fresh, Watcher, exposure_now};
use certificate::Certificate;
use funnel::Funnel;
use https_listeners::HttpsListeners;
use listen::Need;
use serve_doors::ServeDoors;
use serve_route::{Here, ServeRoute};
use tailnet_listeners::TailnetListeners;

/// How long requests may go on after the gateway was told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a start in mode none waits for Tailscale to say who reaches loopback.
const ASK_AT_START: Duration = Duration::from_secs(3);
/// How often the configuration files are looked at; a change takes effect within
/// two seconds (rulings 6).
const CONFIG_GLANCE: Duration = Duration::from_millis(500);
/// How often the end of the certificate is looked at.
const CERTIFICATE: Duration = Duration::from_secs(3600);
/// How often this host's own addresses are read.
const ADDRESSES: Duration = Duration::from_secs(15);

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A key asks for something this version does not do.
    #[error("{key} is not available in this version; {instead}")]
    Unavailable {
        /// The key.
        key: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// Mode none, and others than local processes reach loopback.
    #[error(
        "gateway.auth.mode is none, and Tailscale lets others reach this port: a Serve or TCP route leads to it, or \
         there is userspace networking; set a token: openclaw config set gateway.auth.mode token"
    )]
    ModeNoneExposed,
    /// No token could be generated.
    #[error(transparent)]
    Token(#[from] GeneratedTokenError),
    /// An address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The self-signed certificate cannot be used or made.
    #[error("gateway.tls.source is self: {0}")]
    SelfSigned(#[source] SelfSignedError),
    /// The Serve ingress cannot be made safely.
    #[error(transparent)]
    Unix(#[from] UnixError),
    /// A directory, thread or signal handler cannot be made.
    #[error("{what}")]
    System {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl StartError {
    /// Whether the configuration is to blame: exit 78, and a service manager need
    /// not try again.
    pub fn is_configuration(&self) -> bool {
        match self {
            // Another gateway has the socket, or the system is in trouble: it may pass.
            Self::Unix(UnixError::InUse { .. } | UnixError::Io { .. }) => false,
            Self::Unavailable { .. }
            | Self::ModeNoneExposed
            | Self::Tls(_)
            | Self::SelfSigned(_)
            | Self::Unix(_) => true,
            _ => false,
        }
    }
}

/// Runs the gateway until it is told to stop.
///
/// # Errors
///
/// Why it did not start. Once it runs, nothing ends it but a signal.
pub fn run(loaded: Loaded, flags: GatewayFlags, env: Env) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("the control thread's runtime cannot be made"))?;
    runtime.block_on(App::start(loaded, flags, env))
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> StartError {
    let what = what.into();
    move |source| StartError::System { what, source }
}

struct App {
    flags: GatewayFlags,
    env: Env,
    loaded: Loaded,
    token: Option<GeneratedToken>,
    shared: Arc<Shared>,
    workers: Workers,
    port: u16,
    certificate: Certificate,
    doors: ServeDoors,
}

impl App {
    async fn start(mut loaded: Loaded, flags: GatewayFlags, env: Env) -> Result<(), StartError> {
        let log_style = telemetry::init(&loaded.config.gateway.log, flags.verbose);
        for warning in &loaded.config.warnings {
            tracing::warn!("{warning}");
        }
        check_available(&loaded.config)?;
        let token = generate_token(&mut loaded)?;
        let config = loaded.config.clone();
        let gateway = &config.gateway;

        // Addresses first: a port that is taken is the likeliest fault.
        let run_dir = config.state_dir.join("run");
        crate::config::create_private_dirs(&run_dir)
            .map_err(system(format!("{} cannot be made", run_dir.display())))?;
        let count = default_workers();
        let binder = Binder::new(count, &run_dir);
        let bound = bind_fixed(&binder, gateway)?;
        let port = bound.port;
        let doors = ServeDoors::new(binder.clone());
        doors.know_port(port);
        let bound_doors = doors.bind(&config, &env)?;

        let state = Arc::new(ArcSwap::from_pointee(TailnetState::unknown()));
        let finder = Arc::new(Finder::new(locate_options(gateway)));
        // Found before the first connection: the Serve ingress asks it who connects.
        finder.look();
        // Before it is read: a change from here on is seen.
        let before = fingerprint(&loaded, certificate_files(gateway));
        let certificate = Certificate::open(&config, &finder).await?;
        let made = certificate.is_made();
        let seen = if made { fingerprint(&loaded, certificate_files(gateway)) } else { before };
        let tls = certificate.tls().cloned();
        let fresh = Arc::new(Fresh::default());
        let (tell, changed) = tokio::sync::watch::channel(0);
        let control = tokio::runtime::Handle::current();
        let source = Arc::new(FoundSource(finder.clone()));
        let state_db = Arc::new(open_state_db(&config));
        let (pins, readiness) = (open_pins(state_db.clone()), Arc::new(Readiness::new()));
        report::not_asked_yet(gateway, &readiness);
        let shared = Arc::new(Shared {
            limiter: Arc::new(Limiter::new(gateway.auth.rate_limit)),
            settings: ArcSwap::from_pointee(Settings::new(config.clone())),
            daemon: Box::new(finder.clone()),
            fresh: fresh.clone(),
            identities: IdentityCache::new(source, state.clone(), control),
            state: state.clone(),
            changed: changed.clone(),
            pins,
            funnel: ArcSwap::default(),
            readiness,
            https: Arc::default(),
            certificate: Arc::new(ArcSwapOption::new(certificate.in_use().map(Arc::new))),
            counts: Counts::default(),
            started: SystemTime::now(),
            own_addresses: ArcSwapOption::new(own_addresses().map(Arc::new)),
            our_uid: rustix::process::geteuid().as_raw(),
            log_style,
            draining: AtomicBool::new(false),
        });

        let mut funnel = Funnel::new(&config);
        // What has ended since the last run is struck before anything is served, and what
        // has not is wanted from the start.
        let public = funnel.look(&shared, &|_| Publication::Pending(None));
        certificate.look(&shared.readiness);

        let files = raise_file_limit();
        // A connection takes two, its own and its upstream's; some are for kept
        // connections, files and child processes.
        let connections = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(512) / 2 / count;
        // The kernel spreads a peer's connections over the workers, if not evenly.
        let defaults = Limits::default();
        let limits = Limits {
            max_connections: defaults.max_connections.min(connections.max(64)),
            max_unproven_per_peer: (defaults.max_unproven_per_peer / count).max(8),
            ..defaults
        };
        let workers = {
            let shared = shared.clone();
            Workers::start(count, limits, move |_| Edge::new(shared.clone(), limits))
                .map_err(system("the worker threads cannot be started"))?
        };
        let mut listening = Vec::new();
        for bound in bound.bound {
            listening.push(bound.addr());
            workers.add_tcp(bound, tls.as_ref());
        }
        if let Some(bound) = bound_doors {
            doors.open(bound, &workers, &state);
        }
        if gateway.auth.mode == AuthMode::None
            && exposure_now(&finder, &doors.interest().load(), ASK_AT_START).await == Some(Exposure::Yes)
        {
            // Learned later it is 503; now nothing has been served yet (rulings 1.5).
            return Err(StartError::ModeNoneExposed);
        }
        // Whoever asks at once is told what is wrong with it.
        certificate.look(&shared.readiness);
        report::ready(&listening);

        let watcher = Watcher::new(finder.clone(), state.clone(), doors.interest(), fresh, tell);
        // Only now, with the ingresses bound, is Serve pointed at them.
        let here = Here { doors: doors.doors(), attended: funnel.attended() };
        let route =
            ServeRoute::start(&config, here, finder.clone(), state_db, &public, state, changed.clone());
        tokio::spawn(watcher.run());
        let https = gateway.tls_tailscale_port.map(|https_port| {
            let state = shared.state.clone();
            let path = node_file(&config.state_dir);
            let (keeper, certificate) =
                NodeKeeper::new(ask_cert(&finder), state, shared.readiness.clone(), path);
            tokio::spawn(keeper.run(changed.clone()));
            HttpsListeners::new(
                https_port,
                binder.clone(),
                certificate,
                shared.https.clone(),
                shared.certificate.clone(),
            )
        });
        let tailnet = TailnetListeners::new(gateway.bind, port, binder, tls, https);
        let app = Self { flags, env, loaded, token, shared, workers, port, certificate, doors };
        app.serve(changed, tailnet, route, funnel, seen).await
    }

    /// The control loop.
    async fn serve(
        mut self,
        mut changed: tokio::sync::watch::Receiver<u64>,
        mut tailnet: TailnetListeners,
        mut route: ServeRoute,
        mut funnel: Funnel,
        mut seen: Fingerprint,
    ) -> Result<(), StartError> {
        let handler = |kind| signal(kind).map_err(system("a signal handler cannot be set"));
        let mut term = handler(SignalKind::terminate())?;
        let mut int = handler(SignalKind::interrupt())?;
        let mut hup = handler(SignalKind::hangup())?;
        let mut config_glance = interval(CONFIG_GLANCE);
        config_glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut addresses = interval(ADDRESSES);
        let mut retry = interval(Duration::from_secs(1));
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pins_glance = interval(Duration::from_secs(1));
        pins_glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut certificate = interval(CERTIFICATE);
        certificate.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut funnel_glance = interval(funnel::GLANCE);
        funnel_glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut banner = report::Banner::default();
        route.report(&self.shared.readiness);
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => {
                    seen = self.fingerprint();
                    seen = self.reload_from(seen);
                    self.follow(&mut tailnet, &mut banner);
                    self.open_or_close(&mut funnel, &route);
                }
                _ = config_glance.tick(), if self.loaded.config.gateway.reload => {
                    let now = self.fingerprint();
                    if now != seen {
                        seen = self.reload_from(now);
                        self.follow(&mut tailnet, &mut banner);
                        self.open_or_close(&mut funnel, &route);
                    }
                    if !self.workers.is_healthy() {
                        // Its listeners are deaf, and what it had open is looked after by
                        // nobody: a service manager starts us again.
                        tracing::error!("a worker ended by a fault of ours");
                        break;
                    }
                }
                _ = addresses.tick() => {
                    // The last good list stays where there is no new one.
                    if let Some(own) = own_addresses() {
                        self.shared.own_addresses.store(Some(Arc::new(own)));
                    }
                }
                _ = certificate.tick() => self.certificate.look(&self.shared.readiness),
                () = route.changed() => {
                    route.report(&self.shared.readiness);
                    self.open_or_close(&mut funnel, &route);
                }
                _ = funnel_glance.tick() => self.open_or_close(&mut funnel, &route),
                _ = pins_glance.tick() => self.shared.pins.refresh(),
                _ = retry.tick(), if tailnet.wants_retry() => self.follow(&mut tailnet, &mut banner),
                () = tailnet.certificate_changed() => self.follow(&mut tailnet, &mut banner),
                answer = changed.changed() => {
                    if answer.is_err() {
                        // The watcher never ends by itself; without it nothing
                        // about the tailnet is known any more.
                        tracing::error!("the watcher of Tailscale ended");
                        break;
                    }
                    self.follow(&mut tailnet, &mut banner);
                }
            }
        }
        tracing::info!("stopping");
        self.shared.draining.store(true, Ordering::Relaxed);
        // Before anything stops answering: nobody is sent to a closed door.
        route.stop(self.loaded.config.gateway.tailscale.reset_on_exit).await;
        let workers = self.workers;
        let drained = tokio::task::spawn_blocking(move || workers.drain(DRAIN)).await;
        if drained.is_err() {
            tracing::error!("the workers did not stop in order");
        }
        drop(self.token);
        Ok(())
    }

    /// Looks at what is to be open to the internet, and tells Serve.
    fn open_or_close(&self, funnel: &mut Funnel, route: &ServeRoute) {
        let public = funnel.look(&self.shared, &|port| route.publication(port));
        route.reconfigure(&self.loaded.config.gateway, &public);
    }

    /// Follows a change of the tailnet: listeners, readiness, the one banner.
    fn follow(&self, tailnet: &mut TailnetListeners, banner: &mut report::Banner) {
        let state = self.shared.state.load_full();
        tailnet.follow(&state, &self.workers, &self.shared.readiness);
        let settings = self.shared.settings.load();
        let gateway = &settings.config.gateway;
        banner.say(&state, gateway, &self.shared.readiness);
        if self.shared.pins.is_degraded() {
            let fault = Fault { detail: "user ids are pinned in memory only".into(), fix: None };
            self.shared.readiness.fail("state_not_writable", fault);
        }
    }

    /// What is looked at for changes: the configuration with its parts, and the
    /// certificate.
    fn fingerprint(&self) -> Fingerprint {
        let tls = self.certificate.tls().into_iter().flat_map(|tls| [&tls.files().cert, &tls.files().key]);
        fingerprint(&self.loaded, tls.map(PathBuf::as_path))
    }

    /// Reads the configuration again. Answers what was seen of the files before
    /// they were read, so that a change during it is not lost; unless the set of
    /// files is another one now.
    fn reload_from(&mut self, seen: Fingerprint) -> Fingerprint {
        let before = self.loaded.files.clone();
        self.reload();
        if self.loaded.files == before { seen } else { self.fingerprint() }
    }

    /// Puts a changed configuration in force, whole or not at all.
    fn reload(&mut self) {
        self.certificate.reload(&self.shared.readiness);
        let mut loaded = match load(&self.flags, &self.env) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(error = %error, "the changed configuration is refused; the old one stays in force");
                return;
            }
        };
        if self.loaded.path_existed() && !loaded.path_existed() {
            // An editor at work, or a mistake: the defaults are not what was meant.
            tracing::error!(path = %loaded.path.display(), "the configuration is gone; the old one stays in force");
            return;
        }
        if let Err(error) = check_available(&loaded.config) {
            tracing::error!(error = %error, "the changed configuration is refused; the old one stays in force");
            return;
        }
        if loaded.needs_token() && self.token.is_none() {
            match GeneratedToken::create(&loaded.config.state_dir) {
                Ok(token) => self.token = Some(token),
                Err(error) => {
                    tracing::error!(error = %error, "the changed configuration is refused; the old one stays in force");
                    return;
                }
            }
        }
        if let Some(token) = &self.token {
            loaded.install(token);
        }
        match self.doors.bind(&loaded.config, &self.env) {
            Ok(Some(bound)) => self.doors.open(bound, &self.workers, &self.shared.state),
            Ok(None) => {}
            Err(error) => {
                let error = telemetry::chain(&error);
                tracing::error!(error, "the changed configuration is refused; the old one stays in force");
                return;
            }
        }
        // Those of before were said.
        for warning in loaded.config.warnings.iter().filter(|new| !self.loaded.config.warnings.contains(new))
        {
            tracing::warn!("{warning}");
        }
        let (old, new) = (&self.loaded.config.gateway, &loaded.config.gateway);
        let tls_changed = old.tls.as_ref().map(|tls| (&tls.cert_path, &tls.key_path))
            != new.tls.as_ref().map(|tls| (&tls.cert_path, &tls.key_path))
            || old.tls_tailscale_port != new.tls_tailscale_port;
        let port_changed = new.port != 0 && new.port != self.port;
        let access = |gateway: &Gateway| {
            let tailscale = &gateway.tailscale;
            (tailscale.client, tailscale.bin.clone(), tailscale.socket.clone())
        };
        if port_changed || old.bind != new.bind || tls_changed || access(old) != access(new) {
            tracing::warn!(
                "a changed port, bind, certificate path or Tailscale client, program or socket takes effect after a restart"
            );
        }
        self.shared.limiter.configure(new.auth.rate_limit);
        self.shared.settings.store(Arc::new(Settings::new(loaded.config.clone())));
        self.loaded = loaded;
        tracing::info!(path = %self.loaded.path.display(), "the configuration was read again");
    }
}

/// What the configuration may say but this version does not do yet.
fn check_available(config: &Config) -> Result<(), StartError> {
    let gateway = &config.gateway;
    if !gateway.routes_by_port.is_empty() {
        let instead = "give the route a host or a path instead";
        return Err(StartError::Unavailable { key: "gateway.routes.*.listen", instead });
    }
    Ok(())
}

fn generate_token(loaded: &mut Loaded) -> Result<Option<GeneratedToken>, StartError> {
    if !loaded.needs_token() {
        return Ok(None);
    }
    let token = GeneratedToken::create(&loaded.config.state_dir)?;
    loaded.install(&token);
    tracing::info!(path = %token.path().display(), "no token is configured; one was generated for this run");
    Ok(Some(token))
}

fn bind_fixed(
    binder: &Binder,
    gateway: &crate::config::Gateway,
) -> Result<crate::ingress::BoundSet, StartError> {
    let wanted = listen::fixed(gateway.bind, gateway.port, listen::in_container());
    let ips: Vec<IpAddr> = wanted.iter().map(|wanted| wanted.addr.ip()).collect();
    let mut set = binder.bind_all(&ips, gateway.port)?;
    for error in set.absent.drain(..) {
        let required = wanted.iter().any(|wanted| {
            wanted.need == Need::Required
                && matches!(&error, BindError::Absent { addr } if addr.ip() == wanted.addr.ip())
        });
        if required {
            return Err(error.into());
        }
        tracing::warn!(error = %error, "not listening there");
    }
    Ok(set)
}

/// Lets this process open as many files as it may, and says how many.
fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => before.unwrap_or(u64::MAX),
    }
}

/// What is looked at for changes.
fn fingerprint<'a>(loaded: &'a Loaded, certificate: impl Iterator<Item = &'a Path>) -> Fingerprint {
    let files = loaded.files.iter().map(PathBuf::as_path);
    Fingerprint::of(std::iter::once(loaded.path.as_path()).chain(files).chain(certificate))
}

fn certificate_files(gateway: &Gateway) -> impl Iterator<Item = &Path> {
    gateway.tls.iter().flat_map(|files| [files.cert_path.as_path(), files.key_path.as_path()])
}

/// Asks whatever Tailscale there is by then.
fn ask_cert(finder: &Arc<Finder>) -> AskCert {
    let finder = finder.clone();
    Box::new(move |name, min_validity| {
        let finder = finder.clone();
        Box::pin(async move { FoundSource(finder).found()?.cert(&name, min_validity).await })
    })
}

/// How Tailscale is found, as configured.
pub fn locate_options(gateway: &Gateway) -> LocateOptions {
    LocateOptions {
        bin: gateway.tailscale.bin.clone(),
        socket: gateway.tailscale.socket.clone(),
        client: client_mode(gateway.tailscale.client),
        ..LocateOptions::default()
    }
}

fn client_mode(client: TailscaleClient) -> ClientMode {
    match client {
        TailscaleClient::Auto => ClientMode::Auto,
        TailscaleClient::Cli => ClientMode::Cli,
        TailscaleClient::LocalApi => ClientMode::LocalApi,
    }
}

/// This host's own addresses.
fn own_addresses() -> Option<Vec<IpAddr>> {
    match local_addrs() {
        Ok(addresses) => Some(addresses.into_iter().collect()),
        Err(error) => {
            tracing::warn!(error = %error, "this host's own addresses cannot be read");
            None
        }
    }
}

fn open_state_db(config: &Config) -> Option<StateDb> {
    match StateDb::open(&config.state_dir) {
        Ok(db) => Some(db),
        Err(error) => {
            tracing::error!(error = %error, "the state database cannot be used; user ids are pinned in memory only");
            None
        }
    }
}

fn open_pins(db: Arc<Option<StateDb>>) -> Pins {
    let remembered = Option::as_ref(&db).map_or_else(Vec::new, |db| {
        db.pins().unwrap_or_else(|error| {
            tracing::error!(error, "the pinned user ids cannot be read");
            Vec::new()
        })
    });
    Pins::new(db, remembered)
}

/// What a set of files looks like from outside: enough to notice a change, a
/// rename into place included.
#[derive(PartialEq, Eq)]
struct Fingerprint(Vec<Option<Stamp>>);

/// Device, inode, modification time (seconds and nanoseconds) and size.
type Stamp = (u64, u64, i64, i64, u64);

impl Fingerprint {
    fn of<'a>(files: impl Iterator<Item = &'a Path>) -> Self {
        use std::os::unix::fs::MetadataExt;
        let one = |path: &Path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()))
        };
        Self(files.map(one).collect())
    }
}
