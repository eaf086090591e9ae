"""How cards look, alone and in a notebook, and the one script that a card may run."""

from __future__ import annotations

STYLE = (
    """
.nbflow-card{max-width:1000px;--nbflow-soft:rgba(128,128,128,.13)}
.nbflow-page{padding:14px 18px;margin:0 auto;font-family:var(--jp-ui-font-family,system-ui,sans-serif)}
:root{color-scheme:light dark;--page:#fff;--ink:#1f2328}
@media (prefers-color-scheme:dark){:root{--page:#111418;--ink:#dfe3e8}}
:root[data-theme=light]{color-scheme:light;--page:#fff;--ink:#1f2328}
:root[data-theme=dark]{color-scheme:dark;--page:#111;--ink:#e0e0e0}
:root[data-inside]{--page:transparent}
body:has(>.nbflow-page){margin:0;background:var(--page);color:var(--ink)}
.nbflow-page{color:var(--ink)!important}
:root[data-theme] .nbflow-page{padding:4px 2px;margin:0}
:root[data-theme=dark] .nbflow{--nbflow-good:#4cb87a;--nbflow-bad:#f4756b;--nbflow-warn:#dba13a;--nbflow-busy:#58a6ff}
.nbflow-card .nbflow-head{margin:0 0 8px;font-size:14px}
.nbflow-card p{margin:4px 0}
.nbflow-card figure{margin:8px 0}
.nbflow-card figcaption{font-weight:600;margin-bottom:4px}
.nbflow-card img{max-width:100%;height:auto;background:#fff;border-radius:4px}
.nbflow-card pre{margin:4px 0;padding:8px 10px;background:var(--nbflow-soft);border-radius:4px;overflow:auto;
 max-height:420px;font-size:12px;line-height:1.4;font-family:var(--jp-code-font-family,ui-monospace,monospace);
 color:inherit;white-space:pre}
.nbflow-card details.nbflow-section{margin:10px 0 0;border-top:1px solid var(--nbflow-line);padding-top:8px}
.nbflow-card details.nbflow-section>summary{cursor:pointer;font-weight:600;margin-bottom:6px}
.nbflow-card summary{cursor:pointer}
.nbflow-card .nbflow-section .nbflow-section{border-top:0;padding-left:14px;margin-top:4px}
.nbflow-card .nbflow-boxes{display:flex;flex-wrap:wrap;gap:10px;margin:8px 0}
.nbflow-card .nbflow-box{border:1px solid var(--nbflow-line);border-radius:6px;padding:8px 14px;min-width:96px}
.nbflow-card .nbflow-value{font-size:22px;font-weight:600;line-height:1.3;font-variant-numeric:tabular-nums}
.nbflow-card table.nbflow-table th.nbflow-number{text-align:right}
.nbflow-card .nbflow-good{color:var(--nbflow-good)}
.nbflow-card .nbflow-bad{color:var(--nbflow-bad)}
.nbflow-card .nbflow-note{font-style:italic;opacity:.8}
.nbflow-card .nbflow-progress{margin:8px 0;max-width:560px}
.nbflow-card .nbflow-ends{display:flex;justify-content:space-between;gap:12px}
.nbflow-card .nbflow-bar{height:8px;border-radius:4px;background:var(--nbflow-soft);overflow:hidden;margin-top:3px}
.nbflow-card .nbflow-bar>div{height:100%;background:var(--nbflow-busy);border-radius:4px}
.nbflow-card .nbflow-json ul{list-style:none;margin:0;padding-left:18px}
.nbflow-card .nbflow-json details{display:inline-block;vertical-align:top}
.nbflow-card table.nbflow-timeline{border-collapse:collapse;width:100%;font-size:inherit;color:inherit}
.nbflow-card table.nbflow-timeline td{padding:2px 12px 2px 0;border:0;text-align:left;background:none}
.nbflow-card table.nbflow-timeline td.nbflow-span{width:70%;padding-right:0;background:var(--nbflow-soft)}
.nbflow-card table.nbflow-timeline td.nbflow-number{text-align:right;padding:0 0 0 10px;white-space:nowrap}
.nbflow-card .nbflow-span>div{height:10px;background:var(--nbflow-busy);border-radius:3px;min-width:2px}
.nbflow-card table.nbflow-facts{border-collapse:collapse;font-size:inherit;color:inherit}
.nbflow-card table.nbflow-facts th,.nbflow-card table.nbflow-facts td{text-align:left;padding:1px 18px 1px 0;border:0;
 background:none;font-weight:normal;vertical-align:top}
.nbflow-card table.nbflow-facts th{opacity:.72}
.nbflow-card .nbflow-html{overflow-x:auto}
.nbflow-card .nbflow-html table,.nbflow-card .nbflow-text table{border-collapse:collapse;border:0;font-size:12px;
 color:inherit}
.nbflow-card .nbflow-html td,.nbflow-card .nbflow-html th,.nbflow-card .nbflow-text td,.nbflow-card .nbflow-text th{
 border:0;border-bottom:1px solid var(--nbflow-line);padding:2px 12px 2px 0;text-align:right;background:none}
.nbflow-card .nbflow-text td,.nbflow-card .nbflow-text th{text-align:left}
.nbflow-card .nbflow-text h1{font-size:18px;margin:10px 0 6px}
.nbflow-card .nbflow-text h2{font-size:16px;margin:10px 0 4px}
.nbflow-card .nbflow-text h3{font-size:14px;margin:8px 0 4px}
.nbflow-card .nbflow-text ul,.nbflow-card .nbflow-text ol{margin:4px 0;padding-left:22px}
.nbflow-card .ansi-bold{font-weight:bold}
.nbflow-card .ansi-red-fg,.nbflow-card .ansi-red-intense-fg{color:var(--nbflow-bad)}
.nbflow-card .ansi-green-fg,.nbflow-card .ansi-green-intense-fg{color:var(--nbflow-good)}
.nbflow-card .ansi-yellow-fg,.nbflow-card .ansi-yellow-intense-fg{color:var(--nbflow-warn)}
.nbflow-card .ansi-blue-fg,.nbflow-card .ansi-cyan-fg{color:var(--nbflow-busy)}
""".strip()
    .replace("\n ", "")
    .replace("\n", "")
)
"""On top of `html.STYLE`; the variables that it reads fall back to colours that read on white and on black."""

SCRIPT = (
    "(function(){if(window.parent===window)return;"
    "function tell(){parent.postMessage({nbflowHeight:document.querySelector('main').offsetHeight+4},'*')}"
    "addEventListener('message',function(e){var t=e.data&&e.data.nbflowTheme;"
    "if(t==='dark'||t==='light')document.documentElement.dataset.theme=t;tell()});"
    "new ResizeObserver(tell).observe(document.querySelector('main'));tell()})()"
)
"""Tells the page around it how high the card is, and takes the theme from there; it reads and sends nothing else."""
