// SPDX-License-Identifier: MIT OR Apache-2.0
//! Request bodies, with bounds on their size and time.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use tokio::time::{Instant, timeout, timeout_at};

/// How much of an unwanted body is read before the answer is sent. A client that writes before it reads would otherwise
/// get a connection reset instead of the answer.
const UNWANTED_BYTES: u64 = 4 << 20;
const UNWANTED_TIME: Duration = Duration::from_secs(2);

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    TooLarge,
    TooSlow,
    /// The client disconnected.
    Broken,
}

/// Reads the body, if it is no larger than `limit`, has no pause longer than `pause`, and arrives within `whole`.
pub(crate) async fn read<B>(mut body: B, limit: u64, pause: Duration, whole: Duration) -> Result<Vec<u8>, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = body.size_hint().lower();
    if announced > limit {
        discard(body).await;
        return Err(BodyError::TooLarge);
    }
    let end = Instant::now() + whole;
    let mut bytes = Vec::with_capacity(announced as usize);
    loop {
        let frame = timeout_at(end.min(Instant::now() + pause), body.frame()).await.map_err(|_| BodyError::TooSlow)?;
        let Some(frame) = frame else { return Ok(bytes) };
        // A frame that is not data is trailers, which have no use here.
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if bytes.len() as u64 + data.len() as u64 > limit {
            drop(bytes);
            discard(body).await;
            return Err(BodyError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
}

/// Reads and drops what a client is sending, up to a bound.
pub(crate) async fn discard<B>(mut body: B)
where
    B: Body<Data = Bytes> + Unpin,
{
    let read = async {
        let mut left = UNWANTED_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, |data| data.len() as u64);
            left = match left.checked_sub(size) {
                Some(left) => left,
                None => return,
            };
        }
    };
    let _ = timeout(UNWANTED_TIME, read).await;
}
