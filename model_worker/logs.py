"""Sends the log to standard error: for people on a terminal, one JSON object a line elsewhere."""

import logging
import sys

import structlog
from structlog.typing import Processor


def configure_logs(*, level: int = logging.INFO) -> None:
    """Set the root logger up. Fields given as ``extra`` become fields of the line."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if sys.stderr.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
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
