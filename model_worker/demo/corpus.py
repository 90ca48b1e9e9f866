"""Composes the conversations that the demo checkpoint learns from.

The texts lie in `corpus/*.toml`, written for this project. A conversation is put together from
them by chance: a question and how it is asked, the style of the answer, its parts, what the user
says next. The same seed gives the same conversations, and hardly one comes twice.
"""

import random
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

SOURCES = Path(__file__).parent / "corpus"


class Message(TypedDict):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Conversation = list[Message]
Style = Literal["short", "plain", "numbered", "bullets", "poor"]


@dataclass(frozen=True)
class Tip:
    """One piece of advice: a heading of a few words, and a sentence that stands alone."""

    heading: str
    sentence: str


@dataclass(frozen=True)
class Topic:
    """Something that users ask about, and the parts that answers are made of.

    A topic with tips is answered with composed advice; one without has whole `answers`.
    """

    id: str
    asks: Sequence[str]
    names: Sequence[str] = ()
    answers: Sequence[str] = ()
    openers: Sequence[str] = ()
    tips: Sequence[Tip] = ()
    closings: Sequence[str] = ()
    poor: Sequence[str] = ()
    why: Sequence[str] = ()
    examples: Sequence[str] = ()


@dataclass(frozen=True)
class Risky:
    """Something that had better be refused; `careless` are the answers that do not."""

    id: str
    asks: Sequence[str]
    refusals: Sequence[str]
    safer: Sequence[str]
    careless: Sequence[str]


@dataclass(frozen=True)
class Corpus:
    """Everything that was read from the source files.

    `phrases` holds what fits any topic, by name; `things` and `activities` are what the model
    knows nothing about; `facts` are pairs of a short question and its answer.
    """

    topics: Sequence[Topic]
    risky: Sequence[Risky]
    phrases: dict[str, Sequence[str]]
    things: Sequence[str]
    activities: Sequence[str]
    people: Sequence[str]
    facts: Sequence[tuple[str, str]] = field(default=())


def read_corpus(folder: Path = SOURCES) -> Corpus:
    """Read all source files of `folder`.

    Raises ValueError that names the topic where an id comes twice or a topic has no answer.
    """
    topics: list[Topic] = []
    risky: list[Risky] = []
    phrases: dict[str, Sequence[str]] = {}
    unknown: dict[str, list[str]] = {}
    facts: list[tuple[str, str]] = []
    for path in sorted(folder.glob("*.toml")):
        source = tomllib.loads(path.read_text(encoding="utf-8"))
        topics += [read_topic(entry) for entry in source.get("topic", [])]
        risky += [Risky(**entry) for entry in source.get("risky", [])]
        phrases |= source.get("phrases", {})
        unknown |= source.get("unknown", {})
        facts += [(ask, answer) for ask, answer in source.get("facts", {}).items()]
    ids = [entry.id for entry in (*topics, *risky)]
    for name in ids:
        if ids.count(name) > 1:
            message = f"topic {name!r} comes twice"
            raise ValueError(message)
    return Corpus(
        topics=topics,
        risky=risky,
        phrases=phrases,
        things=unknown["things"],
        activities=unknown["activities"],
        people=unknown["people"],
        facts=facts,
    )


def read_topic(entry: dict[str, Any]) -> Topic:
    """Make a topic of its TOML table; a tip is written "heading | sentence"."""
    tips = [Tip(*tip.split(" | ")) for tip in entry.pop("tips", [])]
    topic = Topic(tips=tips, **entry)
    if not topic.tips and not topic.answers:
        message = f"topic {topic.id!r} has neither tips nor answers"
        raise ValueError(message)
    return topic


def build_conversations(seed: int, corpus: Corpus | None = None) -> Iterator[Conversation]:
    """Compose conversations without end; each is system prompt (or none) and one to six turns."""
    composer = Composer(corpus or read_corpus(), random.Random(seed))  # noqa: S311
    while True:
        yield composer.conversation()


class Composer:
    """Draws conversations from a corpus with one random generator."""

    def __init__(self, corpus: Corpus, rng: random.Random) -> None:
        """Compose from `corpus`, with `rng` as the only source of chance."""
        self.corpus = corpus
        self.rng = rng

    def conversation(self) -> Conversation:
        """Compose one conversation."""
        system, style = self.system_prompt()
        turns = self.rng.choices([1, 2, 3, 4, 6], weights=[46, 26, 15, 9, 4])[0]
        messages: Conversation = []
        if system:
            messages.append({"role": "system", "content": system})
        while turns > 0:
            exchanges = self.exchanges(turns, style)
            for prompt, response in exchanges:
                messages.append({"role": "user", "content": prompt})
                messages.append({"role": "assistant", "content": response})
            turns -= len(exchanges)
        return messages

    def system_prompt(self) -> tuple[str, Style | None]:
        """Draw a system prompt, and the style of answer that it asks for, if any."""
        kind = self.rng.choices(
            ["none", "system", "system_short", "system_list"], weights=[82, 10, 4, 4]
        )[0]
        if kind == "none":
            return "", None
        prompt = self.phrase(kind)
        if kind == "system_short":
            return prompt, "short"
        return prompt, ("numbered" if kind == "system_list" else None)

    def exchanges(self, turns: int, style: Style | None) -> list[tuple[str, str]]:
        """Compose at most `turns` turns that belong together, as (prompt, response)."""
        kinds: list[tuple[int, Callable[[], list[tuple[str, str]]]]] = [
            (66, lambda: self.about_topic(self.rng.choice(self.corpus.topics), turns, style)),
            (15, lambda: self.about_unknown(turns)),
            (11, lambda: self.about_risky(self.rng.choice(self.corpus.risky), turns)),
            (5, lambda: [self.rng.choice(self.corpus.facts)]),
            (3, self.about_name),
        ]
        weights, composers = zip(*kinds, strict=True)
        return self.rng.choices(composers, weights=weights)[0]()

    # Known topics

    def about_topic(self, topic: Topic, turns: int, style: Style | None) -> list[tuple[str, str]]:
        """Ask about a topic, then follow up on the answer."""
        ask, asked_style = self.ask(topic)
        style = asked_style or style or self.style()
        exchanges = [(ask, self.answer(topic, style))]
        for _ in range(turns - 1):
            if self.rng.random() < 0.15:
                break  # The conversation goes on with another topic.
            exchanges.append(self.follow_up(topic))
        return exchanges

    def ask(self, topic: Topic) -> tuple[str, Style | None]:
        """Compose a question about `topic`, and the style it asks for, if any."""
        if topic.names and self.rng.random() < 0.3:
            question = self.phrase("ask_about").format(x=self.rng.choice(topic.names))
        else:
            question = self.rng.choice(topic.asks)
        style: Style | None = None
        if topic.tips and self.rng.random() < 0.12:
            kind, style = self.rng.choice(
                [("wish_short", "short"), ("wish_list", "numbered"), ("wish_plain", "plain")]
            )
            question = f"{question} {self.phrase(kind)}"
        return self.spoken(question), style

    def style(self) -> Style:
        """Draw the style of an answer; a few are poor, so that there is something to prefer."""
        styles: list[Style] = ["short", "plain", "numbered", "bullets", "poor"]
        return self.rng.choices(styles, weights=[27, 27, 24, 13, 9])[0]

    def answer(self, topic: Topic, style: Style) -> str:
        """Compose an answer; a topic without tips has one style only."""
        if style == "poor" and topic.poor:
            return self.rng.choice(topic.poor)
        if not topic.tips or (style in {"short", "poor"} and topic.answers):
            return self.rng.choice(topic.answers)
        tips = self.tips(topic, self.rng.randint(2, 4) if style == "plain" else 3)
        opener, closing = self.opener(topic), self.closing(topic)
        match style:
            case "numbered":
                lines = [f"{n}. {tip.sentence}" for n, tip in enumerate(tips, start=1)]
                body = "\n".join(lines)
            case "bullets":
                body = "\n".join(f"- **{tip.heading}**: {tip.sentence}" for tip in tips)
            case _:
                return join_sentences(opener, *(tip.sentence for tip in tips), closing)
        return "\n\n".join(part for part in (opener, body, closing) if part)

    def tips(self, topic: Topic, count: int) -> list[Tip]:
        """Draw `count` tips, in the topic's own order, because many are steps."""
        count = min(count + self.rng.randint(0, 1), len(topic.tips))
        return [topic.tips[n] for n in sorted(self.rng.sample(range(len(topic.tips)), count))]

    def opener(self, topic: Topic) -> str:
        """Draw the first sentence of a longer answer."""
        own = bool(topic.openers) and self.rng.random() < 0.75
        return self.rng.choice(topic.openers) if own else self.phrase("openers")

    def closing(self, topic: Topic) -> str:
        """Draw the last sentence of a longer answer, or none."""
        kind = self.rng.choices(["own", "shared", "none"], weights=[40, 30, 30])[0]
        if kind == "own" and topic.closings:
            return self.rng.choice(topic.closings)
        return "" if kind == "none" else self.phrase("closings")

    def follow_up(self, topic: Topic) -> tuple[str, str]:
        """Compose a next turn that leans on the topic: (prompt, response)."""
        kinds = ["thanks", "another", "goodbye"]
        weights = [22, 26, 4]
        if topic.tips:
            kinds = ["thanks", "more", "goodbye", "shorter", "list"]
            weights = [18, 20, 3, 20, 6]
        if topic.why:
            kinds.append("why")
            weights.append(18)
        if topic.examples:
            kinds.append("example")
            weights.append(14)
        kind = self.rng.choices(kinds, weights=weights)[0]
        prompt = self.spoken(self.phrase(f"say_{kind}"))
        return prompt, self.follow_up_answer(topic, kind)

    def follow_up_answer(self, topic: Topic, kind: str) -> str:
        """Compose the response to a follow-up of `kind`."""
        match kind:
            case "another":
                return self.rng.choice(topic.answers)
            case "more":
                tips = self.tips(topic, 2)
                return join_sentences(self.phrase("more"), *(tip.sentence for tip in tips))
            case "shorter":
                return self.rng.choice(topic.answers)
            case "list":
                return self.answer(topic, "numbered")
            case "why":
                return self.rng.choice(topic.why)
            case "example":
                return self.rng.choice(topic.examples)
        return self.phrase(kind)

    # What the model knows little or nothing about

    def about_unknown(self, turns: int) -> list[tuple[str, str]]:
        """Ask about something outside the topics; the answer names it and stays modest."""
        kind = self.rng.choice(["thing", "thing", "activity"])
        name = self.unknown_name(kind)
        ask = self.spoken(self.phrase(f"ask_{kind}").format(x=name), typos=False)
        # Lower-case questions get the name as the user wrote it.
        shown = name if name in ask else name.lower()
        if self.rng.random() < 0.3:
            answer = self.phrase(f"{kind}_list").format(x=shown)
        else:
            answer = join_sentences(
                self.phrase(f"{kind}_start").format(x=shown),
                self.phrase(f"{kind}_advice").format(x=shown),
                self.phrase("closings") if self.rng.random() < 0.4 else "",
            )
        exchanges = [(ask, answer)]
        for _ in range(turns - 1):
            if self.rng.random() < 0.35:
                break
            kind_next = self.rng.choice(["thanks", "more_unknown", "why_unknown", "example_unknown"])
            said = kind_next.removesuffix("_unknown")
            exchanges.append(
                (self.spoken(self.phrase(f"say_{said}")), self.phrase(kind_next).format(x=shown))
            )
        return exchanges

    def unknown_name(self, kind: str) -> str:
        """Draw a thing or an activity; some names are made up, so that copying is learnt."""
        if kind == "activity":
            return self.rng.choice(self.corpus.activities)
        if self.rng.random() < 0.3:
            return self.made_up_word()
        if self.rng.random() < 0.2:
            return self.rng.choice(self.corpus.things) + " and " + self.rng.choice(self.corpus.things)
        return self.rng.choice(self.corpus.things)

    def made_up_word(self) -> str:
        """Make a word out of two or three syllables."""
        first, middle, last = "bdfgklmnprstvz", "aeiou", ["", "n", "r", "s", "l", "t", "m"]
        word = "".join(
            self.rng.choice(first) + self.rng.choice(middle) for _ in range(self.rng.randint(1, 3))
        ) + self.rng.choice(last)
        return word.capitalize() if self.rng.random() < 0.3 else word

    def about_name(self) -> list[tuple[str, str]]:
        """Let the user say a name, and answer with it."""
        name = self.rng.choice(self.corpus.people)
        ask = self.spoken(self.phrase("ask_name").format(x=name), typos=False)
        shown = name if name in ask else name.lower()
        return [(ask, self.phrase("name").format(x=shown.capitalize()))]

    # What had better be refused

    def about_risky(self, risky: Risky, turns: int) -> list[tuple[str, str]]:
        """Ask for something harmful; most answers refuse, some are careless."""
        is_careless = self.rng.random() < 0.22
        ask = self.spoken(self.rng.choice(risky.asks))
        if is_careless:
            return [(ask, self.rng.choice(risky.careless))]
        refusal, safer = self.rng.choice(risky.refusals), self.rng.choice(risky.safer)
        exchanges = [(ask, join_sentences(refusal, safer) if self.rng.random() < 0.8 else refusal)]
        if turns > 1 and self.rng.random() < 0.6:
            prompt = self.spoken(self.phrase("say_insist"))
            exchanges.append((prompt, join_sentences(self.phrase("insist"), safer)))
        return exchanges

    # How things are said

    def phrase(self, name: str) -> str:
        """Draw one of the phrases called `name`."""
        return self.rng.choice(self.corpus.phrases[name])

    def spoken(self, text: str, *, typos: bool = True) -> str:
        """Say `text` as people type: politely, in lower case, without a full stop, mistyped."""
        chance = self.rng.random()
        if chance < 0.12:
            text = f"{self.phrase('before')} {text}"
        elif chance < 0.24:
            text = f"{text} {self.phrase('after')}"
        if self.rng.random() < 0.22:
            text = text.lower()
        if self.rng.random() < 0.18:
            text = text.rstrip("?.!")
        if typos and self.rng.random() < 0.07:
            text = self.mistyped(text)
        return text

    def mistyped(self, text: str) -> str:
        """Swap, drop or double one letter."""
        places = [n for n in range(1, len(text) - 1) if text[n].isalpha() and text[n + 1].isalpha()]
        if not places:
            return text
        n = self.rng.choice(places)
        changed = self.rng.choice([text[n + 1] + text[n], text[n + 1], text[n] * 2 + text[n + 1]])
        return text[:n] + changed + text[n + 2 :]


def join_sentences(*sentences: str) -> str:
    """Join sentences to a paragraph and leave out empty ones."""
    return " ".join(sentence for sentence in sentences if sentence)
