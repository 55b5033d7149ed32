//! Until when a cloud store keeps an object that it would not delete: object lock of S3, retention of Google,
//! immutability of Azure. Asked only after a refusal; who may not ask is told nothing.

use super::Cloud;
use super::protection::Asker;
use crate::clock::Timestamp;
use http::Method;
use object_store::HeaderMap;
use reqwest::Url;

impl Cloud {
    /// See [`super::super::Store::retained_until`].
    pub(super) async fn find_retention(&self, name: &str) -> Option<Timestamp> {
        let path = self.path("look at", name).ok()?;
        let below = |base: &Url| {
            let mut url = base.clone();
            url.path_segments_mut().ok()?.pop_if_empty().extend(path.as_ref().split('/'));
            Some(url)
        };
        match &self.inquiry.asker {
            Asker::S3 { bucket, .. } => {
                let (headers, _) = self.answer(Method::HEAD, &below(bucket)?, None).await.ok()??;
                header(&headers, "x-amz-object-lock-retain-until-date")
            }
            Asker::Azure { container, .. } => {
                let (headers, _) = self.answer(Method::HEAD, &below(container)?, None).await.ok()??;
                header(&headers, "x-ms-immutability-policy-until-date")
            }
            Asker::Gcs { bucket, .. } => {
                let mut url = bucket.clone();
                url.path_segments_mut().ok()?.push("o").push(path.as_ref());
                let fields = "fields=retentionExpirationTime,retention";
                let (_, text) = self.answer(Method::GET, &url, Some(fields)).await.ok()??;
                of_google(&text)
            }
        }
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<Timestamp> {
    time(headers.get(name)?.to_str().ok()?)
}

/// The later of what a bucket's policy and an object's own retention say.
fn of_google(text: &str) -> Option<Timestamp> {
    let object: serde_json::Value = serde_json::from_str(text).ok()?;
    let of_policy = object.get("retentionExpirationTime").and_then(|value| time(value.as_str()?));
    let own = object.get("retention").and_then(|value| time(value.get("retainUntilTime")?.as_str()?));
    of_policy.max(own)
}

/// As RFC 3339 or RFC 2822 have it.
fn time(text: &str) -> Option<Timestamp> {
    let parsed = text.parse::<jiff::Timestamp>().ok();
    let parsed = parsed.or_else(|| Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp()))?;
    Some(Timestamp { seconds: parsed.as_second(), nanos: u32::try_from(parsed.subsec_nanosecond()).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_stores_write_them() {
        let expected = Some(Timestamp { seconds: 1_893_456_000, nanos: 0 });
        for text in ["2030-01-01T00:00:00Z", "2030-01-01T00:00:00.000+00:00", "Tue, 01 Jan 2030 00:00:00 GMT"] {
            assert_eq!(time(text), expected, "{text}");
        }
        assert_eq!(time("tomorrow"), None);
        let (policy, own) = ("\"retentionExpirationTime\": \"2029-01-01T00:00:00Z\"", "\"retainUntilTime\"");
        assert_eq!(of_google(&format!("{{{policy}, \"retention\": {{{own}: \"2030-01-01T00:00:00Z\"}}}}")), expected);
        assert_eq!(of_google("{}"), None);
    }
}
