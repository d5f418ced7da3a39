//! The parts of the pages besides HTML: one style sheet, one script, one icon. Their names carry a digest of their
//! content, so a browser may cache them for ever and still never shows an old one.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::super::admin_response::{AdminResponse, typed};
use crate::base::secret::{hex, sha256};

/// Path prefix of all assets, with a slash at its end.
pub(super) const PLACE: &str = "/ui/assets/";

struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static [u8],
}

const ALL: [Asset; 3] = [
    Asset { name: "dashboard.css", kind: "text/css; charset=utf-8", body: include_bytes!("assets/dashboard.css") },
    Asset { name: "dashboard.js", kind: "text/javascript; charset=utf-8", body: include_bytes!("assets/dashboard.js") },
    Asset { name: "icon.svg", kind: "image/svg+xml", body: include_bytes!("assets/icon.svg") },
];

/// Their addresses, in the order of [`ALL`].
static NAMES: LazyLock<[String; ALL.len()]> = LazyLock::new(|| {
    ALL.map(|asset| {
        let digest = hex(&sha256(asset.body));
        let (stem, end) = asset.name.rsplit_once('.').unwrap_or((asset.name, ""));
        format!("{PLACE}{stem}.{}.{end}", digest.get(..16).unwrap_or_default())
    })
});

pub(super) fn css() -> &'static str {
    let [css, _, _] = &*NAMES;
    css
}

pub(super) fn script() -> &'static str {
    let [_, script, _] = &*NAMES;
    script
}

pub(super) fn icon() -> &'static str {
    let [_, _, icon] = &*NAMES;
    icon
}

/// The asset at this path, if there is one.
pub(super) fn answer(path: &str, headers: &HeaderMap) -> Option<AdminResponse> {
    let at = NAMES.iter().position(|name| name == path)?;
    let (asset, tag) = (ALL.get(at)?, format!("\"{}\"", path.trim_start_matches(PLACE)));
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut answer = if known {
        typed(StatusCode::NOT_MODIFIED, asset.kind, Bytes::new())
    } else {
        typed(StatusCode::OK, asset.kind, Bytes::from_static(asset.body))
    };
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    Some(answer)
}
