//! A webhook on loopback that misbehaves, and a client for it. Only as much of
//! HTTP/1.1 (RFC 9112) as these two need.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// One request as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn event(&self) -> Body {
        serde_json::from_slice(&self.body).expect("a body")
    }
}

/// A webhook whose port is taken, but which does not listen yet.
pub(super) struct Server {
    socket: TcpSocket,
    pub(super) url: String,
}

/// One that listens.
pub(super) struct Listening {
    pub(super) got: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let url = format!("http://{}/hook", socket.local_addr().expect("bound"));
        Self { socket, url }
    }

    /// Answers each request as `answer` says.
    pub(super) fn listen(self, mut answer: impl FnMut() -> Answer + Send + 'static) -> Listening {
        let listener = self.socket.listen(16).expect("listening");
        let got = Arc::<Mutex<Vec<Request>>>::default();
        let requests = Arc::clone(&got);
        let task = tokio::spawn(async move {
            // One connection after another: the notifier has one request at a time.
            while let Ok((stream, _)) = listener.accept().await {
                // A client that goes away is no error.
                let _ = serve(stream, answer(), &requests).await;
            }
        });
        Listening { got, task }
    }
}

impl Listening {
    pub(super) fn requests(&self) -> Vec<Request> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(
    stream: TcpStream,
    answer: Answer,
    got: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    if matches!(answer, Answer::Lost) {
        return reset(&stream);
    }
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    if line.is_empty() {
        // The client ended before it began.
        return Ok(());
    }
    assert_eq!(line, "POST /hook HTTP/1.1\r\n");
    let headers = headers(&mut stream).await?;
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    got.lock().unwrap_or_else(PoisonError::into_inner).push(Request { headers, body });
    let (status, after) = match answer {
        Answer::Status(status) => (status, String::new()),
        Answer::Later(status, after) => (status, format!("Retry-After: {}\r\n", after.as_secs())),
        Answer::Lost | Answer::LostAfter => return reset(stream.get_ref()),
        Answer::Never => std::future::pending().await,
    };
    let head = format!("HTTP/1.1 {status} x\r\n{after}Content-Length: 0\r\n\r\n");
    stream.get_mut().write_all(head.as_bytes()).await
}

fn reset(stream: &TcpStream) -> std::io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

async fn headers(stream: &mut BufReader<TcpStream>) -> std::io::Result<HashMap<String, String>> {
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { return Ok(headers) };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
}

/// A client without TLS, with a connection for each request.
pub(super) struct Plain;

impl Post for Plain {
    async fn post(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
        _: Duration,
    ) -> Result<Reply, String> {
        ask(url, headers, &body).await.map_err(|error| error.to_string())
    }
}

async fn ask(url: &str, fields: &[(&str, String)], body: &[u8]) -> std::io::Result<Reply> {
    let bad = || std::io::Error::other("no answer");
    let (host, path) =
        url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or_else(bad)?;
    let mut stream = BufReader::new(TcpStream::connect(host).await?);
    let mut head = format!("POST /{path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.get_mut().write_all(head.as_bytes()).await?;
    stream.get_mut().write_all(body).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
    let headers = headers(&mut stream).await?;
    let seconds = headers.get("retry-after").and_then(|seconds| seconds.parse().ok());
    Ok(Reply { status, retry_after: seconds.map(Duration::from_secs) })
}
