//! One connection, from accept to its end.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use http::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::control::{ConnControl, Shared};
use super::detect::{Protocol, Replay, detect};
use super::framing::Guard;
use super::h1::{self, Next};
use super::h2::{Verdict, Watch, h2_builder};
use super::handler::Handler;
use super::slots::Slot;
use super::stall::Stall;
use super::tls::Tls;
use super::tracked::{TrackedBody, answer};
use super::{ConnFacts, Limits, TlsFacts};

/// A connection that was let in.
pub(super) struct Accepted<H> {
    pub(super) handler: Rc<H>,
    pub(super) limits: Limits,
    pub(super) facts: ConnFacts,
    pub(super) shared: Arc<Shared>,
    pub(super) slot: Slot,
}

impl<H: Handler> Accepted<H> {
    /// Serves a TCP connection.
    pub(super) async fn tcp(self, stream: TcpStream, tls: Option<Tls>) {
        match tls {
            // Boxed, like HTTP/2 below: a plain connection need not carry its size.
            Some(tls) => Box::pin(self.tls(stream, &tls)).await,
            None => self.plain(stream).await,
        }
    }

    /// Serves a connection of the Serve ingress, where only HTTP/1.1 is spoken.
    pub(super) async fn unix(self, stream: UnixStream) {
        self.http1(stream, BytesMut::new()).await;
    }

    async fn plain(self, mut stream: TcpStream) {
        match timeout(self.limits.first_byte, self.or_aborted(detect(&mut stream))).await {
            Ok(Some(Ok((Protocol::Http1, first)))) => self.http1(stream, first).await,
            Ok(Some(Ok((Protocol::Http2, first)))) => Box::pin(self.http2(Replay::new(first, stream))).await,
            Ok(Some(Ok((Protocol::Nothing, _)) | Err(_)) | None) | Err(_) => {}
        }
    }

    async fn tls(mut self, stream: TcpStream, tls: &Tls) {
        let acceptor = TlsAcceptor::from(tls.server_config());
        let handshake = self.or_aborted(acceptor.accept(stream));
        let stream = match timeout(self.limits.handshake, handshake).await {
            Ok(Some(Ok(stream))) => stream,
            Ok(Some(Err(error))) => {
                tracing::debug!(conn = self.facts.id, %error, "TLS handshake failed");
                return;
            }
            Ok(None) | Err(_) => return,
        };
        let session = stream.get_ref().1;
        let server_name = session.server_name().map(str::to_ascii_lowercase);
        let h2 = session.alpn_protocol() == Some(b"h2");
        self.facts.tls = Some(TlsFacts { server_name });
        if h2 { Box::pin(self.http2(stream)).await } else { self.http1(stream, BytesMut::new()).await }
    }

    /// `None` once the connection is to end before it was one.
    async fn or_aborted<F: Future>(&self, work: F) -> Option<F::Output> {
        let control = ConnControl(Arc::clone(&self.shared));
        tokio::select! {
            biased;
            done = work => Some(done),
            () = control.finishing() => None,
        }
    }

    async fn http1<T>(self, stream: T, first: BytesMut)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { handler, limits, facts, shared, slot } = self;
        let (id, bare) = (facts.id, facts.tls.is_none());
        let control = ConnControl(Arc::clone(&shared));
        let stream = Stall::new(stream, limits.write_stall, Arc::clone(&shared), slot);
        let mut guard = Guard::new(stream, first, Arc::clone(&shared), limits);
        let conn = Rc::new(handler.open(facts, control));
        match h1::serve(&mut guard, &handler, &conn, &shared, bare).await {
            Ok(Next::End) => {}
            // Boxed: a connection that never needs it need not carry its size.
            Ok(Next::Hyper(answered)) => {
                Box::pin(through_hyper(guard, answered, handler, conn, shared, limits, id)).await;
            }
            Err(error) => tracing::debug!(conn = id, %error, "connection ended early"),
        }
    }

    async fn http2<T>(self, stream: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let Self { handler, limits, facts, shared, slot } = self;
        let id = facts.id;
        let control = ConnControl(Arc::clone(&shared));
        let mut watch = Watch::new(Arc::clone(&shared), limits);
        let stream = Stall::new(stream, limits.write_stall, Arc::clone(&shared), slot);
        let conn = Rc::new(handler.open(facts, control.clone()));
        let service =
            service_fn(move |req| answer(Rc::clone(&handler), Rc::clone(&conn), Arc::clone(&shared), req));
        let mut serving = pin!(h2_builder(&limits).serve_connection(TokioIo::new(stream), service));
        let mut ending = false;
        let result = loop {
            tokio::select! {
                biased;
                result = serving.as_mut() => break result,
                () = control.finishing(), if !ending => {}
                () = control.aborted(), if ending => return,
                verdict = watch.next(ending) => match verdict {
                    Verdict::Fine => continue,
                    Verdict::End => {}
                    Verdict::Stalled => {
                        tracing::debug!(conn = id, "HTTP/2 client made no progress");
                        return;
                    }
                },
            }
            ending = true;
            serving.as_mut().graceful_shutdown();
        };
        if let Err(error) = result {
            tracing::debug!(conn = id, error = %Chain(&error), "connection ended early");
        }
    }
}

/// Serves the rest of a connection, with the answer to its next request if there is
/// one already.
async fn through_hyper<T, H>(
    guard: Guard<Stall<T>>,
    answered: Option<Response<TrackedBody>>,
    handler: Rc<H>,
    conn: Rc<H::Conn>,
    shared: Arc<Shared>,
    limits: Limits,
    id: u64,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let control = ConnControl(Arc::clone(&shared));
    let answered = Cell::new(answered);
    let service = service_fn(move |req| {
        let answered = answered.take();
        let (handler, conn, shared) = (Rc::clone(&handler), Rc::clone(&conn), Arc::clone(&shared));
        async move {
            match answered {
                Some(answered) => Ok(answered),
                None => answer(handler, conn, shared, req).await,
            }
        }
    });
    let mut builder = http1::Builder::new();
    // The guard keeps the clock, and heads are bounded there.
    builder.header_read_timeout(None).max_buf_size(limits.max_head_bytes.max(4096) * 2);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(guard), service).with_upgrades());
    let result = tokio::select! {
        biased;
        result = serving.as_mut() => result,
        () = control.finishing() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                () = control.aborted() => return,
                result = serving => result,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(conn = id, error = %Chain(&error), "connection ended early");
    }
}

/// An error and its causes, for one log line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
