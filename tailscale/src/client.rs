//! The calls, each a command, an answer and a parse.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::command::{Command, socket_flag};
use crate::daemon::{DEFAULT_SOCKET, DaemonProcess, process_behind, process_behind_now};
use crate::localapi::{self, Change, Failure, Question, Reply, Stream};
use crate::runner::edit::run_edit;
use crate::runner::{Call, run};
use crate::serve_edit::{self, EDIT_TIMEOUT};
use crate::{
    CertPair, ETag, EditError, Error, Limits, LocateError, LocateOptions, Located, Mount, NodeName, Prefs,
    ServeConfig, ServeDocument, ServeSession, Status, Tie, VersionInfo, Whois, WhoisScope, cert, json,
    parse_prefs, parse_serve_config, parse_status, parse_version, parse_whois,
};

/// The Tailscale of this machine: its LocalAPI, its command line, or both
/// ([`ClientMode`]). Cheap to clone.
///
/// Each call is one connection or one process, bounded by [`Limits`]; how many run at
/// once is for the caller to limit. Dropping a call's future closes the connection
/// and kills the process.
///
/// Where both are used the LocalAPI is asked first, and the command line when nothing
/// could be connected to. Once connected, what comes of it is the answer: "not found"
/// and "denied" are, and a socket that is not to be believed, a daemon that hangs or
/// breaks off is an error. The command line would ask the same daemon again.
///
/// [`ClientMode`]: crate::ClientMode
#[derive(Debug, Clone)]
pub struct Tailscale {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None where the LocalAPI alone is used and there is no binary.
    program: Option<PathBuf>,
    socket: Option<PathBuf>,
    limits: Limits,
    local: LocalUse,
    /// Whether the last answer came from the LocalAPI.
    local_answers: AtomicBool,
}

/// Whether the LocalAPI is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalUse {
    Never,
    First,
    Only,
}

impl Tailscale {
    /// Finds the binary, once: the configured path, else the first trustworthy one of
    /// `PATH` (absolute entries only) and the known locations.
    ///
    /// Trustworthy is a file that, like every directory above it, belongs to root or
    /// to us and cannot be written by group or others. What falls short of that is
    /// used with a warning, and refused when we run as root (threat rule 96).
    ///
    /// # Errors
    /// When there is none, or only one that must not be run.
    pub fn locate(options: LocateOptions) -> Result<Located, LocateError> {
        crate::locate::locate(options)
    }

    pub(crate) fn new(
        program: Option<PathBuf>,
        socket: Option<PathBuf>,
        limits: Limits,
        local: LocalUse,
    ) -> Self {
        let local_answers = AtomicBool::new(false);
        Self { inner: Arc::new(Inner { program, socket, limits, local, local_answers }) }
    }

    /// The absolute path of the binary. `None` where the LocalAPI alone is asked and no
    /// binary was found.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.inner.program.as_deref()
    }

    /// Whether the last call that the LocalAPI could take was answered by it, whatever
    /// the answer. Asking is then cheap.
    #[must_use]
    pub fn local_api_answers(&self) -> bool {
        self.inner.local_answers.load(Ordering::Relaxed)
    }

    /// The LocalAPI socket: the configured one, else the platform's default.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.inner.socket.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
    }

    /// The state of this node: `status --json --peers=false`, or GET `status`. Answers in every backend
    /// state.
    ///
    /// # Errors
    /// When the daemon is down, or as [`parse_status`] says.
    pub async fn status(&self) -> Result<Status, Error> {
        parse_status(&self.ask(Command::Status).await?)
    }

    /// Who is behind a tailnet address: `whois --json IP`. IPv4-mapped addresses are
    /// un-mapped first.
    ///
    /// An answer about a node that does not own the address is refused.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nobody is; see there. Otherwise as [`parse_whois`] says.
    pub async fn whois(&self, ip: IpAddr) -> Result<Whois, Error> {
        let ip = ip.to_canonical();
        // The daemon has no such peers; asking costs a process for each.
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(bad_address("it names no single host"));
        }
        owned(parse_whois(&self.ask(Command::Whois(ip)).await?)?, ip)
    }

    /// The same, with the capabilities that the peer has at a Service or at one address
    /// of this node. [`Self::whois`] has those at the node's first address, whichever
    /// was connected to. At the socket only; needs 1.100.
    ///
    /// # Errors
    /// [`Error::LocalApiOnly`] where the socket is not used. [`Error::TooOld`] where the
    /// daemon ignores the scope or does not say its version: its answer would hold the
    /// wrong capabilities. Otherwise as [`Self::whois`].
    pub async fn whois_scoped(&self, ip: IpAddr, scope: WhoisScope<'_>) -> Result<Whois, Error> {
        const COMMAND: &str = "whois";
        let ip = ip.to_canonical();
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(bad_address("it names no single host"));
        }
        let reply = self.local(COMMAND, &scope.target(ip), None).await?;
        if !reply.version.is_some_and(|version| version.at_least(1, 100, 0)) {
            return Err(Error::TooOld { command: COMMAND, needs: "1.100" });
        }
        owned(parse_whois(&reply.body)?, ip)
    }

    /// Which peer opened a connection that reaches us from loopback, in userspace
    /// networking: `whois --json --proto tcp IP:PORT` with the connection's remote
    /// address. Only while that connection lives. A miss costs the daemon 180 ms under
    /// its main lock: ask only for sockets that tailscaled owns, a few at a time.
    ///
    /// # Errors
    /// [`Error::NotFound`] when no peer did. Otherwise as [`parse_whois`] says.
    pub async fn whois_tcp(&self, addr: SocketAddr) -> Result<Whois, Error> {
        if addr.port() == 0 {
            return Err(bad_address("port 0 belongs to no connection"));
        }
        if !addr.ip().to_canonical().is_loopback() {
            return Err(bad_address("only loopback addresses are asked about with a port"));
        }
        parse_whois(&self.ask(Command::WhoisTcp(addr)).await?)
    }

    /// This node's addresses: `ip`. Not a test for being connected: it answers while
    /// stopped.
    ///
    /// # Errors
    /// [`Error::LoggedOut`] or [`Error::NotReady`] when there are none.
    pub async fn ip(&self) -> Result<Vec<IpAddr>, Error> {
        parse_ip(&self.run(Command::Ip).await?)
    }

    /// The version of the command line: `version --json`. Needs no daemon.
    ///
    /// # Errors
    /// As [`parse_version`] says.
    pub async fn version(&self) -> Result<VersionInfo, Error> {
        parse_version(&self.run(Command::Version).await?)
    }

    /// What Serve and Funnel publish: `serve status --json`, or GET `serve-config`. Logged out, that is
    /// nothing.
    ///
    /// # Errors
    /// When the daemon is down, or as [`parse_serve_config`] says.
    pub async fn serve_status(&self) -> Result<ServeConfig, Error> {
        parse_serve_config(&self.ask(Command::ServeStatus).await?)
    }

    /// The same with its version, where the LocalAPI said it; the command line does
    /// not.
    ///
    /// # Errors
    /// As [`Self::serve_status`].
    pub async fn serve_status_tagged(&self) -> Result<(ServeConfig, Option<ETag>), Error> {
        let reply = self.reply(Command::ServeStatus).await?;
        Ok((parse_serve_config(&reply.body)?, reply.etag))
    }

    /// The node's preferences: `debug prefs`, or GET `prefs`.
    ///
    /// # Errors
    /// When the daemon is down, or as [`parse_prefs`] says.
    pub async fn prefs(&self) -> Result<Prefs, Error> {
        parse_prefs(&self.ask(Command::Prefs).await?)
    }

    /// The certificate of this node's name, and its key: GET `cert/DOMAIN`, or
    /// `cert --cert-file=- --key-file=- DOMAIN`. The daemon keeps it and gives out what
    /// it has; asked for one that is valid for at least `min_validity` it has a new one
    /// made if need be. May take [`Limits::cert_timeout`]: run it beside everything
    /// else.
    ///
    /// # Errors
    /// [`Error::HttpsDisabled`], [`Error::NotCertDomain`], [`Error::RateLimited`];
    /// [`Error::Denied`] where we are neither root, the operator nor the user that the
    /// daemon's `TS_PERMIT_CERT_UID` names; [`Error::WrongShape`] when what came is no
    /// key and certificate.
    pub async fn cert(&self, domain: &NodeName, min_validity: Option<Duration>) -> Result<CertPair, Error> {
        let asked = self.ask(Command::Cert(domain, min_validity)).await;
        let bytes = asked.map(Zeroizing::new).map_err(|error| cert::refine(error, domain))?;
        cert::parse(&bytes)
    }

    /// The Serve configuration as a document to change, and its version: GET
    /// `serve-config`. At the socket only.
    ///
    /// # Errors
    /// [`Error::LocalApiOnly`] where the socket is not used, [`Error::WrongShape`] where
    /// it has no version, and as [`ServeDocument::parse`] says.
    pub async fn serve_document(&self) -> Result<(ServeDocument, ETag), Error> {
        const COMMAND: &str = "serve-config";
        let reply = self.local(COMMAND, "/localapi/v0/serve-config", None).await?;
        let tag = reply.etag.ok_or_else(|| Error::wrong_shape(COMMAND, "Etag", "the answer has none"))?;
        Ok((ServeDocument::parse(&reply.body)?, tag))
    }

    /// Puts a Serve configuration in the place of the version `of`, the whole of it:
    /// POST `serve-config` with `If-Match`. At the socket only. tailscaled judges all of
    /// it, and forgets what it does not know.
    ///
    /// # Errors
    /// [`EditError::Raced`] when it is another version by now. [`EditError::Denied`] for
    /// who is neither root nor the operator; [`EditError::NotAdmin`] when it has a unix
    /// socket or a path in it, ours or not, and we are no local administrator.
    /// [`EditError::Invalid`], [`EditError::PortTaken`] and others for what tailscaled
    /// does not accept.
    pub async fn set_serve_document(&self, document: &ServeDocument, of: &ETag) -> Result<(), EditError> {
        let json = document.to_json();
        let change = Change { of, document: &json };
        let answer = self.local("serve-config", "/localapi/v0/serve-config", Some(change)).await;
        answer.map(drop).map_err(serve_edit::refused)
    }

    /// The pid and uid of the daemon: who listens on [`Self::socket_path`]. Connects and
    /// sends nothing, so it also tells at once that a daemon is gone.
    ///
    /// # Errors
    /// [`Error::DaemonDown`] when nobody listens there.
    pub async fn daemon_process(&self) -> Result<DaemonProcess, Error> {
        process_behind(&self.socket_path()).await
    }

    /// The same, at once or not at all. For whoever decides about a connection
    /// while it is being accepted; needs a tokio runtime around it.
    ///
    /// # Errors
    /// When nobody takes a connection at the socket right now.
    pub fn daemon_process_now(&self) -> Result<DaemonProcess, Error> {
        process_behind_now(&self.socket_path())
    }

    /// Publishes a mount in the background: `serve --bg`, or `funnel --bg`. At most 20 s.
    /// Success proves nothing: read [`Self::serve_status`] again. The command does not
    /// outlive us, so it cannot take effect when nobody is left to notice.
    ///
    /// # Errors
    /// As [`EditError`] says. [`Error::NotInstalled`] where there is no program.
    pub async fn serve_publish(&self, mount: &Mount, tie: &Tie) -> Result<(), EditError> {
        self.edit(mount.publish_args(true)?, tie).await
    }

    /// Takes a background mount away, and nothing else: `serve --set-path=… off`.
    ///
    /// The program knows the sites of the node's name of now only, and takes the port's
    /// listener with the last mount of the site.
    ///
    /// # Errors
    /// As [`Self::serve_publish`]; [`EditError::NoSuchMount`] where there is none.
    pub async fn serve_off(&self, mount: &Mount, tie: &Tie) -> Result<(), EditError> {
        self.edit(mount.off_args()?, tie).await
    }

    /// Publishes a mount for as long as the returned session lives, with the program. It
    /// has begun when [`Self::serve_status`] shows it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub async fn serve_session(&self, mount: &Mount, tie: &Tie) -> Result<ServeSession, EditError> {
        let (program, args) = self.command_line(mount.publish_args(false)?)?;
        let limits = self.edit_limits();
        ServeSession::start(Call { name: "serve", program, args: &args, limits: &limits }, tie).await
    }

    async fn edit(&self, args: Vec<OsString>, tie: &Tie) -> Result<(), EditError> {
        let (program, args) = self.command_line(args)?;
        let limits = self.edit_limits();
        run_edit(Call { name: "serve", program, args: &args, limits: &limits }, tie).await
    }

    fn edit_limits(&self) -> Limits {
        let limits = self.inner.limits;
        Limits { timeout: EDIT_TIMEOUT.max(limits.timeout), ..limits }
    }

    /// The program and its arguments, the socket named first.
    fn command_line(&self, rest: Vec<OsString>) -> Result<(&Path, Vec<OsString>), Error> {
        let Inner { program, socket, .. } = &*self.inner;
        let program =
            program.as_deref().ok_or_else(|| Error::NotInstalled { path: PathBuf::from("tailscale") })?;
        let args = socket.as_deref().map(socket_flag).into_iter().chain(rest).collect();
        Ok((program, args))
    }

    /// The answer's bytes, from whom the mode says.
    async fn ask(&self, command: Command<'_>) -> Result<Vec<u8>, Error> {
        Ok(self.reply(command).await?.body)
    }

    async fn reply(&self, command: Command<'_>) -> Result<Reply, Error> {
        let Inner { local, local_answers, .. } = &*self.inner;
        if let Some(target) = command.target().filter(|_| *local != LocalUse::Never) {
            let socket = self.socket_path();
            let question =
                Question { command: command.name(), socket: &socket, target: &target, change: None };
            let got = localapi::ask(question, &self.limits(command)).await;
            local_answers.store(matches!(got, Ok(_) | Err(Failure::Answered(_))), Ordering::Relaxed);
            match got {
                Ok(reply) => return Ok(reply),
                Err(Failure::NotConnected(error)) if *local == LocalUse::First => {
                    tracing::debug!(command = command.name(), error = %error, "no LocalAPI, asking tailscale");
                }
                Err(Failure::NotConnected(error) | Failure::Lost(error) | Failure::Answered(error)) => {
                    return Err(error);
                }
            }
        }
        Ok(Reply { body: self.run(command).await?, etag: None, version: None })
    }

    /// The answer of the LocalAPI to what the command line does not offer.
    async fn local(
        &self,
        command: &'static str,
        target: &str,
        change: Option<Change<'_>>,
    ) -> Result<Reply, Error> {
        let socket = self.local_socket(command)?;
        let asked =
            localapi::ask(Question { command, socket: &socket, target, change }, &self.inner.limits).await;
        asked.map_err(Failure::into_error)
    }

    /// What the LocalAPI tells until the stream is dropped.
    pub(crate) async fn open(&self, command: &'static str, target: &str) -> Result<Stream, Error> {
        let socket = self.local_socket(command)?;
        let question = Question { command, socket: &socket, target, change: None };
        localapi::open(question, &self.inner.limits).await.map_err(Failure::into_error)
    }

    fn local_socket(&self, command: &'static str) -> Result<PathBuf, Error> {
        match self.inner.local {
            LocalUse::Never => Err(Error::LocalApiOnly { command }),
            LocalUse::First | LocalUse::Only => Ok(self.socket_path()),
        }
    }

    /// How long a call may take.
    pub(crate) fn time_limit(&self) -> Duration {
        self.inner.limits.timeout
    }

    async fn run(&self, command: Command<'_>) -> Result<Vec<u8>, Error> {
        let Inner { program, socket, .. } = &*self.inner;
        let Some(program) = program else {
            return Err(Error::NotInstalled { path: PathBuf::from("tailscale") });
        };
        let args = command.args(socket.as_deref());
        run(Call { name: command.name(), program, args: &args, limits: &self.limits(command) }).await
    }

    /// What this call may take.
    fn limits(&self, command: Command<'_>) -> Limits {
        let limits = self.inner.limits;
        match command {
            Command::Cert(..) => Limits { timeout: limits.cert_timeout, ..limits },
            _ => limits,
        }
    }
}

/// An answer about a node that does not own the address is none.
fn owned(whois: Whois, ip: IpAddr) -> Result<Whois, Error> {
    if !whois.node.owns(ip) {
        let detail = format!("{ip} was asked about and is not among them");
        return Err(Error::wrong_shape("whois", "Node.Addresses", detail));
    }
    Ok(whois)
}

fn bad_address(detail: &str) -> Error {
    Error::BadArgument { command: "whois", detail: detail.to_owned() }
}

/// One address a line.
fn parse_ip(bytes: &[u8]) -> Result<Vec<IpAddr>, Error> {
    const COMMAND: &str = "ip";
    let lines = json::text(COMMAND, bytes)?.lines().map(str::trim).filter(|line| !line.is_empty());
    let addresses = lines.map(|line| {
        line.parse().map_err(|_| Error::Garbage {
            command: COMMAND,
            detail: format!("`{}` is no address", crate::text::printable(line.as_bytes(), 80)),
        })
    });
    addresses.collect()
}

/// The future of a [`WhoisSource`].
pub type WhoisFuture<'a> = Pin<Box<dyn Future<Output = Result<Whois, Error>> + Send + 'a>>;

/// Something that knows who is behind an address: Tailscale, or a test's table. Usable as `Arc<dyn WhoisSource>`.
pub trait WhoisSource: Send + Sync + 'static {
    /// As [`Tailscale::whois`].
    fn whois(&self, ip: IpAddr) -> WhoisFuture<'_>;

    /// As [`Tailscale::whois_tcp`].
    fn whois_tcp(&self, addr: SocketAddr) -> WhoisFuture<'_>;

    /// As [`Tailscale::whois_scoped`], at one of this node's addresses.
    fn whois_at(&self, ip: IpAddr, to: IpAddr) -> WhoisFuture<'_>;
}

impl WhoisSource for Tailscale {
    fn whois(&self, ip: IpAddr) -> WhoisFuture<'_> {
        Box::pin(Self::whois(self, ip))
    }

    fn whois_tcp(&self, addr: SocketAddr) -> WhoisFuture<'_> {
        Box::pin(Self::whois_tcp(self, addr))
    }

    fn whois_at(&self, ip: IpAddr, to: IpAddr) -> WhoisFuture<'_> {
        Box::pin(self.whois_scoped(ip, WhoisScope::Destination(to)))
    }
}

#[cfg(test)]
mod tests;
