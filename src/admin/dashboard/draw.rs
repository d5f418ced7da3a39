//! Pictures, as SVG that the server draws: shapes with attributes and classes, never a style. Each has its meaning in
//! words beside it, so it is hidden from screen readers or named for them.

use std::fmt::Write as _;

use qrcode::{EcLevel, QrCode};

use crate::observe::stats::RequestCounts;

/// Requests over time, small: one bar per tally, errors at its foot, by the party at fault. `height` in pixels.
#[expect(clippy::cast_precision_loss, reason = "a picture")]
pub(super) fn draw_bars(series: &[RequestCounts], height: u32, class: &str) -> String {
    let most = series.iter().map(|tally| tally.requests).max().unwrap_or(0).max(1);
    let mut svg = format!(
        "<svg class=\"bars {class}\" width=\"100%\" height=\"{height}\" aria-hidden=\"true\" focusable=\"false\">"
    );
    let step = 100.0 / series.len().max(1) as f64;
    let tall = |requests: u64| requests as f64 * f64::from(height) / most as f64;
    for (at, tally) in series.iter().enumerate().filter(|(_, tally)| tally.requests > 0) {
        let well = tally.requests.saturating_sub(tally.errors());
        let mut foot = f64::from(height);
        for (kind, part) in tally.coloured_errors().into_iter().chain([("well", well)]) {
            if part == 0 {
                continue;
            }
            // One error among thousands is still seen.
            let part = tall(part).max(2.0).min(foot);
            foot -= part;
            let _ = write!(
                svg,
                "<rect class=\"{kind}\" x=\"{:.2}%\" y=\"{foot:.1}\" width=\"{:.2}%\" height=\"{part:.1}\"/>",
                at as f64 * step,
                step * 0.82,
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

/// A token's life. All in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct LifeBar {
    pub(super) issued: u64,
    /// When it is due for renewal, where that is neither under way nor resting.
    pub(super) renews: Option<u64>,
    pub(super) expires: u64,
    pub(super) now: u64,
}

/// The bar from a token's issue to its expiry, with the renew point and a mark at now.
#[expect(clippy::cast_precision_loss, reason = "a picture")]
pub(super) fn timeline(life: LifeBar) -> String {
    let span = life.expires.saturating_sub(life.issued).max(1) as f64;
    let place = |moment: u64| (moment.saturating_sub(life.issued) as f64 / span * 100.0).clamp(0.0, 100.0);
    let (now, renews) = (place(life.now), life.renews.map(place));
    let mut svg =
        String::from("<svg class=\"timeline\" width=\"100%\" height=\"34\" aria-hidden=\"true\" focusable=\"false\">");
    svg.push_str("<rect class=\"track\" x=\"0\" y=\"15\" width=\"100%\" height=\"12\" rx=\"6\"/>");
    if let Some(renews) = renews {
        let _ = write!(
            svg,
            "<rect class=\"late\" x=\"{renews:.2}%\" y=\"15\" width=\"{:.2}%\" height=\"12\" rx=\"6\"/>",
            100.0 - renews
        );
    }
    let _ = write!(svg, "<rect class=\"lived\" x=\"0\" y=\"15\" width=\"{now:.2}%\" height=\"12\" rx=\"6\"/>");
    if let Some(renews) = renews {
        let _ = write!(svg, "<line class=\"renew\" x1=\"{renews:.2}%\" x2=\"{renews:.2}%\" y1=\"11\" y2=\"31\"/>");
    }
    // The word stays inside the picture.
    let anchor = match now {
        ..6.0 => "start",
        94.0.. => "end",
        _ => "middle",
    };
    let _ = write!(
        svg,
        "<line class=\"now\" x1=\"{now:.2}%\" x2=\"{now:.2}%\" y1=\"12\" y2=\"32\"/>\
         <text x=\"{now:.2}%\" y=\"9\" text-anchor=\"{anchor}\">now</text></svg>"
    );
    svg
}

/// A QR code (ISO/IEC 18004) of a text; nothing where the text is too long for one.
pub(super) fn qr(text: &str, label: &str) -> String {
    let code = QrCode::with_error_correction_level(text, EcLevel::M)
        .or_else(|_| QrCode::with_error_correction_level(text, EcLevel::L));
    let Ok(code) = code else { return String::new() };
    // The standard wants four modules of silence around it.
    const QUIET: usize = 4;
    let (width, colors) = (code.width(), code.to_colors());
    let whole = width + 2 * QUIET;
    let mut path = String::new();
    for (y, row) in colors.chunks(width).enumerate() {
        let mut x = 0;
        while x < width {
            let run = row.iter().skip(x).take_while(|color| **color == qrcode::Color::Dark).count();
            if run > 0 {
                let _ = write!(path, "M{} {}h{run}v1h-{run}z", x + QUIET, y + QUIET);
            }
            x += run.max(1);
        }
    }
    format!(
        "<svg class=\"qr\" viewBox=\"0 0 {whole} {whole}\" role=\"img\" aria-label=\"{label}\" shape-rendering=\"crispEdges\">\
         <rect width=\"{whole}\" height=\"{whole}\" fill=\"#fff\"/><path d=\"{path}\" fill=\"#000\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::record::Replay;
    use crate::observe::stats::Blame;

    #[test]
    fn bars_show_a_single_error_among_thousands() {
        let mut tally = RequestCounts::default();
        (0..5000).for_each(|_| tally.count(Blame::Nobody, Some(200), Replay::None, Some(Duration::from_millis(3))));
        tally.count(Blame::Ours, Some(502), Replay::None, Some(Duration::from_millis(3)));
        let svg = draw_bars(&[RequestCounts::default(), tally], 100, "spark");
        assert!(svg.contains("class=\"ours\" x=\"50.00%\" y=\"98.0\"") && svg.contains("height=\"2.0\""), "{svg}");
        assert!(!svg.contains("style") && !svg.contains("<title>"), "{svg}");
        assert!(draw_bars(&[], 10, "").ends_with("</svg>"));
    }

    #[test]
    fn a_life_is_drawn_to_scale() {
        let svg = timeline(LifeBar { issued: 1000, renews: Some(1800), expires: 2000, now: 1500 });
        assert!(svg.contains("class=\"lived\" x=\"0\" y=\"15\" width=\"50.00%\""), "{svg}");
        assert!(svg.contains("class=\"renew\" x1=\"80.00%\"") && svg.contains("text-anchor=\"middle\""), "{svg}");
        let over = timeline(LifeBar { issued: 1000, renews: None, expires: 1000, now: 9000 });
        assert!(over.contains("x1=\"100.00%\"") && over.contains("text-anchor=\"end\""), "{over}");
    }

    #[test]
    fn a_code_has_its_finder_patterns_and_a_silent_border() {
        let svg = qr("https://bank.example/consent/1234", "QR code");
        assert!(svg.contains("M4 4h7v1h-7z"), "{svg}");
        assert_eq!(qr(&"x".repeat(5000), "QR code"), "");
    }
}
