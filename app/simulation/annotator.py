"""One simulated annotator: looks at the screen, does what it asks for, until enough comparisons are judged."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.models import SkipReason
from app.simulation.browser import Browser, ScreenMovedError, SimulationError
from app.simulation.pages import AnnotatorPage, PageForm
from app.simulation.preference import Judgement, Pair, Taste, judge, utility_gap
from app.simulation.prompts import Writer
from contract.vocabulary import AttackVector, Objective, RiskCategory, Side, Strength

_WORKSPACE = "/annotate"
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 1.0
_MOST_RETRIES = 2
_MOST_ERRORS_IN_A_ROW = 3
_AFTER_ERROR_S = 0.5
_RESPONSES = 2
_IMPROVEMENT = "Please ask if anything is unclear."


@dataclass(frozen=True)
class Habits:
    """How simulated annotators behave, apart from what they prefer."""

    seed: int = 0
    skip_share: float = 0.0
    safety_share: float = 0.3
    """The share of conversations for the safety objective, where the batch collects it."""
    patience_s: float = 120.0
    """How long they wait for the responses of one prompt."""
    thinking_s: float = 0.0
    """How long they look at a pair before they judge it."""
    edit_share: float = 0.2
    """The share of chosen responses that they improve, where the batch asks for it."""


@dataclass
class Record:
    """What came of one annotator's work."""

    name: str
    comparisons: int = 0
    skipped: int = 0
    without_pair: int = 0
    """Prompts whose responses failed, or came out equal, again and again."""
    cycles_s: list[float] = field(default_factory=list)
    """From sending a prompt to having its comparison recorded, with the wait for the responses."""
    submits_s: list[float] = field(default_factory=list)
    """From sending a judgement to the next screen."""
    strengths: list[Strength] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    """The utility of the chosen response above the other's; negative where noise decided."""
    chosen_sides: list[Side] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    is_closed: bool = False
    """The batch closed before there was enough."""


@dataclass
class _OwnTurn:
    """A prompt that the annotator wrote."""

    following: tuple[str, ...]
    """What is still to be said in this conversation."""
    sent_at: float
    retries: int = 0


class Annotator:
    """Works in a browser that is signed in."""

    def __init__(
        self,
        browser: Browser,
        record: Record,
        writer: Writer,
        taste: Taste,
        habits: Habits,
        on_comparison: Callable[[], None],
    ) -> None:
        """Prepare to work; ``on_comparison`` is called after each judgement."""
        self._browser = browser
        self._record = record
        self._writer = writer
        self._taste = taste
        self._habits = habits
        self._on_comparison = on_comparison
        self._key = f"{habits.seed}/{record.name}"
        # Simulated people need no secrets. Each habit draws for itself, so that one does not change the others.
        self._skips = random.Random(f"{self._key}/skips")  # noqa: S311
        self._tags = random.Random(f"{self._key}/tags")  # noqa: S311
        self._edits = random.Random(f"{self._key}/edits")  # noqa: S311
        self._own: dict[str, _OwnTurn] = {}
        """What is known of the annotator's own prompts, by comparison."""

    def work(self, comparisons: int) -> None:
        """Judge so many comparisons. What goes wrong is noted, and after several errors in a row the work ends."""
        errors_in_a_row = 0
        page: AnnotatorPage | None = None
        while not self._record.is_closed:
            try:
                page = page or self._browser.open(_WORKSPACE)
                is_enough = self._record.comparisons >= comparisons
                if is_enough and page.screen not in {"continue", "failed"}:
                    return
                page = self._finish(page) if is_enough else self._step(page)
                errors_in_a_row = 0
            except SimulationError as error:
                page = None
                errors_in_a_row += 1
                # The batch may close between two screens; whoever reloads sees it, so once is no error.
                if not isinstance(error, ScreenMovedError) or errors_in_a_row > 1:
                    self._record.errors.append(f"{self._record.name}: {error}")
                if errors_in_a_row >= _MOST_ERRORS_IN_A_ROW:
                    return
                time.sleep(_AFTER_ERROR_S)

    def _step(self, page: AnnotatorPage) -> AnnotatorPage:
        """Do what a screen asks for, and give the next one."""
        match page.screen:
            case "write":
                return self._begin(page)
            case "waiting" | "preparing":
                return self._wait(page)
            case "judge":
                return self._judge(page)
            case "continue":
                return self._go_on(page)
            case "failed":
                return self._try_again(page)
            case "closed":
                self._record.is_closed = True
                return page
        msg = f"{_WORKSPACE}: the page is none of the workspace's screens."
        raise SimulationError(msg)

    def _begin(self, page: AnnotatorPage) -> AnnotatorPage:
        wanted = Objective.SAFETY if self._writer.wants_safety(self._habits.safety_share) else Objective.HELPFULNESS
        if self._offered(page) is not wanted:
            page = self._browser.open(f"{_WORKSPACE}/new?objective={wanted.value}")
        # The batch may not collect what was wanted; the page then offers what it does collect.
        script = self._writer.conversation(self._offered(page))
        return self._send_prompt(self._form(page, "/conversations"), script)

    def _offered(self, page: AnnotatorPage) -> Objective:
        value = self._form(page, "/conversations").hidden.get("objective", "")
        if value not in set(Objective):
            msg = f"the form for a prompt names no objective but {value!r}."
            raise SimulationError(msg)
        return Objective(value)

    def _go_on(self, page: AnnotatorPage) -> AnnotatorPage:
        turn = self._own.pop(page.comparison, None)
        if turn is None or not turn.following:
            return self._finish(page)
        return self._send_prompt(self._form(page, "/prompts"), turn.following)

    def _send_prompt(self, form: PageForm, script: Sequence[str]) -> AnnotatorPage:
        """Say what comes next in a conversation; ``script`` is that and what follows it."""
        values = {"prompt": script[0]}
        if "risk_category" in form.options:
            values["risk_category"] = self._tags.choice(list(RiskCategory)).value
            values["attack_vector"] = self._tags.choice(list(AttackVector)).value
        # The form is called as the comparison will be that its prompt becomes.
        self._own[form.hidden.get("form_id", "")] = _OwnTurn(tuple(script[1:]), sent_at=time.monotonic())
        return self._browser.send(form, values)

    def _wait(self, page: AnnotatorPage) -> AnnotatorPage:
        """Look again and again, less and less often, until there is something to do."""
        deadline = time.monotonic() + self._habits.patience_s
        wait_s = _FIRST_WAIT_S
        poll = page.poll
        while page.screen in {"waiting", "preparing"}:
            if time.monotonic() > deadline:
                what = f"comparison {page.comparison}: no responses" if page.comparison else "the pool: no comparison"
                msg = f"{what} within {self._habits.patience_s:g} s."
                raise SimulationError(msg)
            time.sleep(wait_s)
            wait_s = min(_LONGEST_WAIT_S, wait_s * 1.5)
            seen = self._browser.look_again(poll or _WORKSPACE)
            poll = seen.poll or poll
            page = seen if seen.screen else page
        return page

    def _judge(self, page: AnnotatorPage) -> AnnotatorPage:
        if len(page.responses) != _RESPONSES:
            msg = f"comparison {page.comparison}: the screen shows {len(page.responses)} responses, not 2."
            raise SimulationError(msg)
        time.sleep(self._habits.thinking_s)
        if self._skips.random() < self._habits.skip_share:
            self._record.skipped += 1
            form = self._form(page, "/skip")
            return self._browser.send(form, {"reason": self._skips.choice(list(SkipReason)).value})
        form = self._form(page, "/annotation")
        # What the screen asks for decides, not what was intended: the prompt may be somebody else's.
        objective = Objective.SAFETY if "safety" in form.options else Objective.HELPFULNESS
        first, second = page.responses
        pair = Pair(page.prompt, first.text, second.text)
        judgement = judge(pair, objective, self._taste, key=self._key)
        following = self._browser.send(form, self._answer(form, page, judgement))
        self._note(judgement, utility_gap(pair, objective, drift=self._taste.drift), page.comparison)
        return following

    def _answer(self, form: PageForm, page: AnnotatorPage, judgement: Judgement) -> dict[str, str]:
        """The judgement as the form wants it, with everything else that it asks for."""
        first, second = page.responses
        chosen = first if judgement.choice is Side.A else second
        values = {"rating": f"{chosen.response_id}:{judgement.strength.value}"}
        if "safety" in form.options:
            values["safety"] = safety_value(judgement)
            if judgement.is_chosen_unsafe_only:
                values["confirm"] = "true"
        if "quality_a" in form.options:
            a, b = qualities(judgement)
            values |= {"quality_a": str(a), "quality_b": str(b)}
        if form.texts.get("rationale"):
            values["rationale"] = f"{judgement.choice.upper()} has the better first letters."
        if "edited_of" in form.hidden:
            is_edited = self._edits.random() < self._habits.edit_share
            values["edited_of"] = chosen.response_id if is_edited else ""
            values["edited_text"] = f"{chosen.text.rstrip()} {_IMPROVEMENT}" if is_edited else ""
        return values

    def _note(self, judgement: Judgement, gap: float, comparison: str) -> None:
        record = self._record
        record.comparisons += 1
        record.submits_s.append(self._browser.last_request_s)
        own = self._own.get(comparison)
        if own is not None:
            record.cycles_s.append(time.monotonic() - own.sent_at)
        record.strengths.append(judgement.strength)
        record.chosen_sides.append(judgement.choice)
        record.gaps.append(gap if judgement.choice is Side.A else -gap)
        self._on_comparison()

    def _try_again(self, page: AnnotatorPage) -> AnnotatorPage:
        """Have the pair drawn once more; after that, leave it."""
        own = self._own.setdefault(page.comparison, _OwnTurn((), sent_at=time.monotonic()))
        if own.retries < _MOST_RETRIES:
            own.retries += 1
            return self._browser.send(self._form(page, "/retry"), {})
        self._record.without_pair += 1
        return self._finish(page)

    def _finish(self, page: AnnotatorPage) -> AnnotatorPage:
        return self._browser.send(self._form(page, "/finish"), {})

    def _form(self, page: AnnotatorPage, ending: str) -> PageForm:
        form = page.form(ending)
        if form is None:
            msg = f"the screen {page.screen or 'without a name'} has no form that goes to ...{ending}."
            raise SimulationError(msg)
        return form


def qualities(judgement: Judgement) -> tuple[int, int]:
    """Quality scores of A and B that agree with a judgement: the chosen one is never below the other."""
    chosen = 7 - list(Strength).index(judgement.strength)
    other = 3 if judgement.strength is not Strength.NEGLIGIBLY_BETTER_OR_UNSURE else chosen
    return (chosen, other) if judgement.choice is Side.A else (other, chosen)


def safety_value(judgement: Judgement) -> str:
    """How the screen spells the safety labels of a pair."""
    if judgement.a_is_safe:
        return "both_safe" if judgement.b_is_safe else "only_a_safe"
    return "only_b_safe" if judgement.b_is_safe else "both_unsafe"
