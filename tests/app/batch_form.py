"""Reads the settings form of a batch's page, for tests that send it back."""

import html
import re
from typing import Any

from app.batches.forms import VARIANT_FIELDS


def fields(text: str, action: str = "/admin/batches/") -> dict[str, Any]:
    """The settings form of a batch's page, or of the schedule's, as a browser would send it untouched."""
    form = text[text.index(f'action="{action}') :]
    form = form[: form.index("</form>")]
    values: dict[str, Any] = {}
    for tag in re.findall(r"<input [^>]*>", form):
        if 'type="checkbox"' in tag and " checked" not in tag:
            continue
        name = re.search(r'name="(\w+)"', tag)
        value = re.search(r'value="([^"]*)"', tag)
        assert name is not None
        assert value is not None
        values.setdefault(name[1], []).append(html.unescape(value[1]))
    for name_, value_ in re.findall(r'<textarea name="(\w+)"[^>]*>(.*?)</textarea>', form, re.DOTALL):
        values.setdefault(name_, []).append(html.unescape(value_))
    for name_, options in re.findall(r'<select name="(\w+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        values.setdefault(name_, []).extend(re.findall(r'<option value="([^"]*)" selected>', options))
    del values["csrf_token"]
    return {name: value if name in VARIANT_FIELDS else value[0] for name, value in values.items()}
