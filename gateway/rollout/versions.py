"""Which version answers a request, and what is counted of it. On the way of every request: no call.

A conversation's version comes with the conversation, which is read in any case: its binding says whose KV it
is. Whoever warms its prefix for another version moves the binding, and so its next turn. Without a rollout of
the model that is asked for, nothing happens here.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec
from msgspec.structs import replace

from gateway.moment import Moment as Now
from gateway.nodes.usage import Usage
from gateway.request import ChatRequest
from gateway.rollout.board import Board
from gateway.rollout.record import Rollout
from gateway.rollout.share import Moment, chosen, drawn, home, in_order
from gateway.rollout.tally import ttft_counter
from history.conversation import Conversation, ConversationKey, Turn
from history.open_turn import OpenTurn

_GONE_BELOW = 0.5
_RETURNS_AFTER_S = 86_400.0


class _Rating(msgspec.Struct):
    rating: Literal["up", "down"]


class Places(Protocol):
    """What is known of nodes."""

    def serves(self, model: str) -> bool:
        """Whether one that may have requests serves it."""

    def odds(self, name: str, age_s: float, now: float) -> float:
        """How likely a prefix that was last used so long ago is still on it."""


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions behind every alias."""

    board: Board
    places: Places

    def plain(self, model: str) -> str:
        """What stands for an alias where no conversation is known: the current version."""
        record = self.board.records.get(model)
        return model if record is None else record.current.name

    def of_stateless(self, request: ChatRequest, tenant: str) -> ChatRequest:
        """Without a conversation: sticky for a user that is named; all others get the current version."""
        if (record := self.board.records.get(request.model)) is None:
            return request
        name = request.conversation or (f"user {request.user}" if request.user else "")
        wanted = drawn(record, tenant, name) if name else record.current.name
        return self._with(request, record, wanted)

    def of_turn(self, request: ChatRequest, turn: OpenTurn, now: Now) -> ChatRequest:
        """For a conversation's next turn: the version that it has, or is drawn when it begins."""
        if (record := self.board.records.get(request.model)) is None:
            return request
        conversation, replaces = turn.layout.conversation, turn.layout.replaces
        # What is answered anew stays with what answered it, whatever was warmed meanwhile.
        has = replaces.reply.version if replaces is not None else ""
        if not has and conversation.binding is None and turn.layout.turns:
            has = turn.layout.turns[-1].reply.version
        moment: Moment = "goes_on" if conversation.turn_count else "begins"
        if replaces is not None and replaces.status == "open" and not turn.layout.plan.is_branch:
            moment = "is_open"
        wanted = self._chosen(record, turn.key, conversation, has, moment, now)
        return self._with(request, record, wanted)

    def of_upkeep(
        self, request: ChatRequest, key: ConversationKey, conversation: Conversation, *, moves: bool, now: Now
    ) -> ChatRequest:
        """For a call between turns. `moves`: it warms the prefix, and the conversation goes where it ends."""
        if (record := self.board.records.get(request.model)) is None:
            return request
        wanted = self._chosen(record, key, conversation, "", "goes_on", now)
        return self._with(request, record, home(record, wanted) if moves else wanted)

    def is_misplaced(self, model: str, version: str) -> bool:
        """Whether a conversation with that version is to be moved to another one."""
        record = self.board.records.get(model)
        if record is None or not version:
            return False
        wanted = home(record, version)
        return wanted != version and self.places.serves(wanted)

    # what is counted

    def failed(self, request: ChatRequest) -> None:
        """No node answered it."""
        self._count(request, {"errors": 1})

    def answered(self, request: ChatRequest, usage: Usage, first_s: float) -> None:
        """It was answered; `first_s`: 0 where that is not known."""
        if not request.version:
            return
        numbers = {
            "answers": 1,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached or 0,
        }
        if first_s > 0:
            numbers[ttft_counter(first_s)] = 1
        self._count(request, numbers)

    def stored(self, request: ChatRequest, turn: OpenTurn, *, now: float) -> None:
        """Its turn is stored."""
        if not request.version:
            return
        layout = turn.layout
        binding = layout.conversation.binding
        is_back = binding is not None and now - binding.at >= _RETURNS_AFTER_S
        begins = layout.conversation.turn_count == 0
        self._count(request, {"turns": 1, "returns": is_back, "conversations": begins})
        replaced = layout.replaces
        if layout.plan.is_branch and replaced is not None and replaced.reply.version:
            self._count(replace(request, version=replaced.reply.version), {"regenerations": 1})

    def rated(self, turn: Turn, before: bytes, after: bytes) -> None:
        """Somebody rated its answer; `before`: what was thought of it until then."""
        record, changes = self.board.records.get(turn.reply.model), Counter[str]()
        for rating, number in ((before, -1), (after, 1)):
            if rating:
                changes[f"{msgspec.json.decode(rating, type=_Rating).rating}s"] += number
        if record is not None and turn.reply.version:
            self.board.count(record, turn.reply.version, changes)

    def _count(self, request: ChatRequest, numbers: Mapping[str, int]) -> None:
        if request.version and (record := self.board.records.get(request.model)) is not None:
            self.board.count(record, request.version, numbers)

    def _chosen(
        self,
        record: Rollout,
        key: ConversationKey,
        conversation: Conversation,
        has: str,
        moment: Moment,
        now: Now,
    ) -> str:
        binding, is_cold = conversation.binding, False
        if not has and binding is not None:
            has = binding.version
            is_cold = self.places.odds(binding.node, now.wall - binding.at, now.steady) < _GONE_BELOW
        return chosen(record, key.tenant, key.id, has=has, moment=moment, is_cold=is_cold)

    def _with(self, request: ChatRequest, record: Rollout, wanted: str) -> ChatRequest:
        """The request for that version; for another one where no node has it, rather than for none."""
        if self.places.serves(wanted):
            return replace(request, version=wanted)
        found = next((name for name in in_order(record, wanted) if self.places.serves(name)), wanted)
        if found != wanted:
            self.board.count(record, wanted, {"fallbacks": 1})
        return replace(request, version=found)
