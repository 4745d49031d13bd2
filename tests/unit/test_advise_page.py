"""The report: one page that needs nothing else, in two languages, with every chart; words and figures."""

import asyncio
import functools
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
import yaml

from gateway.advise.chart import Axis, Chart, Series, svg
from gateway.advise.figures import figures
from gateway.advise.generator import People
from gateway.advise.page import page
from gateway.advise.pricing import Prices
from gateway.advise.question import Assumed, Findings, NodeFacts, Question
from gateway.advise.reasons import caveats, duration, reasons
from gateway.advise.rows import heads, rows
from gateway.advise.run import findings
from gateway.advise.state import State
from gateway.advise.watcher import Nobody
from gateway.advise.words import Words
from gateway.cli.advise_sources import MadeUp
from history.likelihood import Scored, curves
from history.recall import RecallRule
from history.window import WindowRule

VOID = {"meta", "input", "br", "link"}
PRICES = Prices(
    r0=0.08, r0_range=(0.07, 0.1), uncached_s=1e-4, cached_s=8e-6, overhead_s=0.01, answer_tokens=64,
    was_cached=False, requests=43,
)  # fmt: skip


class Reader(HTMLParser):
    """What a page opens and closes, and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.leads: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.leads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag and self.open[-1] in ("line", "circle", "polyline", "p"):
            self.open.pop()
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed where it is opened."""

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@functools.cache
def found(*, gap: float = 120.0, away: float = 7200.0, p_cold: float | None = None) -> Findings:
    """Of a few people; once for all tests that ask for the same."""
    people = People(dialogues=25, gap_median=gap, away_median=away, away_sigma=0.2)
    question = Question(
        window=WindowRule(max_tokens=2000),
        recall=RecallRule(),
        most_summary=400,
        assumed=Assumed(p_cold=p_cold),
    )
    return asyncio.run(findings(question, MadeUp(people, 3), State(None, "x"), Nobody(), None))


@pytest.fixture(scope="module")
def words() -> Words:
    return Words()


@functools.cache
def everything() -> Findings:
    """Findings that have all that a report can have."""
    plain = found()
    scored = [
        Scored(f"<{at}>", 9, f"<b>{at % 2}", 10, {n: -20.0 + min(n, 5) + at / 100 for n in (1, 3, 5, 8)})
        for at in range(40)
    ]
    node = NodeFacts(product="vLLM", version="0.32.0", block=16, kv_tokens=1000, prices=PRICES)
    tried = tuple(msgspec.structs.replace(one, ttft_p50_s=0.02, ttft_p95_s=1.5) for one in plain.tried)
    return msgspec.structs.replace(
        plain,
        source="<script>alert(1)</script>.jsonl",
        node=node,
        tried=tried,
        r0_from="measured",
        counts="counted by the node",
        measured_share=0.5,
        is_partial=True,
        wrong_lines=3,
        quality=tuple(curves(scored)),
        min_turns_from="quality",
        model="small <model>",
    )


def test_the_page_is_whole_and_leads_nowhere(words: Words) -> None:
    text = page(everything(), words)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.leads == []
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import", text)
    assert 6 == text.count("<svg ")
    assert "<script>alert" not in text
    assert "<model>" not in text
    assert "nan" not in text.lower().replace("finan", "")
    assert 'lang="zh"' in text


def test_the_page_without_a_node_has_the_charts_that_need_none(words: Words) -> None:
    text = page(found(), words)
    assert 4 == text.count("<svg ")
    assert "r0 = 0.1 is assumed" in text


def test_the_advice_stands_in_the_page_as_it_is_to_be_set(words: Words) -> None:
    plain = found()
    text = page(plain, words)
    (block,) = re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)
    setting = yaml.safe_load(re.sub("</?b>", "", block))["history"]["rules"]
    assert setting["window"]["min_turns"] == plain.advice.min_turns
    assert setting["window"]["max_turns"] == plain.advice.max_turns
    assert setting["compaction"]["max_tokens"] == plain.advice.summary_tokens


def test_reasons_tell_long_pauses_from_short_ones(words: Words) -> None:
    long = found(gap=2000.0)
    short = found(gap=10.0, away=100.0)
    told = [" ".join(one.english for one in reasons(some, words)) for some in (long, short)]
    assert "Pauses are long here" in told[0]
    assert "Pauses are short here" in told[1]
    assert long.advice.max_turns < short.advice.max_turns


def test_caveats_say_what_is_not_known(words: Words) -> None:
    told = " ".join(one.english for one in caveats(everything(), words))
    for expected in ("counted by the node", "was measured", "not in its cache", "--limit", "3 lines"):
        assert expected in told
    assumed = " ".join(one.english for one in reasons(found(p_cold=0.3), words))
    assert "p_cold = 0.300 is what you gave" in assumed


def test_a_ceiling_in_the_way_is_named(words: Words) -> None:
    told = " ".join(one.english for one in reasons(found(), words))
    assert "window.max_tokens is 2,000" in told


def test_rows_have_a_cell_under_each_head(words: Words) -> None:
    for some in (found(), everything()):
        heading = heads(some, words)
        assert {len(heading) - 1} == {len(row.cells) for row in rows(some, words)}
        assert 1 == sum(row.is_advised for row in rows(some, words))
        assert 1 == sum(row.is_current for row in rows(some, words))


def test_figures_are_json(words: Words) -> None:
    told = msgspec.json.decode(msgspec.json.encode(figures(everything(), words)))
    advised = told["advice"]
    rule = {
        "policy": "stepped",
        "min_turns": advised["min_turns"],
        "max_turns": advised["max_turns"],
        "max_tokens": 0,
    }
    (own,) = [one for one in told["windows"] if one["rule"] == rule]
    assert own["cost_per_turn"] == advised["cost"]
    assert 0 < own["hit"] < 1
    assert told["quality"][0]["knee"] == 5


def test_both_languages_ask_for_the_same_figures() -> None:
    """Else a text would fail only for those who read it."""
    texts = yaml.safe_load((Path(__file__).parents[2] / "gateway/advise/words.yaml").read_text())
    for key, text in texts.items():
        english, chinese = (set(re.findall(r"\{(\w+)", text[language])) for language in ("en", "zh"))
        different = {name.removesuffix("_zh") for name in english ^ chinese}
        assert different <= {"less", "source"}, key


@pytest.mark.parametrize(("seconds", "said"), [(5, "5 s"), (130, "2 min"), (7300, "2 h"), (200_000, "2 d")])
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize("values", [(1.0, 2.0, 5.0), (7.0,), (0.0, 0.0), (-2.5, -2.4), (1e6, 3e6)])
def test_charts_keep_every_point_inside(values: tuple[float, ...]) -> None:
    """Also of one point, of no span, and below zero."""
    points = tuple((float(at), value) for at, value in enumerate(values))
    text = svg(Chart(x=Axis("x", "x"), y=Axis("", ""), series=(Series(points, 0),)))
    shown = re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', text)
    assert len(shown) == len(values)
    assert all(0 <= float(x) <= 640 and 0 <= float(y) <= 320 for x, y in shown)
    ticks = re.findall(r'text-anchor="end">([^<]+)<', text)
    assert 2 <= len(ticks) <= 9
