//! A page, tables, and pictures as part of the page.

use std::fmt::Write;
use std::path::Path;

use image::ImageFormat;
use image::imageops::FilterType;

const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1c1c1c;--bg:#fff;--line:#d0d0d0;--good:#1a7f37;--warn:#9a6700;--bad:#b42318}\
@media(prefers-color-scheme:dark){:root{--fg:#e6e6e6;--bg:#161616;--line:#444;--good:#4ac26b;--warn:#d4a72c;--bad:#ff7b72}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:70rem;margin:1.5rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{margin:2rem 0 .4rem;font-size:1.15rem}\
table{border-collapse:collapse}th,td{padding:.2rem .9rem .2rem 0;border-bottom:1px solid var(--line);text-align:left;\
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}\
.ok{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}\
svg{max-width:100%;height:auto}svg text{fill:var(--fg);font:11px system-ui,sans-serif}\
figure{display:inline-block;margin:.5rem}img{max-width:100%}figcaption{font-size:.8rem}";

/// A page that needs nothing else.
pub fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )
}

/// Text as HTML, in elements and in attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A table that grows row by row.
pub struct Table {
    html: String,
    rows: usize,
}

impl Table {
    pub fn new(title: &str, columns: &[&str]) -> Self {
        let heads: String = columns.iter().map(|column| format!("<th>{}</th>", escape(column))).collect();
        Self { html: format!("<h2>{}</h2><table><tr>{heads}</tr>", escape(title)), rows: 0 }
    }

    pub fn row(&mut self, cells: &[&str]) {
        self.rows += 1;
        let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        let _ = write!(self.html, "<tr>{cells}</tr>");
    }

    /// Empty without rows.
    pub fn html(self) -> String {
        if self.rows == 0 { String::new() } else { self.html + "</table>" }
    }
}

/// A picture, at most `width_px` wide, as the content of `src`. `None` where it cannot be read.
pub fn data_uri(file: &Path, width_px: u32) -> Option<String> {
    let picture = image::open(file).ok()?;
    let picture = if picture.width() > width_px {
        let height = (u64::from(picture.height()) * u64::from(width_px) / u64::from(picture.width())).max(1);
        picture.resize_exact(width_px, height as u32, FilterType::Triangle)
    } else {
        picture
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).ok()?;
    Some(format!("data:image/png;base64,{}", base64(bytes.get_ref())))
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let group = (0..3).fold(0u32, |group, i| group << 8 | u32::from(three.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let letter = LETTERS[(group >> (18 - 6 * i) & 63) as usize] as char;
            text.push(if i <= three.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn tables_escape_what_they_are_given_and_vanish_when_empty() {
        let mut table = Table::new("a < b", &["x"]);
        table.row(&["<script>\"&"]);
        let html = table.html();
        assert!(html.contains("a &lt; b") && html.contains("&lt;script&gt;&quot;&amp;") && !html.contains("<script"));
        assert_eq!(Table::new("t", &["x"]).html(), "");
    }
}
