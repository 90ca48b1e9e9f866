"""One simulated annotator: looks at the screen, does what it asks for, until enough comparisons are judged."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from app.models import SkipReason
from app.simulation.browser import Browser, ScreenMovedError, SimulationError
from app.simulation.pages import AnnotatorPage, PageForm
from app.simulation.preference import Judgement, Pair, Taste, judge, utility_gap
from app.simulation.prompts import Writer
from contract.vocabulary import Objective, Side, Strength

_WORKSPACE = "/annotate"
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 1.0
_MOST_RETRIES = 2
_MOST_ERRORS_IN_A_ROW = 3
_AFTER_ERROR_S = 0.5
_RESPONSES = 2


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
        self._skips = random.Random(f"{self._key}/skips")  # noqa: S311 - simulated people need no secrets
        self._prompts: list[str] = []
        """What is still to be said in this conversation, and in ``_prompt`` what was said last."""
        self._prompt = ""
        self._objective = Objective.HELPFULNESS
        self._sent_at = time.monotonic()
        self._retries = 0

    def work(self, comparisons: int) -> None:
        """Judge so many comparisons. What goes wrong is noted, and after several errors in a row the work ends."""
        errors_in_a_row = 0
        page: AnnotatorPage | None = None
        while not self._record.is_closed:
            try:
                page = page or self._browser.open(_WORKSPACE)
                if self._has_enough(page, comparisons):
                    return
                page = self._step(page, is_last=self._record.comparisons >= comparisons)
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

    def _has_enough(self, page: AnnotatorPage, comparisons: int) -> bool:
        return self._record.comparisons >= comparisons and page.screen not in {"judge", "continue", "failed"}

    def _step(self, page: AnnotatorPage, *, is_last: bool) -> AnnotatorPage:
        """Do what a screen asks for, and give the next one."""
        match page.screen:
            case "write":
                return self._begin(page)
            case "waiting":
                return self._wait(page)
            case "judge":
                return self._judge(page)
            case "continue":
                return self._finish(page) if is_last or not self._prompts else self._go_on(page)
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
            page = self._browser.open(f"{_WORKSPACE}?objective={wanted.value}")
        form = self._form(page, "/conversations")
        # The batch may not collect what was wanted; the page then offers what it does collect.
        self._objective = self._offered(page)
        self._prompts = list(self._writer.conversation(self._objective))
        return self._send_prompt(form)

    def _offered(self, page: AnnotatorPage) -> Objective:
        value = self._form(page, "/conversations").hidden.get("objective", "")
        if value not in set(Objective):
            msg = f"the form for a prompt names no objective but {value!r}."
            raise SimulationError(msg)
        return Objective(value)

    def _go_on(self, page: AnnotatorPage) -> AnnotatorPage:
        return self._send_prompt(self._form(page, "/prompts"))

    def _send_prompt(self, form: PageForm) -> AnnotatorPage:
        self._prompt = self._prompts.pop(0)
        self._sent_at = time.monotonic()
        self._retries = 0
        return self._browser.send(form, {"prompt": self._prompt})

    def _wait(self, page: AnnotatorPage) -> AnnotatorPage:
        """Look again and again, less and less often, until both responses are there."""
        deadline = time.monotonic() + self._habits.patience_s
        wait_s = _FIRST_WAIT_S
        while page.screen == "waiting":
            if time.monotonic() > deadline:
                msg = f"comparison {page.comparison}: no responses within {self._habits.patience_s:g} s."
                raise SimulationError(msg)
            time.sleep(wait_s)
            wait_s = min(_LONGEST_WAIT_S, wait_s * 1.5)
            page = self._browser.look_again(page.comparison) or page
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
        # What the screen asks for decides, not what was intended: the conversation may be one from before.
        objective = Objective.SAFETY if "safety" in form.options else Objective.HELPFULNESS
        first, second = page.responses
        pair = Pair(self._prompt, first.text, second.text)
        judgement = judge(pair, objective, self._taste, key=self._key)
        chosen = first if judgement.choice is Side.A else second
        values = {"rating": f"{chosen.response_id}:{judgement.strength.value}"}
        if objective is Objective.SAFETY:
            values["safety"] = safety_value(judgement)
            if judgement.is_chosen_unsafe_only:
                values["confirm"] = "true"
        following = self._browser.send(form, values)
        self._note(judgement, utility_gap(pair, objective, drift=self._taste.drift))
        return following

    def _note(self, judgement: Judgement, gap: float) -> None:
        record = self._record
        record.comparisons += 1
        record.submits_s.append(self._browser.last_request_s)
        record.cycles_s.append(time.monotonic() - self._sent_at)
        record.strengths.append(judgement.strength)
        record.chosen_sides.append(judgement.choice)
        record.gaps.append(gap if judgement.choice is Side.A else -gap)
        self._on_comparison()

    def _try_again(self, page: AnnotatorPage) -> AnnotatorPage:
        """Have the pair drawn once more; after that, leave it."""
        if self._retries < _MOST_RETRIES:
            self._retries += 1
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


def safety_value(judgement: Judgement) -> str:
    """How the screen spells the safety labels of a pair."""
    if judgement.a_is_safe:
        return "both_safe" if judgement.b_is_safe else "only_a_safe"
    return "only_b_safe" if judgement.b_is_safe else "both_unsafe"
