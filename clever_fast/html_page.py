"""What every page of ours shares: one self-contained HTML file, its style, and pictures within it."""

import base64
import html
from pathlib import Path

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1c2330; max-width: 62rem; margin: 3rem auto; padding: 0 1.5rem }
h1 { font-size: 1.9rem; margin-bottom: .2rem } h2 { margin-top: 2.6rem; font-size: 1.25rem }
.lead { font-size: 1.15rem; color: #46526a } img { max-width: 100%; border: 1px solid #e3e7ee; border-radius: 6px }
table { border-collapse: collapse } th, td { padding: .3rem 1rem .3rem 0; text-align: right } td:first-child,
th:first-child { text-align: left } tr { border-bottom: 1px solid #e3e7ee } .best { font-weight: 650 }
.bar { display: inline-block; height: .7rem; background: #2f6fdb; border-radius: 2px } .grey { background: #b9c3d3 }
.bars { text-align: left; width: 18rem }
pre { white-space: pre-wrap; background: #f4f6fa; padding: 1rem; border-radius: 6px; overflow-x: auto }
.note { color: #6a7689; font-size: .92rem }
.numbers { display: flex; gap: 2.5rem; flex-wrap: wrap; margin: 1.2rem 0 }
.numbers b { display: block; font-size: 1.6rem }
"""


def document(title: str, body: str, *, style: str = "") -> str:
    """A whole page; `style` comes after the shared one."""
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}{style}</style>
{body}</html>"""


def picture(path: Path, text: str) -> str:
    """A PNG within the page."""
    return f'<img alt="{text}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
