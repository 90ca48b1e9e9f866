"""Composes the conversations that the demo checkpoint learns from.

The texts lie in `corpus/*.toml`, written for this project. A conversation is put together from
them by chance: a question and how it is asked, the style of the answer, its parts, what the user
says next. The same seed gives the same conversations, and hardly one comes twice.
"""

import random
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

SOURCES = Path(__file__).parent / "corpus"


class Message(TypedDict):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Conversation = list[Message]
Style = Literal["short", "plain", "numbered", "bullets", "poor"]

# What users write in another way as often as not; the answers keep to one.
OTHER_SPELLINGS = {
    "I am ": "I'm ",
    "cannot": "can't",
    "do not": "don't",
    "does not": "doesn't",
    "What is": "What's",
    "colour": "color",
    "favourite": "favorite",
    "neighbour": "neighbor",
    "apologis": "apologiz",
    "tyre": "tire",
    "flat?": "apartment?",
    "mother": "mom",
    "friend": "buddy",
}

# Numbers of turns to draw from.
SHORT = (1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5)
LONG = (6, 8, 10, 12, 14)

# The names of the phrases that ask for a style, and the style.
STYLE_WISHES: Sequence[tuple[str, Style]] = (
    ("wish_short", "short"),
    ("wish_list", "numbered"),
    ("wish_plain", "plain"),
)


@dataclass(frozen=True)
class Tip:
    """One piece of advice: a heading of a few words, and a sentence that stands alone."""

    heading: str
    sentence: str


@dataclass(frozen=True)
class Matched:
    """Questions that want an answer of their own, within a topic."""

    asks: Sequence[str]
    answers: Sequence[str]


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
    matched: Sequence[Matched] = ()


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

    `phrases` holds what fits any topic, by name. `things`, `activities` and `verbs` (which make
    activities of things) are what the model knows nothing about. `facts` are pairs of a short
    question and its answer.
    """

    topics: Sequence[Topic]
    risky: Sequence[Risky]
    phrases: dict[str, Sequence[str]]
    things: Sequence[str]
    activities: Sequence[str]
    verbs: Sequence[str]
    people: Sequence[str]
    facts: Sequence[tuple[str, str]]


def read_corpus(folder: Path = SOURCES) -> Corpus:
    """Read all source files of `folder`.

    Raises ValueError that names the topic where an id comes twice, where a topic has no answer,
    or where a matched question belongs to no topic.
    """
    sources = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.toml"))]
    entries: dict[str, list[dict[str, Any]]] = {
        name: [entry for source in sources for entry in source.get(name, [])] for name in ("topic", "risky", "matched")
    }
    tables: dict[str, dict[str, Any]] = {
        name: {key: value for source in sources for key, value in source.get(name, {}).items()}
        for name in ("phrases", "unknown", "facts")
    }
    matched = defaultdict[str, list[Matched]](list)
    for entry in entries["matched"]:
        matched[entry["topic"]].append(Matched(entry["asks"], entry["answers"]))
    topics = [read_topic(entry, matched.pop(entry["id"], [])) for entry in entries["topic"]]
    if matched:
        message = f"there is no topic {min(matched)!r}, yet it has matched questions"
        raise ValueError(message)
    risky = [Risky(**entry) for entry in entries["risky"]]
    ids = [topic.id for topic in topics] + [entry.id for entry in risky]
    for name in ids:
        if ids.count(name) > 1:
            message = f"topic {name!r} comes twice"
            raise ValueError(message)
    return Corpus(
        topics=topics,
        risky=risky,
        phrases=tables["phrases"],
        things=tables["unknown"]["things"],
        activities=tables["unknown"]["activities"],
        verbs=tables["unknown"]["verbs"],
        people=tables["unknown"]["people"],
        facts=list(tables["facts"].items()),
    )


def read_topic(entry: dict[str, Any], matched: Sequence[Matched] = ()) -> Topic:
    """Make a topic of its TOML table; a tip is written "heading | sentence"."""
    tips = [Tip(*tip.split(" | ")) for tip in entry.pop("tips", [])]
    topic = Topic(tips=tips, matched=matched, **entry)
    if not topic.tips and not topic.answers:
        message = f"topic {topic.id!r} has neither tips nor answers"
        raise ValueError(message)
    return topic


def build_conversations(
    seed: int, corpus: Corpus | None = None, *, turns: Sequence[int] = SHORT
) -> Iterator[Conversation]:
    """Compose conversations without end, each with a number of turns drawn from `turns`."""
    composer = Composer(corpus or read_corpus(), random.Random(seed))  # noqa: S311
    while True:
        yield composer.conversation(turns)


class Composer:
    """Draws conversations from a corpus with one random generator."""

    def __init__(self, corpus: Corpus, rng: random.Random) -> None:
        """Compose from `corpus`, with `rng` as the only source of chance."""
        self.corpus = corpus
        self.rng = rng

    def conversation(self, turns: Sequence[int]) -> Conversation:
        """Compose one conversation: a system prompt or none, then as many turns as drawn."""
        system, style = self.system_prompt()
        left = self.rng.choice(turns)
        messages: Conversation = []
        if system:
            messages.append({"role": "system", "content": system})
        while left > 0:
            exchanges = self.exchanges(left, style)
            for prompt, response in exchanges:
                messages.append({"role": "user", "content": prompt})
                messages.append({"role": "assistant", "content": response})
            left -= len(exchanges)
        return messages

    def system_prompt(self) -> tuple[str, Style | None]:
        """Draw a system prompt, and the style of answer that it asks for, if any."""
        kind = self.rng.choices(["none", "system", "system_short", "system_list"], weights=[82, 10, 4, 4])[0]
        if kind == "none":
            return "", None
        prompt = self.phrase(kind)
        if kind == "system_short":
            return prompt, "short"
        return prompt, ("numbered" if kind == "system_list" else None)

    def exchanges(self, turns: int, style: Style | None) -> list[tuple[str, str]]:
        """Compose at most `turns` turns that belong together, as (prompt, response)."""
        kinds: list[tuple[int, Callable[[], list[tuple[str, str]]]]] = [
            (58, lambda: self.about_topic(self.rng.choice(self.corpus.topics), turns, style)),
            (22, lambda: self.about_unknown(turns)),
            (11, lambda: self.about_risky(self.rng.choice(self.corpus.risky), turns)),
            (5, lambda: [self.rng.choice(self.corpus.facts)]),
            (6, self.about_name),
        ]
        weights = [weight for weight, _ in kinds]
        _, compose = self.rng.choices(kinds, weights=weights)[0]
        return compose()

    # Known topics

    def about_topic(self, topic: Topic, turns: int, style: Style | None) -> list[tuple[str, str]]:
        """Ask about a topic, then follow up on the answer."""
        question, matched = self.question(topic)
        asked_style: Style | None = None
        if topic.tips and self.happens(0.12):
            kind, asked_style = self.rng.choice(STYLE_WISHES)
            question = f"{question} {self.phrase(kind)}"
        answer = self.answer(topic, asked_style or style or self.style(), matched)
        exchanges = [(self.spoken(question), answer)]
        for _ in range(turns - 1):
            if self.happens(0.15):
                break  # The conversation goes on with another topic.
            exchanges.append(self.follow_up(topic))
        return exchanges

    def question(self, topic: Topic) -> tuple[str, Matched | None]:
        """Draw a question about `topic`, with the answers that belong to it alone, if any."""
        kind = self.rng.choices(
            ["topic", "names", "matched"],
            weights=[50, 25 if topic.names else 0, 12 * min(len(topic.matched), 4)],
        )[0]
        if kind == "names":
            return self.phrase("ask_about").format(x=self.rng.choice(topic.names)), None
        if kind == "matched":
            matched = self.rng.choice(topic.matched)
            return self.rng.choice(matched.asks), matched
        return self.rng.choice(topic.asks), None

    def style(self) -> Style:
        """Draw the style of an answer; a few are poor, so that there is something to prefer."""
        styles: list[Style] = ["short", "plain", "numbered", "bullets", "poor"]
        return self.rng.choices(styles, weights=[27, 27, 24, 13, 9])[0]

    def answer(self, topic: Topic, style: Style, matched: Matched | None = None) -> str:
        """Compose an answer, which begins with one of the `matched` question's own, if any.

        A topic without tips has no styles but poor ones and others.
        """
        if style == "poor" and topic.poor:
            return self.rng.choice(topic.poor)
        own = self.rng.choice(matched.answers if matched else topic.answers)
        if style == "short" or not topic.tips:
            return own
        opener = own if matched else self.opener(topic)
        closing = self.closing(topic)
        tips = self.tips(topic, 2 if style == "plain" else 3)
        match style:
            case "numbered":
                body = "\n".join(f"{n}. {tip.sentence}" for n, tip in enumerate(tips, start=1))
            case "bullets":
                body = "\n".join(f"- **{tip.heading}**: {tip.sentence}" for tip in tips)
            case _:
                return join_sentences(opener, *(tip.sentence for tip in tips), closing)
        return "\n\n".join(part for part in (opener, body, closing) if part)

    def tips(self, topic: Topic, count: int) -> list[Tip]:
        """Draw about `count` tips, in the topic's own order, because many are steps."""
        count = min(count + self.rng.randint(0, 2), len(topic.tips))
        return [topic.tips[n] for n in sorted(self.rng.sample(range(len(topic.tips)), count))]

    def opener(self, topic: Topic) -> str:
        """Draw the first sentence of a longer answer."""
        own = bool(topic.openers) and self.happens(0.75)
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
            case "another" | "shorter":
                return self.rng.choice(topic.answers)
            case "more":
                tips = [tip.sentence for tip in self.tips(topic, 2)]
                return join_sentences(self.phrase("more"), *tips)
            case "list":
                return self.answer(topic, "numbered")
            case "why" | "example":
                return self.rng.choice(topic.why if kind == "why" else topic.examples)
            case _:
                return self.phrase(kind)

    # What the model knows little or nothing about

    def about_unknown(self, turns: int) -> list[tuple[str, str]]:
        """Ask about something outside the topics; the answer names it and stays modest."""
        kind = self.rng.choice(["thing", "thing", "activity"])
        name = self.unknown_name(kind)
        ask = self.spoken(self.phrase(f"ask_{kind}").format(x=name), typos=False)
        # Lower-case questions get the name as the user wrote it.
        shown = name if name in ask else name.lower()
        if self.happens(0.3):
            answer = self.phrase(f"{kind}_list").format(x=shown)
        else:
            answer = join_sentences(
                self.phrase(f"{kind}_start").format(x=shown),
                self.phrase(f"{kind}_advice").format(x=shown),
                self.phrase("closings") if self.happens(0.4) else "",
            )
        exchanges = [(ask, answer)]
        for _ in range(turns - 1):
            if self.happens(0.35):
                break
            kind_next = self.rng.choice(["thanks", "more_unknown", "why_unknown", "example_unknown"])
            said = kind_next.removesuffix("_unknown")
            exchanges.append((self.spoken(self.phrase(f"say_{said}")), self.phrase(kind_next).format(x=shown)))
        return exchanges

    def unknown_name(self, kind: str) -> str:
        """Draw a thing or an activity; some names are made up, so that copying is learnt."""
        if kind == "activity":
            if self.happens(0.5):
                return f"{self.rng.choice(self.corpus.verbs)} {self.rng.choice(self.corpus.things)}"
            return self.rng.choice(self.corpus.activities)
        if self.happens(0.3):
            return self.made_up_word()
        if self.happens(0.2):
            return self.rng.choice(self.corpus.things) + " and " + self.rng.choice(self.corpus.things)
        return self.rng.choice(self.corpus.things)

    def made_up_word(self) -> str:
        """Make a word out of two or three syllables."""
        first, middle, last = "bdfgklmnprstvz", "aeiou", ["", "n", "r", "s", "l", "t", "m"]
        word = "".join(
            self.rng.choice(first) + self.rng.choice(middle) for _ in range(self.rng.randint(1, 3))
        ) + self.rng.choice(last)
        return word.capitalize() if self.happens(0.3) else word

    def about_name(self) -> list[tuple[str, str]]:
        """Let the user say a name, and answer with it."""
        name = self.rng.choice(self.corpus.people)
        ask = self.spoken(self.phrase("ask_name").format(x=name), typos=False)
        shown = name if name in ask else name.lower()
        return [(ask, self.phrase("name").format(x=shown.capitalize()))]

    # What had better be refused

    def about_risky(self, risky: Risky, turns: int) -> list[tuple[str, str]]:
        """Ask for something harmful; most answers refuse, some are careless."""
        is_careless = self.happens(0.22)
        ask = self.spoken(self.rng.choice(risky.asks))
        if is_careless:
            return [(ask, self.rng.choice(risky.careless))]
        refusal, safer = self.rng.choice(risky.refusals), self.rng.choice(risky.safer)
        exchanges = [(ask, join_sentences(refusal, safer) if self.happens(0.8) else refusal)]
        if turns > 1 and self.happens(0.6):
            prompt = self.spoken(self.phrase("say_insist"))
            exchanges.append((prompt, join_sentences(self.phrase("insist"), safer)))
        return exchanges

    # How things are said

    def happens(self, chance: float) -> bool:
        """Decide by chance, from 0 (never) to 1 (always)."""
        return self.rng.random() < chance

    def phrase(self, name: str) -> str:
        """Draw one of the phrases called `name`."""
        return self.rng.choice(self.corpus.phrases[name])

    def spoken(self, text: str, *, typos: bool = True) -> str:
        """Say `text` as people type: politely, in lower case, without a full stop, mistyped."""
        if self.happens(0.12):
            text = f"{self.phrase('before')} {text}"
        elif self.happens(0.14):
            text = f"{text} {self.phrase('after')}"
        if self.happens(0.35):
            for usual, other in OTHER_SPELLINGS.items():
                text = text.replace(usual, other)
        if self.happens(0.22):
            text = text.lower()
        if self.happens(0.18):
            text = text.rstrip("?.!") or text
        if typos and self.happens(0.07):
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
