//! The digest that S3 wants beside what it is to lock by a bucket's default retention. It protects nothing:
//! whoever reads an object holds it against its own hash. So it is made only where a store has asked for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::poll_fn;
use http_body::Body as _;
use md5::{Digest as _, Md5};
use object_store::client::HttpRequestBody;
use std::pin::Pin;

/// The value of `Content-MD5` for a body. What is sent is shared, not copied.
pub(super) async fn of(mut body: HttpRequestBody) -> Option<http::HeaderValue> {
    let mut hash = Md5::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        hash.update(frame.ok()?.data_ref()?);
    }
    STANDARD.encode(hash.finalize()).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::PutPayload;

    #[test]
    fn parts_are_one_body() {
        let of = |body| futures_executor::block_on(of(body)).unwrap();
        let whole = of(HttpRequestBody::from("what is sent".to_owned()));
        let parts: PutPayload = ["what ", "is", " sent"].into_iter().map(bytes::Bytes::from).collect();
        assert_eq!(of(parts.into()), whole);
        assert_eq!(of(HttpRequestBody::empty()), "1B2M2Y8AsgTpgAmY7PhCfg==");
    }
}
