"""The secret of a session's forms, which never looks the same twice."""

import gzip
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.models import PersonRole
from app.web.csrf import disguise, is_disguised
from tests.app.annotating import hidden
from tests.conftest import Browser

TOKENS = st.text(alphabet="abcdefgXYZ0123456789-_", min_size=20, max_size=64)


@given(TOKENS, TOKENS)
def test_a_disguise_is_seen_through_and_only_the_right_one(token: str, other: str) -> None:
    shown = disguise(token)
    assert shown != disguise(token)
    assert is_disguised(shown, token)
    assert is_disguised(token, token)
    assert is_disguised(disguise(other), token) is (other == token)


@pytest.mark.parametrize("given_token", ["", "00", "zz", "é" * 43, "0" * 172, "a" * 171])
def test_nonsense_is_no_token(given_token: str) -> None:
    assert not is_disguised(given_token, "x" * 43)


def test_pages_are_compressed_and_their_secret_differs_each_time(sign_in: Callable[..., Browser]) -> None:
    ann = sign_in(PersonRole.ANNOTATOR, "Ann")
    first, second = ann.get("/annotate/day"), ann.get("/annotate/day")
    assert first.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in first.headers["Vary"]
    tokens = {hidden(page.text, "csrf_token") for page in (first, second)}
    assert len(tokens) == 2
    assert all(is_disguised(token, ann.csrf_token) for token in tokens)
    assert ann.client.post("/sign-out", data={"csrf_token": tokens.pop()}).status_code == 303
    plain = ann.client.get("/sign-in", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert len(gzip.compress(plain.content)) < len(plain.content)
