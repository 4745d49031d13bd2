"""Settings are read from all their layers, and every mistake is told at once."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.config_file import InvalidConfig, load, load_path


class Window(msgspec.Struct, frozen=True):
    """A section that has a rule of its own."""

    min_turns: int = 20
    max_turns: int | Literal["auto"] = 40
    policy: Literal["all", "last_n", "steps"] = "steps"

    def __post_init__(self) -> None:
        if isinstance(self.max_turns, int) and self.min_turns > self.max_turns:
            raise ValueError(f"min_turns {self.min_turns} is above max_turns {self.max_turns}")


class History(msgspec.Struct, frozen=True):
    """A section inside a section."""

    window: Window = Window()
    max_tokens: int = 0


class Node(msgspec.Struct, frozen=True):
    """An item of a list; two of its fields have no default."""

    engine: Literal["vllm", "sglang"]
    url: str
    weight: float = 1.0
    api_key: str = ""


class Store(msgspec.Struct, frozen=True):
    """Secrets, paths and limits."""

    url: str = "redis://127.0.0.1:6379/0"
    password: str | None = None
    pepper_file: Path | None = None
    pool_size: Annotated[int, msgspec.Meta(ge=1)] = 64
    is_on: bool = True


class Example(msgspec.Struct, frozen=True):
    """A whole tree."""

    name: str = "friendo"
    history: History = History()
    store: Store = Store()
    nodes: tuple[Node, ...] = ()
    labels: dict[str, str] = {}


def loaded(text: str = "", *overrides: str, **env: str) -> Example:
    """The example from a file, the command line and the environment."""
    return load(Example, text, env, overrides)


def problems(text: str = "", *overrides: str, **env: str) -> list[str]:
    """What is wrong with it, a line for each."""
    with pytest.raises(InvalidConfig) as refused:
        loaded(text, *overrides, **env)
    return [str(problem) for problem in refused.value.problems]


def test_an_empty_file_gives_the_defaults() -> None:
    """So does one whose sections hold nothing but comments."""
    expected = Example()

    assert expected == loaded("")
    assert expected == loaded("# nothing\nhistory:\n  window:\n    # later\nstore:\n")


def test_overrides_win_over_environment_over_file_over_defaults() -> None:
    """Each layer replaces single keys and leaves their neighbours."""
    text = "name: file\nhistory: {window: {min_turns: 1, max_turns: 2}}\nstore: {pool_size: 3}"
    env = {"FRIENDO__NAME": "env", "FRIENDO__HISTORY__WINDOW__MAX_TURNS": "5"}

    settings = loaded(text, "name=typed", **env)

    expected = Example(
        name="typed", history=History(Window(min_turns=1, max_turns=5)), store=Store(pool_size=3)
    )
    assert expected == settings


def test_variable_names_have_no_case() -> None:
    """Either case of prefix, section and key is the same setting."""
    settings = loaded("store: {pool_size: 3}", friendo__Store__POOL_size="7")

    expected = 7
    assert expected == settings.store.pool_size


def test_other_variables_are_left_alone() -> None:
    """Only the prefix with two underscores makes a setting."""
    assert Example() == loaded("", PATH="/bin", FRIENDO_KEY_PEPPER="x", FRIENDO="y")


def test_typed_values_are_yaml_scalars_and_flow_collections() -> None:
    """Numbers, switches, nothing, lists and mappings need no quotes."""
    settings = loaded(
        "",
        "nodes=[{engine: vllm, url: 'http://a:1'}, {engine: sglang, url: 'http://b:2', weight: 2}]",
        "labels={a: b}",
        FRIENDO__STORE__IS_ON="false",
        FRIENDO__STORE__PASSWORD="null",
        FRIENDO__HISTORY__WINDOW__MAX_TURNS="auto",
    )

    expected = Example(
        nodes=(Node("vllm", "http://a:1"), Node("sglang", "http://b:2", 2.0)),
        labels={"a": "b"},
        store=Store(is_on=False),
        history=History(Window(max_turns="auto")),
    )
    assert expected == settings


@pytest.mark.parametrize(
    "text", ["12345", "yes", "2026-01-01", "2026-13-45", "a: b", "", "{", "* x", "0x1F", "1_0"]
)
def test_a_typed_text_need_not_be_quoted(text: str) -> None:
    """What YAML would take for something else stays text where the setting is a text."""
    assert text == loaded("", FRIENDO__NAME=text).name
    assert text == loaded("", f"name={text}").name


def test_a_number_may_have_an_exponent_where_a_number_is_wanted() -> None:
    """YAML 1.1 alone would call it a text, which it stays where a text is wanted."""
    text = "name: 1e3\nnodes: [{engine: vllm, url: 2E4, weight: 1e-3}]"

    settings = loaded(text)

    assert ("1e3", (Node("vllm", "2E4", weight=0.001),)) == (settings.name, settings.nodes)


def test_a_variable_may_set_a_key_inside_a_section_set_by_another() -> None:
    """The section as a whole comes first, whatever their order."""
    env = {"FRIENDO__STORE__POOL_SIZE": "2", "FRIENDO__STORE": "{pool_size: 1, url: here}"}

    assert Store(url="here", pool_size=2) == loaded("", **env).store


def test_a_later_override_wins() -> None:
    """Repeated on one command line, the last one counts."""
    assert Store(pool_size=2) == loaded("", "store.pool_size=1", "store.pool_size=2").store


def test_free_names_are_kept_and_may_be_added_to() -> None:
    """A mapping with names of the operator's own takes further ones from the environment."""
    settings = loaded("labels: {Region: eu}", FRIENDO__LABELS__REGION="us", FRIENDO__LABELS__TIER="1")

    expected = {"Region": "us", "tier": "1"}
    assert expected == settings.labels


def test_placeholders_bring_in_variables_and_files() -> None:
    """Inside a value as well as alone; a file without its last line break."""
    files = {Path("/run/pw"): "s3:cret\n"}
    text = """
store:
  url: redis://:${PASSWORD}@${HOST}:6379/0
  password: ${file:/run/pw}
  pool_size: ${POOL}
"""
    env = {"PASSWORD": "p${w}", "HOST": "h", "POOL": "9"}

    store = load(Example, text, env, read_file=files.__getitem__).store

    expected = Store(url="redis://:p${w}@h:6379/0", password="s3:cret", pool_size=9)
    assert expected == store


def test_a_secret_of_digits_stays_a_text() -> None:
    """It is not read as a number, nor `null` as nothing."""
    text = "store: {password: '${A}'}\nnodes: [{engine: vllm, url: u, api_key: '${B}'}]"

    settings = loaded(text, A="null", B="0123")

    assert (settings.store.password, settings.nodes[0].api_key) == ("null", "0123")


def test_a_doubled_dollar_is_a_plain_one() -> None:
    """`$${` is how `${` is written."""
    expected = "${HOME}"

    assert expected == loaded("name: $${HOME}").name


def test_a_secret_that_is_overridden_need_not_exist() -> None:
    """Only the value that counts is looked into."""
    expected = "here"

    assert expected == loaded("store: {url: '${NOT_SET}'}", FRIENDO__STORE__URL="here").store.url


def test_a_missing_secret_names_the_setting_and_what_is_missing(tmp_path: Path) -> None:
    """Both a variable and a file, in one go."""
    text = f"store:\n  url: ${{URL}}\n  password: ${{file:{tmp_path}/none}}\nname: ${{a b}}"

    expected = [
        "store.url (line 2): needs the environment variable URL, which is not set",
        f"store.password (line 3): needs the file {tmp_path}/none: No such file or directory",
        "name (line 4): ${a b} is neither ${NAME} nor ${file:/path}; write $${ for a plain ${",
    ]
    assert expected == problems(text)


def test_every_problem_is_told_at_once_with_its_place() -> None:
    """Unknown keys, wrong types, missing keys, from the file, the environment and the command line."""
    text = """
history:
  window:
    min_turn: 3
    policy: step
  max_tokens: many
nodes:
  - engine: vllm
    url: http://a
  - engine: vlm
stor: {}
"""
    expected = [
        "oops (command line): a setting is given as section.key=value",
        "history.window.min_turn (line 4): there is no such setting; did you mean history.window.min_turns?",
        "history.window.policy (line 5): expected one of all, last_n, steps, got 'step'; did you mean steps?",
        "history.max_tokens (line 6): expected int, got 'many'",
        "nodes[1].engine (line 10): expected one of vllm, sglang, got 'vlm'; did you mean vllm?",
        "nodes[1].url (line 10): is missing, and it has no default",
        "stor (line 11): there is no such setting; did you mean store?",
        "store.pool_size (FRIENDO__STORE__POOL_SIZE): expected int >= 1, got 0",
        "store.is_on (set by store.is_on=): expected bool, got 'perhaps'",
    ]

    found = problems(text, "store.is_on=perhaps", "oops", FRIENDO__STORE__POOL_SIZE="0")

    assert sorted(expected) == sorted(found)


def test_an_unknown_key_finds_its_like_elsewhere() -> None:
    """A setting put into the wrong section is pointed to its own."""
    expected = ["max_turn (line 1): there is no such setting; did you mean history.window.max_turns?"]

    assert expected == problems("max_turn: 3")


def test_an_unknown_key_like_nothing_is_told_what_there_is() -> None:
    """The names of its section are listed."""
    expected = [
        "history.zzz (FRIENDO__HISTORY__ZZZ): there is no such setting; known here: window, max_tokens",
    ]

    assert expected == problems(FRIENDO__HISTORY__ZZZ="1")


def test_a_rule_between_two_keys_is_told_with_their_section() -> None:
    """What the record itself refuses has the record's path."""
    expected = ["history.window (line 1): min_turns 50 is above max_turns 40"]

    assert expected == problems("history: {window: {min_turns: 50}}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("history: 5", "history (line 1): expected a section, got 5"),
        ("history: [1]", "history (line 1): expected a section, got a list"),
        ("nodes: {a: b}", "nodes (line 1): expected a list, got a section"),
        ("name: {a: b}", "name (line 1): expected str, got a section"),
        ("name: 5", "name (line 1): expected str, got 5"),
        ("store: {is_on: 1}", "store.is_on (line 1): expected bool, got 1"),
        ("labels: {a: {b: c}}", "labels.a (line 1): expected str, got a section"),
        ("nodes: [5]", "nodes[0] (line 1): expected a section, got 5"),
    ],
)
def test_a_value_of_another_kind_is_told_with_both_kinds(text: str, expected: str) -> None:
    """What was expected, and what was found."""
    assert [expected] == problems(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "line 1, column 6"),
        ("name: a\nname: b", "name (line 2): is set twice, first in line 1"),
        ("- a", "the file has to be a mapping"),
        ("a: &a [*a]", "deep"),
        ("a: " + "[" * 100 + "]" * 100, "deep"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: \x00", "special characters are not allowed"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_clear_problem(text: str, expected: str) -> None:
    """Broken YAML, twice the same key, no mapping, absurd nesting."""
    (found,) = problems(text)

    assert expected in found


def test_a_path_through_a_list_is_refused() -> None:
    """A list is set as a whole."""
    expected = ["nodes (set by nodes.0.url=): is no section; set it as a whole, like [...]"]

    assert expected == problems("nodes: [{engine: vllm, url: a}]", "nodes.0.url=b")


@pytest.mark.parametrize(
    ("text", "env"),
    [
        ("store: {password: [hunter2]}", {}),
        ("store: {password: {a: hunter2}}", {}),
        ("nodes: [{engine: vllm, url: [hunter2]}]", {}),
        ("store: {pool_size: '${PW}'}", {"PW": "hunter2"}),
        ("store: {is_on: '${PW}'}", {"PW": "hunter2"}),
        ("history: {window: {policy: '${PW}'}}", {"PW": "hunter2"}),
        ("store: {is_on: redis://me:hunter2@h}", {}),
        ("", {"FRIENDO__STORE__PASSWORD": "[hunter2]", "FRIENDO__STORE__POOL_SIZE": "x"}),
    ],
)
def test_no_problem_shows_a_secret(text: str, env: dict[str, str]) -> None:
    """Neither by its setting's name, nor brought in by a placeholder, nor inside a URL."""
    if "PASSWORD" in str(env):
        env = {**env, "FRIENDO__STORE__PASSWORD": "[hunter2]"}

    assert "hunter2" not in "\n".join(problems(text, **env))


_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$\x85\u2028\u2029\ufeff"), max_size=20
)
_EXAMPLES = st.builds(
    Example,
    name=_TEXT,
    history=st.builds(
        History,
        window=st.builds(Window, min_turns=st.integers(1, 9), max_turns=st.integers(9, 99) | st.just("auto")),
        max_tokens=st.integers(0, 1 << 40),
    ),
    store=st.builds(
        Store, url=_TEXT, password=st.none() | _TEXT, pool_size=st.integers(1, 99), is_on=st.booleans()
    ),
    nodes=st.lists(
        st.builds(Node, engine=st.sampled_from(["vllm", "sglang"]), url=_TEXT, weight=st.floats(0, 1e6)),
        max_size=3,
    ).map(tuple),
    labels=st.dictionaries(_TEXT.filter(bool), _TEXT, max_size=3),
)


@given(_EXAMPLES)
def test_written_settings_are_read_as_they_were(settings: Example) -> None:
    """As a file, and as one override for each section."""
    plain = msgspec.to_builtins(settings, enc_hook=str)
    text = yaml.safe_dump(plain)
    typed = [f"{key}={msgspec.json.encode(value).decode()}" for key, value in plain.items()]

    assert settings == loaded(text)
    assert settings == loaded("", *typed)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """It is missing, or it is not text."""
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(
        InvalidConfig, match=r"none\.yaml has one problem:\n  it cannot be read: No such file"
    ):
        load_path(Example, tmp_path / "none.yaml", {})
    with pytest.raises(InvalidConfig, match="not UTF-8"):
        load_path(Example, binary, {})
