"""Sends the log to standard error: as text for people, or as one JSON object a line."""

import logging
import sys
from typing import Literal

import structlog
from rich.console import Console
from rich.text import Text
from structlog.typing import Processor

LogFormat = Literal["auto", "text", "json"]


class _ConsoleHandler(logging.Handler):
    """Prints through the console, so that lines appear above the progress line rather than across it."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        try:
            self._console.print(Text.from_ansi(self.format(record)), soft_wrap=True)
        except Exception:  # noqa: BLE001 - as in logging: a log line that cannot be written ends no program
            self.handleError(record)


def configure_logs(
    *, log_format: LogFormat = "auto", console: Console | None = None, level: int = logging.INFO
) -> None:
    """Set the root logger up. Fields given as ``extra`` become fields of the line."""
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if is_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = _ConsoleHandler(console) if console is not None and is_text else logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # One line for each request would drown everything else: the worker sends four a second.
    logging.getLogger("httpx").setLevel(logging.WARNING)
