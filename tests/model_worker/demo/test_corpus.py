"""The conversations that the demo checkpoint learns from."""

from itertools import islice
from pathlib import Path

import pytest

from model_worker.demo.corpus import LONG, Corpus, build_conversations, read_corpus


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """The corpus in the source files."""
    return read_corpus()


def test_holds_many_topics_and_no_id_twice(corpus: Corpus) -> None:
    ids = [topic.id for topic in corpus.topics] + [risky.id for risky in corpus.risky]
    assert len(ids) == len(set(ids))
    assert len(corpus.topics) >= 40
    assert len(corpus.risky) >= 10


def test_every_topic_offers_questions_good_answers_and_poor_ones(corpus: Corpus) -> None:
    for topic in corpus.topics:
        assert len(topic.asks) + sum(len(matched.asks) for matched in topic.matched) >= 4, topic.id
        assert len(topic.answers) >= 3, topic.id
        assert not topic.tips or (topic.why and topic.examples and topic.openers and topic.poor), topic.id
    for risky in corpus.risky:
        assert risky.refusals, risky.id
        assert risky.careless, risky.id


def test_same_seed_same_conversations(corpus: Corpus) -> None:
    first = list(islice(build_conversations(5, corpus), 200))
    assert first == list(islice(build_conversations(5), 200))
    assert first != list(islice(build_conversations(6, corpus), 200))


def test_hardly_any_conversation_comes_twice(corpus: Corpus) -> None:
    conversations = [str(messages) for messages in islice(build_conversations(0, corpus), 2000)]
    assert len(set(conversations)) > 1900


def test_conversations_are_tidy(corpus: Corpus) -> None:
    for messages in islice(build_conversations(0, corpus), 3000):
        spoken = messages[1:] if messages[0]["role"] == "system" else messages
        assert [message["role"] for message in spoken] == ["user", "assistant"] * (len(spoken) // 2)
        for message in messages:
            text = message["content"]
            assert text
            assert text == text.strip()
            assert "{x}" not in text
            assert "  " not in text or "    " in text, "only code is indented"


def test_long_conversations_have_at_least_six_turns(corpus: Corpus) -> None:
    for messages in islice(build_conversations(0, corpus, turns=LONG), 50):
        assert sum(message["role"] == "user" for message in messages) >= 6


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("[[topic]]\nid = 'tea'\nasks = ['?']\nanswers = ['!']\n" * 2, "'tea' comes twice"),
        ("[[topic]]\nid = 'tea'\nasks = ['?']\n", "'tea' has neither"),
        ("[[matched]]\ntopic = 'tea'\nasks = ['?']\nanswers = ['!']\n", "no topic 'tea'"),
    ],
)
def test_faults_in_the_sources_are_named(tmp_path: Path, source: str, reason: str) -> None:
    (tmp_path / "fault.toml").write_text(source)
    with pytest.raises(ValueError, match=reason):
        read_corpus(tmp_path)
