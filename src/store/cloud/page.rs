//! A page of a listing, before it is taken apart: what no object of ours can be called is left out.
//! `object_store` gives up a whole page for one such name, and whoever may write could put one there.

use bytes::Bytes;
use object_store::path::Path as ObjectPath;

/// True for a page of a listing.
fn is_page(text: &str) -> bool {
    let start = text.get(..text.len().min(512)).unwrap_or(text);
    start.contains("<ListBucketResult") || start.contains("<EnumerationResults")
}

/// True for a page that says that there is more, and not where.
pub(super) fn is_cut(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| {
        is_page(text) && text.contains("<IsTruncated>true</IsTruncated>") && !text.contains("<NextContinuationToken>")
    })
}

/// The page without objects of strange names; anything else as it is. Names come escaped, so no name
/// can end its element.
pub(super) fn without_strangers(body: Bytes) -> Bytes {
    let Ok(text) = std::str::from_utf8(&body) else { return body };
    let (element, key) = match is_page(text) {
        true if text.contains("<EnumerationResults") => ("Blob", "Name"),
        true => ("Contents", "Key"),
        false => return body,
    };
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let mut kept = String::new();
    let mut rest = text;
    let mut is_whole = true;
    while let Some(at) = rest.find(&open) {
        let Some(len) = rest[at..].find(&close).map(|len| len + close.len()) else { break };
        let inside = &rest[at..at + len];
        if is_ours(inside, key) {
            kept.push_str(&rest[..at + len]);
        } else {
            kept.push_str(&rest[..at]);
            is_whole = false;
        }
        rest = &rest[at + len..];
    }
    if is_whole {
        return body;
    }
    kept.push_str(rest);
    kept.into()
}

/// True if an object of ours may be called so.
fn is_ours(element: &str, key: &str) -> bool {
    let name = element.split_once(&format!("<{key}>")).and_then(|(_, rest)| rest.split_once('<'));
    let Some((name, _)) = name else { return false };
    // Control characters come as references.
    let is_plain = !name.is_empty() && !name.contains("&#") && !name.starts_with('/') && !name.ends_with('/');
    is_plain && ObjectPath::parse(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(names: &[&str]) -> String {
        let objects = names.iter().map(|name| format!("<Contents><Key>{name}</Key><Size>1</Size></Contents>"));
        format!(
            "<?xml?><ListBucketResult>{}<IsTruncated>false</IsTruncated></ListBucketResult>",
            objects.collect::<String>()
        )
    }

    #[test]
    fn strange_names_are_left_out_and_nothing_else() {
        let ours = ["a/b", "a &amp; b/&lt;c&gt;", "a b+c%20d"];
        let strange = ["a//b", "/a", "a/", "a/../b", ".", "a&#10;b", "a&#x0;", ""];
        let all: Vec<_> =
            ours.iter().zip(strange.iter().cycle()).flat_map(|(a, b)| [*a, *b]).chain(strange).collect();
        assert_eq!(without_strangers(page(&all).into()), page(&ours));
        assert_eq!(without_strangers(page(&ours).into()), page(&ours));
        assert_eq!(without_strangers(page(&strange).into()), page(&[]));
        let azure =
            |names: &str| format!("<EnumerationResults><Blobs>{names}</Blobs><NextMarker/></EnumerationResults>");
        let (good, bad) = ("<Blob><Name>a/b</Name></Blob>", "<Blob><Name Encoded=\"true\">a%0A</Name></Blob>");
        assert_eq!(without_strangers(azure(&[good, bad, good].concat()).into()), azure(&[good, good].concat()));
    }

    #[test]
    fn what_is_no_page_or_a_broken_one_stays_as_it_is() {
        for text in
            ["", "{\"Key\": 1}", "<Contents><Key>a//b</Key></Contents>", "<ListBucketResult><Contents><Key>a//b"]
        {
            assert_eq!(without_strangers(Bytes::from(text)), text);
        }
        assert_eq!(without_strangers(Bytes::from_static(b"<ListBucketResult>\xff")), &b"<ListBucketResult>\xff"[..]);
    }

    #[test]
    fn a_page_that_hides_the_rest_is_known() {
        let cut = |text: &str| is_cut(format!("<ListBucketResult>{text}</ListBucketResult>").as_bytes());
        assert!(cut("<IsTruncated>true</IsTruncated>"));
        assert!(!cut("<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>"));
        assert!(!cut("<IsTruncated>false</IsTruncated>"));
        assert!(!is_cut(b"") && !is_cut(b"<IsTruncated>true</IsTruncated>"));
    }
}
