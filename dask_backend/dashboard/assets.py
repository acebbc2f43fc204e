"""Style sheet and script of the page, and the policy that lets a browser load nothing else."""

from __future__ import annotations

import base64
import hashlib

__all__ = ["POLICY", "SCRIPT", "STYLE"]

STYLE = """
:root { color-scheme: light; --ok: #1f7a3d; --warn: #a15c00; --bad: #b3261e; --stock: #52616f }
body { font: 14px/1.4 system-ui, sans-serif; margin: 0; color: #1a1a1a; background: #fff }
nav { background: #f5f5f5; border-bottom: 1px solid #ddd; padding: 8px 16px }
nav a { margin-right: 16px; color: #333; text-decoration: none }
nav a[aria-current] { font-weight: 600; color: #000; border-bottom: 3px solid #ef1161 }
main, .bar { padding: 8px 16px }
.bar { display: flex; gap: 16px; align-items: center; flex-wrap: wrap }
h1 { font-size: 20px; margin: 4px 0 } h2 { font-size: 16px; margin: 16px 0 4px }
p { margin: 4px 0 }
table { border-collapse: collapse; width: 100% }
caption { text-align: left; color: #555; padding: 2px 0 }
th, td { text-align: left; vertical-align: top; padding: 3px 8px; border-bottom: 1px solid #e5e5e5 }
th { background: #fafafa; white-space: nowrap }
td { overflow-wrap: break-word; max-width: 26em }
td.n { text-align: right; white-space: nowrap }
.scroll { overflow-x: auto }
.mark { white-space: nowrap; font-weight: 600 }
.mark.ok { color: var(--ok) } .mark.warn { color: var(--warn) }
.mark.bad { color: var(--bad) } .mark.stock { color: var(--stock) }
svg { max-width: 100%; max-height: 75vh; width: 760px; height: auto; display: block; margin: auto }
svg text { font-size: 12px; fill: #222; paint-order: stroke; stroke: #fff; stroke-width: 4px }
svg .edge { fill: none; stroke-width: 1.2; stroke: #9bb8a5 }
svg .edge.bad { stroke: var(--bad); stroke-width: 2.4; stroke-dasharray: 2 3 }
svg .edge.warn { stroke: var(--warn); stroke-width: 2; stroke-dasharray: 7 3 }
svg g.ok { fill: var(--ok) } svg g.warn { fill: var(--warn) } svg g.bad { fill: var(--bad) }
svg g.stock { fill: var(--stock) }
svg g.client { fill: #fff; stroke: #444; stroke-width: 2 }
.old { color: var(--bad); font-weight: 600 }
"""

# Nothing of what arrives is run: scripts of a parsed document are inert, and the policy of the
# page refuses them as well.
SCRIPT = """
"use strict";
(() => {
  const pause = 5000;
  const live = document.getElementById("live");
  const told = document.getElementById("told");
  async function refresh() {
    if (!document.hidden && live.checked) {
      try {
        const reply = await fetch(location.href, {cache: "no-store"});
        if (!reply.ok) throw new Error(String(reply.status));
        const page = new DOMParser().parseFromString(await reply.text(), "text/html");
        const main = document.adoptNode(page.querySelector("main"));
        document.querySelector("main").replaceWith(main);
        told.textContent = "";
      } catch (error) {
        told.textContent = "The scheduler does not answer: what is shown is old.";
      }
    }
    setTimeout(refresh, pause);
  }
  setTimeout(refresh, pause);
})();
"""


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


#: the page's Content-Security-Policy; it may be embedded, as Jupyter does
POLICY = (
    f"default-src 'none'; style-src {_hashed(STYLE)}; script-src {_hashed(SCRIPT)}; "
    "connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'"
)
