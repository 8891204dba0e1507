// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request's body, as far as it may be long and slow.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use tokio::time::{Instant, timeout, timeout_at};

/// What is read of a body that nobody wants before the answer is sent: a client that writes first and reads then would get a
/// connection reset instead of the answer.
const UNWANTED_BYTES: u64 = 4 << 20;
const UNWANTED_TIME: Duration = Duration::from_secs(2);

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    TooLarge,
    TooSlow,
    /// The client went away.
    Broken,
}

/// Reads the body, if it is no larger than `limit`, has no pause longer than `pause`, and comes within `whole`.
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
        // A frame is data or trailers, which nobody wants.
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if bytes.len() as u64 + data.len() as u64 > limit {
            drop(bytes);
            discard(body).await;
            return Err(BodyError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
}

/// Lets a client finish what it is about to send, within reason.
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
