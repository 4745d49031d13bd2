"""The stub node's tokenizer and its answers: append-only dialogues give append-only prompts."""

import json
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.stub_node import answers, tokens
from bench.stub_node.answers import Limits
from bench.stub_node.wire import Function, FunctionCall, Message, Tool, ToolCall

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=st.none() | text,
    tool_calls=st.none()
    | st.lists(
        st.builds(ToolCall, function=st.builds(FunctionCall, name=st.just("look"), arguments=text)),
        max_size=2,
    ),
)
dialogues = st.lists(messages, min_size=1, max_size=5)


def is_strict_prefix(short: "array[int]", long: "array[int]") -> bool:
    return len(short) < len(long) and long[: len(short)] == short


class TestTokens:
    @given(text)
    def test_pieces_joined_are_the_text(self, said: str) -> None:
        """Nothing is lost or added by splitting."""
        assert said == "".join(tokens.split(said))

    @settings(deadline=None)
    @given(dialogues, text, dialogues)
    def test_next_prompt_begins_with_this_prompt(
        self, past: list[Message], answer: str, after: list[Message]
    ) -> None:
        """An append-only dialogue gives append-only prompts, whatever characters are in it."""
        longer = [*past, Message("assistant", answer), *after]

        assert is_strict_prefix(tokens.prompt(past), tokens.prompt(longer))
        assert is_strict_prefix(
            tokens.prompt(past, answer_next=False), tokens.prompt(longer, answer_next=False)
        )

    @settings(deadline=None)
    @given(dialogues, st.lists(text, max_size=2))
    def test_prompt_is_its_rendered_text_tokenised(self, past: list[Message], tools: list[str]) -> None:
        """Tokenising message by message gives what tokenising the whole gives."""
        assert tokens.encode(tokens.render(past, tools=tools)) == tokens.prompt(past, tools=tools)

    def test_pieces_are_words_digits_marks_and_single_foreign_characters(self) -> None:
        """The rules of splitting, by example."""
        said = "Internationally, 12345 Zürich!\n\n 你好 <|im_end|>"

        assert [
            "Internat",
            "ionally",
            ",",
            " 123",
            "45",
            " Zürich",
            "!",
            "\n",
            "\n",
            " ",
            "你",
            "好",
            " ",
            "<|im_end|>",
        ] == (tokens.split(said))

    def test_ids_are_the_same_in_every_process(self) -> None:
        """Golden ids: a changed hash would make recorded runs incomparable."""
        assert [1, 2, 4211111929, 1712105654] == list(tokens.encode("<|im_start|><|im_end|>hello world"))


def ended_with(answer: answers.Answer) -> Message:
    """The assistant message that a client stores for an answer."""
    if answer.call is None:
        return Message("assistant", answer.text)
    call = FunctionCall(answer.call.name, "".join(answer.arguments))
    return Message("assistant", None, [ToolCall(function=call)])


WEATHER = Tool(Function("get_weather"))


class TestAnswers:
    @settings(deadline=None)
    @given(text, st.none() | st.integers(1, 40), st.integers(0, 2**40))
    def test_sentence_comes_back_as_the_tokens_generated(
        self, said: str, max_tokens: int | None, seed: int
    ) -> None:
        """Prompt and generated tokens together begin the next prompt, so that all of it is a cache hit."""
        past = [Message("user", said)]
        answer = answers.answer(past, limits=Limits(max_tokens, room=4000, usual=20), seed=seed)
        follow_up = tokens.prompt([*past, ended_with(answer), Message("user", "more")])

        assert is_strict_prefix(tokens.prompt(past) + answer.ids, follow_up)

    @settings(deadline=None)
    @given(st.dictionaries(text, text | st.integers() | st.none(), max_size=4))
    def test_tool_call_comes_back_as_the_tokens_generated(self, spoken: dict[str, object]) -> None:
        """The same for a tool call whose arguments the client returns verbatim."""
        arguments = json.dumps(spoken, ensure_ascii=False)
        past = [Message("user", f"Please call get_weather {arguments}")]
        answer = answers.answer(past, limits=Limits(None, room=4000, usual=20), tools=[WEATHER])

        assert arguments == "".join(answer.arguments)
        follow_up = tokens.prompt([*past, ended_with(answer), Message("tool", "sunny")])
        assert is_strict_prefix(tokens.prompt(past) + answer.ids, follow_up)

    @given(st.integers(1, 300))
    def test_max_tokens_is_the_length_of_the_answer(self, wanted: int) -> None:
        """A benchmark gets exactly the tokens that it asks for."""
        answer = answers.sentence(7, limits=Limits(wanted, room=1000, usual=20))

        assert (wanted, wanted, "length") == (len(answer.ids), len(answer.pieces), answer.finish)

    def test_answer_of_usual_length_ends_by_itself(self) -> None:
        """The end token is generated and counted, and is no text."""
        answer = answers.sentence(7, limits=Limits(None, room=1000, usual=20))

        assert (21, 20, "stop") == (len(answer.ids), len(answer.pieces), answer.finish)
        assert tokens.END_OF_ANSWER == answer.ids[-1]

    def test_answer_stops_where_the_context_ends(self) -> None:
        """The room that is left bounds every answer."""
        answer = answers.sentence(7, limits=Limits(None, room=5, usual=20))

        assert (5, "length") == (len(answer.ids), answer.finish)

    def test_stop_string_is_cut_off_and_its_tokens_are_counted(self) -> None:
        """As engines do: the token that completes the stop string is generated, the string not shown."""
        limits = Limits(None, room=1000, usual=20, stops=("e is", "never"))
        past = [Message("user", "My name is Ada."), Message("user", "What is my name?")]
        answer = answers.answer(past, limits=limits)

        assert ("Your nam", 3, "stop", "e is") == (answer.text, len(answer.ids), answer.finish, answer.stop)

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            (["Hi, my name is Ada-Maria!", "Lovely day.", "What is my name?"], "Your name is Ada-Maria."),
            (["my name is Ada", "No, My Name is Bob", "what's my name"], "Your name is Bob."),
            (["[earlier: my name is Zoë] So, what is my name?"], "Your name is Zoë."),
            (["Hello", "What is my name?"], "I do not know your name."),
        ],
    )
    def test_name_is_remembered_only_from_the_prompt(self, said: list[str], expected: str) -> None:
        """The memory test of a gateway: the node knows what the prompt says, the newest word counts."""
        past = [Message("user", line) for line in said]

        assert expected == answers.answer(past, limits=Limits(None, room=1000, usual=20)).text

    def test_same_message_and_seed_give_the_same_answer(self) -> None:
        """Answers can be predicted, and varied by `seed`."""
        limits = Limits(None, room=1000, usual=20)
        once, again, other = (
            answers.answer([Message("user", "Hi")], limits=limits, seed=n).text for n in (1, 1, 2)
        )

        assert once == again
        assert once != other
