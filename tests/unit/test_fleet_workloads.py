"""The traffics of the fleet simulator, and its command line."""

import json
import statistics
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.fleet import choice_cost
from bench.fleet.__main__ import main
from bench.fleet.companion import Companions, Crowd
from bench.fleet.dialogue import Dialogue, Layout
from bench.fleet.faults import death, restart
from bench.fleet.report import table
from bench.fleet.shared_prompt import Questions, SharedPrompts, Stage
from bench.fleet.tally import share_of, spread
from bench.fleet.trace import Line, Trace
from history.compaction import CompactionRule, Stretch
from history.window import WindowRule, stateless_cut

WINDOW = WindowRule(min_turns=4, max_turns=8)


def talk(dialogue: Dialogue, turns: int, *, remembers: bool = False) -> list[tuple[int, int, int]]:
    """Per turn: the dialogue's own extent, its blocks, and those that the last answer left of it."""
    seen = []
    for _ in range(turns):
        prompt = dialogue.ask(40)
        seen.append((*prompt.extents[1], prompt.reusable))
        dialogue.answer(120)
        dialogue.recut()
        if remembers and (stretch := dialogue.memory_due()):
            dialogue.compaction(stretch)
    return seen


@pytest.mark.parametrize("mode", ["stepped", "gateway"])
def test_stepped_prompts_only_grow_between_cuts(mode: str) -> None:
    """Within an extent every prompt has more blocks than the last, and all that its answer left."""
    dialogue = Dialogue(1, 0, Layout(mode=mode, window=WINDOW))  # type: ignore[arg-type] # one of two
    seen = talk(dialogue, 60, remembers=mode == "gateway")

    within = [(a, b) for a, b in pairwise(seen) if a[0] == b[0]]
    assert len(within) > 40
    assert all(before[1] < after[1] and after[2] >= before[1] for before, after in within)
    assert len({extent for extent, _, _ in seen}) == 1 + stateless_cut(59, WINDOW) // 5


def test_sliding_prompts_share_nothing_but_the_persona_once_the_window_is_full() -> None:
    """Each drops the oldest turn, so its blocks are new."""
    seen = talk(Dialogue(1, 0, Layout(mode="sliding", window=WINDOW)), 20)

    assert len({extent for extent, _, _ in seen[4:]}) == len(seen[4:])
    assert {reusable for _, _, reusable in seen[5:]} == {0}


@given(st.integers(0, 200))
def test_clients_and_gateways_cut_in_the_same_place(turns: int) -> None:
    """Both by the product's own window rule."""
    said = [160] * turns
    cuts = {
        mode: Dialogue(1, 0, Layout(mode=mode, window=WINDOW), said=said).cut
        for mode in ("stepped", "gateway")
    }
    assert cuts == dict.fromkeys(cuts, stateless_cut(turns, WINDOW))


def test_free_cut_keeps_the_least_turns_and_lets_few_go_unremembered() -> None:
    """A prompt that is computed anew anyway may as well be short."""
    layout = Layout(mode="gateway", window=WINDOW, compaction=CompactionRule(lag_turns=2))
    dialogue = Dialogue(1, 0, layout)
    talk(dialogue, 7)
    assert dialogue.memory_due() is not None

    before = dialogue.ask(40).tokens
    dialogue.give_up()
    assert dialogue.cut_for_free()
    assert (dialogue.shown, dialogue.cut, dialogue.has_memory) == (5, 2, False)
    assert before - dialogue.ask(40).tokens == 2 * 160
    dialogue.give_up()
    assert not dialogue.cut_for_free()

    stretch = dialogue.memory_due()
    assert stretch == Stretch(start=0, covers_to=2)
    caught_up = dialogue.compaction(stretch)
    assert caught_up.tokens == 800 + 200 + 2 * 160 + layout.instruction_tokens
    assert dialogue.has_memory


def test_crowd_has_the_published_statistics() -> None:
    """Medians of lengths and pauses are those of the traces, within sampling error."""
    crowd = Crowd(users=300, ends_at=4 * 3600.0)
    traffic = Companions(crowd, Layout(), seed=1)
    outputs, gaps = [], []
    for at, source in traffic.begin():
        request = traffic.request(source, at)
        if request is None:
            continue
        outputs.append(request.output_tokens)
        gaps += [when - at for when, _ in traffic.ended(request, at)]

    assert 110 <= statistics.median(outputs) <= 130
    in_session = [gap for gap in gaps if gap < 1800]
    assert 95 <= statistics.median(in_session) <= 145


def test_rate_of_shared_prompts_rises_by_stage() -> None:
    """Poisson arrivals at the stage's rate, of every question there is."""
    questions = Questions(groups=10, stages=(Stage(per_s=10, seconds=60), Stage(per_s=40, seconds=60)))
    arrivals = list(SharedPrompts(questions, seed=1).begin())

    first = sum(at < 60 for at, _ in arrivals)
    assert 520 <= first <= 680
    assert 2200 <= len(arrivals) - first <= 2600
    assert {source for _, source in arrivals} == set(range(50))
    assert questions.tokens() == 10 * (6000 + 5 * 1200)


LINES = [
    Line(timestamp=0, input_length=1200, output_length=400, hash_ids=(0, 1, 2)),
    Line(timestamp=1000, input_length=1300, output_length=10, hash_ids=(0, 9, 10)),
    Line(timestamp=9000, input_length=2100, output_length=100, hash_ids=(0, 1, 3, 4, 5)),
    Line(timestamp=9500, input_length=2600, output_length=50, hash_ids=(0, 1, 3, 4, 6, 7)),
]


def test_follow_ups_are_found_by_their_blocks() -> None:
    """The third goes on from the first, and the fourth from the third, with all whole blocks of it."""
    trace = Trace(LINES, with_conversations=True, measured_from=0.0)
    requests = [trace.request(source, at) for at, source in trace.begin()]

    assert [0, 1, 0, 0] == [one.conversation for one in requests]
    assert [0, 0, 3, 4] == [one.prompt.reusable for one in requests]
    assert requests[2].prompt.links[:2] == requests[0].prompt.links


def test_extents_of_a_trace_cover_its_whole_blocks() -> None:
    """Paths part at extents' ends, and an answer's block is the one that the follow-up begins with."""
    trace = Trace(LINES, with_conversations=False, measured_from=0.0)
    prompts = [trace.request(source, at).prompt for at, source in trace.begin()]

    assert [2, 2, 4, 5] == [prompt.blocks() for prompt in prompts]
    assert prompts[0].extents == prompts[2].extents[: len(prompts[0].extents)]
    assert prompts[0].answer == prompts[2].extents[len(prompts[0].extents)][0]


def test_shares_and_spreads() -> None:
    """A percentile is a value that occurred; an even load is 1."""
    assert [1.0, 2.0, 4.0] == [share_of([1.0, 2.0, 3.0, 4.0], share) for share in (0.1, 0.5, 0.99)]
    assert [1.0, 2.0, 1.0] == [spread(loads) for loads in ((3, 3), (4, 0), ())]


def test_table_is_markdown() -> None:
    """Aligned, so that it can also be read as it is."""
    assert table(["", "hit"], [["a", "0.5"], ["long", "1"]]) == (
        "|      | hit |\n|------|-----|\n| a    | 0.5 |\n| long |   1 |"
    )


def test_death_and_restart_lose_no_conversation() -> None:
    """Everybody who was at home on the dead node is served elsewhere, and everybody comes back."""
    died, again = death("sticky, vllm-router", quick=True), restart("sticky, vllm-router", quick=True)

    assert died.orphans > 10
    assert died.rewarmed > 0.5
    assert again.returned == 100
    assert again.cold_per_conversation >= 0.9


def test_command_prints_tables_and_writes_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One workload, two contenders, and the numbers as JSON."""
    output = tmp_path / "deep" / "fleet.json"
    names = ["round robin", "oracle"]
    main(["--quick", "--workload", "73 %", "--only", *names, "--output", str(output)])

    printed = capsys.readouterr().out
    assert "TTFT p90 at requests/s" in printed
    saved = json.loads(output.read_text())
    assert names == [run["contender"] for run in saved["runs"]]
    assert saved["runs"][0]["figures"]["hit"] < saved["runs"][1]["figures"]["hit"]


def test_trace_that_is_not_there_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the data the rest still runs."""
    missing = tmp_path / "none.jsonl"
    main(["--quick", "--workload", "trace", "--trace", str(missing), "--output", str(tmp_path / "out.json")])

    assert f"No trace at {missing}" in capsys.readouterr().out


def test_ledger_is_capped_in_a_soak() -> None:
    """However much is placed, it keeps no more entries than its capacity."""
    cost = choice_cost.soak(250_000)

    assert cost.entries == 200_000


def test_costs_are_measured_for_every_size() -> None:
    """Numbers are for people to read; here only that they are numbers."""
    choices = choice_cost.choices((2, 4), rounds=1)
    dialogues = choice_cost.dialogues((2, 20), rounds=1)

    assert [2, 4] == [one.nodes for one in choices]
    assert [2, 20] == [one.messages for one in dialogues]
    assert all(one.bound_us > 0 and one.spread_us > 0 for one in choices)
