//! One request and its answer on a connected socket.

use std::io;
use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::text::printable;
use crate::{Error, Limits};

/// The only name that tailscaled answers to: a page in a browser cannot send it.
const HOST: &str = "local-tailscaled.sock";

/// A head of more than this is no daemon's.
const MAX_HEAD: usize = 64 << 10;

/// What came back, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Whether it bears the header that tailscaled puts on everything it answers.
    pub(super) from_tailscaled: bool,
    pub(super) etag: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Sends a GET and reads the whole answer. Dropping the future closes the socket.
pub(super) async fn get(
    command: &'static str,
    socket: &Path,
    stream: UnixStream,
    target: &str,
    limits: &Limits,
) -> Result<Answer, Error> {
    let broken = |error: hyper::Error| broken(command, socket, &error);
    let request = Request::get(target)
        .header(header::HOST, HOST)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| Error::BadArgument { command, detail: error.to_string() })?;
    let mut builder = http1::Builder::new();
    let (mut sender, connection) =
        builder.max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        read(command, socket, response, limits).await
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What it has read before it ended is still to be had; so is what ended it.
        _ = &mut connection => exchange.await,
    }
}

async fn read(
    command: &'static str,
    socket: &Path,
    response: Response<Incoming>,
    limits: &Limits,
) -> Result<Answer, Error> {
    let status = response.status().as_u16();
    let limit = if status == 200 { limits.stdout_bytes } else { limits.stderr_bytes };
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let (from_tailscaled, etag) = (header("tailscale-version").is_some(), header("etag").map(str::to_owned));
    let mut incoming = response.into_body();
    let announced = incoming.size_hint().lower();
    if announced > limit as u64 {
        return Err(Error::TooLarge { command, limit });
    }
    // At once: growing would leave copies behind, and it may be a key.
    let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| broken(command, socket, &error))?;
        let Some(data) = frame.data_ref() else { continue };
        if body.len() + data.len() > limit {
            return Err(Error::TooLarge { command, limit });
        }
        body.extend_from_slice(data);
    }
    Ok(Answer { status, from_tailscaled, etag, body })
}

fn broken(command: &'static str, socket: &Path, error: &hyper::Error) -> Error {
    if error.is_parse() {
        let detail = printable(format!("its answer is no HTTP: {error}").as_bytes(), 200);
        return Error::Garbage { command, detail };
    }
    let source = io::Error::new(io::ErrorKind::UnexpectedEof, error.to_string());
    Error::Socket { path: socket.to_owned(), source: Arc::new(source) }
}
