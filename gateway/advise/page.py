"""The report as one HTML page: no other file, nothing from the network; for phones, light and dark."""

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from gateway.advise.chart import svg
from gateway.advise.plots import Plot, plots
from gateway.advise.question import Findings
from gateway.advise.reasons import caveats, reasons
from gateway.advise.rows import facts, heads, rows
from gateway.advise.words import Said, Words


def page(found: Findings, words: Words) -> str:
    """The whole page."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    title = words.say("page_title")
    body = "\n".join(
        (
            f"<h1>{_both(title)}</h1>",
            f"<p class=source>{escape(found.source)} · {_both(words.say('page_seed'))} {found.seed}</p>",
            *_settings(found, words),
            _section(words, "why", _list(reasons(found, words))),
            *(_plot(one) for one in plots(found, words)),
            _section(words, "windows", "".join(_table(found, words))),
            _section(words, "traffic", "".join(_facts(found, words))),
            _section(words, "limits", _list(caveats(found, words))),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title.english)}</title><style>\n{style}</style></head><body>\n"
        f"{_SWITCH}<main>\n{body}\n</main></body></html>\n"
    )


_SWITCH = (
    '<input type="radio" name="language" id="en" checked><label for="en">English</label>'
    '<input type="radio" name="language" id="zh"><label for="zh">中文</label>'
    "<script>if((navigator.language||'').startsWith('zh'))document.getElementById('zh').checked=true</script>\n"
)


def _both(said: Said) -> str:
    if said.english == said.chinese:
        return escape(said.english)
    return f'<span lang="en">{escape(said.english)}</span><span lang="zh">{escape(said.chinese)}</span>'


def _section(words: Words, name: str, inside: str) -> str:
    return f'<section id="{name}"><h2>{_both(words.say(f"page_{name}"))}</h2>{inside}</section>'


def _list(said: Iterable[Said]) -> str:
    return f"<ul>{''.join(f'<li>{_both(one)}</li>' for one in said)}</ul>"


def _settings(found: Findings, words: Words) -> Iterator[str]:
    advice = found.advice
    yield f"<section id=set><h2>{_both(words.say('page_set'))}</h2><pre>history:\n  rules:\n    window:"
    yield f"      policy: stepped\n      min_turns: <b>{advice.min_turns}</b>"
    yield f"      max_turns: <b>{advice.max_turns}</b>\n    compaction:"
    yield f"      max_tokens: <b>{advice.summary_tokens}</b></pre></section>"


def _plot(plot: Plot) -> str:
    legend = "".join(
        f'<span class="key s{one.style}{" dashed" if one.is_dashed else ""}">{_both(one.name)}</span>'
        for one in plot.legend
    )
    return (
        f"<figure><h2>{_both(plot.title)}</h2><p class=legend>{legend}</p>{svg(plot.chart)}"
        f"<figcaption>{_both(plot.note)}</figcaption></figure>"
    )


def _table(found: Findings, words: Words) -> Iterator[str]:
    yield "<div class=wide><table><thead><tr>"
    for head in heads(found, words):
        yield f"<th>{_both(head)}</th>"
    yield "</tr></thead><tbody>"
    for row in rows(found, words):
        kind = " class=advised" if row.is_advised else " class=current" if row.is_current else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row.cells)
        yield f"<tr{kind}><th>{_both(row.name)}</th>{cells}</tr>"
    yield "</tbody></table></div>"


def _facts(found: Findings, words: Words) -> Iterator[str]:
    yield "<dl>"
    for name, value in facts(found, words):
        yield f"<dt>{_both(name)}</dt><dd>{escape(value)}</dd>"
    yield "</dl>"
