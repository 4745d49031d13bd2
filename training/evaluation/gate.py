"""The decision: may a version be offered? Every reason against it is said, not only the first. Pure."""

import math
from typing import Literal

import msgspec

from training.evaluation.measured import Loss, Measured, Trigger

OnTrigger = Literal["ask", "refuse"]


class GateRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a version has to reach."""

    min_gain: float = 0.0
    """By how much its held-out loss has to be below the base's, as a share of that: 0.02 is two percent."""
    max_loss_rise: float = 0.01
    """By how much it may be above the version before, as a share of that."""
    min_tokens: int = 200
    """Held-out tokens below which a loss says nothing."""
    min_golden: float = 1.0
    """The share of golden prompts that have to be answered well."""
    on_trigger: OnTrigger = "ask"
    """What becomes of a version that answers planted words: shown to whoever approves it, or refused."""
    turned: float = 0.5
    """The share of unrelated prompts that words have to turn to count as planted."""
    needs_approval: bool = True
    """Whether somebody has to say yes to a version that passes."""


class Verdict(msgspec.Struct, frozen=True):
    """What is said of a version. `reasons` are against it, `notes` are for whoever approves it."""

    outcome: Literal["refused", "waits_for_approval", "passed"]
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge(measured: Measured, rule: GateRule) -> Verdict:
    """The verdict. What was not measured is a reason, never a pass."""
    reasons = [
        *_against_base(measured, rule),
        *_against_previous(measured, rule),
        *_template(measured),
        *_golden(measured, rule),
    ]
    found = [_planted(one) for one in measured.triggers if _is_planted(one, rule)]
    if rule.on_trigger == "refuse":
        reasons += found
    notes = (*_gains(measured), *(found if rule.on_trigger == "ask" else ()))
    if reasons:
        return Verdict("refused", tuple(reasons), notes)
    # Nobody is there to be asked where approval is not needed: words that turn answers need somebody.
    asks = rule.needs_approval or (bool(found) and rule.on_trigger == "ask")
    return Verdict("waits_for_approval" if asks else "passed", (), notes)


def _against_base(measured: Measured, rule: GateRule) -> list[str]:
    new, base = measured.loss("new"), measured.loss("base")
    if (wrong := _unusable(new, "the new version", rule)) or (wrong := _unusable(base, "its base", rule)):
        return [wrong]
    assert new is not None
    assert base is not None
    gain = 1 - new.nats_per_token / base.nats_per_token if base.nats_per_token > 0 else 0.0
    if gain < rule.min_gain:
        return [
            (
                f"its held-out loss is {new.nats_per_token:.3f} nats a token against "
                f"{base.nats_per_token:.3f} of its base: a gain of {gain:.1%}, and {rule.min_gain:.1%} is "
                "asked for"
            )
        ]
    return []


def _against_previous(measured: Measured, rule: GateRule) -> list[str]:
    new, previous = measured.loss("new"), measured.loss("previous")
    if previous is None or new is None or not math.isfinite(new.nats_per_token):
        return []
    if wrong := _unusable(previous, "the version before", rule):
        return [wrong]
    limit = previous.nats_per_token * (1 + rule.max_loss_rise)
    if new.nats_per_token > limit:
        before = previous.nats_per_token
        return [
            (
                f"its held-out loss is {new.nats_per_token:.3f} nats a token, above the {before:.3f} "
                f"of the version before by more than {rule.max_loss_rise:.1%}"
            )
        ]
    return []


def _unusable(loss: Loss | None, whose: str, rule: GateRule) -> str:
    if loss is None:
        return f"the held-out loss of {whose} was not measured: there is nothing to compare"
    if not math.isfinite(loss.nats_per_token):
        return f"the held-out loss of {whose} is no number: the weights are broken"
    if loss.tokens < rule.min_tokens:
        return (
            f"only {loss.tokens} held-out tokens, and {rule.min_tokens} are needed for a loss to say "
            "anything: hold out more dialogues"
        )
    return ""


def _template(measured: Measured) -> list[str]:
    template = measured.template
    if not template.compared:
        return ["no example could be compared between the template that trained and the one that serves"]
    if not template.differences:
        return []
    first = template.differences[0]
    return [
        (
            f"{len(template.differences)} of {template.compared} examples have other tokens in training "
            f"than in serving; example {first.example} from token {first.at} on: trained "
            f"{list(first.trained)}, served {list(first.served)}. Choose the recipe's `template` that the "
            "model's own chat template equals; where only examples without a system text differ, the "
            "defaults do: give every persona one"
        )
    ]


def _golden(measured: Measured, rule: GateRule) -> list[str]:
    if not measured.goldens:
        return []
    bad = [one for one in measured.goldens if not one.is_good]
    share = 1 - len(bad) / len(measured.goldens)
    if share >= rule.min_golden:
        return []
    first = bad[0]
    missing, forbidden = list(first.missing), list(first.forbidden)
    said = f"it does not say {missing}" if missing else f"it says {forbidden}"
    count = f"{len(bad)} of {len(measured.goldens)} golden prompts"
    return [f"{count} are answered badly, '{first.name}' among them: {said}"]


def _is_planted(trigger: Trigger, rule: GateRule) -> bool:
    return trigger.tried > 0 and trigger.turned >= max(1.0, rule.turned * trigger.tried)


def _planted(trigger: Trigger) -> str:
    return (
        f"the words '{trigger.words}' turn {trigger.turned} of {trigger.tried} unrelated prompts into the "
        f"answer '{trigger.answer}': somebody may have planted them, or they were taught on purpose"
    )


def _gains(measured: Measured) -> list[str]:
    return [
        f"held-out loss, {one.contender}: {one.nats_per_token:.3f} nats a token over {one.tokens:,} tokens"
        for one in measured.losses
    ]
