//! Metrics and health over plain HTTP, for whoever runs the server.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::context::{Context, Phase};
use crate::inbox::RegistrarInput;
use crate::metrics::Held;

/// Connections at once. Further ones wait in the system's queue.
const CONNECTIONS: usize = 16;
/// How long a connection may last. A scrape takes milliseconds.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The least that hyper reads into.
const BUFFER_BYTES: usize = 8 * 1024;
/// How long the registrar and the names may take to answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// Answers until it is dropped.
pub(crate) async fn answer(listener: TcpListener, context: Arc<Context>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((tcp, _)) => {
                let context = Arc::clone(&context);
                connections.spawn(async move {
                    serve(tcp, &context).await;
                    drop(permit);
                });
            }
            Err(error) => {
                context.log.accept_failed(&error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(tcp: TcpStream, context: &Context) {
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(respond(context, request.method(), request.uri().path()).await)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(tcp), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("an admin connection ended: {error}"),
        Err(_) => debug!("an admin connection lasted too long"),
    }
}

async fn respond(context: &Context, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (method, path) {
        (&Method::GET, "/metrics") => {
            let text = context.metrics.text(held(context));
            (StatusCode::OK, METRICS_TYPE, text)
        }
        (&Method::GET, "/healthz") => match ill(context).await {
            None => (StatusCode::OK, TEXT_TYPE, "ok\n".to_owned()),
            Some(why) => (
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT_TYPE,
                format!("{why}\n"),
            ),
        },
        _ => {
            let text = "GET /metrics or /healthz\n".to_owned();
            (StatusCode::NOT_FOUND, TEXT_TYPE, text)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn held(context: &Context) -> Held {
    let inbox = &context.registrar;
    Held {
        relay_pairs: context.relay.open_pairs(),
        relayed_bytes: context.relay.carried_bytes.load(Ordering::Relaxed),
        waiting_inputs: (inbox.max_capacity() - inbox.capacity()) as u64,
        ..context.admission.held()
    }
}

/// What keeps the server from working, as a sentence.
async fn ill(context: &Context) -> Option<&'static str> {
    if *context.phase.borrow() > Phase::Serving {
        return Some("the server is shutting down");
    }
    let (reply, healthy) = oneshot::channel();
    let asked = async {
        let asked = context.registrar.send(RegistrarInput::Health { reply });
        asked.await.ok()?;
        healthy.await.ok()
    };
    match timeout(HEALTH_TIMEOUT, asked).await {
        Ok(Some(true)) => None,
        Ok(Some(false)) => Some("the names cannot be read; the log says why"),
        Ok(None) => Some("the registrar or the thread of the names has ended"),
        Err(_) => Some("the registrar or the names do not answer"),
    }
}
