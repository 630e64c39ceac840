//! What all pages share: head, style, tables.

use std::fmt::Write;

use super::chart::{CHART_STYLE, COLORS};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:86rem;margin:1.5rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{margin:2rem 0 .4rem;font-size:1.15rem}h3{margin:1.2rem 0 .2rem;font-size:1rem}\
.dim{color:var(--dim)}.ok{color:var(--good);font-weight:600}.miss{color:var(--bad);font-weight:600}\
table{border-collapse:collapse;margin:.5rem 0}th,td{padding:.2rem .8rem .2rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.long{overflow-wrap:anywhere}\
.row{display:flex;flex-wrap:wrap;gap:.6rem}.scroll{overflow-x:auto}.chart{max-width:100%;height:auto}\
.cards{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}.card{border:1px solid var(--line);border-radius:8px;padding:.5rem .9rem;min-width:8.5rem}\
.card b{display:block;font-size:1.35rem;font-weight:600;font-variant-numeric:tabular-nums}.card span{color:var(--dim);font-size:.82rem;display:block}\
.bar{display:flex;height:1.1rem;border-radius:4px;overflow:hidden;background:var(--line);max-width:40rem}.bar i{display:block;height:100%}\
.key{display:inline-block;width:.7rem;height:.7rem;border-radius:2px;margin-right:.35rem}\
pre{overflow-x:auto;font-size:.8rem;line-height:1.35}details{margin:.6rem 0}summary{cursor:pointer}";

/// A page that needs no network and no other file. `refresh_seconds`: how often a browser should load it anew.
pub fn page(title: &str, refresh_seconds: Option<u64>, body: &str) -> String {
    let refresh = refresh_seconds.map_or_else(String::new, |s| format!(r#"<meta http-equiv="refresh" content="{s}">"#));
    let title = escape(title);
    format!(
        r#"<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">{refresh}<title>{title}</title><style>{COLORS}{STYLE}{CHART_STYLE}</style></head><body>{body}</body></html>
"#
    )
}

/// A table of names and texts.
pub fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut html = String::from("<table>");
    for (name, text) in rows {
        let _ = write!(html, r#"<tr><th>{}</th><td class="long">{}</td></tr>"#, escape(name), escape(text));
    }
    html + "</table>"
}

/// Text as HTML, in elements and in attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
