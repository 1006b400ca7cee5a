//! gRPC's unary calls over a Unix socket: a request and an answer in HTTP/2
//! (grpc/doc/PROTOCOL-HTTP2.md).

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::ResponseFuture;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::net::UnixStream;

/// A pod is made in a tenth of a second; a machine that is busy with a hundred needs longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a gRPC server listens. A call has a connection of its own, so that threads need not
/// share one.
#[derive(Debug)]
pub struct Client(PathBuf);

impl Client {
    /// One for this socket, which need not be there yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self(socket.to_owned())
    }

    /// Calls `runtime.v1.SERVICE/METHOD`, such as `RuntimeService/Version`.
    pub fn call<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<A, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let answer = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, self.exchange(method, request))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
        });
        let answer = answer.map_err(|error| format!("{method}: {error}"))?;
        A::decode(answer).map_err(|error| format!("{method}: {error}"))
    }

    async fn exchange(&self, method: &str, request: &impl Message) -> Result<Bytes, String> {
        let text = |error: h2::Error| error.to_string();
        let stream = UnixStream::connect(&self.0)
            .await
            .map_err(|error| format!("{}: {error}", self.0.display()))?;
        let (client, connection) = h2::client::handshake(stream).await.map_err(text)?;
        // Ends with the runtime.
        tokio::spawn(connection);
        let mut client = client.ready().await.map_err(text)?;
        let head = Request::post(format!("http://localhost/runtime.v1.{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| error.to_string())?;
        let (response, mut body) = client.send_request(head, false).map_err(text)?;
        body.send_data(framed(request)?, true).map_err(text)?;
        received(response).await
    }
}

/// A message as gRPC puts it on the wire: not compressed, its length, itself.
fn framed(message: &impl Message) -> Result<Bytes, String> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).map_err(|error| error.to_string())?);
    message.encode(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes.freeze())
}

async fn received(response: ResponseFuture) -> Result<Bytes, String> {
    let text = |error: h2::Error| error.to_string();
    let (head, mut body) = response.await.map_err(text)?.into_parts();
    if head.headers.contains_key("grpc-status") {
        succeeded(&head.headers)?;
    }
    let mut bytes = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(text)?;
        body.flow_control().release_capacity(data.len()).map_err(text)?;
        bytes.extend_from_slice(&data);
    }
    succeeded(&body.trailers().await.map_err(text)?.unwrap_or_default())?;
    if bytes.len() < 5 {
        return Err(format!("an answer of {} bytes", bytes.len()));
    }
    Ok(bytes.split_off(5).freeze())
}

fn succeeded(headers: &HeaderMap) -> Result<(), String> {
    let value = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    match value("grpc-status").as_deref() {
        Some("0") => Ok(()),
        Some(code) => Err(format!("gRPC {code}: {}", value("grpc-message").unwrap_or_default())),
        None => Err("no grpc-status".to_owned()),
    }
}
